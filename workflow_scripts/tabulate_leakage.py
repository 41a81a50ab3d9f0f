"""Write the table of test trials that are left out of each member's scores under one protocol."""

from pathlib import Path

import pandas as pd

from sensorium_models.finished import by_system
from sensorium_models.jobs import job
from sensorium_models.joint_ensembles import FITTED, fitting_tiers
from sensorium_models.recordings.splits import read_judged, read_splits
from sensorium_models.reporting import tables
from sensorium_models.reporting.leakage import JointMembers, leakage_table

with job(snakemake) as study:
    protocol = snakemake.wildcards.protocol
    animals, ensembles = study.predicted_animals(protocol), study.joint_ensembles(protocol)
    splits: dict[str, list[pd.DataFrame]] = {}
    learned = by_system(snakemake.input.learned)
    for path in map(Path, snakemake.input.splits):
        system = path.parent.name
        adopted = learned.get(system, {}).get(path.stem)
        table = read_judged([path], [adopted]) if adopted else read_splits(path)
        splits.setdefault(system, []).append(table)
    table = leakage_table(
        {system: pd.concat(tables) for system, tables in splits.items()},
        protocol=protocol,
        animals=animals,
        tiers=study.protocol(protocol).tiers,
        withheld={animal: study.withheld_tiers(animal) for animal in animals},
        titles=snakemake.params.titles | {name: e.title or name for name, e in ensembles.items()},
        simulated=study.simulated,
        joint={
            name: JointMembers(
                study.averaged_members(name),
                fitting_tiers(study, protocol) if ensemble.weights == FITTED else (),
            )
            for name, ensemble in ensembles.items()
        },
    )
    csv, markdown, latex, _ = map(Path, snakemake.output.leakage)
    tables.save(table, csv=csv, markdown=markdown, latex=latex)
