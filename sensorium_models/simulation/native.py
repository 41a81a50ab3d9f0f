"""The same simulated recording at the rates of its instruments, each with a clock of its own.

Microscope 8 Hz with a phase per neuron, treadmill 100 Hz, eye tracker 20 Hz, screen 30 or 60 Hz, in
the folder layout that `recordings.native_files` describes. Trials, movies, spikes and behaviour are
those of `recording.write_recording` with the same arguments: trials are placed in time so that the
scans, which run through, meet each at the phase that was drawn for it.
"""

import math
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import yaml

from sensorium_models import files
from sensorium_models.progress import track
from sensorium_models.simulation import imaging
from sensorium_models.simulation.metadata import read_metadata
from sensorium_models.simulation.recording import SimulatedAnimal, SimulatedTrial
from sensorium_models.simulation.settings import SimulationSettings
from sensorium_models.simulation.stimuli import GREY
from sensorium_models.simulation.truth import TruthWriter, truth_path

TREADMILL_HZ = 100.0
EYE_TRACKER_HZ = 20.0
SCREEN_RATES_HZ = (30, 60)
# Grey between trials. Half of it is longer than any filter of the treadmill or the pupil reaches.
BLANK_SECONDS = 2.5


def write_native_recording(
    *,
    folder: Path,
    animal: str,
    seed: int,
    pair: str,
    role: str,
    settings: SimulationSettings,
    bonus_types: Mapping[str, Sequence[str]],
    metadata: Path | None = None,
    screen_hz: int = 30,
) -> None:
    """Write the recording's `folder` and its truth (`truth.truth_path`), both atomically.

    Withheld responses are zeros, as in an archive. A screen of 60 Hz shows every frame twice.

    Args:
        screen_hz: 30 or 60; the others as of `recording.write_recording`.

    Raises:
        ValueError: a setting, role or bonus type makes no sense; the message says which.
        OSError: the disk is full or the metadata cannot be read; nothing is written then.
    """
    if screen_hz not in SCREEN_RATES_HZ:
        raise ValueError(f"screen_hz is {screen_hz}; choose among {SCREEN_RATES_HZ}.")
    if settings.behavior != settings.pupil_center:
        raise ValueError(
            "The eye tracker of a recording at native rates measures dilation and centre of the"
            " pupil: keep both behavior and pupil_center, or neither."
        )
    folder = Path(folder)
    simulated = SimulatedAnimal(
        animal=animal,
        seed=seed,
        pair=pair,
        role=role,
        settings=settings,
        bonus_types=bonus_types,
        metadata=None if metadata is None else read_metadata(metadata),
    )
    rates_dtype = None if settings.truth_rates == "none" else settings.truth_rates
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        with (
            files.replacing(truth_path(folder)) as truth_part,
            TruthWriter(
                truth_part, animal=animal, pair=pair, role=role, seed=seed, rates_dtype=rates_dtype
            ) as truth,
        ):
            _write(simulated, part, truth, screen_hz)
        if folder.is_dir():
            shutil.rmtree(folder)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write(simulated: SimulatedAnimal, folder: Path, truth: TruthWriter, screen_hz: int) -> None:
    settings = simulated.settings
    rng = simulated.generator("clocks")
    # Seconds on the common clock; every instrument was switched on at another time.
    scans = _Scans(folder / "responses", simulated, start=100 + float(rng.uniform(0, 1)))
    treadmill = _Samples(TREADMILL_HZ, start=100 + float(rng.uniform(0, 1)))
    eye_tracker = _Samples(EYE_TRACKER_HZ, start=100 + float(rng.uniform(0, 1)))
    screen = _Screen(folder / "screen", screen_hz)
    frames = np.zeros(len(simulated.trials), dtype=np.int64)
    boundary = 102.0
    with scans:
        for trial in track(range(len(frames)), f"simulate {simulated.animal}", unit="trial"):
            video = simulated.video(trial)
            frames[trial] = len(video)
            recorded = simulated.record(trial, video)
            withheld = simulated.withheld(trial)
            truth.add(trial, recorded.expected, recorded.response if withheld else None)
            start = scans.add(recorded, len(video), boundary + BLANK_SECONDS / 2, withheld)
            times = start + np.arange(len(video)) / imaging.FRAME_RATE_HZ
            boundary = times[-1] + 1 / imaging.FRAME_RATE_HZ + BLANK_SECONDS / 2
            tier = simulated.trials[trial].tier
            screen.add(video.astype(settings.video_dtype), tier, start)
            moved = recorded.moved
            eye = np.column_stack([moved.behavior[:, 0], moved.pupil_center])
            treadmill.add(times, moved.behavior[:, 1:], boundary)
            eye_tracker.add(times, eye, boundary)
        scans.fill_until(boundary)
    screen.finish()
    if settings.behavior:
        dtype = settings.response_dtype
        treadmill.write(folder / "treadmill", dtype)
        eye_tracker.write(folder / "eye_tracker", dtype)
    simulated.write_truth(truth, frames)


