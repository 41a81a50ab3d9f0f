"""Which clips of an animal a network learns from, in a reproducible order, for every recipe.

A sampler says where the clips of its next batch lie and how many batches make an epoch. Everything
random is a function of seed, animal, number of the pass (or epoch) and slot within it, so that a
position in the data is a few integers. `several_animals` puts animals together. Recipes: the model
cards' sampling sections (released kit; lRomul/sensorium; zhuyu-cs/Dynamic-VFM; bryanlimy/ViV1T and
ViV1T-closed-loop).
"""

import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sensorium_models.recordings.clips import (
    Clip,
    Places,
    clip_bytes,
    read_clips,
    usable_frames,
)
from sensorium_models.recordings.store import Recording


class Sampler(ABC):
    """An endless sequence of batches, epoch after epoch, with a position to save and restore."""

    recordings: Mapping[str, Recording]

    @property
    @abstractmethod
    def batches_per_epoch(self) -> int:
        """Batches until everything has been visited as often as the recipe says."""

    @property
    @abstractmethod
    def batch_bytes(self) -> int:
        """Memory that the arrays of any batch take in an `Arena`, at most."""

    @abstractmethod
    def next_places(self) -> Places:
        """Where the next batch lies; after the last one of an epoch a new epoch begins."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """The position, as plain numbers; `restore` continues from it exactly."""

    @abstractmethod
    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken.

        Raises:
            ValueError: the state is that of other trials, animals or settings.
        """

    def next_batch(self) -> Clip:
        """The next batch, read into new memory."""
        return read_clips(self.recordings, self.next_places())


