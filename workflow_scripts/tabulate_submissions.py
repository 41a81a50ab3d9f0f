"""Write the table of the files to upload under one protocol."""

from pathlib import Path

from sensorium_models.evaluation.leaderboard import read_leaderboard
from sensorium_models.jobs import job
from sensorium_models.reporting import tables
from sensorium_models.reporting.submissions import submissions_table

with job(snakemake) as study:
    uploads: dict[str, list[Path]] = {}
    for path in map(Path, snakemake.input.uploads):
        uploads.setdefault(path.parent.name, []).append(path)
    served = snakemake.input.served
    table = submissions_table(
        uploads,
        protocol=snakemake.wildcards.protocol,
        served=read_leaderboard(served) if served else None,
        titles=snakemake.params.titles,
        simulated=study.simulated,
        published_as=snakemake.params.published_as,
    )
    csv, markdown, latex, _ = map(Path, snakemake.output.submissions)
    tables.save(table, csv=csv, markdown=markdown, latex=latex)
