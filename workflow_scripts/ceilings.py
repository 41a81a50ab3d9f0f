"""Gather how well the repeats of each video agree, for the animals and tiers of one protocol."""

from pathlib import Path

from sensorium_models.evaluation.ceiling_file import gather_repeats, write_repeats
from sensorium_models.evaluation.responses import open_responses
from sensorium_models.jobs import job

with job(snakemake) as study:
    protocol = snakemake.wildcards.protocol
    animals = study.predicted_animals(protocol)
    recordings = dict(zip(animals, map(Path, snakemake.input.recordings), strict=True))
    scored = study.settings.scored_frames
    with open_responses(recordings, study.settings.score_unit) as responses:
        gathered = {
            animal: gather_repeats(
                responses[animal],
                tiers=study.protocol(protocol).tiers,
                first_frame=scored.first,
                cap_frames=scored.cap,
                drop_last_frames=scored.drop_last,
            )
            for animal in animals
        }
    write_repeats(Path(snakemake.output.ceilings), gathered)
