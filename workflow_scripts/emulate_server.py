"""Score a system's uploads with the responses that simulation withheld, as a server would."""

from pathlib import Path

from sensorium_models.evaluation.moments_file import read_index
from sensorium_models.evaluation.scores import write_scores
from sensorium_models.jobs import job
from sensorium_models.recordings.download import archive_of
from sensorium_models.simulation.server import served_scores

with job(snakemake) as study:
    protocol = snakemake.wildcards.protocol
    animals = study.predicted_animals(protocol)
    scored = study.settings.scored_frames
    rows = served_scores(
        [Path(path) for path in snakemake.input.uploads],
        labels=read_index(Path(snakemake.input.ensemble)).attributes,
        folders={animal: study.recording(animal).folder for animal in animals},
        recordings=dict(zip(animals, map(Path, snakemake.input.recordings), strict=True)),
        archives={
            animal: archive_of(Path(receipt))
            for animal, receipt in zip(animals, snakemake.input.receipts, strict=True)
        },
        first_frame=scored.first,
        cap_frames=scored.cap,
        drop_last_frames=scored.drop_last,
    )
    write_scores(Path(snakemake.output.scores), rows)
