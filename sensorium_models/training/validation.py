"""The objective that picks the best epoch: single-trial correlation on a split's `select` trials.

Definition from specs/metrics.md section 2 (published kit: random clips of the oracle trials, their
last frames only); windows as in lRomul/sensorium, whole trials as in bryanlimy/ViV1T. In float32.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, cast

import numpy as np
import torch

from sensorium_models import inference
from sensorium_models.evaluation.correlation import animal_mean, correlation, pooled
from sensorium_models.evaluation.streaming import JointMoments
from sensorium_models.networks.encoder import Encoder
from sensorium_models.networks.inputs import AnimalInputs, to_device
from sensorium_models.predictions import scored_frames
from sensorium_models.recordings.clips import (
    Clip,
    Places,
    read_clips,
    usable_frames,
    whole_trial,
)
from sensorium_models.recordings.samplers import RandomClips
from sensorium_models.recordings.store import Recording
from sensorium_models.systems import System

Pair = tuple[np.ndarray, np.ndarray]


Scores = dict[str, np.ndarray]


def _not_interrupted() -> None:
    pass


def _only_process(scores: Scores) -> Scores:
    return scores


class Objective(ABC):
    """Mean over neurons, or over animals, of the correlation of rates with single trials.

    Evaluating it changes neither the network nor any random stream but its own. A neuron without a
    response, or with a constant rate, counts as 0.
    """

    mean_over: Literal["neurons", "animals"] = "neurons"
    # Where several processes share the work: the animals of this one, and who collects all scores.
    own: Sequence[str] | None = None
    collect: Callable[[Scores], Scores] = staticmethod(_only_process)

    def __init__(self, encoder: Encoder, *, device: torch.device) -> None:
        self.encoder = encoder
        self.device = device

    def __call__(self, *, interrupt: Callable[[], None] = _not_interrupted) -> float:
        """Evaluate the network as it is now; `interrupt` is called between pieces and may raise."""
        scores = self.by_animal(interrupt=interrupt)
        return animal_mean(scores) if self.mean_over == "animals" else pooled(scores)

    def by_animal(self, *, interrupt: Callable[[], None] = _not_interrupted) -> Scores:
        """Correlation of every neuron, (N,) by animal."""
        scores: Scores = {}
        was_training = self.encoder.training
        self.encoder.eval()
        try:
            with torch.inference_mode():
                for animal in self.animals:
                    if self.own is not None and animal not in self.own:
                        self.pass_over(animal)
                        continue
                    moments = JointMoments.empty(2, self.neurons(animal))
                    for rates, recorded in self.pairs(animal):
                        moments.add(JointMoments.of([rates, recorded]))
                        interrupt()
                    scores[animal] = correlation(moments)
        finally:
            self.encoder.train(was_training)
        collected = self.collect(scores)
        return {animal: collected[animal] for animal in self.animals}

    def pass_over(self, animal: str) -> None:  # noqa: B027  nothing random, nothing to do
        """Leave an animal to another process, and every random stream where it would be."""

    @property
    @abstractmethod
    def animals(self) -> list[str]:
        """Animals with trials that select."""

    @abstractmethod
    def neurons(self, animal: str) -> int:
        """Neurons of an animal."""

    @abstractmethod
    def pairs(self, animal: str) -> Iterator[Pair]:
        """Rates and recorded responses, both (frames, N) in the response unit, piece by piece."""

    def state(self) -> dict[str, Any]:
        """Position of every random stream; empty where nothing is random."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:  # noqa: B027  nothing random, nothing to do
        """Go on where `state` was taken."""

    def recorded(self, clip: Clip) -> torch.Tensor:
        """Recorded responses (B, T, N) of one animal's clip in the response unit."""
        return cast(AnimalInputs, self.encoder.inputs[clip.animal[0]]).responses(clip)


