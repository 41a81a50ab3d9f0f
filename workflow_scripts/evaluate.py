"""Score every member of one system and their ensemble, neuron by neuron, beside the ceilings."""

from pathlib import Path

import pandas as pd

from sensorium_models.evaluation.ceiling_file import read_repeats
from sensorium_models.evaluation.moments_file import read_moments
from sensorium_models.evaluation.scores import member_scores, write_scores
from sensorium_models.jobs import job

with job(snakemake) as study:
    repeats = read_repeats(Path(snakemake.input.ceilings))
    rows = [
        member_scores(
            read_moments(Path(path)),
            repeats=repeats,
            reliable_variance=study.settings.reliable_explainable_variance,
        )
        for path in [snakemake.input.ensemble, *snakemake.input.moments]
    ]
    write_scores(Path(snakemake.output.scores), pd.concat(rows, ignore_index=True))
