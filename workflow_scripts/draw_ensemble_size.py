"""Draw score against number of members for every system with more than one."""

from contextlib import ExitStack
from pathlib import Path

import pandas as pd

from sensorium_models.evaluation.subsets import EnsembleMoments, score_by_axis, score_by_size
from sensorium_models.jobs import job
from sensorium_models.reporting import style
from sensorium_models.reporting.ensemble_size import draw

ORDERS = 50

with job(snakemake) as study, ExitStack() as stack:
    sizes = {}
    for path in snakemake.input.moments:
        moments = stack.enter_context(EnsembleMoments(Path(path)))
        system = moments.attributes["system"]
        curves = [score_by_size(moments, orders=ORDERS, seed=0).assign(axis="")]
        axes = study.member_axes(system)
        by_axis = score_by_axis(moments, axes, orders=ORDERS, seed=0)
        if len(by_axis["axis"].unique()) > 1:  # a single one is all members once more
            curves.append(by_axis)
        sizes[system] = pd.concat(curves, ignore_index=True)
    drawing = draw(
        sizes,
        protocol=snakemake.wildcards.protocol,
        titles=snakemake.params.titles,
        simulated=study.simulated,
    )
    style.save(drawing, Path(snakemake.output.pdf), Path(snakemake.output.png))
