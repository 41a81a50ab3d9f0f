"""Draw what each recording is made of."""

from pathlib import Path

from sensorium_models.jobs import job
from sensorium_models.reporting import style
from sensorium_models.reporting.composition import Composition, draw

with job(snakemake) as study:
    recordings = [Composition.read(Path(path)) for path in snakemake.input.recordings]
    drawing = draw(recordings, tiers=study.settings.tiers, simulated=study.simulated)
    style.save(drawing, Path(snakemake.output.pdf), Path(snakemake.output.png))
