"""Write the table of recordings and of the archives that they were made from."""

import json
from pathlib import Path

from sensorium_models.jobs import job
from sensorium_models.recordings.store import digests
from sensorium_models.reporting import tables
from sensorium_models.reporting.lineage import recordings_table

with job(snakemake) as study:
    animals = study.settings.animals
    paths = dict(zip(animals, map(Path, snakemake.params.receipts), strict=True))
    table = recordings_table(
        {
            animal: json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
            for animal, path in paths.items()
        },
        recordings=digests(dict(zip(animals, map(Path, snakemake.input.recordings), strict=True))),
    )
    csv, markdown, latex, _ = map(Path, snakemake.output.receipts)
    tables.save(table, csv=csv, markdown=markdown, latex=latex)
