"""The read-only handle: what it returns, when it refuses, and that it travels between processes."""

import multiprocessing
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest

from sensorium_models.recordings.store import Recording, StoreError


def test_parts_of_a_trial(recording: Recording) -> None:
    for modality in recording.modalities:
        whole = recording.read(modality, 4)
        assert len(whole) == recording.trials.frames[4]
        assert whole.flags.c_contiguous
        np.testing.assert_array_equal(recording.read(modality, 4, 3, 11), whole[3:11])
        np.testing.assert_array_equal(recording.read(modality, 4, 3), whole[3:])
        out = np.empty_like(whole[3:11])
        assert recording.read(modality, 4, 3, 11, out=out) is out
        np.testing.assert_array_equal(out, whole[3:11])


def test_description(recording: Recording) -> None:
    assert recording.animal == "A"
    assert recording.neurons == len(recording.neuron_ids) == 7
    assert recording.frame_shape == (6, 9)
    assert recording.frame_rate_hz == 30.0
    assert len(recording.digest) == 64
    trials = recording.trials
    assert len(trials) == 26
    np.testing.assert_array_equal(trials.first_frame[1:], np.cumsum(trials.frames)[:-1])
    np.testing.assert_array_equal(
        recording.trials_of(["oracle"]), np.flatnonzero(trials.tier == "oracle")
    )
    both = recording.trials_of(["oracle", "train"])
    assert (np.diff(both) > 0).all()
    assert len(both) == 11


def test_refusals_are_sentences(recording: Recording, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="has trials 0 to 25, not trial 26"):
        recording.read("video", 26)
    with pytest.raises(StoreError, match="not trial -1"):
        recording.read("video", -1)
    with pytest.raises(StoreError, match=r"Frames 0 to 99 .* trial 4 of animal A"):
        recording.read("video", 4, 0, 99)
    with pytest.raises(StoreError, match="no eye_colour"):
        recording.read("eye_colour", 4)
    with pytest.raises(StoreError, match=r"no published statistics of video .pooled"):
        recording.statistics("published", "video", per_frame=False)
    with pytest.raises(StoreError, match=r"no recording store at .*none\.h5\. Run preprocessing"):
        Recording(tmp_path / "none.h5")
    (tmp_path / "bad.h5").write_bytes(b"nothing")
    with pytest.raises(StoreError, match="not a readable HDF5 file"):
        Recording(tmp_path / "bad.h5")
    with h5py.File(tmp_path / "other.h5", "w"):
        pass
    with pytest.raises(StoreError, match="version None"):
        Recording(tmp_path / "other.h5")


def _first_frame_sum(recording: Recording) -> int:
    return int(recording.read("video", 4, 0, 1).sum())


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_travels_to_other_processes(method: str, recording: Recording) -> None:
    expected = _first_frame_sum(recording)
    clone = pickle.loads(pickle.dumps(recording))
    assert _first_frame_sum(clone) == expected
    if method == "spawn":
        # The module of a test cannot be imported by a spawned process, but methods of a handle can.
        with multiprocessing.get_context(method).Pool(1) as pool:
            frame = pool.apply(recording.read, ("video", 4, 0, 1))
        assert int(frame.sum()) == expected
    else:
        with multiprocessing.get_context(method).Pool(1) as pool:
            assert pool.apply(_first_frame_sum, (recording,)) == expected


def test_closing(recording: Recording) -> None:
    with Recording(recording.path) as another:
        assert another.digest == recording.digest
    assert len(another.read("behavior", 0)) == another.trials.frames[0]  # opens again
    another.close()
    assert len(recording.read("behavior", 0))
