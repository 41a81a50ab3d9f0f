"""Draw score against number of members for every system with more than one."""

from contextlib import ExitStack
from pathlib import Path

from sensorium_models.evaluation.subsets import EnsembleMoments, score_by_size
from sensorium_models.jobs import job
from sensorium_models.reporting import style
from sensorium_models.reporting.ensemble_size import draw

ORDERS = 50

with job(snakemake) as study, ExitStack() as stack:
    sizes = {}
    for path in snakemake.input.moments:
        moments = stack.enter_context(EnsembleMoments(Path(path)))
        sizes[moments.attributes["system"]] = score_by_size(moments, orders=ORDERS, seed=0)
    drawing = draw(
        sizes,
        protocol=snakemake.wildcards.protocol,
        titles=snakemake.params.titles,
        simulated=study.simulated,
    )
    style.save(drawing, Path(snakemake.output.pdf), Path(snakemake.output.png))
