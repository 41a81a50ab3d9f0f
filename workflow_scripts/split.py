"""Write the split of one member."""

from pathlib import Path

from sensorium_models.jobs import job
from sensorium_models.recordings.splits import Selection, split_table, write_splits
from sensorium_models.recordings.stimuli import videos_table
from sensorium_models.recordings.store import Recording

with job(snakemake) as study:
    training_set, system = snakemake.wildcards.training_set, snakemake.wildcards.system
    tiers = study.systems[system].training_sets[training_set]
    table = split_table(
        members=[snakemake.wildcards.member],
        videos=videos_table([Recording(Path(store)) for store in snakemake.input.recordings]),
        train=Selection(study.training_animals(training_set, system), tiers.train.tiers),
        select=Selection(study.select_animals(training_set, system), tiers.select.tiers),
        test_tiers=study.test_animals(training_set, system),
    )
    write_splits(table, Path(snakemake.output.split))
