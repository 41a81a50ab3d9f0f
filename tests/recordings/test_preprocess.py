"""An independent reader of the released layout and the store agree on every array."""

import errno
import hashlib
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from sensorium_models.recordings import preprocess, store, store_layout
from sensorium_models.recordings.store import Recording, WithheldResponsesError
from sensorium_models.simulation.recording import SimulationSettings, write_recording

MODALITIES = {
    "video": "videos",
    "responses": "responses",
    "behavior": "behavior",
    "pupil_center": "pupil_center",
}
TEST_TIERS = ("live_test_main", "live_test_bonus", "final_test_main", "final_test_bonus")


class ReleasedReader:
    """The layout as the card describes it, in plain numpy; shares no code with the package."""

    def __init__(self, path: Path, withheld: tuple[str, ...] = ()) -> None:
        self.zip = zipfile.ZipFile(path)
        names = [name for name in self.zip.namelist() if not name.startswith("__MACOSX")]
        self.folder = names[0].split("/")[0]
        self.names = set(names)
        self.tiers = self.load("meta/trials/tiers.npy")
        self.withheld = np.isin(self.tiers, withheld)

    def load(self, name: str) -> np.ndarray:
        with self.zip.open(f"{self.folder}/{name}") as stream:
            return np.load(stream)

    def has(self, name: str) -> bool:
        return f"{self.folder}/{name}" in self.names

    def trial(self, trial: int) -> dict[str, np.ndarray]:
        """Valid frames of all arrays, time first: first frame with ANY NaN, minimum over arrays."""
        arrays = {}
        for modality, folder in MODALITIES.items():
            if modality == "responses" and self.withheld[trial]:
                continue
            if self.has(f"data/{folder}/{trial}.npy"):
                arrays[modality] = np.moveaxis(self.load(f"data/{folder}/{trial}.npy"), -1, 0)
        length = min(
            next((t for t, frame in enumerate(array) if np.isnan(frame).any()), len(array))
            for array in arrays.values()
        )
        return {modality: array[:length] for modality, array in arrays.items()}


def assert_same(recording: Recording, reader: ReleasedReader) -> None:
    np.testing.assert_array_equal(recording.trials.tier, reader.tiers)
    np.testing.assert_array_equal(recording.neuron_ids, reader.load("meta/neurons/unit_ids.npy"))
    if reader.has("meta/neurons/cell_motor_coordinates.npy"):
        coordinates = reader.load("meta/neurons/cell_motor_coordinates.npy")
        np.testing.assert_array_equal(recording.coordinates, coordinates)
    else:
        assert recording.coordinates is None
    training: dict[str, list[np.ndarray]] = {}
    for trial, tier in enumerate(reader.tiers):
        released = reader.trial(trial)
        assert set(released) | {"responses"} == set(recording.modalities)
        assert recording.trials.frames[trial] == len(released["video"])
        for modality, array in released.items():
            stored = recording.read(modality, trial)
            np.testing.assert_array_equal(stored, array.astype(stored.dtype))
            if modality == "video":
                np.testing.assert_array_equal(stored, array.astype(np.float32))
            if tier == "train":
                training.setdefault(modality, []).append(stored)
    assert_statistics(recording, reader, training)