class AnimalSampler(Sampler):
    """Batches of one animal from its own stream of random numbers, in passes of equal length.

    Subclasses draw all visits of a pass at once; a batch takes the next `batch_size` of them, the
    last batch of a pass what is left.
    """

    def __init__(
        self,
        *,
        recording: Recording,
        trials: Sequence[int] | np.ndarray,
        least_frames: int,
        visits_per_pass: int | None,
        batch_size: int,
        cap_frames: int | None,
        seed: int,
    ) -> None:
        """Subclasses end theirs with `self._begin(0)`.

        Args:
            trials: indices of the trials to draw from.
            least_frames: usable frames that every trial must have.
            visits_per_pass: None means one visit of every trial.
            batch_size: clips per batch.
            cap_frames: frames beyond this index are never used; None uses all.
            seed: of the whole training; the animal's name makes its own stream of it.
        """
        self.recording = recording
        self.recordings = {recording.animal: recording}
        self._trials = np.asarray(trials, dtype=np.int64)
        if self._trials.ndim != 1 or len(self._trials) == 0:
            raise ValueError(
                f"There is no trial of animal {recording.animal} to draw clips from. Check the"
                " split."
            )
        self.visits_per_pass = len(self._trials) if visits_per_pass is None else visits_per_pass
        if min(least_frames, batch_size, self.visits_per_pass) < 1 or seed < 0:
            raise ValueError(
                "Clips need at least one frame, one clip per batch and one per epoch, and a seed"
                f" from 0 on, not {least_frames} frames, batch_size={batch_size},"
                f" {self.visits_per_pass} clips per epoch, seed={seed}."
            )
        if (outside := (self._trials < 0) | (self._trials >= len(recording.trials))).any():
            raise ValueError(
                f"Animal {recording.animal} has trials 0 to {len(recording.trials) - 1}, not trial"
                f" {self._trials[outside][0]}. The split is that of another recording: make it"
                " again."
            )
        # How many frames of each trial may be used.
        self._frames = np.asarray([usable_frames(recording, t, cap_frames) for t in self._trials])
        if (short := np.flatnonzero(self._frames < least_frames)).size:
            raise ValueError(
                f"Trial {self._trials[short[0]]} of animal {recording.animal} has"
                f" {self._frames[short[0]]} usable frames, fewer than a clip of {least_frames}. Use"
                " shorter clips or leave the trial out of the split."
            )
        self._batch_size = batch_size
        self._stream = (seed, zlib.crc32(recording.animal.encode()))
        self._pass = self._position = 0

    @abstractmethod
    def visits(self, number: int) -> Places:
        """All clips of pass `number`, in the order in which they are visited."""

    @property
    @abstractmethod
    def clip_bytes(self) -> int:
        """Memory of one clip with its partner, at most."""

    @property
    def batches_per_epoch(self) -> int:
        return -(-self.visits_per_pass // self._batch_size)

    @property
    def batch_bytes(self) -> int:
        return self.clip_bytes * min(self._batch_size, self.visits_per_pass)

    def next_places(self) -> Places:
        if self._position == self.visits_per_pass:
            self._begin(self._pass + 1)
        stop = min(self._position + self._batch_size, self.visits_per_pass)
        places = self._visits.at(np.arange(self._position, stop))
        self._position = stop
        return places

    def restart(self) -> None:
        """Begin a new pass, unless one has just begun."""
        if self._position:
            self._begin(self._pass + 1)

    def state(self) -> dict[str, int]:
        return {"pass": self._pass, "position": self._position}

    def restore(self, state: Mapping[str, Any]) -> None:
        number, position = integers(state, "pass", "position")
        if not 0 <= position <= self.visits_per_pass:
            raise ValueError(
                f"Position {position} lies outside the {self.visits_per_pass} clips that animal"
                f" {self.recording.animal} gives per pass: the saved state is that of another"
                " split. Train anew."
            )
        self._begin(number)
        self._position = position

    def _begin(self, number: int) -> None:
        self._visits = self.visits(number)
        self._pass = number
        self._position = 0

    def _random(self, *numbers: int) -> np.random.Generator:
        return np.random.default_rng([*self._stream, *numbers])

    def _places(
        self, trial: np.ndarray, start: np.ndarray, frames: np.ndarray | int, **more: Any
    ) -> Places:
        frames = np.broadcast_to(np.asarray(frames, dtype=np.int64), trial.shape)
        return Places((self.recording.animal,) * len(trial), trial, start, frames, **more)


class RandomClips(AnimalSampler):
    """Batches of random clips of one animal: every trial once per pass, one new clip per visit.

    The start of a clip is drawn from 0 .. T - clip_frames - 1: the last possible one is never used,
    as in the released kit, except where it is the only one. `sequential` visits the trials in the
    given order (starts stay random). For the other arguments see `AnimalSampler`.
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
        super().__init__(
            recording=recording,
            trials=trials,
            least_frames=clip_frames,
            visits_per_pass=None,
            batch_size=batch_size,
            cap_frames=cap_frames,
            seed=seed,
        )
        self._clip_frames = clip_frames
        self._sequential = sequential
        self._begin(0)

    @property
    def clip_bytes(self) -> int:
        return clip_bytes(self.recording, self._clip_frames)

    def visits(self, number: int) -> Places:
        random = self._random(number)
        order = random.permutation(len(self._trials))
        starts = random.integers(0, np.maximum(self._frames - self._clip_frames, 1))
        if self._sequential:
            order = np.arange(len(order))
        return self._places(self._trials[order], starts[order], self._clip_frames)


class WholeTrials(AnimalSampler):
    """Batches of whole trials of one animal, each once per pass (2025 ViV1T: at most 300 frames).

    Trials of one batch that differ in length are filled up, see `Clip.valid`. `sequential` visits
    them in the given order. For the other arguments see `AnimalSampler`.
    """

    def __init__(
        self,
        *,
        recording: Recording,
        trials: Sequence[int] | np.ndarray,
        batch_size: int,
        cap_frames: int | None,
        seed: int,
        sequential: bool = False,
    ) -> None:
        super().__init__(
            recording=recording,
            trials=trials,
            least_frames=1,
            visits_per_pass=None,
            batch_size=batch_size,
            cap_frames=cap_frames,
            seed=seed,
        )
        self._sequential = sequential
        self._begin(0)

    @property
    def clip_bytes(self) -> int:
        return clip_bytes(self.recording, int(self._frames.max()))

    def visits(self, number: int) -> Places:
        order = self._random(number).permutation(len(self._trials))
        if self._sequential:
            order = np.arange(len(order))
        return self._places(self._trials[order], np.zeros_like(order), self._frames[order])


class StackedClips(AnimalSampler):
    """DwiseNeuro's stacks of one animal: few frames, some steps apart, up to an anchor frame.

    The trial is uniform over the trials, the anchor uniform over the frames of the trial that have
    the whole stack behind them: with 16 frames and step 2 from 30 to the last, and the frames are
    anchor - 30, anchor - 28, ..., anchor. With `partner` each comes with a second one, drawn
    independently in the same way from a stream of its own.
    """

    def __init__(
        self,
        *,
        recording: Recording,
        trials: Sequence[int] | np.ndarray,
        clip_frames: int,
        step: int,
        clips_per_pass: int,
        batch_size: int,
        cap_frames: int | None,
        seed: int,
        partner: bool = False,
    ) -> None:
        if step < 1:
            raise ValueError(f"Frames of a stack lie at least one frame apart, not step={step}.")
        self._span = (clip_frames - 1) * step + 1
        super().__init__(
            recording=recording,
            trials=trials,
            least_frames=self._span,
            visits_per_pass=clips_per_pass,
            batch_size=batch_size,
            cap_frames=cap_frames,
            seed=seed,
        )
        self._clip_frames = clip_frames
        self._step = step
        self._partner = partner
        self._begin(0)

    @property
    def clip_bytes(self) -> int:
        return clip_bytes(self.recording, self._clip_frames) * (2 if self._partner else 1)

    def visits(self, number: int) -> Places:
        own, other = (self._drawn(self._random(number, stream)) for stream in (0, 1))
        return replace(own, partner=other) if self._partner else own

    def _drawn(self, random: np.random.Generator) -> Places:
        chosen = random.integers(0, len(self._trials), size=self.visits_per_pass)
        starts = random.integers(0, self._frames[chosen] - self._span + 1)
        return self._places(self._trials[chosen], starts, self._clip_frames, step=self._step)


def integers(state: Mapping[str, Any], *keys: str) -> list[int]:
    """The numbers of a saved position.

    Raises:
        ValueError: they are missing, not whole or negative.
    """
    numbers = [state.get(key) for key in keys]
    if not all(isinstance(number, int) and number >= 0 for number in numbers):
        raise ValueError(
            f"A saved position has {', '.join(keys)} as numbers from 0 on, but this one is"
            f" {dict(state)}: it is of another kind of sampling. Train anew."
        )
    return numbers  # type: ignore[return-value]
