"""The layers of DwiseNeuro: positions, the inverted residual block, the channel-shuffle layer.

Facts: model card of DwiseNeuro, sections 2.2 to 2.5 (lRomul/sensorium 6849050). Channels are the
last dimension here, (B, T, H, W, C): there a 1 x 1 x 1 convolution is a matrix product, and both
depth-wise convolutions are two-dimensional ones on the same memory.
"""

import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sensorium_models.networks.cores.batch_norm import batch_normalised


class DropPath(nn.Module):
    """In training, the whole path of a clip is zero with a probability, else scaled to make up."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        if not 0 <= probability < 1:
            raise ValueError(f"a drop-path probability must be in [0, 1), not {probability!r}")
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.probability == 0:
            return x
        kept = 1 - self.probability
        mask = x.new_empty((len(x),) + (1,) * (x.ndim - 1)).bernoulli_(kept)
        return x * (mask / kept)


def _channels_each(channels: int) -> int:
    return 2 * math.ceil(channels / 6)


def time_channels(channels: int) -> int:
    """How many of the first channels encode time; the rest encode row and column."""
    return min(_channels_each(channels), channels)


@lru_cache(maxsize=32)
@torch.inference_mode(False)  # also when it is first needed where nothing is learned
def positional_encoding(channels: int, frames: int, height: int, width: int) -> Tensor:
    """Encoding of time, row and column, (T, H, W, C) float32 on the CPU.

    Each of the three has `2 ceil(C / 6)` channels, first all sines, then all cosines (not
    interleaved), of wavelengths up to 10000; what exceeds C channels is cut, so the last cosines of
    the column are missing. Card, section 2.2.
    """
    each = _channels_each(channels)
    rates = 1.0 / 10000 ** (torch.arange(0, each, 2, dtype=torch.float32) / each)
    encoding = torch.zeros(frames, height, width, 3 * each)
    for axis, length in enumerate((frames, height, width)):
        angles = torch.arange(length, dtype=torch.float32)[:, None] * rates
        waves = torch.cat([angles.sin(), angles.cos()], dim=1)
        shape = [1, 1, 1, each]
        shape[axis] = length
        encoding[..., axis * each : (axis + 1) * each] = waves.reshape(shape)
    return encoding[..., :channels].contiguous()


@lru_cache(maxsize=32)
@torch.inference_mode(False)
def encoding_there(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """The encoding of (T, H, W, C) on its device: copying in every block keeps a GPU waiting."""
    frames, height, width, channels = shape
    return positional_encoding(channels, frames, height, width).to(device, dtype)


def with_positions(x: Tensor) -> Tensor:
    """x (B, T, H, W, C) plus the encoding of its own resolution."""
    return x + encoding_there(tuple(x.shape[1:]), x.device, x.dtype)


def tiled(x: Tensor, channels: int, *, dim: int) -> Tensor:
    """Channels repeated in order (c0 .. cn, c0 ..) and cut to `channels`."""
    repeats = [1] * x.ndim
    repeats[dim] = -(-channels // x.shape[dim])
    return x.repeat(repeats).narrow(dim, 0, channels) if repeats[dim] > 1 else x


def thinned(x: Tensor, stride: int) -> Tensor:
    """x (B, T, H, W, C) with ceil(H / stride) rows and ceil(W / stride) columns.

    Nearest neighbours, as published: where `stride` divides a size, every `stride`-th from 0 on.
    """
    if stride == 1:
        return x
    frames, height, width = x.shape[1:4]
    if height % stride == width % stride == 0:
        return x[:, :, ::stride, ::stride]
    size = (frames, -(-height // stride), -(-width // stride))
    return functional.interpolate(x.movedim(-1, 1), size=size, mode="nearest").movedim(1, -1)


def pointwise(x: Tensor, convolution: nn.Conv3d) -> Tensor:
    """A 1 x 1 x 1 convolution of x (B, T, H, W, C)."""
    return functional.linear(x, convolution.weight.flatten(1), convolution.bias)


def in_groups(x: Tensor, convolution: nn.Conv1d) -> Tensor:
    """A grouped convolution of one step each, of x (B, T, C): one matrix product per group."""
    groups = convolution.groups
    biases = [None] * groups if convolution.bias is None else convolution.bias.chunk(groups)
    parts = zip(
        x.chunk(groups, dim=-1), convolution.weight[..., 0].chunk(groups), biases, strict=True
    )
    return torch.cat([functional.linear(part, weight, bias) for part, weight, bias in parts], -1)


def spatially(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int = 1) -> Tensor:
    """Convolution (C', C or 1, 1, k, k) of the frames of x (B, T, H, W, C), zeros around."""
    frames = x.flatten(0, 1).permute(0, 3, 1, 2)  # (B T, C, H, W) in channels-last memory
    frames = functional.conv2d(
        frames,
        weight[:, :, 0],
        bias,
        stride=stride,
        padding=weight.shape[-1] // 2,
        groups=x.shape[-1] // weight.shape[1],
    )
    return frames.permute(0, 2, 3, 1).unflatten(0, x.shape[:2])


def temporally(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Depth-wise convolution (C, 1, k, 1, 1) over time of x (B, T, H, W, C), zeros around."""
    pixels = x.flatten(2, 3).permute(0, 3, 1, 2)  # (B, C, T, H W) in channels-last memory
    pixels = functional.conv2d(
        pixels, weight[..., 0], bias, padding=(weight.shape[2] // 2, 0), groups=len(weight)
    )
    return pixels.permute(0, 2, 3, 1).unflatten(2, x.shape[2:4])


class InvertedResidual(nn.Module):
    """Widen, look around in space, then in time, weigh channels, narrow; plus a shortcut.

    (B, T, H, W, C) to (B, T, ceil(H / stride), ceil(W / stride), C'). The shortcut is thinned,
    repeated to C' channels and always batch-normalised; nothing follows the sum.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        expansion: int,
        squeeze_reduction: int,
        spatial_kernel: int,
        temporal_kernel: int,
        stride: int,
        drop_path: float,
    ) -> None:
        super().__init__()
        hidden = in_channels * expansion
        squeezed = max(1, hidden // squeeze_reduction)
        space: dict[str, Any] = {
            "kernel_size": (1, spatial_kernel, spatial_kernel),
            "stride": (1, stride, stride),
            "padding": (0, spatial_kernel // 2, spatial_kernel // 2),
        }
        time: dict[str, Any] = {
            "kernel_size": (temporal_kernel, 1, 1),
            "padding": (temporal_kernel // 2, 0, 0),  # symmetric: the future counts like the past
        }
        self.expand = nn.Conv3d(in_channels, hidden, 1, bias=False)
        self.expand_norm = nn.BatchNorm3d(hidden)
        self.spatial = nn.Conv3d(hidden, hidden, **space, groups=hidden, bias=False)
        self.spatial_norm = nn.BatchNorm3d(hidden)
        self.temporal = nn.Conv3d(hidden, hidden, **time, groups=hidden, bias=False)
        self.temporal_norm = nn.BatchNorm3d(hidden)
        self.squeeze = nn.Conv3d(hidden, squeezed, 1)
        self.excite = nn.Conv3d(squeezed, hidden, 1)
        self.project = nn.Conv3d(hidden, out_channels, 1, bias=False)
        self.project_norm = nn.BatchNorm3d(out_channels)
        self.drop_path = DropPath(drop_path)
        self.shortcut_norm = nn.BatchNorm3d(out_channels)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        shortcut = tiled(thinned(x, self.stride), self.project.out_channels, dim=-1)
        return self.drop_path(self._main(x)) + batch_normalised(shortcut, self.shortcut_norm)

    def _main(self, x: Tensor) -> Tensor:
        x = batch_normalised(pointwise(x, self.expand), self.expand_norm, silu=True)
        x = spatially(x, self.spatial.weight, None, self.stride)
        x = batch_normalised(x, self.spatial_norm, silu=True)
        x = temporally(x, self.temporal.weight, None)
        x = batch_normalised(x, self.temporal_norm, silu=True)
        x = x * self.gate(x.mean(dim=(1, 2, 3), keepdim=True))
        return batch_normalised(pointwise(x, self.project), self.project_norm)

    def gate(self, mean: Tensor) -> Tensor:
        """Squeeze and excitation: a factor in (0, 1) for every hidden channel, (B, 1, 1, 1, C)."""
        return pointwise(functional.silu(pointwise(mean, self.squeeze)), self.excite).sigmoid()


class ShuffleLayer(nn.Module):
    """A grouped map of channels, batch norm, SiLU and a shuffle of the groups; plus a shortcut.

    (B, T, C) to (B, T, C'), every step on its own. After the activation the channels of the groups
    are interleaved: output channel `j * groups + g` is channel `g * C' / groups + j`. The shortcut
    repeats the input's channels and is not shuffled.
    """

    def __init__(
        self, *, in_channels: int, out_channels: int, groups: int, drop_path: float
    ) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(in_channels, out_channels, 1, groups=groups, bias=False)
        self.norm = nn.BatchNorm1d(out_channels)
        self.drop_path = DropPath(drop_path)
        self.shortcut_norm = nn.BatchNorm1d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = batch_normalised(
            tiled(x, self.convolution.out_channels, dim=-1), self.shortcut_norm
        )
        x = batch_normalised(in_groups(x, self.convolution), self.norm, silu=True)
        x = x.unflatten(-1, (self.convolution.groups, -1)).transpose(2, 3).flatten(2)
        return self.drop_path(x) + shortcut


def initialise(module: nn.Module) -> None:
    """Normal weights of variance 2 / fan-out, zero biases, in every convolution of `module`.

    Fan-out is kernel elements times output channels over groups; card, section 3.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv1d | nn.Conv3d):
            fan_out = math.prod(part.kernel_size) * part.out_channels // part.groups
            nn.init.normal_(part.weight, std=math.sqrt(2 / fan_out))
            if part.bias is not None:
                nn.init.zeros_(part.bias)
