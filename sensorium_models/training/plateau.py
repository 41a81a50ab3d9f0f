"""Schedules that follow the objective: the baselines' rounds and ViV1T's reloads.

Facts: card of the factorized baseline, section 8 (neuralpredictors `early_stopping` together with
PyTorch's `ReduceLROnPlateau`); card of ViV1T, section A6 (bryanlimy/ViV1T, `scheduler.py`).
"""

import math
from dataclasses import dataclass

from sensorium_models import recipes
from sensorium_models.recipes import PlateauReloadSchedule, PlateauSchedule
from sensorium_models.training.schedules import (
    Counters,
    Schedule,
    ScheduleFree,
    Verdict,
    WarmUpConstantCosine,
    WarmUpCosine,
)

# PyTorch's ReduceLROnPlateau leaves the rate alone where it would change by less than this.
_SMALLEST_DROP = 1e-8


@dataclass
class _RoundCounters(Counters):
    round: int = 1
    bad_epochs: int = 0
    learning_rate: float = 0.0
    # The learning rate watches the objective on its own: it has not seen the initial objective,
    # and neither a new round nor a reload resets it.
    rate_best: float = -math.inf
    rate_bad_epochs: int = 0


class PlateauRounds(Schedule[_RoundCounters]):
    """Early stopping in rounds, with a learning rate that drops on a plateau of its own.

    A round ends after `patience_epochs` epochs in a row without a new best (higher by more than
    `tolerance`); the best state comes back then and the next round begins. The learning rate
    drops when the objective has been bad for MORE than `learning_rate_patience_epochs` epochs.
    With the published patience of 5 for both, a run without improvement after epoch e therefore
    goes back after e+5, e+10, e+15, stops after e+20, and slows down after e+6, e+12, e+18.
    """

    def __init__(self, settings: PlateauSchedule, *, learning_rate: float) -> None:
        super().__init__(_RoundCounters(learning_rate=learning_rate))
        self._settings = settings

    def rate(self, step: int) -> float:
        return self._counters.learning_rate

    @property
    def round(self) -> int:
        return self._counters.round

    def _judged(self, objective: float) -> Verdict:
        counters, settings = self._counters, self._settings
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


@dataclass
class _ReloadCounters(Counters):
    bad_epochs: int = 0
    reductions: int = 0
    learning_rate: float = 0.0


class PlateauReload(Schedule[_ReloadCounters]):
    """The best weights come back, slower, after so many epochs in a row without a new best.

    After `learning_rate_reductions` of them without a new best in between, training ends instead.
    The published code compares with 0 before the first epoch and has nothing to go back to until
    an epoch beats that.
    """

    def __init__(self, settings: PlateauReloadSchedule, *, learning_rate: float) -> None:
        super().__init__(_ReloadCounters(learning_rate=learning_rate))
        self._settings = settings

    def rate(self, step: int) -> float:
        return self._counters.learning_rate

    def begin(self, objective: float) -> None:
        super().begin(objective)
        self._counters.best = 0.0

    def _judged(self, objective: float) -> Verdict:
        counters, settings = self._counters, self._settings
        improved = objective > counters.best
        reload_best = False
        if improved:
            counters.best, counters.best_epoch = objective, counters.epoch
            counters.bad_epochs = counters.reductions = 0
        elif round(objective, 2) <= 0 and counters.best >= settings.collapsed_below:
            reload_best = True
        else:
            counters.bad_epochs += 1
            if counters.bad_epochs == settings.patience_epochs:
                if counters.reductions == settings.learning_rate_reductions:
                    return self._finish(f"{counters.reductions} slower starts gained nothing")
                counters.reductions += 1
                counters.bad_epochs = 0
                slower = counters.learning_rate * settings.learning_rate_factor
                counters.learning_rate = max(slower, settings.minimum_learning_rate)
                reload_best = True
        if counters.epoch >= settings.max_epochs:
            return self._finish(f"{settings.max_epochs} epochs were over", improved=improved)
        return Verdict(improved, reload_best and counters.best_epoch > 0, finished=False)


def make_schedule(
    settings: recipes.Schedule, *, learning_rate: float, steps_per_epoch: int
) -> Schedule:
    """The schedule of a recipe, for its learning rate."""
    match settings:
        case recipes.PlateauSchedule():
            return PlateauRounds(settings, learning_rate=learning_rate)
        case recipes.PlateauReloadSchedule():
            return PlateauReload(settings, learning_rate=learning_rate)
        case recipes.WarmUpCosineSchedule():
            return WarmUpCosine(
                settings, learning_rate=learning_rate, steps_per_epoch=steps_per_epoch
            )
        case recipes.WarmUpConstantCosineSchedule():
            return WarmUpConstantCosine(
                settings, learning_rate=learning_rate, steps_per_epoch=steps_per_epoch
            )
        case recipes.ScheduleFreeSchedule():
            return ScheduleFree(settings, learning_rate=learning_rate)
