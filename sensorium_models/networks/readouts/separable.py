"""The linear readout: one space-time filter of low rank per neuron, straight on the pixels.

The classical receptive-field model (Chichilnisky 2001, Network 12:199): each neuron has `rank`
pairs of a spatial and a temporal filter; with the exponential output it is the linear-nonlinear
control.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from sensorium_models.networks.encoder import AnimalFacts, Readout

# Standard deviation of the spatial weights at the start: small, so that rates start at their mean.
_START = 1e-3


class SeparableReadout(Readout):
    """Drive of neuron n at frame t: b_n + sum_rpk S[n,r,p] K[n,r,k] x[p, t - history + k].

    p runs over channels and pixels, k over `history_frames` + 1 taps; the last tap is the present
    frame. The penalty is `spatial_smoothness` * sum(Laplacian of S)^2 + `temporal_smoothness` *
    sum(second difference of K)^2 + `weight_penalty` * (sum S^2 + sum K^2), filters taken as zero
    beyond their edges.
    """

    takes_shift = False

    def __init__(
        self,
        *,
        facts: AnimalFacts,
        in_channels: int,
        in_shape: tuple[int, int],
        rank: int,
        history_frames: int,
        spatial_smoothness: float,
        temporal_smoothness: float,
        weight_penalty: float,
    ) -> None:
        super().__init__()
        if type(rank) is not int or rank < 1:
            raise ValueError(f"rank must be a whole number from 1 on, not {rank!r}")
        if type(history_frames) is not int or history_frames < 0:
            raise ValueError(
                f"history_frames must be a whole number from 0 on, not {history_frames!r}"
            )
        if min(spatial_smoothness, temporal_smoothness, weight_penalty) < 0:
            raise ValueError(
                "spatial_smoothness, temporal_smoothness and weight_penalty must not be negative"
            )
        self.history_frames = history_frames
        self.spatial_smoothness = spatial_smoothness
        self.temporal_smoothness = temporal_smoothness
        self.weight_penalty = weight_penalty
        self.spatial = nn.Parameter(
            _START * torch.randn(facts.neurons, rank, in_channels, *in_shape)
        )
        self.temporal = nn.Parameter(
            starting_taps(rank, history_frames).repeat(facts.neurons, 1, 1)
        )
        self.bias = nn.Parameter(torch.zeros(facts.neurons))
        laplace = torch.tensor([[0.0, -1.0, 0.0], [-1.0, 4.0, -1.0], [0.0, -1.0, 0.0]])
        self.register_buffer("laplace", laplace[None, None], persistent=False)
        second_difference = torch.tensor([-1.0, 2.0, -1.0])
        self.register_buffer("second_difference", second_difference[None, None], persistent=False)

    def forward(self, features: Tensor, shift: Tensor | None = None) -> Tensor:
        """Drive (B, T - history_frames, N) from features (B, C, T, H, W)."""
        if shift is not None:
            raise ValueError("the separable readout has no positions that a gaze shift could move")
        neurons, rank = self.spatial.shape[:2]
        pixels = features.transpose(1, 2).flatten(2)  # (B, T, P)
        seen = functional.linear(pixels, self.spatial.reshape(neurons * rank, -1))  # (B, T, N R)
        # Each pair is filtered in time by its own taps: a convolution in groups of one.
        taps = self.temporal.reshape(neurons * rank, 1, -1)
        filtered = functional.conv1d(seen.transpose(1, 2), taps, groups=neurons * rank)
        drive = filtered.unflatten(1, (neurons, rank)).sum(dim=2)  # (B, N, T')
        return drive.transpose(1, 2) + self.bias

    def regularizer(self) -> Tensor:
        """Smoothness and size of the filters; a scalar."""
        spatial = self.spatial.flatten(0, 2)[:, None]  # (N R C, 1, H, W)
        temporal = self.temporal.flatten(0, 1)[:, None]  # (N R, 1, K)
        rough = functional.conv2d(spatial, self.laplace, padding=1)  # type: ignore[arg-type]
        abrupt = functional.conv1d(temporal, self.second_difference, padding=1)  # type: ignore[arg-type]
        return (
            self.spatial_smoothness * rough.square().sum()
            + self.temporal_smoothness * abrupt.square().sum()
            + self.weight_penalty * (spatial.square().sum() + temporal.square().sum())
        )


def starting_taps(rank: int, history_frames: int) -> Tensor:
    """Temporal filters at the start, (rank, history_frames + 1), each of unit length.

    A neuron sees the recent past first: filter r is the r-th cosine under a decay of a third of the
    history, so that pairs of one neuron start different and spatial filters get a gradient at once.
    """
    past = torch.arange(
        history_frames, -1, -1, dtype=torch.float32
    )  # frames before the present one
    length = history_frames + 1
    decay = torch.exp(-past / max(1.0, length / 3))
    phase = torch.arange(rank, dtype=torch.float32)[:, None] * torch.pi * (past + 0.5) / length
    taps = decay * torch.cos(phase)
    return taps / taps.norm(dim=1, keepdim=True)
