"""Draw how readout positions follow the cortex."""

from pathlib import Path

from sensorium_models.finished import by_system
from sensorium_models.jobs import job
from sensorium_models.reporting import style
from sensorium_models.reporting.readout_positions import gather
from sensorium_models.reporting.retinotopy import draw

with job(snakemake) as study:
    animals = study.settings.animals
    weights = by_system(snakemake.input.weights)
    drawing = draw(
        gather(weights, dict(zip(animals, map(Path, snakemake.input.recordings), strict=True))),
        systems=list(weights),
        titles=snakemake.params.titles,
        training_set=snakemake.wildcards.training_set,
        simulated=study.simulated,
    )
    style.save(drawing, Path(snakemake.output.pdf), Path(snakemake.output.png))
