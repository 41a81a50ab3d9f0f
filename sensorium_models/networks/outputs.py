"""Output nonlinearities: from a readout's unbounded drive to a non-negative rate.

One class per value of a system's `output:`; its keywords are the `output_settings:`. `initial_bias`
says where a readout's bias starts, given each neuron's mean response.
"""

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

# Smallest mean response whose logarithm still makes a sensible starting bias for a silent neuron.
_SMALLEST_RATE = 1e-3


class Output(nn.Module, ABC):
    """An output nonlinearity: drive of any shape to rates, and where a readout's bias starts."""

    @abstractmethod
    def initial_bias(self, rates: Tensor) -> Tensor:
        """Starting bias (N,) from each neuron's mean response (N,)."""


class EluPlusOne(Output):
    """rate = ELU(drive) + 1 (alpha 1), as the baselines have it."""

    def forward(self, drive: Tensor) -> Tensor:
        return functional.elu(drive) + 1

    def initial_bias(self, rates: Tensor) -> Tensor:
        """The mean response itself, as published (so rates start about one unit too high)."""
        return rates


class Softplus(Output):
    """rate = ln(1 + exp(beta * drive)) / beta, and the drive itself where beta * drive > threshold.

    The defaults are PyTorch's.
    """

    def __init__(self, *, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        if not (beta > 0 and threshold > 0):
            raise ValueError(f"beta and threshold must be above 0, not {beta!r} and {threshold!r}")
        self.beta = beta
        self.threshold = threshold

    def forward(self, drive: Tensor) -> Tensor:
        return functional.softplus(drive, self.beta, self.threshold)

    def initial_bias(self, rates: Tensor) -> Tensor:
        """The drive whose rate is the mean response."""
        rates = rates.clamp(min=_SMALLEST_RATE)
        return rates + torch.log(-torch.expm1(-self.beta * rates)) / self.beta


class Exponential(Output):
    """rate = exp(drive), continued by its tangent above `ceiling` (nowhere if None).

    With a linear readout this is, per neuron, the fitted function rate = gain * exp(slope * u) of
    the response u of a filter of unit length: gain = exp(bias), and slope is the length of the
    learned filter. The tangent, exp(ceiling) * (1 + drive - ceiling), keeps a rare extreme stimulus
    from overflowing, and keeps its gradient. By default rates up to e^8, about 3,000 response
    units, are exponential.

    `bias_starts_at: mean_response` starts the bias at the mean response itself, as ViV1T does (its
    rates start at exp of the mean); `drive` at the drive whose rate is the mean response.
    """

    def __init__(
        self,
        *,
        ceiling: float | None = 8.0,
        bias_starts_at: Literal["drive", "mean_response"] = "drive",
    ) -> None:
        super().__init__()
        if bias_starts_at not in ("drive", "mean_response"):
            raise ValueError(
                f"bias_starts_at must be drive or mean_response, not {bias_starts_at!r}"
            )
        if ceiling is not None and not isinstance(ceiling, int | float):
            raise ValueError(f"ceiling must be a number or null, not {ceiling!r}")
        self.ceiling = ceiling
        self.bias_starts_at = bias_starts_at

    def forward(self, drive: Tensor) -> Tensor:
        if self.ceiling is None:
            return torch.exp(drive)
        below = drive.clamp(max=self.ceiling)
        return torch.exp(below) * (1 + (drive - below))

    def initial_bias(self, rates: Tensor) -> Tensor:
        if self.bias_starts_at == "mean_response":
            return rates
        return torch.log(rates.clamp(min=_SMALLEST_RATE))


OUTPUTS: dict[str, type[Output]] = {
    "elu_plus_one": EluPlusOne,
    "softplus": Softplus,
    "exponential": Exponential,
}
