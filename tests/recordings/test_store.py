"""The read-only handle: what it returns, when it refuses, and that it travels between processes."""

import fcntl
import multiprocessing
import os
import pickle
import shutil
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


def test_frames_some_steps_apart(recording: Recording) -> None:
    for modality in recording.modalities:
        whole = recording.read(modality, 4)
        for step in (2, 3, 50):
            np.testing.assert_array_equal(
                recording.read(modality, 4, 1, 20, step=step), whole[1:20:step]
            )
        out = np.empty_like(whole[5:16:2])
        recording.read(modality, 4, 5, 16, step=2, out=out)
        np.testing.assert_array_equal(out, whole[5:16:2])
        assert recording.read(modality, 4, 7, 7, step=2).shape == (0, *whole.shape[1:])


@pytest.mark.parametrize("page", [1, 4096])
def test_the_system_may_read_less_than_it_was_asked_for(
    page: int, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = recording.read("responses", 4)
    preadv = os.preadv

    def stingy(descriptor: int, pieces: list[np.ndarray], offset: int) -> int:
        return preadv(descriptor, [pieces[0][:5]], offset)

    monkeypatch.setattr(os, "preadv", stingy)
    monkeypatch.setattr("sensorium_models.recordings.store._PAGE_BYTES", page)
    np.testing.assert_array_equal(recording.read("responses", 4), whole)
    np.testing.assert_array_equal(recording.read("responses", 4, step=2), whole[::2])


def test_locks_of_others_do_not_matter(recording: Recording) -> None:
    """As on a network file system whose locks are broken or held for ever."""
    with recording.path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with Recording(recording.path) as another:
            assert len(another.read("video", 0)) == another.trials.frames[0]


def test_damaged_stores(recording: Recording, tmp_path: Path) -> None:
    short = Path(shutil.copy(recording.path, tmp_path / "short.h5"))
    os.truncate(short, short.stat().st_size - 1)
    with pytest.raises(StoreError, match=r"short\.h5 is not a readable HDF5 file.*truncated"):
        Recording(short)
    packed = Path(shutil.copy(recording.path, tmp_path / "packed.h5"))
    with h5py.File(packed, "r+") as file:
        values = file["responses"][:]
        del file["responses"]
        file.create_dataset("responses", data=values, compression="gzip")
    with pytest.raises(StoreError, match=r"packed\.h5: responses is not stored as one piece"):
        Recording(packed)
    foreign = Path(shutil.copy(recording.path, tmp_path / "foreign.h5"))
    with h5py.File(foreign, "r+") as file:
        del file["responses"]
        file.create_dataset("responses", data=values.astype(values.dtype.newbyteorder()))
    with pytest.raises(StoreError, match="not stored as one piece of this machine's numbers"):
        Recording(foreign)


def test_a_disk_that_fails_while_reading(recording: Recording, tmp_path: Path) -> None:
    path = Path(shutil.copy(recording.path, tmp_path / "A.h5"))
    with Recording(path) as victim:
        victim.read("video", 0)
        os.truncate(path, 5000)
        with pytest.raises(StoreError, match=r"A\.h5 cannot be read any more .the file ends"):
            victim.read("video", 1)


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
    with pytest.raises(StoreError, match=r"Frames 0 to 9 .step 0. were asked for"):
        recording.read("video", 4, 0, 9, step=0)
    for out in (np.empty((9, 7)), np.empty((8, 7), np.float32), np.empty((7, 9), np.float32).T):
        with pytest.raises(ValueError, match=r"need a contiguous array .9, 7. of float32"):
            recording.read("responses", 4, 0, 9, out=out)
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
