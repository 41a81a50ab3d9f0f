"""The same recording twice: as a released archive and at native rates; both stores must agree."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml

from sensorium_models.recordings.native import Resampling
from sensorium_models.recordings.preprocess import write_store
from sensorium_models.recordings.resampling import resample
from sensorium_models.recordings.store import Recording
from sensorium_models.simulation.native import write_native_recording
from sensorium_models.simulation.recording import write_recording
from sensorium_models.simulation.settings import SimulationSettings
from sensorium_models.simulation.truth import Truth, truth_path

TINY = SimulationSettings(
    neurons=23, training_trials=3, test_videos=1, repeats=2, none_trials=1, frame_shape=(18, 32)
)
TIERS = ("oracle", "live_test_main", "live_test_bonus", "final_test_main", "final_test_bonus")
BONUS = {"live_test_bonus": ["images"], "final_test_bonus": ["random_dots"]}

Stores = Callable[..., Recording]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Stores:
    """The store of one role, written by one of the two ways; each made once."""
    made: dict[tuple[Any, ...], Recording] = {}
    root = tmp_path_factory.mktemp("native")

    def store(way: str, role: str = "public", screen_hz: int = 30) -> Recording:
        key = (way, role, screen_hz)
        if key in made:
            return made[key]
        name = "-".join(map(str, key))
        path = root / (f"{name}.zip" if way == "released" else name)
        simulated: dict[str, Any] = {
            "animal": "A",
            "seed": 5,
            "pair": "one",
            "role": role,
            "settings": TINY,
            "bonus_types": BONUS,
        }
        if way == "released":
            write_recording(archive=path, folder="A", **simulated)
        else:
            write_native_recording(folder=path, screen_hz=screen_hz, **simulated)
        write_store(
            archive=path,
            store=root / f"{name}.h5",
            animal="A",
            neurons=TINY.neurons,
            frame_rate_hz=30.0,
            known_tiers=("train", "none", *TIERS),
            withheld_tiers=TIERS[1:] if role == "withheld" else (),
            stimulus_types=BONUS,
        )
        made[key] = Recording(root / f"{name}.h5")
        return made[key]

    return store


@pytest.mark.parametrize(("role", "screen_hz"), [("public", 30), ("public", 60), ("withheld", 30)])
def test_trials_tiers_and_pixels_are_the_same(stored: Stores, role: str, screen_hz: int) -> None:
    released, native = stored("released", role), stored("native", role, screen_hz)
    np.testing.assert_array_equal(native.trials.tier, released.trials.tier)
    np.testing.assert_array_equal(native.trials.frames, released.trials.frames)
    np.testing.assert_array_equal(native.trials.signature, released.trials.signature)
    np.testing.assert_array_equal(native.trials.stimulus_type, released.trials.stimulus_type)
    np.testing.assert_array_equal(native.trials.video, released.trials.video)
    np.testing.assert_array_equal(
        native.trials.first_response_frame, released.trials.first_response_frame
    )
    np.testing.assert_array_equal(native.neuron_ids, released.neuron_ids)
    np.testing.assert_array_equal(native.coordinates, released.coordinates)
    assert native.video_dtype == released.video_dtype == np.uint8
    for trial in range(len(released.trials)):
        np.testing.assert_array_equal(native.read("video", trial), released.read("video", trial))


@pytest.mark.parametrize("role", ["public", "withheld"])
def test_responses_agree_to_rounding(stored: Stores, role: str) -> None:
    """Both paths join the same samples by straight lines at the same times. What differs: float32
    in another order (a handful of roundings of 6e-8 each), the phase of a plane, known to half of
    1e-6 scans (a straight line changes by at most its range in one scan), and the 5e-9 of
    numerical noise that released traces carry."""
    released, native = stored("released", role), stored("native", role)
    for trial in np.flatnonzero(released.trials.first_response_frame >= 0):
        expected = released.read("responses", int(trial))
        found = native.read("responses", int(trial))
        assert np.abs(found - expected).max() < 2e-6 * expected.max() + 1e-8
        assert found.min() >= 0


def step_error(rate: float, interpolation: str) -> float:
    """Root of the energy of (native and back - as it was) for a unit step at a frame, mean over
    where the step falls between two native samples."""
    frames = np.arange(300) / 30
    energies = []
    for start in np.linspace(0, 1 / rate, 7, endpoint=False):
        times = start + np.arange(-2 * rate, 12 * rate) / rate
        step = (np.arange(300) >= 150).astype(float)
        sampled = np.interp(times, frames, step)[:, None]
        back = resample(
            sampled,
            times,
            frames,
            rate_hz=rate,
            target_hz=30.0,
            interpolation=interpolation,  # type: ignore[arg-type]
            longest_gap_seconds=0.5,
        )
        energies.append(np.sum((back[:, 0] - step) ** 2))
    return float(np.sqrt(np.mean(energies)))


def test_behaviour_agrees_as_well_as_the_rates_allow(stored: Stores) -> None:
    """A path is a sum of steps, its increments. To native rate and back is linear and leaves
    constants alone, so each step is off by the filter's error for a unit step. Increments of the
    simulated behaviour have no or positive correlation (it is smooth or jumps and settles), hence
    rms error <= rms increment x root energy of the step error; 1.3 covers what a dozen trials say
    of an expectation."""
    released, native = stored("released"), stored("native")
    signals = {  # modality, channel: rate, interpolation
        ("behavior", 0): (20.0, "band_limited"),
        ("behavior", 1): (100.0, "band_limited"),
        ("pupil_center", 0): (20.0, "band_limited"),
        ("pupil_center", 1): (20.0, "band_limited"),
    }
    for (modality, channel), (rate, interpolation) in signals.items():
        errors, increments, values = [], [], []
        for trial in range(len(released.trials)):
            expected = released.read(modality, trial)[:, channel].astype(float)
            found = native.read(modality, trial)[:, channel]
            errors.append(found - expected)
            increments.append(np.diff(expected))
            values.append(expected)
        error = np.sqrt(np.mean(np.concatenate(errors) ** 2))
        increment = np.sqrt(np.mean(np.concatenate(increments) ** 2))
        assert error < 1.3 * increment * step_error(rate, interpolation), (modality, channel)
        assert error < 0.1 * np.std(np.concatenate(values)), (modality, channel)


def test_straight_lines_keep_the_pupil_within_two_frames_of_what_it_was(
    stored: Stores, tmp_path: Path
) -> None:
    """20 Hz samples lie 1.5 frames apart and are made of the frames around them: every value is a
    mean of the released ones at most two frames away. Exact, for every frame."""
    released, native = stored("released"), stored("native")
    write_store(
        archive=native.path.with_suffix(""),
        store=tmp_path / "lines.h5",
        animal="A",
        neurons=None,
        frame_rate_hz=30.0,
        known_tiers=("train", "none", *TIERS),
        withheld_tiers=(),
        stimulus_types=BONUS,
        resampling=Resampling(eye_tracker="linear"),
    )
    lines = Recording(tmp_path / "lines.h5")
    for trial in range(len(released.trials)):
        expected = released.read("pupil_center", trial)
        around = np.pad(expected, ((2, 2), (0, 0)), mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(around, 5, axis=0)
        found = lines.read("pupil_center", trial)
        slack = 1e-4  # float32 of values around 150
        assert (found <= windows.max(axis=2) + slack).all()
        assert (found >= windows.min(axis=2) - slack).all()


def test_stores_say_how_their_frames_came_about(stored: Stores) -> None:
    with h5py.File(stored("released").path, "r", locking=False) as file:
        assert file.attrs["resampling"] == "none: released at 30 Hz"
        assert "half of the trials last 10.00 s" in file.attrs["resampling_proof"]
    with h5py.File(stored("native").path, "r", locking=False) as file:
        said = file.attrs["resampling"]
        assert "responses from 8 Hz along straight lines" in said
        assert "treadmill from 100 Hz through a Kaiser-windowed sinc (passes 13.5 Hz" in said
        assert "masked in 0 of" in said
        assert "masked_trials" not in file.attrs


def test_the_folder_holds_what_the_layout_asks_for(stored: Stores) -> None:
    """Read as its own readers do: sample i of signal n at start_time + i / rate + shift."""
    folder = stored("native", "withheld").path.with_suffix("")
    meta = yaml.safe_load((folder / "responses" / "meta.yml").read_text())
    assert meta["modality"] == "sequence"
    data = np.memmap(
        folder / "responses" / "data.mem",
        dtype=meta["dtype"],
        mode="r",
        shape=(meta["n_timestamps"], meta["n_signals"]),
    )
    shifts = np.load(folder / "responses" / "meta" / "phase_shifts.npy")
    assert shifts.shape == (TINY.neurons,)
    assert 0 <= shifts.min() < shifts.max() < 1 / meta["sampling_rate"]
    timestamps = np.load(folder / "screen" / "timestamps.npy")
    entries = [
        yaml.safe_load(file.read_text())
        for file in sorted((folder / "screen" / "meta").glob("*.yml"))
    ]
    assert [entry["modality"] for entry in entries[:4]] == ["video", "blank"] * 2
    assert sum(entry.get("num_frames", 1) for entry in entries) == len(timestamps)
    starts = {meta["start_time"]} | {
        yaml.safe_load((folder / device / "meta.yml").read_text())["start_time"]
        for device in ("treadmill", "eye_tracker")
    }
    assert len(starts) == 3  # clocks of their own
    # Withheld responses are not in the folder, but in the truth.
    truth = Truth(truth_path(folder))
    scans = meta["start_time"] + np.arange(len(data)) / meta["sampling_rate"]
    for trial, entry in enumerate(e for e in entries if e["modality"] == "video"):
        begins = timestamps[entry["first_frame_idx"]]
        ends = timestamps[entry["first_frame_idx"] + entry["num_frames"] - 1]
        shown = (scans > begins) & (scans < ends)
        assert data[shown].any() == (entry["tier"] in ("train", "oracle", "none"))
        if entry["tier"] not in ("train", "oracle", "none"):
            assert truth.responses(trial).any()
    truth.close()


def test_writing_again_gives_the_same_bytes_and_a_failure_nothing(tmp_path: Path) -> None:
    simulated: dict[str, Any] = {
        "animal": "A",
        "seed": 1,
        "pair": "one",
        "role": "public",
        "settings": SimulationSettings(
            neurons=4, training_trials=1, test_videos=1, repeats=1, frame_shape=(8, 8)
        ),
        "bonus_types": {},
    }
    contents = []
    for _ in range(2):
        write_native_recording(folder=tmp_path / "A", **simulated)
        written = sorted(file for file in (tmp_path / "A").rglob("*") if file.is_file())
        contents.append([(file.name, file.read_bytes()) for file in written])
    assert contents[0] == contents[1]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["A", "A.truth.h5"]
    with pytest.raises(ValueError, match="screen_hz is 50"):
        write_native_recording(folder=tmp_path / "B", screen_hz=50, **simulated)
    simulated["settings"] = SimulationSettings(neurons=4, pupil_center=False)
    with pytest.raises(ValueError, match="keep both behavior and pupil_center"):
        write_native_recording(folder=tmp_path / "B", **simulated)
    assert not (tmp_path / "B").exists()
