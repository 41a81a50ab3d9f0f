"""Write one upload of an ensemble for the competition's server, checked as the server would."""

from contextlib import ExitStack
from pathlib import Path

from sensorium_models.jobs import job
from sensorium_models.recordings.store import Recording
from sensorium_models.submission import (
    SubmissionError,
    expected_animal,
    problems_of,
    write_upload,
)

with job(snakemake) as study, ExitStack() as stack:
    protocol, upload = snakemake.wildcards.protocol, snakemake.wildcards.upload
    scored = study.settings.scored_frames
    animals = {
        animal: expected_animal(
            stack.enter_context(Recording(Path(path))),
            folder=study.recording(animal).folder,
            tiers=study.protocol(protocol).tiers,
            first_frame=scored.first,
            cap_frames=scored.cap,
            drop_last_frames=scored.drop_last,
        )
        for animal, path in zip(
            study.predicted_animals(protocol), snakemake.input.recordings, strict=True
        )
    }
    output = Path(snakemake.output.upload)
    predictions = Path(snakemake.input.predictions)
    write_upload(upload, predictions=predictions, animals=animals, output=output)
    if problems := problems_of(output, animals):
        output.unlink()
        raise SubmissionError("\n".join(problems))
