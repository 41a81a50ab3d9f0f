"""Score the true rates of simulated recordings: the best that any model can reach."""

from pathlib import Path

from sensorium_models.jobs import job
from sensorium_models.recordings.download import archive_of
from sensorium_models.simulation.achievable import achievable_scores

with job(snakemake) as study:
    protocol = snakemake.wildcards.protocol
    animals = study.predicted_animals(protocol)
    scored = study.settings.scored_frames
    achievable_scores(
        protocol=protocol,
        recordings=dict(zip(animals, map(Path, snakemake.input.recordings), strict=True)),
        archives={
            animal: archive_of(Path(receipt))
            for animal, receipt in zip(animals, snakemake.input.receipts, strict=True)
        },
        tiers=study.protocol(protocol).tiers,
        unit=study.settings.score_unit,
        first_frame=scored.first,
        cap_frames=scored.cap,
        drop_last_frames=scored.drop_last,
        output=Path(snakemake.output.scores),
    )
