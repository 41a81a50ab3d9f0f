"""A recording at native rates as a source of trials: every device resampled to the screen's frames.

The folder is laid out as in `native_files`. Video, responses and behaviour of a trial are made when
they are read, from the samples around that trial only; `preprocess` takes them as it takes those of
a released archive.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from sensorium_models.files import Closing
from sensorium_models.progress import tell, track
from sensorium_models.recordings.archive_sources import (
    COPY_AGAIN,
    ArchiveError,
    ArrayHeader,
    folder_checksum,
)
from sensorium_models.recordings.native_files import (
    Device,
    read_coordinates,
    read_neuron_ids,
)
from sensorium_models.recordings.native_screen import Screen
from sensorium_models.recordings.resampling import (
    Interpolation,
    bridged,
    covered,
    filter_for,
    reach_seconds,
    resample,
)

# Sentences about masked trials that a store keeps: an HDF5 attribute has room for 64 kB.
_SENTENCES_KEPT = 100


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """How the devices of one recording are brought to the frames of its screen.

    Attributes:
        target_hz: frame rate of the store.
        longest_gap_seconds: longest stretch between two valid samples that a line may bridge, and
            longest time for which the screen may hold a frame because it missed refreshes.
        responses, eye_tracker: interpolation where these are slower than the frames (anything
            faster is low-passed). Deconvolved responses are not negative and jump, so straight
            lines suit them; the pupil's position has no such bound.
        eye_tracker_signals: column of `dilation`, `horizontal` and `vertical`; the layout itself
            fixes no order.
        clock_offsets_seconds: by device, to be added to its times to get the screen's.
    """

    target_hz: float = 30.0
    longest_gap_seconds: float = 0.5
    responses: Interpolation = "linear"
    eye_tracker: Interpolation = "band_limited"
    eye_tracker_signals: Mapping[str, int] = field(
        default_factory=lambda: {"dilation": 0, "horizontal": 1, "vertical": 2}
    )
    clock_offsets_seconds: Mapping[str, float] = field(default_factory=dict)


class NativeRecording(Closing):
    """One animal's recording at native rates; offers what `archives.Archive` offers.

    A trial is an entry of the screen that shows a video or an image, in the order of time. One in
    which a frame of any device is masked, or the screen froze, is put into the tier `masked_tier`;
    there, and nowhere else, straight lines cross long gaps, zeros stand where a device has no
    sample at all, and a video ends where it froze.

    Args:
        path: folder with `screen/`, `responses/` and where there is one `eye_tracker/`; `behavior`
            is its dilation and the speed of `treadmill/`, so it needs both.
        masked_tier: None where the study has no such tier: then a masked trial is an error.
        withheld_tiers: their responses are not looked at.

    Raises:
        ArchiveError: a file is missing, damaged or contradicts another one.
    """

    def __init__(
        self,
        path: Path,
        resampling: Resampling | None = None,
        *,
        masked_tier: str | None = "none",
        withheld_tiers: Collection[str] = (),
    ) -> None:
        self.path = Path(path)
        if not is_native(self.path):
            raise ArchiveError(
                f"{self.path}: is no recording at native rates: there is no folder screen/ in it."
                " Correct the path under recordings."
            )
        self.folder = self.path.resolve().name
        self._how = resampling or Resampling()
        self._masked_tier, self._withheld_tiers = masked_tier, set(withheld_tiers)
        self.screen = Screen(self.path / "screen", self._how.longest_gap_seconds)
        pupil, wheel = ((self.path / name).is_dir() for name in ("eye_tracker", "treadmill"))
        used = {"responses": True, "eye_tracker": pupil, "treadmill": pupil and wheel}
        self._devices = {
            name: Device(self.path / name, self._how.clock_offsets_seconds.get(name, 0.0))
            for name in (name for name, there in used.items() if there)
        }
        self._check_devices()
        self.modalities = tuple(self._parts())
        self.frame_shape = self.screen.frame_shape
        self.neuron_ids = read_neuron_ids(self._devices["responses"])
        self.coordinates = read_coordinates(self._devices["responses"])

    @cached_property
    def tiers(self) -> np.ndarray:
        """(trials,) str. The first look checks the samples of every trial, one after the other."""
        tiers = np.array([shown.tier for shown in self.screen.trials])
        if not self.masked:
            return tiers
        if self._masked_tier is None:
            raise ArchiveError(
                f"{next(iter(self.masked.values()))} Give the study a tier of the role unused, into"
                " which such trials go, or raise longest_gap_seconds."
            )
        if len(self.masked) == len(tiers):
            raise ArchiveError(
                f"{next(iter(self.masked.values()))} Every trial is masked so: repair the clock,"
                " or remove the signals that are never valid."
            )
        tiers = tiers.astype(object)
        tiers[list(self.masked)] = self._masked_tier
        return tiers.astype(str)

    @cached_property
    def masked(self) -> dict[int, str]:
        """Trials with masked frames, and for each a sentence that says which and why."""
        found = {}
        for trial in track(range(len(self.screen.trials)), f"gaps of {self.folder}", unit="trial"):
            if freeze := self.screen.freeze(trial):
                found[trial] = f"{self._left_out(trial)}: {freeze}."
                tell(found[trial])
                continue
            at = self._frame_times(trial)
            for name, device in self._devices.items():
                if name == "responses" and self.screen.trials[trial].tier in self._withheld_tiers:
                    continue
                samples, times = device.around(at, self._reach(device))
                used = np.arange(samples.shape[1])
                if name == "eye_tracker":
                    used = np.unique(list(self._how.eye_tracker_signals.values()))
                seen = covered(
                    samples[:, used],
                    times,
                    at,
                    rate_hz=device.rate_hz,
                    longest_gap_seconds=self._how.longest_gap_seconds,
                    shifts=device.shifts[used],
                )
                if not seen.all():
                    found[trial] = self._masked_said(trial, name, at[~seen])
                    tell(found[trial])
                    break
        return found

    @property
    def resampling(self) -> dict[str, str]:
        """What the store says about how its frames were made; its attributes."""
        said = [self._device_said(name) for name in self._devices]
        trials = range(len(self.screen.trials))
        held = sum(self.screen.held_frames(trial, self._how.target_hz) for trial in trials)
        attributes = {
            "resampling": f"to the screen's frames at {self._how.target_hz:g} Hz:"
            f" {'; '.join(said)}; {held} missed refreshes of the screen filled by the frame before;"
            f" gaps of up to {self._how.longest_gap_seconds:g} s interpolated, longer ones masked"
            f" in {len(self.masked)} of {len(trials)} trials"
        }
        if (self.path / "treadmill").is_dir() and "treadmill" not in self._devices:
            attributes["unused_devices"] = "treadmill"
        if self.masked:
            sentences = list(self.masked.values())
            attributes["masked_trials"] = ",".join(map(str, self.masked))
            attributes["masked_because"] = "\n".join(sentences[:_SENTENCES_KEPT])
        return attributes

    @property
    def uncompressed_bytes(self) -> int:
        return sum(self._sizes().values())

    def header(self, modality: str, trial: int) -> ArrayHeader:
        """Shape and dtype of what `read` returns, without its numbers."""
        frames = len(self._frame_times(trial))
        video = modality == "video"
        dtype = self.screen.frames(trial).dtype if video else np.dtype(np.float32)
        return ArrayHeader((*self.leading_shape(modality), frames), dtype, fortran_order=True)

    def first_row(self, modality: str, trial: int) -> tuple[ArrayHeader, np.ndarray | None]:
        """The header; no row, because no trial is padded."""
        return self.header(modality, trial), None

    def read(self, modality: str, trial: int) -> np.ndarray:
        """One array at the store's frame rate, time last: (H, W, T), (N, T) or (2, T).

        Raises:
            ArchiveError: a file is damaged.
        """
        if modality == "video":
            return np.moveaxis(self.screen.video(trial, self._how.target_hz), 0, -1)
        parts = [self._resampled(name, trial, columns) for name, columns in self._parts()[modality]]
        return np.concatenate(parts, axis=1).astype(np.float32).T

    def published_statistics(self, modality: str) -> None:
        """None: a native recording has no publisher's statistics."""

    def leading_shape(self, modality: str) -> tuple[int, ...]:
        """Shape of one frame of a modality: (H, W), (N,) or (2,)."""
        if modality == "video":
            return self.frame_shape
        return (len(self.neuron_ids),) if modality == "responses" else (2,)

    def checksum(self) -> str:
        """SHA-256 over sorted names, sizes and contents of the folder's files."""
        return folder_checksum(self.path, self._sizes())

    def where(self, modality: str, trial: int) -> str:
        """How an error names one array: folder, trial, modality and file."""
        if modality == "video":
            file = self.screen.file(trial)
        else:
            file = self._devices[self._parts()[modality][0][0]].data_file
        entry = self.screen.trials[trial].name
        return f"{self.path}: trial {trial} (entry {entry}), {modality} ({file.name})"

    def close(self) -> None:
        """Nothing stays open between reads of a folder."""

    # Resampling.

    def _parts(self) -> dict[str, list[tuple[str, list[int] | None]]]:
        """By modality the devices that it is made of, and which of their signals."""
        parts: dict[str, list[tuple[str, list[int] | None]]] = {
            "video": [],
            "responses": [("responses", None)],
        }
        if "treadmill" in self._devices:
            parts["behavior"] = [("eye_tracker", self._columns("dilation")), ("treadmill", None)]
        if "eye_tracker" in self._devices:
            parts["pupil_center"] = [("eye_tracker", self._columns("horizontal", "vertical"))]
        return parts

    def _columns(self, *signals: str) -> list[int]:
        return [self._how.eye_tracker_signals[signal] for signal in signals]

    def _resampled(self, name: str, trial: int, columns: list[int] | None) -> np.ndarray:
        device, at = self._devices[name], self._frame_times(trial)
        samples, times = device.around(at, self._reach(device))
        chosen = slice(None) if columns is None else columns
        if len(times) == 0:  # masked, so of no tier that counts
            return np.zeros((len(at), samples[:, chosen].shape[1]))
        result = resample(
            samples[:, chosen],
            times,
            at,
            rate_hz=device.rate_hz,
            target_hz=self._how.target_hz,
            interpolation=self._interpolation(name),
            longest_gap_seconds=self._how.longest_gap_seconds,
            shifts=device.shifts[chosen],
        )
        return bridged(result) if trial in self.masked else result

    def _interpolation(self, name: str) -> Interpolation:
        return self._how.responses if name == "responses" else self._how.eye_tracker

    def _reach(self, device: Device) -> float:
        return reach_seconds(
            device.rate_hz,
            self._how.target_hz,
            self._interpolation(device.name),
            self._how.longest_gap_seconds,
        )

    def _frame_times(self, trial: int) -> np.ndarray:
        return self.screen.frame_times(trial, self._how.target_hz)

    # Sentences.

    def _device_said(self, name: str) -> str:
        device = self._devices[name]
        chosen = filter_for(device.rate_hz, self._how.target_hz, self._interpolation(name))
        if chosen is None:
            return f"{name} from {device.rate_hz:g} Hz along straight lines"
        return (
            f"{name} from {device.rate_hz:g} Hz through a Kaiser-windowed sinc (passes"
            f" {chosen.pass_hz:g} Hz, stops {chosen.stop_hz:g} Hz)"
        )

    def _left_out(self, trial: int) -> str:
        shown = self.screen.trials[trial]
        return (
            f"{self.path}: trial {trial} (entry {shown.name}, tier {shown.tier}) is left out (tier"
            f" {self._masked_tier})"
        )

    def _masked_said(self, trial: int, name: str, missing: np.ndarray) -> str:
        return (
            f"{self._left_out(trial)}: {len(missing)} of its frames, the first at"
            f" {missing[0]:.2f} s, lie in gaps of {name} longer than"
            f" {self._how.longest_gap_seconds:g} s."
        )

    # What the folder says about itself.

    def _check_devices(self) -> None:
        begins, ends = self.screen.timestamps[[0, -1]]
        for device in self._devices.values():
            if device.times[-1] < begins or device.times[0] > ends:
                raise ArchiveError(
                    f"{device.folder}: was recorded from {device.times[0]:.2f} to"
                    f" {device.times[-1]:.2f} s, the screen from {begins:.2f} to {ends:.2f} s: they"
                    " do not overlap. Give both on one clock, or set clock_offsets_seconds."
                )
        if "treadmill" in self._devices and self._devices["treadmill"].data.shape[1] != 1:
            raise ArchiveError(
                f"{self._devices['treadmill'].data_file}: holds"
                f" {self._devices['treadmill'].data.shape[1]} signals; one, the speed, is needed."
            )
        if "eye_tracker" in self._devices:
            device = self._devices["eye_tracker"]
            signals = self._how.eye_tracker_signals
            if max(signals.values()) >= device.data.shape[1]:
                raise ArchiveError(
                    f"{device.data_file}: holds {device.data.shape[1]} signals, but"
                    f" eye_tracker_signals asks for columns {dict(signals)}. Give the columns of"
                    " dilation, horizontal and vertical, counted from 0."
                )

    def _sizes(self) -> dict[str, int]:
        try:
            return {
                file.relative_to(self.path).as_posix(): file.stat().st_size
                for file in self.path.rglob("*")
                if file.is_file() and not file.name.startswith(".")
            }
        except OSError as error:
            raise ArchiveError(f"{self.path}: cannot be read ({error}). {COPY_AGAIN}") from error


def is_native(path: Path) -> bool:
    """Whether a folder is laid out as a recording at native rates."""
    return (Path(path) / "screen").is_dir()
