"""Estimate the uncertainty of every system's scores, and of the differences between systems."""

from pathlib import Path

from sensorium_models.evaluation.uncertainty import SystemMoments, uncertainty, write_table
from sensorium_models.jobs import job

RESAMPLES = 500
LEVEL = 0.95

with job(snakemake) as study:
    members: dict[str, list[Path]] = {}
    for path in map(Path, snakemake.input.members):
        members.setdefault(path.parent.name, []).append(path)
    systems = {
        path.parent.name: SystemMoments(path, members.get(path.parent.name, []))
        for path in map(Path, snakemake.input.ensembles)
    }
    intervals, comparisons = uncertainty(systems, resamples=RESAMPLES, seed=0, level=LEVEL)
    write_table(Path(snakemake.output.intervals), intervals)
    write_table(Path(snakemake.output.comparisons), comparisons)
