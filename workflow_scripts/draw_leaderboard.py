"""Draw the scores of all systems under one protocol."""

from contextlib import ExitStack
from pathlib import Path

import pandas as pd

from sensorium_models.evaluation.leaderboard import read_leaderboard
from sensorium_models.evaluation.scores import METRICS
from sensorium_models.evaluation.subsets import EnsembleMoments
from sensorium_models.jobs import job
from sensorium_models.joint_ensembles import FITTED
from sensorium_models.reporting import style
from sensorium_models.reporting.joint import joint_notes
from sensorium_models.reporting.leaderboard import draw

with job(snakemake) as study, ExitStack() as stack:
    joint = [stack.enter_context(EnsembleMoments(Path(path))) for path in snakemake.input.joint]
    notes = joint_notes(
        joint,
        fitted=[n for n, e in study.settings.ensembles.items() if e.weights == FITTED],
        titles=snakemake.params.titles,
    )
    board = read_leaderboard(snakemake.input.scores)
    achievable = {
        (row.tier, metric): getattr(row, metric)
        for path in snakemake.input.achievable
        for row in read_leaderboard([path]).itertuples()
        for metric in METRICS
        if pd.notna(getattr(row, metric))
    }
    served = snakemake.input.served
    drawing = draw(
        board,
        titles=snakemake.params.titles,
        simulated=study.simulated,
        intervals=pd.read_parquet(snakemake.input.intervals),
        achievable=achievable,
        served=read_leaderboard(served) if served else None,
        published_as=snakemake.params.published_as,
        notes=notes,
    )
    style.save(drawing, Path(snakemake.output.pdf), Path(snakemake.output.png))