def assert_statistics(
    recording: Recording, reader: ReleasedReader, training: dict[str, list[np.ndarray]]
) -> None:
    for modality, trials in training.items():
        longest = max(map(len, trials))
        padded = np.full((len(trials), longest, *trials[0].shape[1:]), np.nan)
        for row, trial in enumerate(trials):
            padded[row, : len(trial)] = trial
        together = np.concatenate(trials).astype(np.float64)
        per_frame = recording.statistics("train", modality, per_frame=True)
        pooled = recording.statistics("train", modality, per_frame=False)
        # Two float64 algorithms over at most a few thousand terms of comparable size.
        scale = np.abs(together).max()
        for key, over_trials, over_all in (
            ("mean", np.nanmean(padded, axis=0), together.mean(axis=0)),
            ("std", np.nanstd(padded, axis=0), together.std(axis=0)),
        ):
            kwargs = {"rtol": 1e-12, "atol": 1e-12 * scale}
            np.testing.assert_allclose(getattr(per_frame, key), over_trials, **kwargs)
            np.testing.assert_allclose(getattr(pooled, key), over_all, **kwargs)
        np.testing.assert_array_equal(per_frame.min, np.nanmin(padded, axis=0))
        np.testing.assert_array_equal(per_frame.max, np.nanmax(padded, axis=0))
        np.testing.assert_array_equal(pooled.min, together.min(axis=0))
        np.testing.assert_array_equal(pooled.max, together.max(axis=0))
        folder = f"meta/statistics/{MODALITIES[modality]}/all"
        if reader.has(f"{folder}/mean.npy"):
            published = recording.statistics("published", modality, per_frame=True)
            for key in ("mean", "std", "min", "max"):
                released = np.moveaxis(reader.load(f"{folder}/{key}.npy"), -1, 0)
                np.testing.assert_array_equal(getattr(published, key), released)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"modalities": ("videos", "responses")},
        {"modalities": ("videos", "responses", "pupil_center"), "statistics": False},
        {"height": 11, "width": 4, "neurons": 300, "seed": 3},
        {"video_dtype": "uint8"},
        {"video_dtype": "uint8", "modalities": ("videos", "responses")},
        {"video_dtype": "float32", "train": 1},
    ],
    ids=str,
)
def test_store_agrees_with_independent_reader(
    changes: dict[str, Any], make: Any, zipped: Any, prepare: Any, tmp_path: Path
) -> None:
    archive = zipped(make(**changes), tmp_path / "A.zip")
    recording = prepare(archive, tmp_path / "A.h5")
    assert recording.video_dtype == np.uint8
    assert_same(recording, ReleasedReader(archive))


@pytest.mark.parametrize(("role", "video_dtype"), [("public", "uint8"), ("withheld", "float64")])
def test_store_of_a_simulated_archive_agrees_with_independent_reader(
    role: str, video_dtype: str, prepare: Any, tmp_path: Path
) -> None:
    archive = tmp_path / "simulated.zip"
    bonus = {"live_test_bonus": ["gabor"], "final_test_bonus": ["random_dots", "images"]}
    write_recording(
        archive=archive,
        folder="dynamic1-1-1-Video-simulated",
        animal="A",
        seed=3,
        pair="one",
        role=role,
        settings=SimulationSettings(
            neurons=7,
            training_trials=2,
            test_videos=1,
            repeats=2,
            frame_shape=(18, 32),
            video_dtype=video_dtype,
            response_dtype="float64",
        ),
        bonus_types=bonus,
    )
    withheld = TEST_TIERS if role == "withheld" else ()
    recording = prepare(
        archive,
        tmp_path / "A.h5",
        known_tiers=("train", "oracle", "none", *TEST_TIERS),
        withheld_tiers=withheld,
        stimulus_types=bonus,
    )
    assert_same(recording, ReleasedReader(archive, withheld))
    kinds = dict(zip(recording.trials.tier, recording.trials.stimulus_type, strict=True))
    assert kinds["live_test_bonus"] == "gabor"
    assert kinds["final_test_main"] == "movie"


def test_withheld_responses_are_not_stored_and_never_shorten(
    make: Any, zipped: Any, prepare: Any, tmp_path: Path
) -> None:
    withheld = ("live_test_main", "final_test_main")
    content = make(withheld=withheld)
    trial = int(np.flatnonzero(content["meta/trials/tiers.npy"] == "live_test_main")[0])
    content[f"data/responses/{trial}.npy"] = np.zeros((7, 5))  # shorter than any video
    archive = zipped(content, tmp_path / "F.zip")
    recording = prepare(archive, tmp_path / "F.h5", withheld_tiers=withheld)
    assert_same(recording, ReleasedReader(archive, withheld))
    trials = recording.trials
    np.testing.assert_array_equal(trials.first_response_frame == -1, np.isin(trials.tier, withheld))
    with h5py.File(recording.path, "r", locking=False) as file:
        public = trials.frames[trials.first_response_frame >= 0].sum()
        assert file["responses"].shape == (public, 7)
        assert file["video"].shape[0] == trials.frames.sum()
    with pytest.raises(WithheldResponsesError, match=rf"trial {trial} of animal A .*withheld"):
        recording.read("responses", trial)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zip_and_folder_give_the_same_store(
    compression: int, make: Any, zipped: Any, unpacked: Any, prepare: Any, tmp_path: Path
) -> None:
    content = make()
    folder = unpacked(content, tmp_path / "archives" / "dynamic00000-1-1-Video-0123456789abcdef")
    from_zip = prepare(
        zipped(content, tmp_path / "A.zip", compression=compression), tmp_path / "zip.h5"
    )
    from_folder = prepare(folder, tmp_path / "folder.h5")
    from_parent = prepare(folder.parent, tmp_path / "parent.h5")
    assert from_zip.digest == from_folder.digest == from_parent.digest
    assert from_zip.folder == from_folder.folder == from_parent.folder == folder.name


