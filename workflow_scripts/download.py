"""Bring one published archive here, verified, and write the receipt that names it."""

from pathlib import Path

from sensorium_models.jobs import job
from sensorium_models.recordings import download, gin

with job(snakemake) as study:
    animal = snakemake.wildcards.animal
    source = study.recording(animal).source
    archive = Path(snakemake.params.archive)
    published = gin.obtain(source, archive)
    receipt, state = Path(snakemake.output.receipt), snakemake.params.state
    download.write_receipt(receipt, animal, source, archive, published, state)
