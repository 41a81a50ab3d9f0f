"""Write the split of every member of one system under one training set."""

from pathlib import Path

import pandas as pd

from sensorium_models.jobs import job
from sensorium_models.recordings.splits import Selection, split_table, write_splits

with job(snakemake) as study:
    training_set, system = snakemake.wildcards.training_set, snakemake.wildcards.system
    tiers = study.systems[system].training_sets[training_set]
    table = split_table(
        members=study.members(system),
        videos=pd.read_parquet(snakemake.input.videos),
        train=Selection(study.training_animals(training_set, system), tiers.train.tiers),
        select=Selection(study.select_animals(training_set, system), tiers.select.tiers),
        test_tiers=study.test_animals(training_set, system),
    )
    write_splits(table, Path(snakemake.output.split))
