"""Score every member of one system and their ensemble in another unit than the score unit."""

from pathlib import Path

import pandas as pd

from sensorium_models.evaluation.moments_file import read_moments
from sensorium_models.evaluation.scores import member_scores, write_scores
from sensorium_models.jobs import job

with job(snakemake):
    unit = snakemake.wildcards.unit
    rows = [
        member_scores(read_moments(Path(path)).further[unit])
        for path in [snakemake.input.ensemble, *snakemake.input.moments]
    ]
    write_scores(Path(snakemake.output.scores), pd.concat(rows, ignore_index=True))