def test_digest_follows_content_and_nothing_else(
    make: Any, zipped: Any, prepare: Any, tmp_path: Path
) -> None:
    content = make()
    first = prepare(zipped(content, tmp_path / "1.zip"), tmp_path / "1.h5")
    again = prepare(zipped(content, tmp_path / "2.zip", macos=False), tmp_path / "2.h5")
    relabelled = prepare(
        zipped(content, tmp_path / "3.zip"), tmp_path / "3.h5", stimulus_types=None
    )
    content["data/pupil_center/4.npy"][1, 7] += 1
    changed = prepare(zipped(content, tmp_path / "4.zip"), tmp_path / "4.h5")
    assert first.digest == again.digest == relabelled.digest
    assert changed.digest != first.digest


@pytest.mark.parametrize("modality", ["videos", "responses", "behavior"])
def test_frame_partly_nan_ends_the_trial(
    modality: str, make: Any, zipped: Any, prepare: Any, tmp_path: Path
) -> None:
    """Any NaN ends a trial; the first row alone does not tell, so the pass is repeated."""
    content = make()
    array = content[f"data/{modality}/5.npy"]
    length = int(np.flatnonzero(np.isnan(content["data/behavior/5.npy"][0]))[0])
    array.reshape(-1, array.shape[-1])[-1, length - 3 :] = np.nan
    archive = zipped(content, tmp_path / "A.zip")
    recording = prepare(archive, tmp_path / "A.h5")
    assert recording.trials.frames[5] == length - 3
    assert_same(recording, ReleasedReader(archive))
    with h5py.File(recording.path, "r", locking=False) as file:  # no unused frame is left
        assert len(file["video"]) == len(file["behavior"]) == recording.trials.frames.sum()


def test_arrays_of_different_length_are_cut_to_the_shortest(
    make: Any, zipped: Any, prepare: Any, tmp_path: Path
) -> None:
    content = make()
    content["data/responses/2.npy"][:, 11:] = np.nan
    archive = zipped(content, tmp_path / "A.zip")
    recording = prepare(archive, tmp_path / "A.h5")
    assert recording.trials.frames[2] == 11
    assert_same(recording, ReleasedReader(archive))


def test_fortran_order_and_big_endian(make: Any, zipped: Any, prepare: Any, tmp_path: Path) -> None:
    content = make(modalities=("videos", "responses"))
    plain = prepare(zipped(content, tmp_path / "1.zip"), tmp_path / "1.h5")
    other = {
        name: np.asfortranarray(array) if name.startswith("data/videos") else array
        for name, array in content.items()
    }
    for trial in range(len(content["meta/trials/tiers.npy"])):
        other[f"data/responses/{trial}.npy"] = np.asfortranarray(
            content[f"data/responses/{trial}.npy"].astype(">f8")
        )
    archive = zipped(other, tmp_path / "2.zip")
    recording = prepare(archive, tmp_path / "2.h5")
    assert_same(recording, ReleasedReader(archive))
    np.testing.assert_array_equal(recording.trials.frames, plain.trials.frames)


