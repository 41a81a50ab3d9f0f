"""Draw frames of every type of stimulus."""

from pathlib import Path

from sensorium_models.jobs import job
from sensorium_models.reporting import style
from sensorium_models.reporting.stimulus_frames import draw, gather

with job(snakemake) as study:
    tiers = [tier for tier in study.settings.tiers if tier not in study.unused_tiers]
    shown = gather([Path(path) for path in snakemake.input.recordings], tiers=tiers)
    drawing = draw(shown, simulated=study.simulated)
    style.save(drawing, Path(snakemake.output.pdf), Path(snakemake.output.png))
