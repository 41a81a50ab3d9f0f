"""Draw how much scores depend on the seed, beside the published seeds."""

from pathlib import Path

from sensorium_models.evaluation.leaderboard import read_leaderboard
from sensorium_models.jobs import job
from sensorium_models.reporting import style
from sensorium_models.reporting.seed_stability import draw

with job(snakemake) as study:
    drawing = draw(
        read_leaderboard(snakemake.input.scores),
        titles=snakemake.params.titles,
        simulated=study.simulated,
        published_as=snakemake.params.published_as,
    )
    style.save(drawing, Path(snakemake.output.pdf), Path(snakemake.output.png))
