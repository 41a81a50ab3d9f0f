"""Clips for networks: what a batch of raw frames is, and how it is read from recording stores.

`Places` says where the clips of a batch lie (the samplers decide that), `read_clips` reads them:
one contiguous read per clip and modality, straight into the arrays of the batch, which may lie in
memory that is used again and again (`readers.Arena`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from sensorium_models.recordings.store import Recording

# Arrays of a batch begin at multiples of this, as processors and copies to a GPU like them.
ALIGNMENT_BYTES = 64


@dataclass(frozen=True)
class Clip:
    """B clips of T frames, raw values, all of the same length.

    `valid` is False for frames that only fill up a batch (zeros); `frame` counts from the trial's
    start. Where a batch mixes animals, whose neurons differ in number, responses are one array per
    clip. `partner` holds, for CutMix, a second clip of the same animal for every clip: whoever
    mixes takes it out (`dataclasses.replace(clip, partner=None)`).
    """

    video: np.ndarray  # (B, 1, T, H, W) uint8 or float32
    behavior: np.ndarray | None  # (B, T, 2) float32: pupil dilation, running speed
    pupil_center: np.ndarray | None  # (B, T, 2) float32
    responses: Any  # (B, T, N) float32, B arrays (T, N of the animal) where animals mix, or None
    animal: tuple[str, ...]  # B
    trial: np.ndarray  # (B,) int64
    frame: np.ndarray  # (B, T) int64
    valid: np.ndarray  # (B, T) bool
    partner: "Clip | None" = None


@dataclass(frozen=True)
class Places:
    """Where B clips lie: `frames[i]` frames of trial `trial[i]`, `step` apart, from `start[i]` on.

    A clip with fewer frames than the longest of its batch is filled up behind its last frame.
    """

    animal: tuple[str, ...]  # B
    trial: np.ndarray  # (B,) int64
    start: np.ndarray  # (B,) int64
    frames: np.ndarray  # (B,) int64
    step: int = 1
    mixed: bool = False  # responses as one array per clip, even if all are of one animal
    partner: "Places | None" = None

    def at(self, rows: np.ndarray) -> "Places":
        """The clips at `rows`, in that order."""
        return replace(
            self,
            animal=tuple(self.animal[row] for row in rows),
            trial=self.trial[rows],
            start=self.start[rows],
            frames=self.frames[rows],
            partner=None if self.partner is None else self.partner.at(rows),
        )


def joined(parts: Sequence[Places]) -> Places:
    """All clips of `parts`, which agree in step and in having partners."""
    partners = [part.partner for part in parts if part.partner is not None]
    return replace(
        parts[0],
        animal=tuple(animal for part in parts for animal in part.animal),
        trial=np.concatenate([part.trial for part in parts]),
        start=np.concatenate([part.start for part in parts]),
        frames=np.concatenate([part.frames for part in parts]),
        partner=joined(partners) if partners else None,
    )


class Empty(Protocol):
    """Like `numpy.empty`: an array whose values do not matter."""

    def __call__(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray: ...


def read_clips(
    recordings: Mapping[str, Recording],
    places: Places,
    *,
    responses: bool = True,
    empty: Empty = np.empty,
) -> Clip:
    """Read the clips at `places`, one contiguous read per clip and modality.

    Args:
        recordings: the store of every animal in `places`.
        responses: whether to read them; those of withheld trials cannot be.
        empty: where the arrays lie: new memory, or `readers.Arena.empty`.

    Raises:
        WithheldResponsesError: the responses of a trial are withheld.
        StoreError: a trial has no such frames, or its store cannot be read.
        ValueError: the animals of one batch show frames of different size, or differ in modalities.
    """
    clip = empty_clip(recordings, places, responses=responses, empty=empty)
    fill_clip(recordings, places, clip)
    return clip


def empty_clip(
    recordings: Mapping[str, Recording],
    places: Places,
    *,
    responses: bool = True,
    empty: Empty = np.empty,
) -> Clip:
    """A batch for the clips at `places` with all but the recorded values, see `read_clips`."""
    stores = [recordings[animal] for animal in places.animal]
    shown = common_inputs({animal: recordings[animal] for animal in places.animal})
    batch, frames = len(stores), int(places.frames.max())
    float32 = np.dtype(np.float32)
    video = empty((batch, 1, frames, *shown.frame_shape), shown.video_dtype)
    pairs = {
        modality: empty((batch, frames, 2), float32)
        for modality in ("behavior", "pupil_center")
        if modality in shown.modalities
    }
    recorded: Any = None
    if responses and places.mixed:
        recorded = tuple(empty((frames, store.neurons), float32) for store in stores)
    elif responses:
        recorded = empty((batch, frames, stores[0].neurons), float32)
    partner = None
    if places.partner is not None:
        second = replace(places.partner, mixed=places.mixed)
        partner = empty_clip(recordings, second, responses=responses, empty=empty)
    return Clip(
        video=video,
        behavior=pairs.get("behavior"),
        pupil_center=pairs.get("pupil_center"),
        responses=recorded,
        animal=places.animal,
        trial=places.trial,
        frame=places.start[:, np.newaxis] + places.step * np.arange(frames),
        valid=np.arange(frames) < places.frames[:, np.newaxis],
        partner=partner,
    )


def fill_clip(
    recordings: Mapping[str, Recording],
    places: Places,
    clip: Clip,
    *,
    rows: Sequence[int] | None = None,
) -> None:
    """Read the recorded values of `empty_clip` at the same `places`, see `read_clips`.

    `rows`: of which clips (and their partners); None reads all.
    """
    rows = range(len(places.animal)) if rows is None else rows
    for row in rows:
        store = recordings[places.animal[row]]
        _fill(store, "video", places, row, clip.video[row, 0])
        for modality in ("behavior", "pupil_center", "responses"):
            values = getattr(clip, modality)
            if values is not None:
                _fill(store, modality, places, row, values[row])
    if places.partner is not None and clip.partner is not None:
        fill_clip(recordings, places.partner, clip.partner, rows=rows)


def clip_bytes(recording: Recording, frames: int) -> int:
    """Memory that one clip of `frames` frames takes in a `readers.Arena`, at most."""
    # Float32 video, because another animal of the batch may need that.
    elements = math.prod(recording.frame_shape) + 2 + 2 + recording.neurons
    return 4 * frames * elements + 4 * ALIGNMENT_BYTES


@dataclass(frozen=True)
class Inputs:
    """What the clips of several animals have in common."""

    modalities: tuple[str, ...]
    frame_shape: tuple[int, int]
    video_dtype: np.dtype  # float32 unless all are uint8


def common_inputs(recordings: Mapping[str, Recording]) -> Inputs:
    """What one batch of clips of all these animals looks like.

    Raises:
        ValueError: their frames differ in size, or only some have a modality.
    """
    first, *others = recordings.values()
    for other in others:
        for what, one, another in (
            ("frames (height, width)", first.frame_shape, other.frame_shape),
            ("modalities", first.modalities, other.modalities),
        ):
            if one != another:
                raise ValueError(
                    f"Animals {first.animal} and {other.animal} cannot share a batch: their {what}"
                    f" are {one} and {another}. Train them in turn, or leave one out."
                )
    dtype = np.result_type(*(recording.video_dtype for recording in recordings.values()))
    return Inputs(first.modalities, first.frame_shape, dtype)


def whole_trial(
    recording: Recording, trial: int, *, cap_frames: int | None, responses: bool
) -> Clip:
    """One trial from its first frame to its end, at most `cap_frames`, as a batch of one."""
    frames = usable_frames(recording, trial, cap_frames)
    places = Places(
        (recording.animal,), np.array([trial]), np.array([0]), frames=np.array([frames])
    )
    return read_clips({recording.animal: recording}, places, responses=responses)


def usable_frames(recording: Recording, trial: int, cap_frames: int | None) -> int:
    """Valid frames of a trial below the cap (statistics per frame index end there)."""
    frames = int(recording.trials.frames[trial])
    return frames if cap_frames is None else min(frames, cap_frames)


def _fill(store: Recording, modality: str, places: Places, row: int, out: np.ndarray) -> None:
    frames, start = int(places.frames[row]), int(places.start[row])
    stop = start + (frames - 1) * places.step + 1
    trial = int(places.trial[row])
    if modality == "video" and store.video_dtype != out.dtype:
        out[:frames] = store.read(modality, trial, start, stop, step=places.step)
    else:
        store.read(modality, trial, start, stop, step=places.step, out=out[:frames])
    out[frames:] = 0
