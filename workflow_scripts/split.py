"""Write the split of one member."""

from pathlib import Path

from sensorium_models.jobs import job
from sensorium_models.recordings.splits import Fold, split_table, with_hashes, write_splits
from sensorium_models.recordings.stimuli import videos_table
from sensorium_models.recordings.store import Recording

with job(snakemake) as study:
    training_set, system, member = (
        snakemake.wildcards[name] for name in ("training_set", "system", "member")
    )
    recordings = [Recording(Path(store)) for store in snakemake.input.recordings]
    fold = study.fold(training_set, system, member)
    table = split_table(
        members=[member],
        videos=with_hashes(videos_table(recordings), recordings),
        train=study.training_tiers(training_set, system),
        select=study.select_tiers(training_set, system),
        test_tiers=study.tested_tiers(training_set, system),
        fold=Fold(*fold) if fold else None,
        distilled=study.teacher(system, member) is not None,
    )
    write_splits(table, Path(snakemake.output.split))
