"""Write the tables of where members and recordings come from."""

from pathlib import Path

from sensorium_models.finished import by_system, read_record
from sensorium_models.jobs import job
from sensorium_models.recordings.store import digests
from sensorium_models.reporting import tables
from sensorium_models.reporting.lineage import members_table

with job(snakemake) as study:
    weights = by_system(snakemake.input.weights)
    animals = study.settings.animals
    table = members_table(
        {
            system: {member: read_record(path.parent) or {} for member, path in members.items()}
            for system, members in weights.items()
        },
        weights=weights,
        recordings=digests(dict(zip(animals, map(Path, snakemake.input.recordings), strict=True))),
        results=study.settings.results,
        titles=snakemake.params.titles,
        training_set=snakemake.wildcards.training_set,
    )
    csv, markdown, latex, _ = map(Path, snakemake.output.lineage)
    tables.save(table, csv=csv, markdown=markdown, latex=latex)
