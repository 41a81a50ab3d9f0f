"""Draw the scores of all systems against the reliability of neurons under one protocol."""

from pathlib import Path

from sensorium_models.jobs import job
from sensorium_models.reporting import style
from sensorium_models.reporting.reliability import draw
from sensorium_models.reporting.score_rows import read_ensembles

with job(snakemake) as study:
    rows = read_ensembles([Path(path) for path in snakemake.input.scores])
    drawing = draw(rows, titles=snakemake.params.titles, simulated=study.simulated)
    style.save(drawing, Path(snakemake.output.pdf), Path(snakemake.output.png))