def test_video_that_uint8_cannot_hold_is_stored_as_float32(
    make: Any, zipped: Any, prepare: Any, tmp_path: Path
) -> None:
    content = make()
    # In the last trial, and not in the first pixel: seen only when nearly all is written.
    content[f"data/videos/{len(content['meta/trials/tiers.npy']) - 1}.npy"][3, 4, 2] = 17.25
    archive = zipped(content, tmp_path / "A.zip")
    recording = prepare(archive, tmp_path / "A.h5")
    assert recording.video_dtype == np.float32
    assert_same(recording, ReleasedReader(archive))
    content["data/videos/0.npy"][0, 0, 0] = 256.0
    assert prepare(zipped(content, tmp_path / "B.zip"), tmp_path / "B.h5").video_dtype == np.float32


def test_unused_tier_may_be_silent(make: Any, zipped: Any, prepare: Any, tmp_path: Path) -> None:
    archive = zipped(make(withheld=("none",)), tmp_path / "A.zip")
    recording = prepare(archive, tmp_path / "A.h5")
    assert not recording.read("responses", int(recording.trials_of(["none"])[0])).any()
    assert (recording.trials.video[recording.trials_of(["none"])] == -1).all()


def test_attributes_and_layout(make: Any, zipped: Any, prepare: Any, tmp_path: Path) -> None:
    archive = zipped(make(padded=309), tmp_path / "A.zip")  # trials of 300 to 305 frames
    recording = prepare(archive, tmp_path / "A.h5", neurons=7, stimulus_types=None)
    with h5py.File(recording.path, "r", locking=False) as file:
        assert file.attrs["schema_version"] == 2
        assert file.attrs["source"] == "A.zip"
        expected = hashlib.sha256(archive.read_bytes()).hexdigest()
        assert file.attrs["source_checksum"] == expected
        assert file.attrs["frame_rate_hz"] == 30.0
        assert file.attrs["resampling"] == "none: released at 30 Hz"
        assert "one number of frames" in file.attrs["resampling_proof"]
        assert "trials last what their types do (movie (10 s)" in file.attrs["resampling_proof"]
        for name in recording.modalities:
            assert file[name].chunks is None
            assert file[name].compression is None
        assert file["trials/video"].dtype == np.int32
        assert file["trials/first_frame"].dtype == np.int64


def test_an_archive_at_another_rate_is_not_called_released_at_30_hz(
    make: Any, zipped: Any, prepare: Any, tmp_path: Path
) -> None:
    """Movies of ten seconds at 60 Hz, in every modality alike."""
    archive = zipped(make(padded=609), tmp_path / "A.zip")
    recording = prepare(archive, tmp_path / "A.h5", stimulus_types=None)
    with h5py.File(recording.path, "r", locking=False) as file:
        assert file.attrs["resampling"].startswith("none: taken to be at 30 Hz, which the lengths")
        proof = file.attrs["resampling_proof"]
    assert "8 of 8 trials of tier train do not last as long as movie (10 s) in the release" in proof
    assert re.search(r"trial \d+ has 60\d frames, 20\.\d\d s at 30 Hz; most would fit at 60", proof)
    assert "tier none" not in proof
    # The study may say that it is so: then they last what they should.
    at_60 = prepare(archive, tmp_path / "B.h5", stimulus_types=None, frame_rate_hz=60.0)
    with h5py.File(at_60.path, "r", locking=False) as file:
        assert file.attrs["resampling"] == "none: released at 60 Hz"


@pytest.mark.parametrize(
    ("padded", "train", "bonus"),
    [(309, "movie", "unknown"), (331, "unknown", "pink_noise"), (33, "unknown", "unknown")],
)
def test_types_are_those_of_the_table_where_trials_last_so_long(
    padded: int, train: str, bonus: str, make: Any, zipped: Any, prepare: Any, tmp_path: Path
) -> None:
    """Frames of a few random pixels show no type; trials last 3 to 9 frames less than `padded`."""
    trials = prepare(zipped(make(padded=padded), tmp_path / "A.zip"), tmp_path / "A.h5").trials
    assert set(trials.stimulus_type[trials.tier == "train"]) == {train}
    assert set(trials.stimulus_type[trials.tier == "live_test_bonus"]) == {bonus}


