"""Write the table of scores by seed, beside the published seeds."""

from pathlib import Path

from sensorium_models.evaluation.leaderboard import read_leaderboard
from sensorium_models.jobs import job
from sensorium_models.reporting import tables
from sensorium_models.reporting.seed_stability import table

with job(snakemake) as study:
    seeds = table(
        read_leaderboard(snakemake.input.scores),
        titles=snakemake.params.titles,
        simulated=study.simulated,
        published_as=snakemake.params.published_as,
    )
    csv, markdown, latex, _ = map(Path, snakemake.output.seeds)
    tables.save(seeds, csv=csv, markdown=markdown, latex=latex)
