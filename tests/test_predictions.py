"""Prediction files: what is written is read back, and nothing wrong is ever written."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from sensorium_models.predictions import (
    PredictionError,
    Predictions,
    PredictionWriter,
    frame_convention,
    scored_frames,
)

ATTRIBUTES = {
    "protocol": "open",
    "training_set": "clean",
    "system": "toy",
    "member": "seed1",
    "score_unit": "raw",
    "first_scored_frame": 50,
    "frame_convention": "frames 50..T-2 of a trial of T, at most 300",
    "recording_digests": {"A": "a1", "F": "f1"},
    "fingerprint": "abc",
}
IDS = np.array([1, 3, 4])


@pytest.mark.parametrize(
    ("frames", "arguments", "expected"),
    [
        (300, (50, 300, 1), (50, 299)),
        (240, (50, 300, 1), (50, 239)),
        (324, (50, 300, 1), (50, 299)),
        (324, (50, None, 0), (50, 324)),
        (300, (0, 300, 0), (0, 300)),
    ],
)
def test_scored_frames(frames, arguments, expected):
    first, cap, drop = arguments
    found = scored_frames(frames, first_frame=first, cap_frames=cap, drop_last_frames=drop)
    assert (found.start, found.stop, found.step) == (*expected, None)


@pytest.mark.parametrize("frames", [0, 10, 51])
def test_trial_without_scored_frames_is_refused(frames):
    with pytest.raises(ValueError, match=f"trial of {frames} frames has no scored frame"):
        scored_frames(frames, first_frame=50, cap_frames=300, drop_last_frames=1)


def test_negative_burn_in_is_refused():
    with pytest.raises(ValueError, match="non-negative"):
        scored_frames(300, first_frame=-1, cap_frames=300, drop_last_frames=1)


def test_frame_convention_names_the_choice():
    name = frame_convention(first_frame=50, cap_frames=300, drop_last_frames=1)
    assert name == "frames 50..T-2 of a trial of T, at most 300"
    name = frame_convention(first_frame=21, cap_frames=None, drop_last_frames=0)
    assert name == "frames 21..T-1 of a trial of T"


def test_round_trip_with_interleaved_animals(tmp_path: Path):
    rng = np.random.default_rng(0)
    trials = {("A", 7): 5, ("F", 2): 4, ("A", 3): 3, ("F", 0): 6}
    written = {key: rng.normal(size=(frames, 3)) for key, frames in trials.items()}
    path = tmp_path / "new" / "toy.h5"
    with PredictionWriter(path, **ATTRIBUTES) as writer:
        for (animal, trial), values in written.items():
            writer.add(animal, IDS, trial, values)
    with Predictions(path) as read:
        assert read.animals == ("A", "F")
        assert read.trials("A").tolist() == [3, 7]
        assert read.attributes.recording_digests == {"A": "a1", "F": "f1"}
        assert read.attributes.first_scored_frame == 50
        np.testing.assert_array_equal(read.neuron_ids("F"), IDS)
        for (animal, trial), values in written.items():
            found = read.read(animal, trial)
            assert found.dtype == np.float32
            assert read.frames(animal, trial) == len(values)
            np.testing.assert_array_equal(found, values.astype(np.float16).astype(np.float32))
    with h5py.File(path) as file:  # the layout that others rely on
        assert file["A/predictions"].dtype == np.float16
        assert file["A/trials/first_frame"][:].tolist() == [0, 5]
        assert file["A/trials/frames"][:].tolist() == [5, 3]


def test_same_content_gives_the_same_bytes(tmp_path: Path):
    for name in ("a.h5", "b.h5"):
        with PredictionWriter(tmp_path / name, **ATTRIBUTES) as writer:
            writer.add("A", IDS, 0, np.arange(12).reshape(4, 3))
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def _write(path: Path, *predictions: tuple) -> None:
    with PredictionWriter(path, **ATTRIBUTES) as writer:
        for prediction in predictions:
            writer.add(*prediction)


def _with(value: float) -> np.ndarray:
    values = np.zeros((4, 3), dtype=np.float32)
    values[2, 1] = value
    return values


@pytest.mark.parametrize(
    ("animal", "ids", "trial", "values", "message"),
    [
        ("A", IDS, 5, _with(np.nan), r"animal A, trial 5 is not finite.*frame 2, neuron 1"),
        ("A", IDS, 5, _with(np.inf), r"animal A, trial 5 is not finite"),
        ("A", IDS, 5, _with(65_536), r"animal A, trial 5 is beyond the range of float16"),
        ("A", IDS, 1, _with(0), r"animal A, trial 1 was added already"),
        ("A", IDS + 1, 5, _with(0), r"other neurons"),
        ("A", IDS, 5, np.zeros((4, 2)), r"shape \(4, 2\)"),
        ("A", IDS, 5, np.zeros((0, 3)), r"at least one frame"),
        ("A/B", IDS, 5, _with(0), r"cannot name an animal"),
        ("", IDS, 5, _with(0), r"cannot name an animal"),
    ],
)
def test_wrong_predictions_are_refused_and_nothing_is_left(
    tmp_path: Path, animal, ids, trial, values, message
):
    with pytest.raises(PredictionError, match=message):
        _write(tmp_path / "toy.h5", ("A", IDS, 1, _with(0)), (animal, ids, trial, values))
    assert list(tmp_path.iterdir()) == []


def test_failure_keeps_the_file_that_was_there(tmp_path: Path):
    path = tmp_path / "toy.h5"
    path.write_bytes(b"before")
    with pytest.raises(PredictionError):
        _write(path, ("A", IDS, 1, _with(0)), ("A", IDS, 2, _with(np.nan)))
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_no_trial_is_an_error(tmp_path: Path):
    with pytest.raises(PredictionError, match="no prediction was added"):
        _write(tmp_path / "toy.h5")
    assert list(tmp_path.iterdir()) == []


def test_unreadable_files(tmp_path: Path):
    path = tmp_path / "toy.h5"
    with pytest.raises(PredictionError, match=r"toy\.h5 cannot be read"):
        Predictions(path)
    path.write_bytes(b"not HDF5")
    with pytest.raises(PredictionError, match=r"toy\.h5 cannot be read"):
        Predictions(path)
    with h5py.File(path, "w") as file:
        file.attrs["schema_version"] = 99
    with pytest.raises(PredictionError, match="schema version 99"):
        Predictions(path)
    with h5py.File(path, "w") as file:
        file.attrs["schema_version"] = 1
    with pytest.raises(PredictionError, match="no attribute 'protocol'"):
        Predictions(path)


def test_unknown_animal_or_trial(tmp_path: Path):
    with PredictionWriter(tmp_path / "toy.h5", **ATTRIBUTES) as writer:
        writer.add("A", IDS, 1, _with(0))
    with Predictions(tmp_path / "toy.h5") as read:
        with pytest.raises(PredictionError, match="no animal 'B'; it holds A"):
            read.trials("B")
        with pytest.raises(PredictionError, match="no prediction of animal A, trial 2"):
            read.read("A", 2)
