"""The screen of a recording at native rates: trials, the times of their frames, their pixels.

Layout and sources as in `native_files`.
"""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sensorium_models.recordings.archive_sources import COPY_AGAIN, ArchiveError
from sensorium_models.recordings.native_files import (
    read_array,
    read_meta,
    read_times,
    whole_number,
)
from sensorium_models.recordings.resampling import resample

_SHOWN = ("video", "image")
_NOT_SHOWN = ("blank", "invalid")
# Screens refresh at 59.94 or 60.1 Hz, say, which is 60 Hz here: the frames are counted.
_RATE_TOLERANCE = 0.02
# An image stays until the next entry begins; for longer than any released trial only by accident.
_LONGEST_IMAGE_SECONDS = 20.0


@dataclass(frozen=True)
class Shown:
    """One entry of the screen that is a trial."""

    name: str  # file name without suffix, such as 00012
    kind: str  # video or image
    tier: str
    first: int
    count: int  # frames on file


class Screen:
    """What was shown and when: `timestamps` (frames,) seconds, `trials` in the order of time.

    A frame that stays for up to `longest_gap_seconds` because the screen missed refreshes is
    repeated; a trial in which one stays longer ends there, and `freeze` says so.
    """

    def __init__(self, folder: Path, longest_gap_seconds: float) -> None:
        self.folder = folder
        self._longest_gap_seconds = longest_gap_seconds
        meta = read_meta(folder / "meta.yml")
        if meta.get("modality") != "screen":
            raise ArchiveError(
                f"{folder / 'meta.yml'}: modality is {meta.get('modality')!r}, not 'screen'."
            )
        self.timestamps = read_times(folder / "timestamps.npy")
        self.trials = self._trials()
        if not self.trials:
            raise ArchiveError(f"{folder}: none of its entries is a video or an image.")

    @cached_property
    def frame_shape(self) -> tuple[int, int]:
        """(H, W) of trial 0."""
        frames = self._frames_of(self.trials[0])
        return frames.shape[1], frames.shape[2]

    def file(self, trial: int) -> Path:
        return self.folder / "data" / f"{self.trials[trial].name}.npy"

    def frames(self, trial: int) -> np.ndarray:
        """Frames of a trial as they are on file, (frames, H, W), mapped into memory.

        Raises:
            ArchiveError: the file is missing or damaged, or has another shape than it should.
        """
        frames = self._frames_of(self.trials[trial])
        if frames.shape[1:] != self.frame_shape:
            raise ArchiveError(
                f"{self.file(trial)}: frames are {frames.shape[1:]} pixels, those of trial 0"
                f" {self.frame_shape}. Bring all frames to one size."
            )
        return frames

    def frame_times(self, trial: int, target_hz: float) -> np.ndarray:
        """When the frames of a trial at `target_hz` appeared, (frames,) seconds.

        Raises:
            ArchiveError: the screen's rate is no whole multiple of `target_hz`.
        """
        _, times, ratio = self._slots(trial, target_hz)
        return times[::ratio]

    def video(self, trial: int, target_hz: float) -> np.ndarray:
        """The frames of a trial at `target_hz`, (frames, H, W).

        At the screen's own rate they are those on file; frames that are all shown twice (or more
        often) are taken once. Others are low-passed over time, pixel by pixel, and rounded to whole
        grey levels where the file has whole ones.
        """
        frames = self.frames(trial)
        picks, _, ratio = self._slots(trial, target_hz)
        shown = frames if np.array_equal(picks, np.arange(len(frames))) else frames[picks]
        if ratio == 1:
            return shown
        taken = shown[::ratio]
        if all(
            np.array_equal(shown[i::ratio], taken[: len(shown[i::ratio])]) for i in range(ratio)
        ):
            return taken
        slots = np.arange(len(shown)) / (ratio * target_hz)
        result = resample(
            shown.reshape(len(shown), -1),
            slots,
            slots[::ratio],
            rate_hz=ratio * target_hz,
            target_hz=target_hz,
            interpolation="linear",
            longest_gap_seconds=0.0,
        ).reshape(taken.shape)
        if np.array_equal(np.rint(shown), shown):
            return np.clip(np.rint(result), shown.min(), shown.max()).astype(shown.dtype)
        return result.astype(np.float32)

    def held_frames(self, trial: int, target_hz: float) -> int:
        """Refreshes that the screen missed: the frame before stayed, and is repeated."""
        picks, _, _ = self._slots(trial, target_hz)
        return len(picks) - 1 - int(picks[-1]) if self.trials[trial].kind == "video" else 0

    def freeze(self, trial: int) -> str | None:
        """Where and for how long one frame stayed although it should not have; None if none did."""
        shown = self.trials[trial]
        if shown.kind == "image":
            seconds = self._image_seconds(trial)
            if seconds is None or seconds <= _LONGEST_IMAGE_SECONDS:
                return None
            return (
                f"its image stays for {seconds:.2f} s, longer than the {_LONGEST_IMAGE_SECONDS:g} s"
                " of an image, as if the entry after it were missing"
            )
        times = self._times(trial)
        last = self._frames_before_freeze(times) - 1
        if last == len(times) - 1:
            return None
        return (
            f"the screen stopped for {times[last + 1] - times[last]:.2f} s at its frame {last}"
            f" ({times[last]:.2f} s), longer than {self._longest_gap_seconds:g} s"
        )

    def _times(self, trial: int) -> np.ndarray:
        shown = self.trials[trial]
        return self.timestamps[shown.first : shown.first + shown.count]

    def _image_seconds(self, trial: int) -> float | None:
        first = self.trials[trial].first
        times = self.timestamps[first : first + 2]
        return float(times[1] - times[0]) if len(times) == 2 else None

    def _frames_before_freeze(self, times: np.ndarray) -> int:
        if len(times) == 1:
            return 1
        stays = np.diff(times)
        # Successive refreshes are no gap, however small the limit.
        longest = max(self._longest_gap_seconds, 1.5 * float(np.median(stays))) * (1 + 1e-9)
        frozen = np.flatnonzero(stays > longest)
        return int(frozen[0]) + 1 if len(frozen) else len(times)

    def _slots(self, trial: int, target_hz: float) -> tuple[np.ndarray, np.ndarray, int]:
        """Per refresh of the screen the frame on file and its time; refreshes per new frame."""
        shown, times = self.trials[trial], self._times(trial)
        if shown.kind == "image":
            seconds = min(self._image_seconds(trial) or 1 / target_hz, _LONGEST_IMAGE_SECONDS)
            count = max(1, round(seconds * target_hz))
            return np.zeros(count, dtype=np.int64), times[0] + np.arange(count) / target_hz, 1
        if len(times) == 1:
            return np.zeros(1, dtype=np.int64), times, 1
        period = float(np.median(np.diff(times)))
        ratio = max(round(1 / (period * target_hz)), 1)
        if abs(1 / (period * target_hz * ratio) - 1) > _RATE_TOLERANCE:
            raise ArchiveError(
                f"{self.folder / 'timestamps.npy'}: entry {shown.name} was shown at"
                f" {1 / period:.4g} Hz, which is no whole multiple of {target_hz:g} Hz. Bring the"
                " video to such a rate first."
            )
        times = times[: self._frames_before_freeze(times)]
        steps = np.maximum(np.rint(np.diff(times) / period), 1).astype(np.int64)
        refresh = np.concatenate([[0], np.cumsum(steps)])
        slots = np.arange(refresh[-1] + 1)
        picks = np.searchsorted(refresh, slots, side="right") - 1
        return picks, np.interp(slots, refresh, times), ratio

    def _frames_of(self, shown: Shown) -> np.ndarray:
        file = self.folder / "data" / f"{shown.name}.npy"
        if not file.is_file() and (others := sorted(file.parent.glob(f"{shown.name}.*"))):
            raise ArchiveError(
                f"{others[0]}: is encoded, which is not read. Decode it to {file.name}, grey levels"
                " of shape (frames, H, W)."
            )
        frames = read_array(file, "biuf")
        frames = frames[None] if shown.kind == "image" and frames.ndim == 2 else frames
        if frames.ndim != 3 or len(frames) != shown.count or 0 in frames.shape:
            raise ArchiveError(
                f"{file}: has shape {frames.shape}, but its entry is {shown.kind} with"
                f" {shown.count} frame{'s' * (shown.count > 1)}: ({shown.count}, H, W) grey levels"
                " are needed."
            )
        return frames

    def _trials(self) -> list[Shown]:
        entries = self._entries()
        trials: list[Shown] = []
        end = 0
        for name, (entry, file) in entries.items():
            kind = str(entry.get("modality")).lower()
            if kind not in _SHOWN + _NOT_SHOWN:
                raise ArchiveError(
                    f"{file}: {name}: modality is {entry.get('modality')!r}; known are"
                    f" {', '.join(_SHOWN + _NOT_SHOWN)}."
                )
            first = whole_number(entry, "first_frame_idx", file, least=0)
            # Everything but a video has one time: how long it stays is when the next one begins.
            count = whole_number(entry, "num_frames", file, least=1) if kind == "video" else 1
            if first < end or first + count > len(self.timestamps):
                raise ArchiveError(
                    f"{file}: {name}: frames {first} to {first + count - 1} overlap the entry"
                    f" before or exceed the {len(self.timestamps)} times of timestamps.npy."
                )
            end = first + count
            if kind in _NOT_SHOWN or entry.get("valid_trial") is False:
                continue
            if not isinstance(entry.get("tier"), str):
                raise ArchiveError(f"{file}: {name}: tier is {entry.get('tier')!r}; name a tier.")
            trials.append(Shown(name, kind, entry["tier"], first, count))
        return trials

    def _entries(self) -> dict[str, tuple[dict[str, Any], Path]]:
        """Entries by name, in order, with the file that says so."""
        folder, combined = self.folder / "meta", self.folder / "combined_meta.json"
        names = sorted(f.stem for f in folder.glob("*.yml") if re.fullmatch(r"\d+", f.stem))
        if names:
            return {n: (read_meta(folder / f"{n}.yml"), folder / f"{n}.yml") for n in names}
        if not combined.is_file():
            raise ArchiveError(
                f"{folder}: holds no 00000.yml or the like, and there is no {combined.name}:"
                f" nothing says what was shown. {COPY_AGAIN}"
            )
        content = read_meta(combined)
        for name, entry in content.items():
            if not re.fullmatch(r"\d+", name) or not isinstance(entry, dict):
                raise ArchiveError(f"{combined}: {name!r} is no numbered entry. Write it again.")
        return {name: (content[name], combined) for name in sorted(content)}
