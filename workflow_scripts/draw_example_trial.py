"""Draw one trial of one animal as it was recorded."""

from pathlib import Path

from sensorium_models.jobs import job
from sensorium_models.reporting import style
from sensorium_models.reporting.example_trial import draw, example

with job(snakemake) as study:
    shown = example(Path(snakemake.input.recording), tier=study.train_tier)
    drawing = draw(shown, simulated=study.simulated)
    style.save(drawing, Path(snakemake.output.pdf), Path(snakemake.output.png))
