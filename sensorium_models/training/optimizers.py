"""The optimiser of a recipe: its groups, what happens to gradients before a step, and clipping.

Groups and rates: the cards' training sections. AutoClip: Seetharaman et al. (2020),
arXiv 2007.14469. Schedule-free AdamW: Defazio et al. (2024), arXiv 2405.15682, package
`schedulefree`.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from schedulefree import AdamWScheduleFree
from torch import Tensor, nn

from sensorium_models.recipes import (
    AutoClipping,
    Clipping,
    NormClipping,
    Optimizer,
    Schedule,
    ScheduleFreeSchedule,
)


def build_optimizer(
    settings: Optimizer, schedule: Schedule, network: nn.Module
) -> torch.optim.Optimizer:
    """The optimiser over all parameters of `network`, one group per part that is set apart.

    A group's `share` is its learning rate as a part of the recipe's, for `set_rate`.
    """
    groups: list[dict[str, Any]] = [
        {"params": [], "weight_decay": settings.weight_decay, "share": 1.0}
    ]
    of_part = {}
    for part, own in settings.parts.items():
        share = own.learning_rate / settings.learning_rate
        of_part[part] = {"params": [], "weight_decay": own.weight_decay, "share": share}
    for name, parameter in network.named_parameters():
        group = of_part.get(name.split(".")[0], groups[0])  # type: ignore[call-overload]
        group["params"].append(parameter)
    groups = [group for group in [*groups, *of_part.values()] if group["params"]]
    common: dict[str, Any] = {
        "lr": settings.learning_rate,
        "betas": settings.betas,
        "eps": settings.epsilon,
    }
    if isinstance(schedule, ScheduleFreeSchedule):
        optimizer: torch.optim.Optimizer = AdamWScheduleFree(
            groups,
            warmup_steps=schedule.warm_up_steps,
            r=schedule.averaging_power,
            weight_lr_power=schedule.averaging_rate_power,
            **common,
        )
        # The weights are those that gradients are taken at; `averages` has those that are judged.
        optimizer.train()  # type: ignore[attr-defined]
        set_rate(optimizer, settings.learning_rate)
        return optimizer
    return torch.optim.AdamW(groups, **common)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its share of the schedule's learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["share"]


def rates(optimizer: torch.optim.Optimizer) -> list[float]:
    """Learning rates of the groups as they are now."""
    return [group.get("scheduled_lr") or group["lr"] for group in optimizer.param_groups]


def trained(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """All parameters that may have a gradient, in the order of the groups."""
    return [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]


def fill_missing_gradients(parameters: Iterable[Tensor]) -> None:
    """A gradient of zero for parameters that the step did not use."""
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)


class Clipper:
    """Shortens gradients that are too long, as the recipe says; remembers the norms it has seen."""

    def __init__(self, settings: Clipping | None) -> None:
        self._settings = settings
        remembered = settings.remembered_steps if isinstance(settings, AutoClipping) else 0
        self._norms: deque[float] = deque(maxlen=remembered)

    def __call__(self, parameters: Iterable[Tensor]) -> float:
        """Clip the gradients of all `parameters` together, in place; returns their norm before."""
        parameters = [parameter for parameter in parameters if parameter.grad is not None]
        total = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        norm = float(total)
        limit = self._limit(norm)
        if limit is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, limit, total)
        return norm

    def _limit(self, norm: float) -> float | None:
        if self._settings is None:
            return None
        if isinstance(self._settings, NormClipping):
            return self._settings.maximum
        assert isinstance(self._settings, AutoClipping)
        # The quantile is that of the steps before: the first step is not clipped.
        limit = None
        if self._norms:
            limit = float(np.quantile(np.asarray(self._norms), self._settings.quantile))
        if np.isfinite(norm):  # a step that mixed precision will skip teaches nothing
            self._norms.append(norm)
        return limit

    def state(self) -> dict[str, Any]:
        """The norms seen so far."""
        return {"norms": torch.tensor(list(self._norms), dtype=torch.float64)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken."""
        self._norms.clear()
        self._norms.extend(state["norms"].tolist())
