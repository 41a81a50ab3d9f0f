"""Write the table of what the members of one training set cost to train."""

from pathlib import Path

from sensorium_models.finished import by_system, read_record
from sensorium_models.jobs import job
from sensorium_models.reporting import tables
from sensorium_models.reporting.cost_table import training_cost_table

with job(snakemake) as study:
    records = {
        system: {member: read_record(path.parent) for member, path in members.items()}
        for system, members in by_system(snakemake.input.records).items()
    }
    table = training_cost_table(
        records,
        histories=by_system(snakemake.input.histories),
        titles=snakemake.params.titles,
        training_set=snakemake.wildcards.training_set,
        simulated=study.simulated,
        published_as=snakemake.params.published_as,
    )
    csv, markdown, latex, _ = map(Path, snakemake.output.cost)
    tables.save(table, csv=csv, markdown=markdown, latex=latex)
