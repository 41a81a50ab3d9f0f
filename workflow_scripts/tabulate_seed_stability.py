"""Write the table of scores by seed, beside the published seeds."""

from pathlib import Path

import pandas as pd

from sensorium_models.evaluation.leaderboard import leaderboard
from sensorium_models.jobs import job
from sensorium_models.reporting import tables
from sensorium_models.reporting.seed_stability import table

with job(snakemake) as study:
    seeds = table(
        leaderboard(pd.concat(map(pd.read_parquet, snakemake.input.scores))),
        titles=snakemake.params.titles,
        simulated=study.simulated,
        published_as=snakemake.params.published_as,
    )
    csv, markdown, latex, _ = map(Path, snakemake.output.seeds)
    tables.save(seeds, csv=csv, markdown=markdown, latex=latex)
