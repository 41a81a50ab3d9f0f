"""Responses of a real store arrive in the score unit, at the right frames."""

from pathlib import Path

import numpy as np
import pytest

from sensorium_models.evaluation.responses import open_responses, scoring_plan
from sensorium_models.recordings.normalisation import score_precision
from sensorium_models.recordings.preprocess import write_store
from sensorium_models.recordings.store import Recording

TIERS = ["train", "train", "oracle", "oracle", "live_test_main"]
FRAMES, NEURONS = 300, 3  # as long as a movie, which its few pixels do not show


@pytest.fixture
def stores(tmp_path: Path) -> dict[str, Path]:
    """One small recording in the released layout, as an unpacked folder, preprocessed."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "recording"
    arrays = {"meta/trials/tiers": np.array(TIERS)}
    arrays["meta/neurons/unit_ids"] = np.array([1, 4, 6])
    arrays["meta/neurons/cell_motor_coordinates"] = np.arange(9).reshape(3, 3)
    movies = [rng.integers(0, 255, size=(4, 6, FRAMES)) for _ in range(4)]
    for trial, tier in enumerate(TIERS):
        movie = movies[(0, 1, 2, 2, 3)[trial]]
        arrays[f"data/videos/{trial}"] = movie.astype(np.float32)
        shape = (NEURONS, FRAMES)
        responses = np.zeros(shape) if tier == "live_test_main" else rng.gamma(0.5, size=shape)
        arrays[f"data/responses/{trial}"] = responses.astype(np.float32)
    for name, content in arrays.items():
        path = folder / f"{name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, content)
    store = tmp_path / "A.h5"
    write_store(
        archive=folder,
        store=store,
        animal="A",
        neurons=NEURONS,
        frame_rate_hz=30.0,
        known_tiers=sorted(set(TIERS)),
        withheld_tiers=["live_test_main"],
        stimulus_types=None,
    )
    return {"A": store}


@pytest.mark.parametrize("unit", ["raw", "per_neuron_train", "per_frame_train"])
def test_score_unit_of_a_store(stores: dict[str, Path], unit: str):
    with Recording(stores["A"]) as recording:
        raw = recording.read("responses", 2, 5, 9)
        precision = score_precision(unit, recording)
    expected = raw * (precision[5:9] if len(precision) > 1 else precision)
    with open_responses(stores, unit) as responses:
        assert responses["A"].unit == unit
        np.testing.assert_array_equal(responses["A"].read(2, 5, 9), expected)
    if unit == "per_frame_train":
        assert len(precision) == FRAMES


def test_repeats_and_withheld_trials_of_a_store(stores: dict[str, Path]):
    with open_responses(stores, "raw") as responses:
        plan = scoring_plan(range(5), responses["A"], left_out=[0])
    repeats = list(plan.scored["oracle", "movie"].values())
    assert repeats == [[2, 3]]
    assert plan.excluded[4] == ("live_test_main", "movie", "responses withheld")
    assert plan.excluded[0] == ("train", "movie", "trained on")
