"""When to keep a state, go back to it, slow down and stop.

A schedule is a pure function of the step and of the objectives that it has seen: no network, no
optimiser, no clock. Here is what all have in common and those that follow the step; `plateau` has
those that follow the objective. Facts: cards of DwiseNeuro (section 4), Dynamic-V1FM (6) and ViV1T
(part B).
"""

import math
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, replace
from typing import Any, Generic, TypeVar

from sensorium_models.recipes import (
    ScheduleFreeSchedule,
    WarmUpConstantCosineSchedule,
    WarmUpCosineSchedule,
)


@dataclass(frozen=True)
class Verdict:
    """What to do after an epoch, in this order: keep the state, go back to the best one, stop."""

    improved: bool
    reload_best: bool
    finished: bool


@dataclass
class Counters:
    """What a schedule remembers: plain numbers."""

    epoch: int = 0
    best: float = -math.inf
    best_epoch: int = 0
    finished: bool = False
    reason: str = ""


C = TypeVar("C", bound=Counters)


class Schedule(ABC, Generic[C]):
    """The learning rate at every step, and a verdict after every epoch."""

    def __init__(self, counters: C) -> None:
        self._counters = counters

    @abstractmethod
    def rate(self, step: int) -> float:
        """Learning rate of the step after `step` steps of the whole training."""

    @abstractmethod
    def _judged(self, objective: float) -> Verdict:
        """The verdict on a finite objective of epoch `self.epoch`."""

    @property
    def epoch(self) -> int:
        """Epochs judged so far."""
        return self._counters.epoch

    @property
    def round(self) -> int:
        """Round of the next epoch, from 1 on."""
        return 1

    @property
    def best(self) -> float:
        """Objective of the state that is kept: the best so far, that before training included."""
        return self._counters.best

    @property
    def best_epoch(self) -> int:
        """Epoch of the state that is kept; 0 is before training."""
        return self._counters.best_epoch

    @property
    def finished(self) -> bool:
        """Whether training is over."""
        return self._counters.finished

    @property
    def reason(self) -> str:
        """Why training is over; empty while it is not."""
        return self._counters.reason

    def begin(self, objective: float) -> None:
        """Take the objective before training as the first best.

        Raises:
            ValueError: it is not finite, so that there is nothing to compare with.
        """
        if not math.isfinite(objective):
            raise ValueError(f"The objective before training is {objective}; it must be finite.")
        self._counters.best = objective

    def judge(self, objective: float) -> Verdict:
        """Count one epoch and say what follows from its objective.

        An objective that is not finite ends training with the state that was kept.
        """
        self._counters.epoch += 1
        if not math.isfinite(objective):
            return self._finish(f"the objective of epoch {self.epoch} was {objective}")
        return self._judged(objective)

    def state(self) -> dict[str, Any]:
        """Everything that `restore` needs, in plain numbers."""
        return asdict(self._counters)

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        self._counters = replace(self._counters, **state)

    def _finish(self, reason: str, *, improved: bool = False) -> Verdict:
        self._counters.finished = True
        self._counters.reason = reason
        return Verdict(improved=improved, reload_best=True, finished=True)


class _FixedLength(Schedule[Counters]):
    """Ends after a number of epochs with the weights of the last one."""

    def __init__(self, epochs: int, *, learning_rate: float, steps_per_epoch: int) -> None:
        super().__init__(Counters())
        self._epochs = epochs
        self._learning_rate = learning_rate
        self._steps_per_epoch = steps_per_epoch

    def _judged(self, objective: float) -> Verdict:
        # Whatever the objective: the last weights are the ones to keep.
        self._counters.best, self._counters.best_epoch = objective, self.epoch
        if self.epoch >= self._epochs:
            return self._finish(f"{self._epochs} epochs were over", improved=True)
        return Verdict(improved=True, reload_best=False, finished=False)


class WarmUpCosine(_FixedLength):
    """Linear from 0, then half a cosine, step by step (DwiseNeuro)."""

    def __init__(
        self, settings: WarmUpCosineSchedule, *, learning_rate: float, steps_per_epoch: int
    ) -> None:
        super().__init__(
            settings.max_epochs, learning_rate=learning_rate, steps_per_epoch=steps_per_epoch
        )
        self._settings = settings

    def rate(self, step: int) -> float:
        warm_up = self._settings.warm_up_epochs * self._steps_per_epoch
        if step < warm_up:
            return self._learning_rate * step / warm_up
        length = self._epochs * self._steps_per_epoch - warm_up
        return _half_cosine(
            self._learning_rate, self._settings.minimum_learning_rate, (step - warm_up) / length
        )


class WarmUpConstantCosine(_FixedLength):
    """Linear over some steps; constant, then half a cosine, epoch by epoch (Dynamic-V1FM)."""

    def __init__(
        self, settings: WarmUpConstantCosineSchedule, *, learning_rate: float, steps_per_epoch: int
    ) -> None:
        super().__init__(
            settings.max_epochs, learning_rate=learning_rate, steps_per_epoch=steps_per_epoch
        )
        self._settings = settings

    def rate(self, step: int) -> float:
        settings = self._settings
        regular, epoch = self._learning_rate, step // self._steps_per_epoch
        if epoch >= settings.constant_epochs:
            part = (epoch - settings.constant_epochs) / (self._epochs - settings.constant_epochs)
            regular = _half_cosine(self._learning_rate, settings.minimum_learning_rate, part)
        if step < settings.warm_up_steps:
            missing = (1 - step / settings.warm_up_steps) * (1 - settings.warm_up_from)
            return regular * (1 - missing)
        return regular


@dataclass
class _PatienceCounters(Counters):
    bad_epochs: int = 0


class ScheduleFree(Schedule[_PatienceCounters]):
    """A constant rate, whose warm-up is the optimiser's; ends when patience does (ViV1T 2025)."""

    def __init__(self, settings: ScheduleFreeSchedule, *, learning_rate: float) -> None:
        super().__init__(_PatienceCounters())
        self._settings = settings
        self._learning_rate = learning_rate

    def rate(self, step: int) -> float:
        return self._learning_rate

    def _judged(self, objective: float) -> Verdict:
        counters, settings = self._counters, self._settings
        improved = objective > counters.best
        if improved:
            counters.best, counters.best_epoch = objective, counters.epoch
            counters.bad_epochs = 0
        else:
            counters.bad_epochs += 1
        if counters.bad_epochs == settings.patience_epochs:
            return self._finish(f"{settings.patience_epochs} epochs gained nothing")
        if counters.epoch >= settings.max_epochs:
            return self._finish(f"{settings.max_epochs} epochs were over", improved=improved)
        return Verdict(improved=improved, reload_best=False, finished=False)


def _half_cosine(start: float, end: float, part: float) -> float:
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * part))
