"""Write the table of test trials that are left out of each member's scores under one protocol."""

from pathlib import Path

from sensorium_models.jobs import job
from sensorium_models.recordings.splits import read_all_splits
from sensorium_models.reporting import tables
from sensorium_models.reporting.leakage import leakage_table

with job(snakemake) as study:
    protocol = snakemake.wildcards.protocol
    animals = study.predicted_animals(protocol)
    paths: dict[str, list[Path]] = {}
    for path in map(Path, snakemake.input.splits):
        paths.setdefault(path.parent.name, []).append(path)
    table = leakage_table(
        {system: read_all_splits(files) for system, files in paths.items()},
        protocol=protocol,
        animals=animals,
        tiers=study.protocol(protocol).tiers,
        withheld={animal: study.withheld_tiers(animal) for animal in animals},
        titles=snakemake.params.titles,
        simulated=study.simulated,
    )
    csv, markdown, latex, _ = map(Path, snakemake.output.leakage)
    tables.save(table, csv=csv, markdown=markdown, latex=latex)
