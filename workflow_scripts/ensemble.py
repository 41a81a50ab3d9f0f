"""Average the members of one system and keep their cross-moments."""

from pathlib import Path

from sensorium_models.ensemble import build_ensemble
from sensorium_models.evaluation.responses import open_responses, open_units
from sensorium_models.jobs import job
from sensorium_models.recordings.splits import leaked_trials, read_all_splits

with job(snakemake) as study:
    protocol, system = snakemake.wildcards.protocol, snakemake.wildcards.system
    animals = study.predicted_animals(protocol)
    recordings = dict(zip(animals, map(Path, snakemake.input.recordings), strict=True))
    with (
        open_responses(recordings, study.settings.score_unit) as responses,
        open_units(recordings, study.further_units(protocol)) as further,
    ):
        build_ensemble(
            name=system,
            members=[Path(path) for path in snakemake.input.predictions],
            responses=responses,
            predictions=Path(snakemake.output.predictions),
            moments=Path(snakemake.output.moments),
            mean=Path(snakemake.output.mean),
            left_out=leaked_trials(
                read_all_splits(snakemake.input.splits),
                study.members(system),
                animals,
                study.protocol(protocol).tiers,
            ),
            further=further,
        )
