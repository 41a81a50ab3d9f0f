"""The readout of Dynamic-V1FM: the Gaussian readout at several resolutions of the population.

Facts: model card of Dynamic-V1FM, section 3 (zhuyu-cs/Dynamic-VFM 5dc582a). "Hierarchical" levels
pool over the axis of neurons, not over space or time.
"""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from sensorium_models.networks.encoder import AnimalFacts
from sensorium_models.networks.readouts.gaussian import GaussianReadout, sampled_features

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
        if not isinstance(scales, list | tuple) or list(scales) != [s for s in known if s in scales]:
            raise ValueError(f"scales must be some of {known}, in this order, not {scales!r}")
        if fusion not in get_args(Fusion):
            raise ValueError(f"fusion must be one of {', '.join(get_args(Fusion))}, not {fusion!r}")
        self.scales = tuple(scales)
        start = 1 / in_channels
        self.scale_features = nn.ParameterDict(
            {str(s): torch.full((in_channels, facts.neurons // s), start) for s in known}
        )
        self.refine = nn.ModuleDict({str(s): _refinement(units) for s, units in REFINE_UNITS.items()})
        self.fusion = fusion
        if fusion == "adaptive":
            self.fusions = nn.ModuleDict(
                {str(levels): AdaptiveFusion(levels) for levels in range(2, len(known) + 2)}
            )
        for scale in self.scales:
            if facts.neurons < scale:
                raise ValueError(
                    f"animal {facts.animal} has {facts.neurons} neurons, too few for scale {scale}"
                )
            index = nearest_neurons(facts.neurons, facts.neurons // scale)
            self.register_buffer(f"neurons_of_{scale}", index, persistent=False)
            index = nearest_neurons(facts.neurons // scale, facts.neurons)
            self.register_buffer(f"pseudo_neuron_of_{scale}", index, persistent=False)

    def forward(self, features: Tensor, shift: Tensor | None = None) -> Tensor:
        """Drive (B, T, N) from features (B, C, T, H, W) and an optional gaze shift (B, T, 2)."""
        clips, channels, frames = features.shape[:3]
        maps = features.transpose(1, 2).flatten(0, 1)  # (B T, C, H, W)
        grid = self.sampled_positions(len(maps))  # (B T, N, 2)
        if shift is not None:
            grid = grid + shift.reshape(-1, 1, 2)  # not clamped again, as published
        piece = max(1, self.sampled_at_once // (channels * grid.shape[1]))
        pairs = list(zip(maps.split(piece), grid.split(piece), strict=True))
        if len(pairs) > 1 and torch.is_grad_enabled():
            keep: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
            read = [checkpoint(self._levels, m, g, **keep) for m, g in pairs]
        else:
            read = [self._levels(m, g) for m, g in pairs]
        levels = [torch.cat(level).unflatten(0, (clips, frames)) for level in zip(*read, strict=True)]
        return self._fused(levels) + self.bias

    def _levels(self, maps: Tensor, grid: Tensor) -> tuple[Tensor, ...]:
        """The neurons' own readings (M, N), then those of the pseudo-neurons (M, N // s)."""
        sampled = sampled_features(maps, grid)  # (M, C, N)
        levels = [torch.einsum("mcn,cn->mn", sampled, self.features)]
        for scale in self.scales:
            # Sampled already: pseudo-neurons look where some of the neurons look, shift included.
            seen = sampled[:, :, getattr(self, f"neurons_of_{scale}")]
            levels.append(torch.einsum("mcn,cn->mn", seen, self.scale_features[str(scale)]))
        return tuple(levels)

    def _fused(self, levels: list[Tensor]) -> Tensor:
        """(B, T, N) from the levels, (B, T, N) and (B, T, N // s)."""
        full = [levels[0]]
        for scale, level in zip(self.scales, levels[1:], strict=True):
            # A function of one number, so it is the same before the repetition as after it.
            refined = self.refine[str(scale)](level[..., None])[..., 0]
            full.append(refined[..., getattr(self, f"pseudo_neuron_of_{scale}")])
        if len(full) == 1:
            return full[0]
        stacked = torch.stack(full, dim=1)  # (B, K, T, N)
        return stacked.mean(dim=1) if self.fusion == "mean" else self.fusions[str(len(full))](stacked)


def nearest_neurons(size: int, wanted: int) -> Tensor:
    """Which of `size` entries each of `wanted` takes by `interpolate(mode="nearest")`, int64."""
    # Indices below 2^24 are exact in float32.
    entries = torch.arange(size, dtype=torch.float32).reshape(1, 1, size, 1)
    chosen = functional.interpolate(entries, size=(wanted, 1), mode="nearest")
    return chosen.flatten().to(torch.int64)


def _refinement(units: int) -> nn.Sequential:
    # One-by-one convolutions of a single channel as linear maps; the last has no bias.
    return nn.Sequential(nn.Linear(1, units), nn.ELU(), nn.Linear(units, 1, bias=False))