class _Scans:
    """The microscope's file, row by row: scan j visits plane p at start + (j + p / planes) / rate.

    Between trials, where nothing is simulated, the samples are zero.
    """

    def __init__(self, folder: Path, simulated: SimulatedAnimal, *, start: float) -> None:
        self._folder, self._simulated, self.start = folder, simulated, start
        self._neurons = len(simulated.planes)
        self._rows = 0
        self._file: IO[bytes] | None = None

    def __enter__(self) -> "_Scans":
        (self._folder / "meta").mkdir(parents=True)
        self._file = (self._folder / "data.mem").open("wb")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._file is not None
        self._file.close()
        meta = self._folder / "meta"
        shifts = self._simulated.planes / imaging.PLANES / imaging.SCAN_RATE_HZ
        np.save(meta / "phase_shifts.npy", shifts)
        np.save(meta / "cell_motor_coordinates.npy", self._simulated.coordinates)
        np.save(meta / "unit_ids.npy", self._simulated.ids)
        properties = ("cell_motor_coordinates", "unit_ids")
        described = _sequence_meta(self.start, imaging.SCAN_RATE_HZ, self._rows, self._neurons)
        described |= {
            "is_mem_mapped": True,
            "dtype": "float32",
            "phase_shift_per_signal": True,
            "neuron_properties": {name: f"meta/{name}.npy" for name in properties},
        }
        _write_meta(self._folder / "meta.yml", described)

    def add(self, recorded: SimulatedTrial, frames: int, earliest: float, withheld: bool) -> float:
        """Append the scans of a trial; return when its first frame appeared, in seconds."""
        rate = imaging.SCAN_RATE_HZ
        scan_number = math.ceil((earliest - self.start) * rate + recorded.phase)
        block: dict[int, np.ndarray] = {}
        for plane in range(imaging.PLANES):
            chosen = self._simulated.planes == plane
            maps = imaging.scan(frames, imaging.plane_phase(recorded.phase, plane))
            scale = self._simulated.response_scale[chosen, None].astype(np.float32)
            samples = recorded.counts[plane].astype(np.float32) @ maps.smear.T * scale
            # Planes whose visit is late by more than a scan belong to the scan before.
            first = scan_number + maps.first - math.floor(recorded.phase + plane / imaging.PLANES)
            for number, values in enumerate(samples.T, first):
                row = block.setdefault(number, np.zeros(self._neurons, dtype=np.float32))
                row[chosen] = 0.0 if withheld else values
        self._fill(min(block))
        for number in sorted(block):
            self._append(block[number])
        return self.start + (scan_number - recorded.phase) / rate

    def fill_until(self, seconds: float) -> None:
        """Scan on without a signal."""
        self._fill(math.ceil((seconds - self.start) * imaging.SCAN_RATE_HZ))

    def _fill(self, row: int) -> None:
        while self._rows < row:
            self._append(np.zeros(self._neurons, dtype=np.float32))

    def _append(self, row: np.ndarray) -> None:
        assert self._file is not None
        self._file.write(row.data)
        self._rows += 1


class _Samples:
    """Samples of a slow or fast signal, taken from straight lines between its values at 30 Hz."""

    def __init__(self, rate_hz: float, *, start: float) -> None:
        self._rate_hz, self._start = rate_hz, start
        self._blocks: list[np.ndarray] = []
        self._taken = 0

    def add(self, times: np.ndarray, values: np.ndarray, until: float) -> None:
        """Sample up to `until`; before and after the trial its first and last value hold.

        Args:
            times: (frames,) seconds.
            values: (frames, signals).
        """
        count = math.ceil((until - self._start) * self._rate_hz) - self._taken
        asked = self._start + (self._taken + np.arange(count)) / self._rate_hz
        self._blocks.append(np.column_stack([np.interp(asked, times, line) for line in values.T]))
        self._taken += count

    def write(self, folder: Path, dtype: str) -> None:
        """Write the device's folder."""
        folder.mkdir(parents=True)
        data = np.concatenate(self._blocks).astype(dtype)
        np.save(folder / "data.npy", data)
        described = _sequence_meta(self._start, self._rate_hz, *data.shape)
        _write_meta(folder / "meta.yml", {**described, "is_mem_mapped": False, "dtype": dtype})


class _Screen:
    """Movies with grey in between, one entry each."""

    def __init__(self, folder: Path, rate_hz: int) -> None:
        self._folder, self._rate_hz = folder, rate_hz
        self._times: list[np.ndarray] = []
        self._entries = 0
        self._frames = 0
        for name in ("data", "meta"):
            (folder / name).mkdir(parents=True)

    def add(self, video: np.ndarray, tier: str, start: float) -> None:
        """A movie at 30 Hz, (frames, H, W), whose first frame appears at `start`."""
        shown = np.repeat(video, self._rate_hz // 30, axis=0)
        np.save(self._folder / "data" / f"{self._entries:05d}.npy", shown)
        size = list(video.shape[1:])
        times = start + np.arange(len(shown)) / self._rate_hz
        self._entry({"modality": "video", "tier": tier, "num_frames": len(shown)}, size, times)
        blank = {"modality": "blank", "tier": "blank", "interleave_value": GREY}
        self._entry(blank, size, times[-1:] + 1 / self._rate_hz)

    def finish(self) -> None:
        """Write what concerns all entries."""
        np.save(self._folder / "timestamps.npy", np.concatenate(self._times))
        _write_meta(
            self._folder / "meta.yml", {"modality": "screen", "frame_rate": float(self._rate_hz)}
        )

    def _entry(self, described: dict[str, Any], size: list[int], times: np.ndarray) -> None:
        described = {**described, "first_frame_idx": self._frames, "image_size": size}
        _write_meta(self._folder / "meta" / f"{self._entries:05d}.yml", described)
        self._times.append(times)
        self._frames += len(times)
        self._entries += 1


def _sequence_meta(start: float, rate_hz: float, samples: int, signals: int) -> dict[str, Any]:
    return {
        "modality": "sequence",
        "start_time": start,
        "end_time": start + (samples - 1) / rate_hz,
        "sampling_rate": rate_hz,
        "n_signals": signals,
        "n_timestamps": samples,
        "phase_shift_per_signal": False,
    }


def _write_meta(file: Path, content: dict[str, Any]) -> None:
    file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
