"""Score every member of one system and their ensemble, neuron by neuron."""

from pathlib import Path

import pandas as pd

from sensorium_models.evaluation.moments_file import read_moments
from sensorium_models.evaluation.scores import member_scores, write_scores
from sensorium_models.evaluation.subsets import EnsembleMoments, ensemble_scores
from sensorium_models.jobs import job

with job(snakemake):
    with EnsembleMoments(Path(snakemake.input.ensemble)) as ensemble:
        rows = [ensemble_scores(ensemble)]
    rows += [member_scores(read_moments(Path(path))) for path in snakemake.input.moments]
    write_scores(Path(snakemake.output.scores), pd.concat(rows, ignore_index=True))
