"""Recordings at native rates, written by hand: what comes out, and what is said of bad ones."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml

from sensorium_models.recordings import download
from sensorium_models.recordings.archives import ArchiveError
from sensorium_models.recordings.native import NativeRecording, Resampling
from sensorium_models.recordings.preprocess import write_store
from sensorium_models.recordings.store import Recording
from sensorium_models.settings import NativeSource, SimulatedSource

TIERS = ("train", "oracle", "none")
LENGTH = 90  # frames of a trial, 3 s
START = 1000.0  # of the screen; the other clocks start a little earlier or later
SHIFTS = np.array([0.0, 0.03, 0.11])


def response(times: np.ndarray) -> np.ndarray:
    """Slow enough for straight lines between 8 Hz samples to be within half a percent."""
    return 2 + np.sin(2 * np.pi * 0.25 * times)


def speed(times: np.ndarray) -> np.ndarray:
    return 5 + 3 * np.sin(2 * np.pi * 4.0 * times)


def pupil(times: np.ndarray) -> np.ndarray:
    waves = [np.sin(2 * np.pi * tone * times + tone) for tone in (0.4, 1.3, 5.0)]
    return np.stack([50 + 9 * waves[0], 150 + 4 * waves[1], 140 + 3 * waves[2]], axis=-1)


def write_device(
    folder: Path, times: np.ndarray, data: np.ndarray, rate: float, **meta: Any
) -> None:
    (folder / "meta").mkdir(parents=True)
    described = {
        "modality": "sequence",
        "sampling_rate": rate,
        "start_time": float(times[0]),
        "end_time": float(times[-1]),
        "n_signals": data.shape[1],
        "phase_shift_per_signal": False,
        **meta,
    }
    if meta.get("is_mem_mapped"):
        described |= {"dtype": str(data.dtype), "n_timestamps": len(data)}
        data.tofile(folder / "data.mem")
    else:
        np.save(folder / "data.npy", data)
    (folder / "meta.yml").write_text(yaml.safe_dump(described))


def screen_frames(trials: int = 4, rate: int = 30) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Videos and the times of their frames; a second of grey between."""
    rng = np.random.default_rng(0)
    videos = [rng.integers(0, 256, (LENGTH, 5, 6)).astype(np.uint8) for _ in range(trials)]
    begins = START + np.arange(trials) * (LENGTH / 30 + 1.0)
    times = [begin + np.arange(LENGTH * rate // 30) / rate for begin in begins]
    return [np.repeat(video, rate // 30, axis=0) for video in videos], times


def write_screen(
    folder: Path, videos: list[np.ndarray], times: list[np.ndarray], tiers: list[str]
) -> None:
    for name in ("data", "meta"):
        (folder / name).mkdir(parents=True)
    stamps: list[np.ndarray] = []
    for number, (video, shown, tier) in enumerate(zip(videos, times, tiers, strict=True)):
        entry = {
            "modality": "video",
            "tier": tier,
            "first_frame_idx": sum(map(len, stamps)),
            "num_frames": len(video),
            "image_size": [5, 6],
        }
        (folder / "meta" / f"{2 * number:05d}.yml").write_text(yaml.safe_dump(entry))
        np.save(folder / "data" / f"{2 * number:05d}.npy", video)
        blank = {
            "modality": "blank",
            "first_frame_idx": entry["first_frame_idx"] + len(video),
            "image_size": [5, 6],
            "interleave_value": 127,
        }
        (folder / "meta" / f"{2 * number + 1:05d}.yml").write_text(yaml.safe_dump(blank))
        stamps += [shown, shown[-1:] + shown[1] - shown[0]]
    np.save(folder / "timestamps.npy", np.concatenate(stamps))
    (folder / "meta.yml").write_text(yaml.safe_dump({"modality": "screen", "frame_rate": 30.0}))


def clock(rate: float, start: float, seconds: float = 22.0) -> np.ndarray:
    return start + np.arange(int(seconds * rate)) / rate


def write_recording(folder: Path, rate: int = 30) -> Path:
    """Four trials of known signals; every device has another start."""
    videos, times = screen_frames(rate=rate)
    write_screen(folder / "screen", videos, times, ["train", "train", "oracle", "train"])
    scans = clock(8.0, START - 2.043)
    responses = response(scans[:, None] + SHIFTS).astype(np.float32)
    write_device(
        folder / "responses",
        scans,
        responses,
        8.0,
        is_mem_mapped=True,
        phase_shift_per_signal=True,
        neuron_properties={"unit_ids": "meta/unit_ids.npy"},
    )
    np.save(folder / "responses" / "meta" / "phase_shifts.npy", SHIFTS)
    np.save(folder / "responses" / "meta" / "unit_ids.npy", np.array([3, 4, 9]))
    fast, slow = clock(100.0, START - 1.777), clock(20.0, START - 1.51)
    write_device(folder / "treadmill", fast, speed(fast)[:, None], 100.0)
    write_device(folder / "eye_tracker", slow, pupil(slow), 20.0)
    return folder


def store_of(folder: Path, store: Path, **changes: Any) -> Recording:
    write_store(
        archive=folder,
        store=store,
        animal="A",
        neurons=3,
        frame_rate_hz=30.0,
        known_tiers=TIERS,
        withheld_tiers=(),
        stimulus_types=None,
        **changes,
    )
    return Recording(store)


def assert_true_to(recording: Recording, trials: list[int], times: list[np.ndarray]) -> None:
    """Every stored value against the function that it was sampled from."""
    for trial in trials:
        at = times[trial]
        found = recording.read("responses", trial)
        np.testing.assert_allclose(found, np.repeat(response(at)[:, None], 3, 1), rtol=0.005)
        eye = pupil(at)
        behavior, centre = recording.read("behavior", trial), recording.read("pupil_center", trial)
        np.testing.assert_allclose(behavior[:, 0], eye[:, 0], atol=0.09)  # 1 % of the tone
        np.testing.assert_allclose(behavior[:, 1], speed(at), atol=0.03)
        np.testing.assert_allclose(centre, eye[:, 1:], atol=0.04)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_recording(tmp_path / "native")


def test_every_signal_is_that_of_the_frame_times(folder: Path, tmp_path: Path) -> None:
    videos, times = screen_frames()
    recording = store_of(folder, tmp_path / "A.h5")
    np.testing.assert_array_equal(recording.trials.tier, ["train", "train", "oracle", "train"])
    np.testing.assert_array_equal(recording.trials.frames, [LENGTH] * 4)
    np.testing.assert_array_equal(recording.neuron_ids, [3, 4, 9])
    assert recording.folder == "native"
    for trial, video in enumerate(videos):
        np.testing.assert_array_equal(recording.read("video", trial), video)
    assert_true_to(recording, [0, 1, 2, 3], times)
    with h5py.File(recording.path, "r", locking=False) as file:
        assert file.attrs["frame_rate_hz"] == 30.0
        assert "masked in 0 of 4 trials" in file.attrs["resampling"]


def test_jittered_timestamps_and_a_clock_that_is_off(folder: Path, tmp_path: Path) -> None:
    """The camera's own times jitter; the treadmill's clock shows half an hour less."""
    rng = np.random.default_rng(2)
    slow = clock(20.0, START - 1.51)
    slow = slow + rng.uniform(-0.1, 0.1, len(slow)) / 20
    np.save(folder / "eye_tracker" / "timestamps.npy", slow)
    eye = pupil(slow)
    eye[:, 2] = 140 + 3 * np.sin(slow)  # 5 Hz is too near to half of 20 Hz for a jittered clock
    np.save(folder / "eye_tracker" / "data.npy", eye)
    meta = yaml.safe_load((folder / "treadmill" / "meta.yml").read_text())
    meta |= {key: meta[key] - 1800 for key in ("start_time", "end_time")}
    (folder / "treadmill" / "meta.yml").write_text(yaml.safe_dump(meta))
    with pytest.raises(ArchiveError, match=r"treadmill.*do not overlap.*clock_offsets_seconds"):
        store_of(folder, tmp_path / "A.h5")
    recording = store_of(
        folder,
        tmp_path / "A.h5",
        resampling=Resampling(clock_offsets_seconds={"treadmill": 1800.0}),
    )
    _, times = screen_frames()
    for trial in range(4):
        behavior = recording.read("behavior", trial)
        np.testing.assert_allclose(behavior[:, 1], speed(times[trial]), atol=0.03)
        np.testing.assert_allclose(behavior[:, 0], pupil(times[trial])[:, 0], atol=0.09)


def test_columns_of_the_eye_tracker_are_given_by_the_study(folder: Path, tmp_path: Path) -> None:
    eye = np.load(folder / "eye_tracker" / "data.npy")
    np.save(folder / "eye_tracker" / "data.npy", eye[:, [1, 2, 0]])
    signals = {"horizontal": 0, "vertical": 1, "dilation": 2}
    how = Resampling(eye_tracker_signals=signals)
    _, times = screen_frames()
    assert_true_to(store_of(folder, tmp_path / "A.h5", resampling=how), [0, 3], times)


def test_a_screen_of_60_hz_that_repeats_frames_is_taken_as_it_was_shown(tmp_path: Path) -> None:
    folder = write_recording(tmp_path / "native", rate=60)
    videos, _ = screen_frames()
    _, times = screen_frames()
    recording = store_of(folder, tmp_path / "A.h5")
    for trial, video in enumerate(videos):
        np.testing.assert_array_equal(recording.read("video", trial), video)
    assert recording.video_dtype == np.uint8
    assert_true_to(recording, [0, 1, 2, 3], times)


def test_a_true_60_hz_video_is_low_passed(tmp_path: Path) -> None:
    """A pixel that flickers at 20 Hz would be seen at 10 Hz; one at 3 Hz comes through."""
    folder = write_recording(tmp_path / "native", rate=60)
    shown = np.arange(2 * LENGTH) / 60
    video = np.zeros((2 * LENGTH, 5, 6))
    video[:, 0, 0] = 128 + 100 * np.cos(2 * np.pi * 20 * shown)
    video[:, 0, 1] = 128 + 100 * np.cos(2 * np.pi * 3 * shown)
    np.save(folder / "screen" / "data" / "00002.npy", np.rint(video).astype(np.uint8))
    recording = store_of(folder, tmp_path / "A.h5")
    found = recording.read("video", 1).astype(float)[20:-20]
    assert recording.video_dtype == np.uint8
    assert np.abs(found[:, 0, 0] - 128).max() <= 1.6  # 1 % and rounding, twice
    expected = 128 + 100 * np.cos(2 * np.pi * 3 * shown[::2])[20:-20]
    assert np.abs(found[:, 0, 1] - expected).max() <= 2


def test_images_stay_until_the_next_entry_and_entries_may_be_in_one_file(
    folder: Path, tmp_path: Path
) -> None:
    """Half a second of an image is fifteen frames of it, as exporters of images write it."""
    screen = folder / "screen"
    stamps = np.load(screen / "timestamps.npy")
    entries = {
        file.stem: yaml.safe_load(file.read_text()) for file in (screen / "meta").glob("*.yml")
    }
    first = len(stamps)
    image = np.arange(30, dtype=np.uint8).reshape(5, 6)
    for number, name in enumerate(["00008", "00010"]):
        entries[name] = {
            "modality": "Image",
            "tier": "train",
            "first_frame_idx": first + 2 * number,
            "num_frames": 30,  # refreshes, not frames on file
        }
        entries[f"{int(name) + 1:05d}"] = {
            "modality": "blank",
            "first_frame_idx": first + 2 * number + 1,
        }
        np.save(screen / "data" / f"{name}.npy", image + number)
    begin = stamps[-1] + 0.5
    np.save(
        screen / "timestamps.npy",
        np.concatenate([stamps, begin + np.array([0, 0.5, 1.0, 1.5])]),
    )
    (screen / "combined_meta.json").write_text(json.dumps(entries))
    shutil.rmtree(screen / "meta")
    recording = store_of(folder, tmp_path / "A.h5")
    np.testing.assert_array_equal(recording.trials.frames, [LENGTH] * 4 + [15, 15])
    np.testing.assert_array_equal(recording.read("video", 5), np.repeat(image[None] + 1, 15, 0))
    at = begin + 1.0 + np.arange(15) / 30
    np.testing.assert_allclose(recording.read("responses", 5)[:, 0], response(at), rtol=0.005)


def test_a_refresh_that_the_screen_missed_holds_the_frame_before(
    folder: Path, tmp_path: Path
) -> None:
    """Frame 40 of trial 1 came two frames late: frame 39 stayed for three."""
    videos, times = screen_frames()
    stamps = np.load(folder / "screen" / "timestamps.npy")
    stamps[LENGTH + 1 + 40 : 2 * (LENGTH + 1)] += 2 / 30
    np.save(folder / "screen" / "timestamps.npy", stamps)
    recording = store_of(folder, tmp_path / "A.h5")
    assert recording.trials.frames[1] == LENGTH + 2
    picks = np.concatenate([np.arange(40), [39, 39], np.arange(40, LENGTH)])
    np.testing.assert_array_equal(recording.read("video", 1), videos[1][picks])
    at = times[1][0] + np.arange(LENGTH + 2) / 30
    np.testing.assert_allclose(recording.read("responses", 1)[:, 0], response(at), rtol=0.005)
    with h5py.File(recording.path, "r", locking=False) as file:
        assert "2 missed refreshes" in file.attrs["resampling"]


def test_a_trial_in_which_the_screen_froze_is_left_out(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Frame 40 of trial 1 came three seconds late; frame 40 of trial 2 half a second, which is
    filled."""
    videos, times = screen_frames()
    stamps = np.load(folder / "screen" / "timestamps.npy")
    stamps[LENGTH + 1 + 40 :] += 3.0
    stamps[2 * (LENGTH + 1) + 40 :] += 0.4
    np.save(folder / "screen" / "timestamps.npy", stamps)
    recording = store_of(folder, tmp_path / "A.h5")
    np.testing.assert_array_equal(recording.trials.tier, ["train", "none", "oracle", "train"])
    np.testing.assert_array_equal(recording.trials.frames, [LENGTH, 40, LENGTH + 12, LENGTH])
    np.testing.assert_array_equal(recording.read("video", 1), videos[1][:40])
    assert recording.masked_trials == (1,)
    assert recording.trials.video[1] < 0  # of no video: it is a repeat of nothing
    with h5py.File(recording.path, "r", locking=False) as file:
        said = file.attrs["masked_because"]
        assert "1 of 4 trials" in file.attrs["resampling"]
        assert "12 missed refreshes" in file.attrs["resampling"]
    assert "trial 1 (entry 00002, tier train) is left out (tier none)" in said
    assert f"stopped for 3.03 s at its frame 39 ({times[1][39]:.2f} s), longer than 0.5 s" in said
    assert said in capsys.readouterr().err
    # The limit is the devices' and the study's.
    longer = store_of(folder, tmp_path / "B.h5", resampling=Resampling(longest_gap_seconds=4.0))
    np.testing.assert_array_equal(longer.trials.frames, [LENGTH, 180, LENGTH + 12, LENGTH])
    assert longer.masked_trials == ()
    with pytest.raises(ArchiveError, match=r"stopped for .*tier of the role unused"):
        store_of(folder, tmp_path / "C.h5", unused_tiers=())


def test_an_image_that_nothing_follows_for_an_hour_is_left_out(
    folder: Path, tmp_path: Path
) -> None:
    screen = folder / "screen"
    stamps = np.load(screen / "timestamps.npy")
    image = {"modality": "image", "tier": "train", "first_frame_idx": len(stamps)}
    blank = {"modality": "blank", "first_frame_idx": len(stamps) + 1}
    for name, entry in (("00008", image), ("00009", blank)):
        (screen / "meta" / f"{name}.yml").write_text(yaml.safe_dump(entry))
    np.save(screen / "data" / "00008.npy", np.zeros((5, 6), np.uint8))
    np.save(screen / "timestamps.npy", [*stamps, stamps[-1] + 0.5, stamps[-1] + 3600.5])
    recording = store_of(folder, tmp_path / "A.h5")
    assert recording.trials.tier[4] == "none"
    assert recording.trials.frames[4] == 20 * 30
    with h5py.File(recording.path, "r", locking=False) as file:
        assert "its image stays for 3600.00 s" in file.attrs["masked_because"]


def test_short_gaps_are_filled_and_trials_with_long_ones_left_out(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A blink of 0.2 s in trial 0; a second without pupil in trial 1; a lost scanner in trial 3."""
    _, times = screen_frames()
    eye = np.load(folder / "eye_tracker" / "data.npy")
    slow, scans = clock(20.0, START - 1.51), clock(8.0, START - 2.043)
    eye[(slow > times[0][30]) & (slow < times[0][30] + 0.2)] = np.nan
    eye[(slow > times[1][30]) & (slow < times[1][30] + 1.0)] = np.nan
    np.save(folder / "eye_tracker" / "data.npy", eye)
    responses = np.memmap(folder / "responses" / "data.mem", np.float32, "r+").reshape(-1, 3)
    responses[(scans > times[3][0] - 0.3) & (scans < times[3][-1] + 0.3), 1] = np.nan
    responses.flush()
    recording = store_of(folder, tmp_path / "A.h5")
    np.testing.assert_array_equal(recording.trials.tier, ["train", "none", "oracle", "none"])
    assert_true_to(recording, [2], times)
    behavior = recording.read("behavior", 0)
    np.testing.assert_allclose(behavior[:, 1], speed(times[0]), atol=0.03)
    np.testing.assert_allclose(behavior[:, 0], pupil(times[0])[:, 0], atol=1.0)  # a line, 0.2 s
    for trial in (1, 3):  # whole, but of no tier that counts
        for modality in recording.modalities:
            assert np.isfinite(recording.read(modality, trial)).all()
    with h5py.File(recording.path, "r", locking=False) as file:
        assert file.attrs["masked_trials"] == "1,3"
        said = file.attrs["masked_because"].split("\n")
        assert "2 of 4 trials" in file.attrs["resampling"]
    assert len(said) == 2
    assert "trial 1 (entry 00002, tier train)" in said[0]
    assert "gaps of eye_tracker longer than 0.5 s" in said[0]
    assert "trial 3 (entry 00006, tier train)" in said[1]
    assert "responses" in said[1]
    assert said[0] in capsys.readouterr().err
    assert recording.masked_trials == (1, 3)
    assert recording.unused_devices == ()
    # The limit is the study's: with two seconds the pupil's gap is a short one.
    longer = store_of(folder, tmp_path / "B.h5", resampling=Resampling(longest_gap_seconds=2.0))
    np.testing.assert_array_equal(longer.trials.tier, ["train", "train", "oracle", "none"])


def test_a_recording_that_ends_before_the_screen(folder: Path, tmp_path: Path) -> None:
    """Trial 3 has no sample of the treadmill at all."""
    fast = clock(100.0, START - 1.777, seconds=10.0)
    shutil.rmtree(folder / "treadmill")
    write_device(folder / "treadmill", fast, speed(fast)[:, None], 100.0)
    recording = store_of(folder, tmp_path / "A.h5")
    np.testing.assert_array_equal(recording.trials.tier, ["train", "train", "none", "none"])
    assert not recording.read("behavior", 3)[:, 1].any()
    np.testing.assert_allclose(
        recording.read("behavior", 0)[:, 1], speed(screen_frames()[1][0]), atol=0.03
    )


def test_without_a_tier_to_put_them_in_masked_trials_are_an_error(
    folder: Path, tmp_path: Path
) -> None:
    eye = np.load(folder / "eye_tracker" / "data.npy")
    eye[:100] = np.nan
    np.save(folder / "eye_tracker" / "data.npy", eye)
    with pytest.raises(ArchiveError, match=r"trial 0 .*tier of the role unused"):
        store_of(folder, tmp_path / "A.h5", unused_tiers=())
    eye[:] = np.nan
    np.save(folder / "eye_tracker" / "data.npy", eye)
    with pytest.raises(ArchiveError, match="Every trial is masked so"):
        store_of(folder, tmp_path / "A.h5")
    assert not (tmp_path / "A.h5").exists()


def test_without_an_eye_tracker_there_is_no_behaviour(folder: Path, tmp_path: Path) -> None:
    shutil.rmtree(folder / "eye_tracker")
    recording = store_of(folder, tmp_path / "A.h5")
    assert recording.modalities == ("video", "responses")
    assert recording.unused_devices == ("treadmill",)


def test_memory_does_not_grow_with_the_recording(tmp_path: Path) -> None:
    import tracemalloc

    peaks = []
    for trials in (4, 24):
        folder = tmp_path / f"{trials}"
        videos, times = screen_frames(trials)
        write_screen(folder / "screen", videos, times, ["train"] * trials)
        scans = clock(8.0, START - 2, seconds=4 * trials + 4)
        data = np.ones((len(scans), 500), np.float32)
        write_device(folder / "responses", scans, data, 8.0, is_mem_mapped=True)
        tracemalloc.start()
        write_store(
            archive=folder,
            store=tmp_path / f"{trials}.h5",
            animal="A",
            neurons=None,
            frame_rate_hz=30.0,
            known_tiers=TIERS,
            withheld_tiers=(),
            stimulus_types=None,
        )
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 500 * LENGTH * 4  # less than one of the twenty more trials


def test_receipt_of_a_folder_at_native_rates(folder: Path, tmp_path: Path) -> None:
    source = NativeSource(kind="native", path=folder)
    download.write_receipt(tmp_path / "A.json", "A", source, folder)
    receipt = json.loads((tmp_path / "A.json").read_text())
    assert receipt["folder"] == "native"
    assert receipt["bytes"] == sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    assert download.archive_of(tmp_path / "A.json") == folder
    how = Resampling(**source.resampling.model_dump())
    assert how == Resampling()  # the configuration's defaults are the package's


def test_configuration_of_native_recordings() -> None:
    with pytest.raises(ValueError, match="released archives are at 30 Hz"):
        SimulatedSource(kind="simulated", pair="one", seed=1, screen_hz=60)
    with pytest.raises(ValueError, match="longest_gap_seconds"):
        NativeSource.model_validate(
            {"kind": "native", "path": "x", "resampling": {"longest_gap_seconds": 0}}
        )


# Faults: what is done to the folder, and what the sentence says.


def _meta(name: str, **changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / name
        content = {**yaml.safe_load(file.read_text()), **changes}
        file.write_text(yaml.safe_dump(content))

    return change


def _text(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(text) and None


def _array(name: str, edit: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    return lambda folder: np.save(folder / name, edit(np.load(folder / name)))


def _pickle(name: str) -> Callable[[Path], None]:
    return lambda folder: np.save(folder / name, np.array([{}], dtype=object), allow_pickle=True)


def _remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _truncate(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-9])


def _infinite(folder: Path) -> None:
    data = np.load(folder / "treadmill" / "data.npy")
    data[300] = np.inf
    np.save(folder / "treadmill" / "data.npy", data)


def _encoded(folder: Path) -> None:
    (folder / "screen" / "data" / "00002.npy").rename(folder / "screen" / "data" / "00002.mp4")


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "no screen": (_remove("screen/meta.yml"), r"screen/meta.yml: cannot be read"),
    "no times": (_remove("screen/timestamps.npy"), r"screen/timestamps.npy: cannot be read"),
    "times go back": (
        _array("screen/timestamps.npy", lambda times: times[::-1]),
        r"screen/timestamps.npy: times must increase",
    ),
    "times are NaN": (
        _array("screen/timestamps.npy", lambda times: times * np.nan),
        r"screen/timestamps.npy: must hold two or more finite times",
    ),
    "fewer times than frames": (
        _array("screen/timestamps.npy", lambda times: times[:100]),
        r"00002.yml: 00002: frames 91 to 180 overlap the entry before or exceed the 100 times",
    ),
    "another rate": (
        _array("screen/timestamps.npy", lambda times: START + (times - START) * 0.72),
        r"timestamps.npy: entry 00000 was shown at 41.67 Hz, which is no whole multiple of 30 Hz",
    ),
    "modality": (_meta("screen/meta/00001.yml", modality="film"), r"00001.yml.*'film'; known are"),
    "no tier": (_meta("screen/meta/00002.yml", tier=None), r"00002.yml: 00002: tier is None"),
    "unknown tier": (_meta("screen/meta/00002.yml", tier="test"), r"trial 1 is of tier 'test'"),
    "first frame": (
        _meta("screen/meta/00002.yml", first_frame_idx="a"),
        r"00002.yml: first_frame_idx is 'a'; give a number not below 0",
    ),
    "half a frame": (
        _meta("screen/meta/00002.yml", num_frames=89.5),
        r"00002.yml: num_frames is 89.5; give a whole number",
    ),
    "a number of 400 digits": (
        _meta("treadmill/meta.yml", sampling_rate=10**400),
        r"treadmill/meta.yml: sampling_rate is 1000",
    ),
    "no number behind its tag": (
        _text("screen/meta/00002.yml", 'first_frame_idx: !!int ""'),
        r"00002.yml: is not readable YAML",
    ),
    "no time behind its tag": (
        _text("screen/meta/00002.yml", "first_frame_idx: !!timestamp now"),
        r"00002.yml: is not readable YAML",
    ),
    "no truth behind its tag": (
        _text("screen/meta/00002.yml", "valid_trial: !!bool perhaps"),
        r"00002.yml: is not readable YAML",
    ),
    "not YAML": (_text("screen/meta/00002.yml", "a: [1"), r"00002.yml: is not readable YAML"),
    "YAML that runs code": (
        _text("screen/meta/00002.yml", "!!python/object/apply:os.system ['true']"),
        r"00002.yml: is not readable YAML",
    ),
    "a list": (_text("treadmill/meta.yml", "[1, 2]"), r"treadmill/meta.yml: must hold keys"),
    "frames": (
        _array("screen/data/00002.npy", lambda video: video[:-1]),
        r"00002.npy: has shape \(89, 5, 6\), but its entry is video with 90 frames",
    ),
    "colour": (
        _array("screen/data/00002.npy", lambda video: np.stack([video] * 3, -1)),
        r"00002.npy: has shape \(90, 5, 6, 3\)",
    ),
    "frame size": (
        _array("screen/data/00002.npy", lambda video: video[:, :4]),
        r"00002.npy: frames are \(4, 6\) pixels, those of trial 0 \(5, 6\)",
    ),
    "encoded": (_encoded, r"00002.mp4: is encoded, which is not read. Decode it to 00002.npy"),
    "pickled video": (_pickle("screen/data/00002.npy"), r"00002.npy: .*Python objects"),
    "cut video": (_truncate("screen/data/00002.npy"), r"00002.npy: .*bytes follow its header"),
    "no responses": (_remove("responses/meta.yml"), r"responses/meta.yml: cannot be read"),
    "no rate": (
        _meta("responses/meta.yml", sampling_rate=0),
        r"meta.yml: sampling_rate is 0; give",
    ),
    "rate is NaN": (
        _meta("eye_tracker/meta.yml", sampling_rate=float("nan")),
        r"eye_tracker/meta.yml: sampling_rate is nan",
    ),
    "cut data.mem": (
        _truncate("responses/data.mem"),
        r"responses/data.mem: is 2103 bytes long, but 176 x 3 values of float32",
    ),
    "dtype": (_meta("responses/meta.yml", dtype="object"), r"meta.yml: dtype is object; only real"),
    "no dtype": (_meta("responses/meta.yml", dtype="grey"), r"meta.yml: dtype is 'grey'; give one"),
    "dtype that is no expression": (
        _meta("responses/meta.yml", dtype="f4,,"),
        r"meta.yml: dtype is 'f4,,'; give one",
    ),
    "shifts": (
        _array("responses/meta/phase_shifts.npy", lambda shifts: shifts[:2]),
        r"phase_shifts.npy: must hold one finite number of seconds for each of the 3 signals",
    ),
    "ids": (
        _array("responses/meta/unit_ids.npy", lambda ids: ids * 0),
        r"unit_ids.npy: does not hold one distinct integer for each of the 3 signals",
    ),
    "ids elsewhere": (
        _meta("responses/meta.yml", neuron_properties={"unit_ids": "../../secret.npy"}),
        r"responses/meta.yml: neuron_properties: unit_ids is '../../secret.npy'; name a",
    ),
    "ids behind a zero byte": (
        _meta("responses/meta.yml", neuron_properties={"unit_ids": "a\0b"}),
        r"neuron_properties: unit_ids is 'a\\x00b'; name a",
    ),
    "n_signals": (
        _meta("eye_tracker/meta.yml", n_signals=4),
        r"eye_tracker/data.npy: the shape is \(440, 3\), but \(samples, 4\) is needed",
    ),
    "end_time": (
        _meta("eye_tracker/meta.yml", end_time=START + 100),
        r"eye_tracker/meta.yml: from start_time to end_time are 101.51 s.*which is 22 s",
    ),
    "pickled data": (_pickle("treadmill/data.npy"), r"treadmill/data.npy: .*Python objects"),
    "not a sequence": (
        _meta("treadmill/meta.yml", modality="spikes"),
        r"treadmill/meta.yml: modality is 'spikes'; signals have 'sequence'",
    ),
    "infinite": (
        _infinite,
        r"treadmill/data.npy: sample 300 \(1001.223 s\) holds an infinite value",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_folder_that_cannot_be_used_ends_in_a_sentence(
    fault: str, folder: Path, tmp_path: Path
) -> None:
    change, said = FAULTS[fault]
    change(folder)
    with pytest.raises(ArchiveError, match=said) as caught:
        store_of(folder, tmp_path / "A.h5")
    assert str(folder) in str(caught.value)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["native"]


def test_timestamps_that_contradict_the_rate(folder: Path, tmp_path: Path) -> None:
    np.save(folder / "treadmill" / "timestamps.npy", clock(50.0, START - 1.777, seconds=44.0))
    with pytest.raises(ArchiveError, match=r"sampling_rate is 100 Hz, but .* are those of 50 Hz"):
        store_of(folder, tmp_path / "A.h5")
    np.save(folder / "treadmill" / "timestamps.npy", clock(100.0, START))
    with NativeRecording(folder) as recording:  # as many times as samples: believed
        assert recording.modalities == ("video", "responses", "behavior", "pupil_center")
    np.save(folder / "treadmill" / "timestamps.npy", clock(100.0, START)[:-1])
    with pytest.raises(ArchiveError, match="one time for each is needed"):
        NativeRecording(folder)


def test_columns_that_the_eye_tracker_does_not_have(folder: Path) -> None:
    signals = {"dilation": 0, "horizontal": 1, "vertical": 3}
    with pytest.raises(ArchiveError, match="holds 3 signals, but eye_tracker_signals asks"):
        NativeRecording(folder, Resampling(eye_tracker_signals=signals))


def test_an_archive_with_a_rate_of_its_own_is_found_out(
    make: Any, zipped: Any, prepare: Any, tmp_path: Path
) -> None:
    """Responses at 8 Hz, padded with NaN as if they were short, would cut every trial to a part."""
    content = make()
    tiers = content["meta/trials/tiers.npy"]
    for trial in range(len(tiers)):
        responses = content[f"data/responses/{trial}.npy"]
        responses[:, responses.shape[1] * 8 // 30 :] = np.nan
    with pytest.raises(ArchiveError, match=r"responses has .. % of the frames .*kind: native"):
        prepare(zipped(content, tmp_path / "A.zip"), tmp_path / "A.h5")
