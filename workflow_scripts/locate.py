"""Find an archive that is here already and write the receipt that names it."""

from pathlib import Path

from sensorium_models.jobs import job
from sensorium_models.recordings import download

with job(snakemake) as study:
    animal = snakemake.wildcards.animal
    recording = study.recording(animal)
    archive = download.locate(recording, study.settings.archives)
    download.write_receipt(Path(snakemake.output.receipt), animal, recording.source, archive)
