"""Weights that are not those trained on: a moving average, or the mean that schedule-free keeps.

They are judged, kept and predict; training goes on with its own. Moving average: card of
DwiseNeuro, section 4. Schedule-free: Defazio et al. (2024), arXiv 2405.15682.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from schedulefree import AdamWScheduleFree
from torch import Tensor, nn

Weights = dict[str, Tensor]


class MovingAverage:
    """decay * average + (1 - decay) * weights after every step, from the first weights on.

    Over all entries of the state dict, batch statistics included; the mean of integer counters is
    cut to an integer, as in the published code.
    """

    def __init__(self, network: nn.Module, *, decay: float) -> None:
        self._network = network
        self._decay = decay
        self.weights: Weights = copied(network)

    @torch.no_grad()
    def update(self) -> None:
        """Take the network's weights as they are now into the mean."""
        for name, values in self._network.state_dict().items():
            mean = self.weights[name]
            mean.copy_(self._decay * mean + (1 - self._decay) * values)

    def restore(self, weights: Mapping[str, Tensor]) -> None:
        """Go on from these averages."""
        for name, values in weights.items():
            self.weights[name].copy_(values)


def copied(network: nn.Module, device: torch.device | str | None = None) -> Weights:
    """A copy of all weights and buffers, on `device` or where they are."""
    return {
        name: values.detach().to(device or values.device, copy=True)
        for name, values in network.state_dict().items()
    }


@contextmanager
def judged(
    network: nn.Module, optimizer: torch.optim.Optimizer, average: MovingAverage | None
) -> Iterator[None]:
    """Put the weights to be judged into `network`, and bring the trained ones back bit for bit."""
    if average is not None:
        other: Weights | None = average.weights
    elif isinstance(optimizer, AdamWScheduleFree):
        other = _schedule_free_mean(network, optimizer)
    else:
        other = None
    if other is None:
        yield
        return
    own = copied(network)
    network.load_state_dict(other)
    try:
        yield
    finally:
        network.load_state_dict(own)


@torch.no_grad()
def _schedule_free_mean(network: nn.Module, optimizer: AdamWScheduleFree) -> Weights:
    # The package's eval() and train() move the weights there and back, which rounds.
    weights = copied(network)
    names: dict[Any, str] = {p: name for name, p in network.named_parameters()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            memory = optimizer.state.get(parameter, {})
            if "z" in memory:
                # Gradients are taken between the mean and z, beta1 of the way from z.
                part = 1 - 1 / group["betas"][0]
                weights[names[parameter]] = torch.lerp(parameter, memory["z"], part)
    return weights
