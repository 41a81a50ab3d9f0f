"""Draw loss and objective against epoch for every member of one training set."""

from pathlib import Path

from sensorium_models.finished import by_system
from sensorium_models.jobs import job
from sensorium_models.reporting import style
from sensorium_models.reporting.training_curves import draw

with job(snakemake) as study:
    drawing = draw(
        by_system(snakemake.input.histories),
        titles=snakemake.params.titles,
        training_set=snakemake.wildcards.training_set,
        simulated=study.simulated,
    )
    style.save(drawing, Path(snakemake.output.pdf), Path(snakemake.output.png))
