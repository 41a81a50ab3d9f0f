"""Clips for networks: batches of raw frames cut from recording stores, in a reproducible order.

Sampling follows the released kit: every trial once per pass in shuffled order, a random start at
each visit, animals in turn. All randomness is a function of seed, animal and number of the pass, so
that a position in the data is two integers.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sensorium_models.recordings.store import Recording


@dataclass(frozen=True)
class Clip:
    """B clips of T frames, raw values, all of the same length.

    `valid` is False for frames that only fill up a batch; `frame` counts from the trial's start.
    """

    video: np.ndarray  # (B, 1, T, H, W) uint8 or float32
    behavior: np.ndarray | None  # (B, T, 2) float32: pupil dilation, running speed
    pupil_center: np.ndarray | None  # (B, T, 2) float32
    responses: np.ndarray | None  # (B, T, N) float32
    animal: tuple[str, ...]  # B
    trial: np.ndarray  # (B,) int64
    frame: np.ndarray  # (B, T) int64
    valid: np.ndarray  # (B, T) bool


def whole_trial(
    recording: Recording, trial: int, *, cap_frames: int | None, responses: bool
) -> Clip:
    """One trial from its first frame to its end, at most `cap_frames`, as a batch of one."""
    frames = usable_frames(recording, trial, cap_frames)
    return _read(recording, [trial], [0], frames, responses=responses)


def usable_frames(recording: Recording, trial: int, cap_frames: int | None) -> int:
    """Valid frames of a trial below the cap (statistics per frame index end there)."""
    frames = int(recording.trials.frames[trial])
    return frames if cap_frames is None else min(frames, cap_frames)


class RandomClips:
    """Batches of random clips of one animal: every trial once per pass, one new clip per visit.

    Args:
        trials: indices of the trials to draw from.
        clip_frames: length of every clip.
        batch_size: clips per batch, from distinct trials; the last batch of a pass may be smaller.
        cap_frames: frames beyond this index are never used; None uses all.
        seed: of the whole training; the animal's name makes its own stream of it.
        sequential: visit the trials in the given order (starts stay random).

    The start of a clip is drawn from 0 .. T - clip_frames - 1: the last possible one is never used,
    as in the released kit, except where it is the only one.
    """

    def __init__(
        self,
        *,
        recording: Recording,
        trials: Sequence[int] | np.ndarray,
        clip_frames: int,
        batch_size: int,
        cap_frames: int | None,
        seed: int,
        sequential: bool = False,
    ) -> None:
        self.recording = recording
        self._trials = np.asarray(trials, dtype=np.int64)
        if clip_frames < 1 or batch_size < 1 or seed < 0:
            raise ValueError(
                f"Clips need at least one frame and one clip per batch and a seed from 0 on, not"
                f" clip_frames={clip_frames}, batch_size={batch_size}, seed={seed}."
            )
        if self._trials.ndim != 1 or len(self._trials) == 0:
            raise ValueError(
                f"There is no trial of animal {recording.animal} to draw clips from. Check the"
                " split."
            )
        frames = np.asarray([usable_frames(recording, t, cap_frames) for t in self._trials])
        if (short := np.flatnonzero(frames < clip_frames)).size:
            raise ValueError(
                f"Trial {self._trials[short[0]]} of animal {recording.animal} has"
                f" {frames[short[0]]} usable frames, fewer than a clip of {clip_frames}. Use"
                " shorter clips or leave the trial out of the split."
            )
        self._starts_below = np.maximum(frames - clip_frames, 1)
        self._clip_frames = clip_frames
        self._batch_size = batch_size
        self._stream = (seed, zlib.crc32(recording.animal.encode()))
        self._sequential = sequential
        self._begin(0)

    @property
    def batches_per_pass(self) -> int:
        return -(-len(self._trials) // self._batch_size)

    def next_batch(self) -> Clip:
        """The next batch; after the last one of a pass a new pass begins."""
        if self._position == len(self._trials):
            self._begin(self._pass + 1)
        visits = self._order[self._position : self._position + self._batch_size]
        clip = _read(
            self.recording,
            self._trials[visits],
            self._starts[visits],
            self._clip_frames,
            responses=True,
        )
        self._position += len(visits)
        return clip

    def restart(self) -> None:
        """Begin a new pass, unless one has just begun."""
        if self._position:
            self._begin(self._pass + 1)

    def state(self) -> dict[str, int]:
        """The position, as plain numbers; `restore` continues from it exactly."""
        return {"pass": self._pass, "position": self._position}

    def restore(self, state: Mapping[str, int]) -> None:
        position = int(state["position"])
        if not 0 <= position <= len(self._trials):
            raise ValueError(
                f"Position {position} lies outside the {len(self._trials)} trials of animal"
                f" {self.recording.animal}: the saved state is that of another split. Train anew."
            )
        self._begin(int(state["pass"]))
        self._position = position

    def _begin(self, number: int) -> None:
        random = np.random.default_rng([*self._stream, number])
        order = random.permutation(len(self._trials))
        self._order = np.arange(len(order)) if self._sequential else order
        self._starts = random.integers(0, self._starts_below)
        self._pass = number
        self._position = 0


class AnimalCycle:
    """Batches of several animals in turn, as many rounds per epoch as the largest animal needs.

    Smaller animals begin further passes within the epoch; every epoch begins all animals anew, as
    the released kit's long cycle does.
    """

    def __init__(self, clips: Mapping[str, RandomClips]) -> None:
        if not clips:
            raise ValueError("Training needs at least one animal. Check the split.")
        self._clips = dict(clips)
        self._batch = 0  # within the epoch

    @property
    def animals(self) -> tuple[str, ...]:
        return tuple(self._clips)

    @property
    def rounds_per_epoch(self) -> int:
        return max(clips.batches_per_pass for clips in self._clips.values())

    @property
    def batches_per_epoch(self) -> int:
        return self.rounds_per_epoch * len(self._clips)

    def next_batch(self) -> Clip:
        if self._batch == self.batches_per_epoch:
            self._batch = 0
            for clips in self._clips.values():
                clips.restart()
        animal = self.animals[self._batch % len(self._clips)]
        self._batch += 1
        return self._clips[animal].next_batch()

    def state(self) -> dict[str, Any]:
        return {
            "batch": self._batch,
            "animals": {animal: clips.state() for animal, clips in self._clips.items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        saved = state["animals"]
        if list(saved) != list(self._clips) or not 0 <= state["batch"] <= self.batches_per_epoch:
            raise ValueError(
                f"The saved position is of animals {', '.join(saved)}, but this training is of"
                f" {', '.join(self._clips)} with {self.batches_per_epoch} batches. Train anew."
            )
        self._batch = int(state["batch"])
        for animal, clips in self._clips.items():
            clips.restore(saved[animal])


def _read(
    recording: Recording,
    trials: Sequence[int] | np.ndarray,
    starts: Sequence[int] | np.ndarray,
    frames: int,
    *,
    responses: bool,
) -> Clip:
    """Clips of `frames` frames, one per trial, read straight into the arrays of the batch."""
    batch = len(trials)
    shapes: dict[str, tuple[int, ...]] = {"video": recording.frame_shape}
    for modality in ("behavior", "pupil_center"):
        if modality in recording.modalities:
            shapes[modality] = (2,)
    if responses:
        shapes["responses"] = (recording.neurons,)
    arrays = {}
    for modality, shape in shapes.items():
        dtype = recording.video_dtype if modality == "video" else np.dtype(np.float32)
        arrays[modality] = values = np.empty((batch, frames, *shape), dtype=dtype)
        for row, (trial, start) in enumerate(zip(trials, starts, strict=True)):
            recording.read(modality, int(trial), int(start), int(start) + frames, out=values[row])
    return Clip(
        video=arrays["video"][:, np.newaxis],
        behavior=arrays.get("behavior"),
        pupil_center=arrays.get("pupil_center"),
        responses=arrays.get("responses"),
        animal=(recording.animal,) * batch,
        trial=np.asarray(trials, dtype=np.int64),
        frame=np.asarray(starts, dtype=np.int64)[:, np.newaxis] + np.arange(frames),
        valid=np.ones((batch, frames), dtype=bool),
    )
