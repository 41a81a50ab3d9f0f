"""The readout of Dynamic-V1FM: the Gaussian readout at several resolutions of the population.

Facts: model card of Dynamic-V1FM, section 3 (zhuyu-cs/Dynamic-VFM 5dc582a). "Hierarchical" levels
pool over the axis of neurons, not over space or time.
"""

from collections.abc import Sequence
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from sensorium_models.networks.encoder import AnimalFacts
from sensorium_models.networks.readouts.gaussian import GaussianReadout
from sensorium_models.networks.readouts.sampling import read

Fusion = Literal["mean", "adaptive"]

# Hidden units of the network that refines the pseudo-neurons of each scale.
REFINE_UNITS = {2: 32, 4: 64, 8: 128, 16: 256}


class AdaptiveFusion(nn.Module):
    """Weighs levels by gates in (0, 1) that do not sum to one; levels (B, K, T, N) to (B, T, N).

    The gates see the mean of each level over all steps and neurons of the clip, so that every step
    of the output depends on the whole clip.
    """

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(levels, levels), nn.ReLU(), nn.Linear(levels, levels), nn.Sigmoid()
        )

    def forward(self, levels: Tensor) -> Tensor:
        gates = self.layers(levels.mean(dim=(2, 3)))
        return (levels * gates[:, :, None, None]).sum(dim=1)


class PseudoNeurons(nn.Module):
    """N // s pseudo-neurons: where they look, what they weigh, what their neurons make of it.

    At least one, where an animal has fewer than s neurons.
    """

    def __init__(self, *, neurons: int, scale: int, channels: int) -> None:
        super().__init__()
        units, pseudo_neurons = REFINE_UNITS[scale], max(1, neurons // scale)
        self.features = nn.Parameter(torch.full((channels, pseudo_neurons), 1 / channels))
        # One-by-one convolutions of a single channel as linear maps; the last has no bias.
        self.refine = nn.Sequential(nn.Linear(1, units), nn.ELU(), nn.Linear(units, 1, bias=False))
        place, source = (
            nearest_neurons(neurons, pseudo_neurons),
            nearest_neurons(pseudo_neurons, neurons),
        )
        self.register_buffer("place", place, persistent=False)
        self.register_buffer("source", source, persistent=False)

    def read(self, features: Tensor, grid: Tensor) -> Tensor:
        """Readings (B T, N // s) from features (B, C, T, H, W); neurons look at `grid`."""
        return read(features, grid[:, self.place], self.features)  # type: ignore[index]

    def forward(self, level: Tensor) -> Tensor:
        """Readings (..., N // s), refined and repeated, (..., N).

        Refined first: a function of one number is the same before the repetition as after it.
        """
        return self.refine(level[..., None])[..., 0][..., self.source]


class HierarchicalReadout(GaussianReadout):
    """Drive of N neurons: their own reading, fused with those of N // s pseudo-neurons per scale s.

    Pseudo-neurons look where every s-th neuron looks (PyTorch's nearest-neighbour rule on the
    neurons' axis, whose float32 rounding now and then picks another neuron than exact arithmetic)
    and have feature weights of their own; their readings are repeated for their neurons and refined
    by a small network on each single number. Fusion is the mean of the levels, or adaptive; without
    `scales` it is the Gaussian readout.

    As published, a readout holds the weights of all four scales, and with `fusion: adaptive` a
    fusion network for every possible number of levels; those that `scales` leaves out never learn.
    """

    def __init__(
        self,
        *,
        facts: AnimalFacts,
        in_channels: int,
        in_shape: tuple[int, int],
        position_hidden_units: int,
        sigma_range: float,
        scales: Sequence[int],
        fusion: Fusion,
    ) -> None:
        super().__init__(
            facts=facts,
            in_channels=in_channels,
            in_shape=in_shape,
            positions="cortex",
            position_hidden_units=position_hidden_units,
            sigma_range=sigma_range,
            feature_penalty=0.0,
        )
        known = list(REFINE_UNITS)
        if not isinstance(scales, list | tuple) or list(scales) != [
            s for s in known if s in scales
        ]:
            raise ValueError(f"scales must be some of {known}, in this order, not {scales!r}")
        if fusion not in get_args(Fusion):
            raise ValueError(f"fusion must be one of {', '.join(get_args(Fusion))}, not {fusion!r}")
        self.fused_scales = tuple(map(str, scales))
        self.scales = nn.ModuleDict(
            {
                str(scale): PseudoNeurons(neurons=facts.neurons, scale=scale, channels=in_channels)
                for scale in known
            }
        )
        self.fusion = fusion
        if fusion == "adaptive":
            self.fusions = nn.ModuleDict(
                {str(levels): AdaptiveFusion(levels) for levels in range(2, len(known) + 2)}
            )

    def forward(self, features: Tensor, shift: Tensor | None = None) -> Tensor:
        """Drive (B, T, N) from features (B, C, T, H, W) and an optional gaze shift (B, T, 2)."""
        clips, _, frames = features.shape[:3]
        grid = self.positions_of(clips * frames, shift)
        levels = [read(features, grid, self.features)]
        levels += [self._scale(name).read(features, grid) for name in self.fused_scales]
        return self._fused([level.unflatten(0, (clips, frames)) for level in levels]) + self.bias

    def _fused(self, levels: list[Tensor]) -> Tensor:
        """(B, T, N) from the levels, (B, T, N) and (B, T, N // s)."""
        if not self.fused_scales:
            return levels[0]
        refined = [
            self._scale(name)(level)
            for name, level in zip(self.fused_scales, levels[1:], strict=True)
        ]
        stacked = torch.stack([levels[0], *refined], dim=1)  # (B, K, T, N)
        if self.fusion == "mean":
            return stacked.mean(dim=1)
        return self.fusions[str(stacked.shape[1])](stacked)

    def _scale(self, name: str) -> PseudoNeurons:
        return cast(PseudoNeurons, self.scales[name])


def nearest_neurons(size: int, wanted: int) -> Tensor:
    """Which of `size` entries each of `wanted` takes by `interpolate(mode="nearest")`, int64."""
    # Indices below 2^24 are exact in float32.
    entries = torch.arange(size, dtype=torch.float32).reshape(1, 1, size, 1)
    chosen = functional.interpolate(entries, size=(wanted, 1), mode="nearest")
    return chosen.flatten().to(torch.int64)
