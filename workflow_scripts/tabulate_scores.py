"""Write the tables of systems and of members under one protocol."""

from contextlib import ExitStack
from pathlib import Path

import pandas as pd

from sensorium_models.evaluation.leaderboard import read_leaderboard
from sensorium_models.evaluation.subsets import EnsembleMoments
from sensorium_models.finished import by_system, read_record
from sensorium_models.jobs import job
from sensorium_models.joint_ensembles import FITTED
from sensorium_models.reporting import tables
from sensorium_models.reporting.joint import joint_notes
from sensorium_models.reporting.score_tables import leaderboard_table, members_table

with job(snakemake) as study, ExitStack() as stack:
    joint = [stack.enter_context(EnsembleMoments(Path(path))) for path in snakemake.input.joint]
    notes = joint_notes(
        joint,
        fitted=[n for n, e in study.settings.ensembles.items() if e.weights == FITTED],
        titles=snakemake.params.titles,
    )
    board = read_leaderboard(snakemake.input.scores)
    further = snakemake.input.further
    titles = snakemake.params.titles
    records = {
        (system, member): read_record(path.parent)
        for system, members in by_system(snakemake.input.records).items()
        for member, path in members.items()
    }
    compared = leaderboard_table(
        board,
        titles=titles,
        simulated=study.simulated,
        intervals=pd.read_parquet(snakemake.input.intervals),
        reliable_variance=study.settings.reliable_explainable_variance,
        further=read_leaderboard(further) if further else None,
        published_as=snakemake.params.published_as,
        notes=notes,
    )
    for table, output in (
        (compared, "leaderboard"),
        (members_table(board, records=records, titles=titles), "members"),
    ):
        csv, markdown, latex, _ = map(Path, snakemake.output[output])
        tables.save(table, csv=csv, markdown=markdown, latex=latex)