def test_existing_store_survives_a_failure(
    make: Any, zipped: Any, prepare: Any, tmp_path: Path
) -> None:
    content = make()
    recording = prepare(zipped(content, tmp_path / "A.zip"), tmp_path / "A.h5")
    before = recording.path.read_bytes()
    content["data/behavior/9.npy"] = b"not numpy"
    with pytest.raises(ValueError, match="trial 9, behavior"):
        prepare(zipped(content, tmp_path / "A.zip"), tmp_path / "A.h5")
    assert recording.path.read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["A.h5", "A.zip"]


def test_disk_without_room_is_refused_before_writing(
    make: Any, zipped: Any, prepare: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(store_layout.shutil, "disk_usage", lambda folder: usage._replace(free=1000))
    archive = zipped(make(), tmp_path / "A.zip")
    with pytest.raises(store_layout.DiskFullError) as caught:
        prepare(archive, tmp_path / "results" / "A.h5")
    assert caught.value.errno == errno.ENOSPC
    assert "1,000 are free" in str(caught.value)
    assert str(tmp_path / "results") in str(caught.value)
    assert not list((tmp_path / "results").iterdir())


FULL_DISK = """
import sys
from pathlib import Path
from sensorium_models.recordings import preprocess, store_layout
preprocess.bytes_needed = lambda *arguments: 0  # someone else fills the disk after the check
try:
    preprocess.write_store(
        archive=Path(sys.argv[1]), store=Path(sys.argv[2]), animal="A", neurons=None,
        frame_rate_hz=30.0, known_tiers=sys.argv[3].split(","), withheld_tiers=(),
        stimulus_types=None)
except store_layout.DiskFullError as error:
    print("REFUSED", error)
"""


@pytest.mark.parametrize("kilobytes", [64, 400, 900])
def test_disk_that_fills_up_leaves_nothing(
    kilobytes: int, make: Any, zipped: Any, tmp_path: Path
) -> None:
    """A real small file system: full while frames are written, or only on closing the file."""
    disk = tmp_path / "disk"
    disk.mkdir()
    archive = zipped(make(neurons=200), tmp_path / "A.zip")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "none", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this user may not mount a small file system")
    try:
        tiers = "train,oracle,live_test_main,live_test_bonus,final_test_main,final_test_bonus,none"
        done = subprocess.run(
            [sys.executable, "-c", FULL_DISK, str(archive), str(disk / "A.h5"), tiers],
            capture_output=True,
            text=True,
        )
        left = list(disk.iterdir())
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert done.stdout.startswith("REFUSED The recording store A.h5 needs"), done.stderr
    assert str(disk) in done.stdout
    assert left == []


def test_memory_is_bounded_by_one_trial(make: Any, zipped: Any, tmp_path: Path) -> None:
    """Peak Python memory does not grow with the number of trials."""
    import tracemalloc

    peaks = []
    for train in (4, 40):
        archive = zipped(
            make(train=train, neurons=400, padded=60, statistics=False), tmp_path / f"{train}.zip"
        )
        tracemalloc.start()
        preprocess.write_store(
            archive=archive,
            store=tmp_path / f"{train}.h5",
            animal="A",
            neurons=400,
            frame_rate_hz=30.0,
            known_tiers=("train", "none", *TEST_AND_ORACLE),
            withheld_tiers=(),
            stimulus_types=None,
        )
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    trial_bytes = 60 * (400 + 6 * 9 + 4) * 8
    assert peaks[1] - peaks[0] < 2 * trial_bytes  # 36 more trials


TEST_AND_ORACLE = (
    "oracle",
    "live_test_main",
    "live_test_bonus",
    "final_test_main",
    "final_test_bonus",
)


def test_schema_version_is_checked(make: Any, zipped: Any, prepare: Any, tmp_path: Path) -> None:
    prepare(zipped(make(), tmp_path / "A.zip"), tmp_path / "A.h5").close()
    with h5py.File(tmp_path / "A.h5", "a") as file:
        file.attrs["schema_version"] = 99
    with pytest.raises(store.StoreError, match=r"version 99.*preprocess again"):
        Recording(tmp_path / "A.h5")
