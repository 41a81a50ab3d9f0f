"""Draw predicted and recorded responses of single neurons of one animal."""

from pathlib import Path

import pandas as pd

from sensorium_models.evaluation.responses import open_responses
from sensorium_models.jobs import job
from sensorium_models.recordings.splits import leaked_trials, read_judged
from sensorium_models.reporting import style
from sensorium_models.reporting.traces import COLUMNS, draw, shown_animal_and_tier

with job(snakemake) as study:
    animals = study.predicted_animals(snakemake.wildcards.protocol)
    recordings = dict(zip(animals, map(Path, snakemake.input.recordings), strict=True))
    scores = pd.concat(pd.read_parquet(p, columns=list(COLUMNS)) for p in snakemake.input.scores)
    animal, tier = shown_animal_and_tier(scores, study.test_tiers)
    predictions = dict(
        zip(study.settings.systems, map(Path, snakemake.input.predictions), strict=True)
    )
    # What one of the shown systems has seen in training is an example for none of them.
    left_out = {
        int(trial)
        for paths in zip(snakemake.input.splits, snakemake.input.learned, strict=True)
        for splits in [read_judged(paths[:1], paths[1:])]
        for member in splits["member"].unique()
        for trial in leaked_trials(splits, [member], [animal], [tier])[animal]
    }
    with open_responses({animal: recordings[animal]}, study.settings.score_unit) as responses:
        drawing = draw(
            responses=responses[animal],
            predictions=predictions,
            scores=scores,
            tier=tier,
            frame_rate_hz=study.settings.frame_rate_hz,
            titles=snakemake.params.titles,
            simulated=study.simulated,
            left_out=left_out,
        )
    style.save(drawing, Path(snakemake.output.pdf), Path(snakemake.output.png))
