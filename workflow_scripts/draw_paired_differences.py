"""Draw the differences between systems under one protocol, with their intervals."""

from pathlib import Path

import pandas as pd

from sensorium_models.jobs import job
from sensorium_models.reporting import style
from sensorium_models.reporting.paired_differences import draw

with job(snakemake) as study:
    drawing = draw(
        pd.read_parquet(snakemake.input.comparisons),
        titles=snakemake.params.titles,
        simulated=study.simulated,
    )
    style.save(drawing, Path(snakemake.output.pdf), Path(snakemake.output.png))
