"""Output nonlinearities: from a readout's unbounded drive to a non-negative rate.

One class per value of a system's `output:`. `initial_bias` says where a readout's bias starts,
given each neuron's mean response.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

# Smallest mean response whose logarithm still makes a sensible starting bias for a silent neuron.
_SMALLEST_RATE = 1e-3


class EluPlusOne(nn.Module):
    """rate = ELU(drive) + 1 (alpha 1), as the baselines have it."""

    def forward(self, drive: Tensor) -> Tensor:
        return functional.elu(drive) + 1

    def initial_bias(self, rates: Tensor) -> Tensor:
        """The mean response itself, as published (so rates start about one unit too high)."""
        return rates


class Softplus(nn.Module):
    """rate = ln(1 + exp(drive))."""

    def forward(self, drive: Tensor) -> Tensor:
        return functional.softplus(drive)

    def initial_bias(self, rates: Tensor) -> Tensor:
        """The drive whose rate is the mean response."""
        rates = rates.clamp(min=_SMALLEST_RATE)
        return rates + torch.log(-torch.expm1(-rates))


class Exponential(nn.Module):
    """rate = exp(drive), continued by its tangent above `ceiling`.

    With a linear readout this is, per neuron, the fitted function rate = gain * exp(slope * u) of
    the response u of a filter of unit length: gain = exp(bias), and slope is the length of the
    learned filter. The tangent, exp(ceiling) * (1 + drive - ceiling), keeps a rare extreme stimulus
    from overflowing, and keeps its gradient.
    """

    ceiling = 8.0  # rates up to e^8, about 3,000 response units, are exponential

    def forward(self, drive: Tensor) -> Tensor:
        below = drive.clamp(max=self.ceiling)
        return torch.exp(below) * (1 + (drive - below))

    def initial_bias(self, rates: Tensor) -> Tensor:
        """The drive whose rate is the mean response."""
        return torch.log(rates.clamp(min=_SMALLEST_RATE))


OUTPUTS: dict[str, type[EluPlusOne] | type[Softplus] | type[Exponential]] = {
    "elu_plus_one": EluPlusOne,
    "softplus": Softplus,
    "exponential": Exponential,
}
