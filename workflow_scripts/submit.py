"""Write one upload of an ensemble for the competition's server, checked as the server would."""

from pathlib import Path

from sensorium_models.jobs import job
from sensorium_models.submission import SubmissionError, expected_animals, write_upload
from sensorium_models.submitted import problems_of

with job(snakemake) as study:
    protocol = snakemake.wildcards.protocol
    recordings = map(Path, snakemake.input.recordings)
    stores = dict(zip(study.predicted_animals(protocol), recordings, strict=True))
    animals = expected_animals(study, protocol, stores)
    output = Path(snakemake.output.upload)
    write_upload(
        snakemake.wildcards.upload,
        predictions=Path(snakemake.input.predictions),
        animals=animals,
        output=output,
    )
    if problems := problems_of(output, animals):
        output.unlink()
        raise SubmissionError("\n".join(problems))
