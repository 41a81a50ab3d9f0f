"""Write the table of videos that are shown to several animals or in several tiers."""

from pathlib import Path

import pandas as pd

from sensorium_models.jobs import job
from sensorium_models.reporting import tables
from sensorium_models.reporting.leakage import shared_videos_table

with job(snakemake) as study:
    table = shared_videos_table(
        pd.read_parquet(snakemake.input.videos),
        tiers=[tier for tier in study.settings.tiers if tier not in study.unused_tiers],
        simulated=study.simulated,
    )
    csv, markdown, latex, _ = map(Path, snakemake.output.shared)
    tables.save(table, csv=csv, markdown=markdown, latex=latex)
