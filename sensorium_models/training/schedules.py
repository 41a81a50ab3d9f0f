"""When to keep a state, go back to it, slow down and stop.

A schedule is a pure function of the objectives it has seen: no network, no optimiser, no clock.
Facts from the card of the factorized baseline, section 8 (published code: neuralpredictors
`early_stopping` together with PyTorch's `ReduceLROnPlateau`).
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

from sensorium_models.recipes import PlateauSchedule

# PyTorch's ReduceLROnPlateau leaves the rate alone where it would change by less than this.
_SMALLEST_DROP = 1e-8


@dataclass(frozen=True)
class Verdict:
    """What to do after an epoch, in this order: keep the state, go back to the best one, stop."""

    improved: bool
    reload_best: bool
    finished: bool


@dataclass
class _Counters:
    epoch: int = 0
    round: int = 1
    bad_epochs: int = 0
    best: float = -math.inf
    best_epoch: int = 0
    learning_rate: float = 0.0
    # The learning rate watches the objective on its own: it has not seen the initial objective,
    # and neither a new round nor a reload resets it.
    rate_best: float = -math.inf
    rate_bad_epochs: int = 0
    finished: bool = False
    reason: str = ""


class PlateauRounds:
    """Early stopping in rounds, with a learning rate that drops on a plateau of its own.

    A round ends after `patience_epochs` epochs in a row without a new best (higher by more than
    `tolerance`); the best state comes back then and the next round begins. The learning rate
    drops when the objective has been bad for MORE than `learning_rate_patience_epochs` epochs.
    With the published patience of 5 for both, a run without improvement after epoch e therefore
    goes back after e+5, e+10, e+15, stops after e+20, and slows down after e+6, e+12, e+18.
    """

    def __init__(self, settings: PlateauSchedule, *, learning_rate: float) -> None:
        self._settings = settings
        self._counters = _Counters(learning_rate=learning_rate)

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next epoch."""
        return self._counters.learning_rate

    @property
    def epoch(self) -> int:
        """Epochs judged so far."""
        return self._counters.epoch

    @property
    def round(self) -> int:
        """Round of the next epoch, from 1 on."""
        return self._counters.round

    @property
    def best(self) -> float:
        """Best objective so far, the one before training included."""
        return self._counters.best

    @property
    def best_epoch(self) -> int:
        """Epoch of the best objective; 0 is before training."""
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

        An objective that is not finite ends training with the best state so far.
        """
        counters, settings = self._counters, self._settings
        counters.epoch += 1
        if not math.isfinite(objective):
            return self._finish(f"the objective of epoch {counters.epoch} was {objective}")
        self._adapt_rate(objective)
        improved = objective > counters.best + settings.tolerance
        if improved:
            counters.best, counters.best_epoch = objective, counters.epoch
            counters.bad_epochs = 0
        else:
            counters.bad_epochs += 1
        out_of_epochs = counters.epoch >= settings.max_epochs
        out_of_patience = counters.bad_epochs >= settings.patience_epochs
        if out_of_epochs:
            return self._finish(f"{settings.max_epochs} epochs were over", improved=improved)
        if out_of_patience and counters.round == settings.rounds:
            return self._finish(f"{settings.rounds} rounds were over")
        if out_of_patience:
            counters.round += 1
            counters.bad_epochs = 0
        return Verdict(improved=improved, reload_best=out_of_patience, finished=False)

    def state(self) -> dict[str, Any]:
        """Everything that `restore` needs, in plain numbers."""
        return asdict(self._counters)

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        self._counters = _Counters(**state)

    def _adapt_rate(self, objective: float) -> None:
        counters, settings = self._counters, self._settings
        if objective > counters.rate_best + settings.tolerance:
            counters.rate_best = objective
            counters.rate_bad_epochs = 0
            return
        counters.rate_bad_epochs += 1
        if counters.rate_bad_epochs <= settings.learning_rate_patience_epochs:
            return
        counters.rate_bad_epochs = 0
        slower = max(
            counters.learning_rate * settings.learning_rate_factor, settings.minimum_learning_rate
        )
        if counters.learning_rate - slower > _SMALLEST_DROP:
            counters.learning_rate = slower

    def _finish(self, reason: str, *, improved: bool = False) -> Verdict:
        self._counters.finished = True
        self._counters.reason = reason
        return Verdict(improved=improved, reload_best=True, finished=True)
