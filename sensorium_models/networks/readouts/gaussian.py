"""The Gaussian readout: every neuron reads the feature map at one point, sampled while training.

Facts: model card of the factorized baseline, section 3 (full covariance, positions predicted from
cortical coordinates). `positions: random` and `response_triggered_average` are this project's, for
recordings without usable coordinates.
"""

from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from sensorium_models.networks.encoder import AnimalFacts, Readout
from sensorium_models.networks.readouts.sampling import read

Positions = Literal["cortex", "random", "response_triggered_average"]

_RANDOM_RANGE = 0.5


class GaussianReadout(Readout):
    """Drive of N neurons: features at each neuron's position (bilinear), weighted, plus bias.

    Positions are (x, y) with -1 and 1 at the centres of the outermost pixels. In training a
    position is drawn per frame and neuron from a Gaussian with mean mu and learned 2 x 2 factor
    `sigma` (initially uniform in +-`sigma_range`), clamped to [-1, 1]; in evaluation it is mu. A
    gaze shift is added after the clamp; beyond the edge the features are zero.

    `positions` says where mu comes from: `cortex`, a network with `position_hidden_units` on the
    cortical coordinates; `random`, a free parameter drawn uniformly from +-0.5;
    `response_triggered_average`, a free parameter that starts at `facts.initial_positions`.
    """

    def __init__(
        self,
        *,
        facts: AnimalFacts,
        in_channels: int,
        in_shape: tuple[int, int],
        positions: Positions,
        position_hidden_units: int,
        sigma_range: float,
        feature_penalty: float,
    ) -> None:
        super().__init__()
        if positions not in get_args(Positions):
            raise ValueError(
                f"positions must be one of {', '.join(get_args(Positions))}, not {positions!r}"
            )
        if type(position_hidden_units) is not int or position_hidden_units < 1:
            raise ValueError(
                "position_hidden_units must be a whole number from 1 on, not "
                f"{position_hidden_units!r}"
            )
        if sigma_range < 0 or feature_penalty < 0:
            raise ValueError("sigma_range and feature_penalty must not be negative")
        neurons = facts.neurons
        if positions == "cortex":
            if facts.coordinates is None:
                raise ValueError(
                    f"animal {facts.animal} has no cortical coordinates, which positions: cortex "
                    "needs; use positions: response_triggered_average"
                )
            self.register_buffer("source_grid", torch.from_numpy(source_grid(facts.coordinates)))
            self.position_network = nn.Sequential(
                nn.Linear(2, position_hidden_units), nn.ELU(), nn.Linear(position_hidden_units, 2)
            )
        elif positions == "random":
            self.mu = nn.Parameter(torch.empty(neurons, 2).uniform_(-_RANDOM_RANGE, _RANDOM_RANGE))
        else:
            if facts.initial_positions is None:
                raise ValueError(
                    f"animal {facts.animal}: positions: response_triggered_average needs initial "
                    "positions, computed from the training trials"
                )
            start = np.asarray(facts.initial_positions, dtype=np.float32)
            if start.shape != (neurons, 2) or not np.isfinite(start).all():
                raise ValueError(
                    f"animal {facts.animal}: initial positions must be finite and of shape "
                    f"({neurons}, 2), not {start.shape}"
                )
            self.mu = nn.Parameter(torch.tensor(np.clip(start, -1, 1)))
        self.positions = positions
        self.sigma = nn.Parameter(torch.empty(neurons, 2, 2).uniform_(-sigma_range, sigma_range))
        self.features = nn.Parameter(torch.full((in_channels, neurons), 1 / in_channels))
        self.bias = nn.Parameter(torch.zeros(neurons))
        self.feature_penalty = feature_penalty

    def forward(self, features: Tensor, shift: Tensor | None = None) -> Tensor:
        """Drive (B, T, N) from features (B, C, T, H, W) and an optional gaze shift (B, T, 2)."""
        clips, _, frames = features.shape[:3]
        grid = self.positions_of(clips * frames, shift)
        return read(features, grid, self.features).unflatten(0, (clips, frames)) + self.bias

    def mean_positions(self) -> Tensor:
        """mu, the (x, y) of every neuron in [-1, 1]; (N, 2)."""
        if self.positions == "cortex":
            return torch.tanh(self.position_network(self.source_grid))
        if not self.training:
            return self.mu.clamp(-1, 1)
        with torch.no_grad():
            # The parameter itself is clamped, so that a neuron at the edge keeps its gradient.
            self.mu.clamp_(-1, 1)
        return self.mu

    def positions_of(self, frames: int, shift: Tensor | None) -> Tensor:
        """Where neurons look (frames, N, 2), moved by the gaze shift (B, T, 2) of all frames."""
        grid = self.sampled_positions(frames)
        # Not clamped again, as published.
        return grid if shift is None else grid + shift.reshape(-1, 1, 2)

    def sampled_positions(self, frames: int) -> Tensor:
        """Positions (frames, N, 2): in training drawn for each frame and neuron, else mu."""
        mu = self.mean_positions()
        if not self.training:
            return mu.expand(frames, -1, -1)
        noise = torch.randn(frames, *mu.shape, device=mu.device, dtype=mu.dtype)
        return (torch.einsum("ncd,mnd->mnc", self.sigma, noise) + mu).clamp(-1, 1)

    def regularizer(self) -> Tensor:
        """`feature_penalty` times the sum of absolute feature weights (0 as published)."""
        return self.feature_penalty * self.features.abs().sum()


def source_grid(coordinates: np.ndarray) -> np.ndarray:
    """Cortical x, y of neurons (N, >= 2), centred per column and divided by one largest distance.

    Float64 arithmetic, float32 (N, 2) in [-1, 1]; card section 3.1.
    """
    flat = np.asarray(coordinates, dtype=np.float64)[:, :2]
    flat = flat - flat.mean(axis=0, keepdims=True)
    largest = np.abs(flat).max()
    # Neurons that all lie in one place (one neuron, say) stay at the centre.
    return (flat / (largest if largest > 0 else 1.0)).astype(np.float32)