class ClipObjective(Objective):
    """One random clip per trial and evaluation, as in the published kit; the last frames count."""

    def __init__(
        self,
        encoder: Encoder,
        *,
        device: torch.device,
        clips: Mapping[str, RandomClips],
        frames: int,
    ) -> None:
        """`clips` keep the order of the trials; of each, the last `frames` frames are compared."""
        super().__init__(encoder, device=device)
        self._clips = dict(clips)
        self._frames = frames

    @property
    def animals(self) -> list[str]:
        return list(self._clips)

    def neurons(self, animal: str) -> int:
        return self._clips[animal].recording.neurons

    def pairs(self, animal: str) -> Iterator[Pair]:
        clips = self._clips[animal]
        for _ in range(clips.batches_per_epoch):
            batch = clips.next_batch()
            clip = to_device(batch, self.device)
            valid = batch.valid[:, -self._frames :]
            rates = self.encoder(clip)[:, -self._frames :].cpu().numpy()
            recorded = self.recorded(clip)[:, -self._frames :].cpu().numpy()
            yield rates[valid], recorded[valid]

    def pass_over(self, animal: str) -> None:
        for _ in range(self._clips[animal].batches_per_epoch):
            self._clips[animal].next_places()

    def state(self) -> dict[str, Any]:
        return {animal: clips.state() for animal, clips in self._clips.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        for animal, clips in self._clips.items():
            clips.restore(state[animal])


class TrialObjective(Objective):
    """What is judged on listed trials, each read from its start."""

    def __init__(
        self,
        encoder: Encoder,
        *,
        device: torch.device,
        recordings: Mapping[str, Recording],
        trials: Mapping[str, np.ndarray],
        caps: Mapping[str, int | None],
    ) -> None:
        """`caps`: how much of a trial is read at most, by animal."""
        super().__init__(encoder, device=device)
        self._recordings = recordings
        self._trials = trials
        self._caps = caps

    @property
    def animals(self) -> list[str]:
        return list(self._trials)

    def neurons(self, animal: str) -> int:
        return self._recordings[animal].neurons


class WindowObjective(TrialObjective):
    """Windows laid end to end from the start of every trial; the last frames of each count."""

    def __init__(
        self,
        encoder: Encoder,
        *,
        device: torch.device,
        recordings: Mapping[str, Recording],
        trials: Mapping[str, np.ndarray],
        caps: Mapping[str, int | None],
        clip_frames: int,
        frame_step: int,
        windows_per_batch: int,
        frames: int,
    ) -> None:
        """A window is `clip_frames` frames, `frame_step` apart; its last `frames` are compared."""
        super().__init__(encoder, device=device, recordings=recordings, trials=trials, caps=caps)
        self._clip_frames = clip_frames
        self._frame_step = frame_step
        self._windows_per_batch = windows_per_batch
        self._frames = frames

    def pairs(self, animal: str) -> Iterator[Pair]:
        recording = self._recordings[animal]
        span = (self._clip_frames - 1) * self._frame_step + 1
        windows = [
            (trial, start)
            for trial in self._trials[animal].tolist()
            for start in range(
                0, usable_frames(recording, trial, self._caps[animal]) - span + 1, span
            )
        ]
        for first in range(0, len(windows), self._windows_per_batch):
            some = np.asarray(windows[first : first + self._windows_per_batch])
            places = Places(
                animal=(animal,) * len(some),
                trial=some[:, 0],
                start=some[:, 1],
                frames=np.full(len(some), self._clip_frames),
                step=self._frame_step,
            )
            clip = to_device(read_clips({animal: recording}, places), self.device)
            rates = self.encoder(clip)[:, -self._frames :].flatten(0, 1)
            recorded = self.recorded(clip)[:, -self._frames :].flatten(0, 1)
            yield rates.cpu().numpy(), recorded.cpu().numpy()


class WholeTrialObjective(TrialObjective):
    """Every scored frame of every trial."""

    def __init__(
        self,
        encoder: Encoder,
        *,
        device: torch.device,
        system: System,
        recordings: Mapping[str, Recording],
        trials: Mapping[str, np.ndarray],
        caps: Mapping[str, int | None],
        first_frame: int,
        drop_last_frames: int,
    ) -> None:
        """`first_frame` is the first that counts."""
        super().__init__(encoder, device=device, recordings=recordings, trials=trials, caps=caps)
        self._system = system
        self._first_frame = max(first_frame, encoder.history_frames)
        self._drop_last_frames = drop_last_frames

    def pairs(self, animal: str) -> Iterator[Pair]:
        recording, cap = self._recordings[animal], self._caps[animal]
        for trial in self._trials[animal].tolist():
            clip = whole_trial(recording, trial, cap_frames=cap, responses=True)
            kept = scored_frames(
                clip.frame.shape[1],
                first_frame=self._first_frame,
                cap_frames=cap,
                drop_last_frames=self._drop_last_frames,
            )
            rates = inference.predict_trial(
                self.encoder,
                recording,
                trial,
                system=self._system,
                device=self.device,
                cap_frames=cap,
                wanted=kept,
            )
            recorded = self.recorded(clip)[0].cpu().numpy()[kept]
            yield self.converted(animal, (rates, recorded), np.arange(kept.start, kept.stop))

    def converted(self, animal: str, pair: Pair, frames: np.ndarray) -> Pair:
        """Rates and responses in the unit in which they are compared; `frames` of the trial."""
        return pair
