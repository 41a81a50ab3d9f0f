"""Tiers of the movies of a pair, and trials taken from a real animal's metadata."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensorium_models.simulation import schedule
from sensorium_models.simulation.metadata import KEYS, read_metadata
from sensorium_models.simulation.recording import SimulationSettings

BONUS_F = {"live_test_bonus": ["pink_noise"], "final_test_bonus": ["gaussian_dots", "random_dots"]}
SMALL = SimulationSettings(frame_shape=(18, 32), truth_rates="float16")


@given(st.integers(0, 1000), st.integers(1, 8))
def test_no_movie_keeps_its_tier(seed, movies):
    public, withheld = (
        schedule.main_test_tiers(seed, "p", role, movies) for role in ("public", "withheld")
    )
    for tiers in (public, withheld):
        assert Counter(tiers) == dict.fromkeys(schedule.MAIN_TEST_TIERS, movies)
    assert all(a != b for a, b in zip(public, withheld, strict=True))
    if movies > 1:  # each tier is spread over both others
        assert len(set(zip(public, withheld, strict=True))) == 6


def metadata_arrays(neurons: int = 30) -> dict[str, np.ndarray]:
    """Made-up metadata: 6 training movies, 3 repeated ones, 2 dots movies, one unused trial."""
    rng = np.random.default_rng(0)
    kinds = np.array([0] * 6 + [0] * 6 + [2] * 4 + [-1])
    videos = np.array([*range(6), *[6, 7, 8] * 2, *[9, 10] * 2, -1])
    order = rng.permutation(len(kinds))
    mean = rng.uniform(1, 3, neurons)
    return {
        "coordinates_um": rng.integers(-600, 600, (neurons, 3)).astype(np.int16),
        "stimulus_type_id": kinds[order].astype(np.int8),
        "video_id": videos[order].astype(np.int16),
        "response_mean": mean.astype(np.float32),
        "response_std": (4 * mean).astype(np.float32),
        "behavior_mean": np.array([50, 1.0], np.float32),
        "behavior_std": np.array([14, 2.0], np.float32),
        "pupil_center_mean": np.array([150, 140], np.float32),
        "pupil_center_std": np.array([3, 5], np.float32),
    }


def test_animal_from_metadata(write, tmp_path):
    arrays = metadata_arrays()
    np.savez(tmp_path / "mouse.npz", **arrays)
    animal = write(
        "meta", "public", SMALL, {"final_test_bonus": ["gaussian_dots"]}, tmp_path / "mouse.npz"
    )
    stored = animal.reader.array("meta/neurons/cell_motor_coordinates")
    assert np.array_equal(stored, arrays["coordinates_um"])
    assert Counter(animal.reader.tiers.tolist()) == {
        "train": 6,
        "oracle": 2,
        "live_test_main": 2,
        "final_test_main": 2,
        "final_test_bonus": 4,
        "none": 1,
    }
    unused = arrays["stimulus_type_id"] == -1
    assert np.array_equal(animal.reader.tiers == "none", unused)
    for video in (6, 7, 8, 9, 10):
        assert len(set(animal.truth.movie[arrays["video_id"] == video])) == 1


def test_metadata_that_do_not_fit(write, tmp_path):
    arrays = metadata_arrays()
    np.savez(tmp_path / "mouse.npz", **arrays)
    with pytest.raises(ValueError, match="bonus tiers list"):
        write("x", "public", SMALL, BONUS_F, tmp_path / "mouse.npz")
    arrays.pop(KEYS[0])
    np.savez(tmp_path / "less.npz", **arrays)
    with pytest.raises(ValueError, match=f"lack {KEYS[0]}"):
        read_metadata(tmp_path / "less.npz")
    with pytest.raises(OSError, match="nowhere"):
        read_metadata(tmp_path / "nowhere.npz")
    kinds, videos = np.array([0] * 4), np.array([0, 0, 1, 1])
    with pytest.raises(ValueError, match="2 repeated movies"):
        schedule.recorded_schedule(
            seed=0, pair="p", role="public", stimulus_type_id=kinds, video_id=videos, bonus_types={}
        )


def test_real_trial_structure(metadata_folder):
    """Mouse F: 348 training trials, 171 on 18 repeated movies, 58 / 58 / 76 bonus trials."""
    real = read_metadata(metadata_folder / "mouseF.npz")
    trials = schedule.recorded_schedule(
        seed=1,
        pair="AF",
        role="withheld",
        stimulus_type_id=real.stimulus_type_id,
        video_id=real.video_id,
        bonus_types=BONUS_F,
    )
    tiers = Counter(t.tier for t in trials)
    assert len(trials) == 711
    assert tiers["train"] == 348
    assert sum(tiers[tier] for tier in schedule.MAIN_TEST_TIERS) == 171
    assert tiers["live_test_bonus"] == 58
    assert tiers["final_test_bonus"] == 58 + 76
    dots = {t.movie for t in trials if t.movie.stimulus_type == "random_dots"}
    assert len(dots) == 8


@pytest.mark.slow
def test_real_response_statistics(write, tmp_path, metadata_folder):
    """Every tenth neuron and some trials of mouse F: mean and std of its training responses."""
    with np.load(metadata_folder / "mouseF.npz", allow_pickle=False) as stored:
        arrays = {key: stored[key] for key in KEYS}
    kinds, videos = arrays["stimulus_type_id"], arrays["video_id"]
    once = np.flatnonzero((kinds == 0) & (np.bincount(videos, minlength=1000)[videos] == 1))[:20]
    keep = np.isin(np.arange(len(kinds)), once)
    arrays |= {"stimulus_type_id": kinds[keep], "video_id": videos[keep]}
    for key in ("coordinates_um", "response_mean", "response_std"):
        arrays[key] = arrays[key][::10]
    np.savez(tmp_path / "mouse.npz", **arrays)
    animal = write("real", "withheld", replace(SMALL), {}, tmp_path / "mouse.npz")
    assert len(animal.reader.array("meta/neurons/unit_ids")) == 787
    together = np.concatenate(
        [animal.reader.array(f"data/responses/{t}")[:, :300] for t in range(20)], axis=1
    )
    # Twenty trials of ten seconds, slow gains, other movies: the scale, not the digits.
    for measured, real in (
        (together.mean(axis=1), arrays["response_mean"]),
        (together.std(axis=1), arrays["response_std"]),
    ):
        assert 0.8 < np.median(measured / real) < 1.25
        assert np.corrcoef(np.log(measured), np.log(real))[0, 1] > 0.8
