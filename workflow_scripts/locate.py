"""Write the receipt of an archive that is read where it lies."""

from pathlib import Path

from sensorium_models.jobs import job
from sensorium_models.recordings import download

with job(snakemake) as study:
    animal = snakemake.wildcards.animal
    source = study.recording(animal).source
    archive = download.locate(source)
    receipt, state = Path(snakemake.output.receipt), snakemake.params.state
    download.write_receipt(receipt, animal, source, archive, state=state)
