"""Recordings from elsewhere: read in place at native rates; and predictions that go elsewhere."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import yaml

from sensorium_models.configuration import REPOSITORY
from sensorium_models.predictions import Predictions
from sensorium_models.recordings.normalisation import score_precision
from sensorium_models.recordings.store import Recording
from sensorium_models.simulation.native import write_native_recording
from sensorium_models.simulation.settings import SimulationSettings
from sensorium_models.simulation.truth import Truth, truth_path
from tests.workflow.conftest import Lab, make_lab

pytestmark = pytest.mark.workflow

NATIVE_SYSTEM = """
extends: linear_tiny
inputs: {normalisation: global_train}
response_unit: per_neuron_train
"""


def test_a_recording_at_native_rates_is_read_in_place_and_scored(tmp_path: Path) -> None:
    lab = make_lab(tmp_path / "lab")
    folder = tmp_path / "session"
    bonus = {"live_test_bonus": ["pink_noise"], "final_test_bonus": ["gabor"]}
    write_native_recording(
        folder=folder,
        animal="mine",
        seed=1,
        pair="one",
        role="public",
        settings=SimulationSettings(neurons=9, training_trials=4, test_videos=1, repeats=2),
        bonus_types=bonus,
    )
    (lab.systems / "linear_native.yaml").write_text(NATIVE_SYSTEM)
    study = yaml.safe_load((lab.folder / "tiny.yaml").read_text())
    mine = {
        "folder": "session",
        "neurons": 9,
        "test_responses": "public",
        "source": {"kind": "native", "path": str(folder)},
        "stimulus_types": bonus,
    }
    study |= {"animals": ["mine"], "systems": ["linear_native"], "recordings": {"mine": mine}}
    study["score_unit"] = "per_neuron_train"
    (lab.folder / "tiny.yaml").write_text(yaml.safe_dump(study))
    run = lab.snakemake("scores")
    assert run.jobs["locate"] == 1
    scores = pd.read_parquet(lab.results / "open/scores/linear_native.parquet")
    scored = scores[scores["single_trial_correlation"].notna()]
    assert set(scored["animal"]) == {"mine"}
    assert set(scored["score_unit"]) == {"per_neuron_train"}
    with h5py.File(lab.results / "recordings/mine.h5", locking=False) as store:
        assert "responses from 8 Hz" in store.attrs["resampling"]
    assert lab.plan("scores").nothing_to_do
    # The session is moved to tape; its store serves.
    shutil.rmtree(folder)
    assert lab.plan("scores").nothing_to_do


def test_submissions_are_as_the_server_expects_them(lab: Lab) -> None:
    table = "results/report/tables/submissions_competition.csv"
    config = ("protocols=[competition]", "systems=[linear_tiny]")
    run = lab.snakemake("submissions", "scores", table, config=config)
    uploads = sorted((lab.results / "competition/submissions/linear_tiny").glob("*.zip"))
    assert run.jobs["submit"] == len(uploads) == 3
    study = lab.folder / "tiny.yaml"
    changes = {"results": str(lab.results), "systems_folders": [str(lab.systems)]}
    study.write_text(yaml.safe_dump(yaml.safe_load(study.read_text()) | changes))
    script = REPOSITORY / "workflow_scripts" / "check_submission.py"
    command = [sys.executable, str(script)]
    layers = ["--study", str(REPOSITORY / "config.yaml"), str(study)]
    for upload in uploads:
        checked = subprocess.run(
            [*command, str(upload), *layers], capture_output=True, text=True, check=False
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr
        assert "as the server expects it" in checked.stdout

    # The emulated server scores the upload with the responses that the archive does not hold.
    board = pd.read_csv(lab.folder / table).set_index("tier")
    row = board.loc["final_test_main"]
    assert (row["file"], row["scored_by"]) == ("linear_tiny/main.zip", "emulated server")
    folder = lab.results / "competition"
    archive = json.loads((lab.results / "receipts/tinyF.json").read_text())["archive"]
    with (
        Predictions(folder / "ensembles/linear_tiny/predictions.h5") as predicted,
        Recording(lab.results / "recordings/tinyF.h5") as recording,
        Truth(truth_path(lab.folder / archive)) as truth,
    ):
        precision = score_precision("per_frame_published", recording)
        trials = recording.trials_of(["final_test_main"])
        prediction = np.concatenate([predicted.read("tinyF", int(t)) for t in trials])
        response = [truth.responses(int(t))[50:299] * precision[50:299] for t in trials]
    assert not recording.trials.first_response_frame[trials].max() >= 0
    # As published, 1e-8 added: rates of this network hardly vary, so it does count.
    standard = [
        (values - values.mean(axis=0)) / (values.std(axis=0) + 1e-8)
        for values in (prediction.astype(np.float64), np.concatenate(response).astype(np.float64))
    ]
    expected = (standard[0] * standard[1]).mean()
    assert row["single_trial_correlation"] == pytest.approx(expected, abs=1e-9)
    scores = pd.read_parquet(folder / "scores")
    assert set(scores.loc[scores["neuron_id"].notna(), "tier"]) <= {"oracle"}
