"""The files of a recording at native rates: arrays, `meta.yml`, and devices with their clocks.

The layout is that of experanto, as its readers and writers have it (github.com/sensorium-
competition/experanto: interpolators at commit 21cbadb, tests/create_screen_data.py at 128efde,
tests/create_sequence_data.py at 05cf038, `neuron_properties` in datasets.py at 002ae39):

    {device}/meta.yml   modality: sequence, sampling_rate (Hz), start_time, end_time (seconds),
                        n_signals, phase_shift_per_signal; is_mem_mapped with dtype, n_timestamps
    {device}/data.npy or data.mem            (n_timestamps, n_signals)
    {device}/timestamps.npy                  optional; else start_time + i / sampling_rate
    {device}/meta/phase_shifts.npy           (n_signals,) seconds to add to the times
    screen/meta.yml, screen/timestamps.npy   modality: screen; seconds, one per frame
    screen/meta/00000.yml, ...               modality (image, video, blank, invalid), tier,
    or screen/combined_meta.json             first_frame_idx, num_frames (video), image_size
    screen/data/00000.npy, ...               (frames, H, W) or (H, W)
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import yaml

from sensorium_models.recordings.archive_sources import (
    COPY_AGAIN,
    WRITE_AGAIN,
    ArchiveError,
    HeaderError,
    read_header,
)

# Memory-mapped, so that even a forged size costs no memory.
_LARGEST_BYTES = 2**50


def read_array(file: Path, kinds: str = "iuf") -> np.ndarray:
    """A .npy file, mapped into memory and read-only.

    Raises:
        ArchiveError: it is missing, damaged, or holds no plain numbers.
    """
    try:
        with file.open("rb") as stream:
            header = read_header(
                stream, entry_bytes=file.stat().st_size, kinds=kinds, largest=_LARGEST_BYTES
            )
            offset = stream.tell()
    except OSError as error:
        raise ArchiveError(f"{file}: cannot be read ({error.strerror}). {COPY_AGAIN}") from error
    except HeaderError as error:
        raise ArchiveError(f"{file}: the file {error}") from error
    if header.nbytes == 0:
        return np.zeros(header.shape, header.dtype)
    order = "F" if header.fortran_order else "C"
    return np.memmap(file, header.dtype, "r", offset, header.shape, order)  # type: ignore[call-overload]


def read_meta(file: Path) -> dict[str, Any]:
    """A YAML (or JSON) file of plain values: no tag of it makes Python run anything.

    Raises:
        ArchiveError: it is missing, or no mapping.
    """
    try:
        text = file.read_text(encoding="utf-8")
        content = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise ArchiveError(f"{file}: cannot be read ({error.strerror}). {COPY_AGAIN}") from error
    except (
        ValueError,
        yaml.YAMLError,
        RecursionError,
        # What PyYAML lets through where a value is not what its tag says, as in `!!int ""`.
        LookupError,
        AttributeError,
        TypeError,
    ) as error:
        said = " ".join(str(error).split())
        raise ArchiveError(f"{file}: is not readable YAML ({said}). Write it again.") from error
    if not isinstance(content, dict):
        raise ArchiveError(f"{file}: must hold keys and values. Write it again.")
    return content


def number(meta: Mapping[str, Any], key: str, file: Path, least: float = -np.inf) -> float:
    """The number under a key.

    Raises:
        ArchiveError: it is missing, none, not finite, or below `least`.
    """
    value = meta.get(key)
    if isinstance(value, int | float) and not isinstance(value, bool):
        # Integers that no float holds, of 400 digits say, are as bad as infinity.
        found = float(value) if abs(value) < 2.0**1023 else np.inf
        if np.isfinite(found) and found >= least:
            return found
    wanted = "a number" if least == -np.inf else f"a number not below {least:g}"
    raise ArchiveError(f"{file}: {key} is {value!r}; give {wanted}.")


def whole_number(meta: Mapping[str, Any], key: str, file: Path, least: int) -> int:
    """The whole number under a key.

    Raises:
        ArchiveError: as `number`, or it has a fraction.
    """
    found = number(meta, key, file, least)
    if not found.is_integer():
        raise ArchiveError(f"{file}: {key} is {meta[key]!r}; give a whole number.")
    return int(found)


class Device:
    """Signals with a clock of their own: `responses`, `treadmill` or `eye_tracker`.

    Attributes:
        name: of its folder.
        rate_hz: nominal.
        data: (samples, signals), mapped into memory.
        times: (samples,) seconds, on the screen's clock: `clock_offset_seconds` is added.
        shifts: (signals,) seconds, further added to each signal's times.
    """

    def __init__(self, folder: Path, clock_offset_seconds: float = 0.0) -> None:
        self.folder, self.name = folder, folder.name
        self._file = folder / "meta.yml"
        self.meta = read_meta(self._file)
        if self.meta.get("modality") != "sequence":
            raise ArchiveError(
                f"{self._file}: modality is {self.meta.get('modality')!r}; signals have 'sequence'."
            )
        self.rate_hz = number(self.meta, "sampling_rate", self._file, least=1e-6)
        self.data_file = folder / ("data.mem" if self.meta.get("is_mem_mapped") else "data.npy")
        self.data = self._mapped() if self.meta.get("is_mem_mapped") else read_array(self.data_file)
        if self.data.ndim == 1:
            self.data = self.data[:, None]
        signals = whole_number(self.meta, "n_signals", self._file, least=1)
        if self.data.ndim != 2 or len(self.data) < 2 or self.data.shape[1] != signals:
            raise ArchiveError(
                f"{self.data_file}: the shape is {self.data.shape}, but (samples, {signals}) is"
                f" needed to agree with n_signals in {self._file.name}. {WRITE_AGAIN}"
            )
        self.times = self._own_times() + clock_offset_seconds
        self.shifts = self._phase_shifts()

    def around(self, at: np.ndarray, reach_seconds: float) -> tuple[np.ndarray, np.ndarray]:
        """Samples that matter for the times `at`: (samples, signals) in memory, and their times.

        Raises:
            ArchiveError: a sample is infinite.
        """
        first = np.searchsorted(self.times, at[0] - reach_seconds - self.shifts.max())
        last = np.searchsorted(self.times, at[-1] + reach_seconds - self.shifts.min(), "right")
        samples = np.array(self.data[first:last])
        if samples.dtype.kind == "f":
            with np.errstate(invalid="ignore", over="ignore"):
                suspect = not np.isfinite(samples.sum())
            if suspect and np.isinf(samples).any():
                row = first + int(np.flatnonzero(np.isinf(samples).any(axis=1))[0])
                raise ArchiveError(
                    f"{self.data_file}: sample {row} ({self.times[row]:.3f} s) holds an infinite"
                    " value. Write NaN where nothing was measured."
                )
        return samples, self.times[first:last]

    def _mapped(self) -> np.ndarray:
        rows = whole_number(self.meta, "n_timestamps", self._file, least=1)
        signals = whole_number(self.meta, "n_signals", self._file, least=1)
        try:
            dtype = np.dtype(str(self.meta.get("dtype")))
        except (TypeError, ValueError, SyntaxError) as error:
            raise ArchiveError(
                f"{self._file}: dtype is {self.meta.get('dtype')!r}; give one such as float32."
            ) from error
        if dtype.kind not in "iuf":
            raise ArchiveError(f"{self._file}: dtype is {dtype}; only real numbers are read.")
        try:
            size = self.data_file.stat().st_size
        except OSError as error:
            raise ArchiveError(
                f"{self.data_file}: cannot be read ({error.strerror}). {COPY_AGAIN}"
            ) from error
        if size != rows * signals * dtype.itemsize:
            raise ArchiveError(
                f"{self.data_file}: is {size} bytes long, but {rows} x {signals} values of {dtype},"
                f" as {self._file.name} says, are {rows * signals * dtype.itemsize}. {COPY_AGAIN}"
            )
        return np.memmap(self.data_file, dtype, "r", 0, (rows, signals))

    def _own_times(self) -> np.ndarray:
        samples = len(self.data)
        for file in (self.folder / "timestamps.npy", self.folder / "meta" / "timestamps.npy"):
            if file.is_file():
                times = read_times(file)
                if times.shape != (samples,):
                    raise ArchiveError(
                        f"{file}: has shape {times.shape}, but {self.data_file.name} holds"
                        f" {samples} samples: one time for each is needed."
                    )
                rate = 1 / float(np.median(np.diff(times)))
                if abs(rate / self.rate_hz - 1) > 0.05:
                    raise ArchiveError(
                        f"{self._file}: sampling_rate is {self.rate_hz:g} Hz, but the times in"
                        f" {file.name} are those of {rate:.4g} Hz. Correct one of them."
                    )
                return times
        start = number(self.meta, "start_time", self._file)
        end = number(self.meta, "end_time", self._file)
        # end_time is the last sample's time or the end of its period, depending on the writer.
        if abs((end - start) * self.rate_hz - samples) > 2 + 1e-3 * samples:
            raise ArchiveError(
                f"{self._file}: from start_time to end_time are {end - start:g} s, but"
                f" {self.data_file.name} holds {samples} samples at {self.rate_hz:g} Hz, which is"
                f" {samples / self.rate_hz:g} s. Correct the times or add timestamps.npy."
            )
        return start + np.arange(samples) / self.rate_hz

    def _phase_shifts(self) -> np.ndarray:
        if not self.meta.get("phase_shift_per_signal"):
            return np.zeros(self.data.shape[1])
        file = self.folder / "meta" / "phase_shifts.npy"
        shifts = np.asarray(read_array(file), dtype=np.float64)
        if shifts.shape != self.data.shape[1:] or not np.isfinite(shifts).all():
            raise ArchiveError(
                f"{file}: must hold one finite number of seconds for each of the"
                f" {self.data.shape[1]} signals, but has shape {shifts.shape}. {WRITE_AGAIN}"
            )
        return shifts


def read_times(file: Path) -> np.ndarray:
    """Times in seconds, (samples,) float64, finite and increasing.

    Raises:
        ArchiveError: they are not.
    """
    times = np.array(read_array(file), dtype=np.float64)
    if times.ndim != 1 or len(times) < 2 or not np.isfinite(times).all():
        raise ArchiveError(
            f"{file}: must hold two or more finite times, but has shape {times.shape}."
        )
    backwards = np.flatnonzero(np.diff(times) <= 0)
    if len(backwards):
        place = int(backwards[0])
        raise ArchiveError(
            f"{file}: times must increase, but {times[place + 1]:g} s (number {place + 1}) follows"
            f" {times[place]:g} s. Sort the samples or repair the clock."
        )
    return times


def read_neuron_ids(responses: Device) -> np.ndarray:
    """(N,) int64 from `neuron_properties`; 0 to N - 1 where there are none.

    Raises:
        ArchiveError: they are not one distinct integer per signal.
    """
    signals = responses.data.shape[1]
    file = _neuron_property(responses, "unit_ids")
    if file is None:
        return np.arange(signals, dtype=np.int64)
    ids = read_array(file)
    whole = ids.astype(np.int64) if np.isfinite(ids).all() else np.zeros(0, np.int64)
    distinct = np.array_equal(whole, ids) and len(np.unique(whole)) == len(whole)
    if not distinct or whole.shape != (signals,):
        raise ArchiveError(
            f"{file}: does not hold one distinct integer for each of the {signals} signals. Number"
            " the neurons anew."
        )
    return whole


def read_coordinates(responses: Device) -> np.ndarray | None:
    """(N, 3) float64, micrometres; None where `neuron_properties` names none.

    Raises:
        ArchiveError: there are not three for each signal.
    """
    file = _neuron_property(responses, "cell_motor_coordinates")
    if file is None:
        return None
    coordinates = read_array(file)
    if coordinates.shape != (responses.data.shape[1], 3):
        raise ArchiveError(
            f"{file}: has shape {coordinates.shape}, but there are {responses.data.shape[1]}"
            f" neurons with x, y, z each. {WRITE_AGAIN}"
        )
    return coordinates.astype(np.float64)


def _neuron_property(responses: Device, key: str) -> Path | None:
    named = responses.meta.get("neuron_properties")
    if not isinstance(named, dict) or key not in named:
        return None
    path = PurePosixPath(str(named[key]))
    if path.is_absolute() or ".." in path.parts or re.search(r"[\\\0]", str(path)):
        raise ArchiveError(
            f"{responses.folder / 'meta.yml'}: neuron_properties: {key} is {named[key]!r}; name a"
            f" file inside {responses.folder.name}/."
        )
    return responses.folder / path
