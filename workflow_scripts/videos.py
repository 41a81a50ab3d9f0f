"""List every trial of every animal with the identity of its video."""

from pathlib import Path

from sensorium_models import files
from sensorium_models.jobs import job
from sensorium_models.recordings.stimuli import videos_table
from sensorium_models.recordings.store import Recording

with job(snakemake):
    table = videos_table([Recording(Path(store)) for store in snakemake.input.stores])
    with files.replacing(Path(snakemake.output.videos)) as temporary:
        table.to_parquet(temporary, index=False)
