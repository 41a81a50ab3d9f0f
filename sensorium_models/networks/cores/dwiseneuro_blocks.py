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

from sensorium_models.networks.cores.batch_norm import affine, batch_normalised

# Where nothing is learned on a CPU, hidden channels are computed about this many numbers at a time
# (16 MB): what stays in the cache is not written to memory and read back.
_HIDDEN_AT_ONCE = 4_000_000
_CHANNELS_TOGETHER = 64  # or multiples of it: whole vector registers, and enough for a product


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


@lru_cache(maxsize=32)
@torch.inference_mode(False)  # also when it is first needed where nothing is learned
def positional_encoding(channels: int, frames: int, height: int, width: int) -> Tensor:
    """Encoding of time, row and column, (T, H, W, C) float32 on the CPU.

    Each of the three has `2 ceil(C / 6)` channels, first all sines, then all cosines (not
    interleaved), of wavelengths up to 10000; what exceeds C channels is cut, so the last cosines of
    the column are missing. Card, section 2.2.
    """
    each = 2 * math.ceil(channels / 6)
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
def _encoding_there(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """The encoding of (T, H, W, C) on its device: copying in every block keeps a GPU waiting."""
    frames, height, width, channels = shape
    return positional_encoding(channels, frames, height, width).to(device, dtype)


def with_positions(x: Tensor, *, in_place: bool = False) -> Tensor:
    """x (B, T, H, W, C) plus the encoding of its own resolution."""
    encoding = _encoding_there(tuple(x.shape[1:]), x.device, x.dtype)
    return x.add_(encoding) if in_place else x + encoding


def tiled(x: Tensor, channels: int, *, dim: int) -> Tensor:
    """Channels repeated in order (c0 .. cn, c0 ..) and cut to `channels`."""
    repeats = [1] * x.ndim
    repeats[dim] = -(-channels // x.shape[dim])
    return x.repeat(repeats).narrow(dim, 0, channels) if repeats[dim] > 1 else x


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


def folded(convolution: nn.Conv3d, norm: nn.BatchNorm3d) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution without bias and the batch norm after it, in evaluation."""
    scale, offset = affine(norm)
    return convolution.weight * scale.reshape(-1, 1, 1, 1, 1), offset


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
        self.hidden_at_once = _HIDDEN_AT_ONCE

    def forward(self, x: Tensor) -> Tensor:
        if self.training or torch.is_grad_enabled():
            shortcut = batch_normalised(self._thinned(x), self.shortcut_norm)
            return self.drop_path(self._main(x)) + shortcut
        return self._in_pieces(x)

    def _main(self, x: Tensor) -> Tensor:
        x = batch_normalised(pointwise(x, self.expand), self.expand_norm, silu=True)
        x = spatially(x, self.spatial.weight, None, self.stride)
        x = batch_normalised(x, self.spatial_norm, silu=True)
        x = temporally(x, self.temporal.weight, None)
        x = batch_normalised(x, self.temporal_norm, silu=True)
        x = x * self._gate(x.mean(dim=(1, 2, 3), keepdim=True))
        return batch_normalised(pointwise(x, self.project), self.project_norm)

    def _in_pieces(self, x: Tensor) -> Tensor:
        """The block in evaluation: batch norms folded away, some hidden channels after the other.

        Up to the gate hidden channels do not see each other, and the gate of a clip is a factor of
        its projection's weights.
        """
        expand, expand_bias = folded(self.expand, self.expand_norm)
        spatial, spatial_bias = folded(self.spatial, self.spatial_norm)
        temporal, temporal_bias = folded(self.temporal, self.temporal_norm)
        project, project_bias = folded(self.project, self.project_norm)
        hidden, means = [], []
        for piece in torch.arange(len(expand)).split(self._channels_at_once(x)):
            part = slice(int(piece[0]), int(piece[-1]) + 1)
            # A convolution, because PyTorch's linear map writes its bias first and then adds to it.
            h = functional.silu(spatially(x, expand[part], expand_bias[part]), inplace=True)
            h = spatially(h, spatial[part], spatial_bias[part], self.stride)
            h = functional.silu(h, inplace=True)
            h = temporally(h, temporal[part], temporal_bias[part])
            hidden.append(functional.silu(h, inplace=True))
            means.append(h.mean(dim=(1, 2, 3), keepdim=True))
        gate = self._gate(torch.cat(means, dim=-1)).flatten(1)  # (B, hidden)
        weights = (project.flatten(1) * gate[:, None]).transpose(1, 2).to(h.dtype)
        scale, offset = affine(self.shortcut_norm)
        y = torch.addcmul(offset + project_bias, self._thinned(x), scale).to(h.dtype)
        pixels = y.flatten(1, 3)  # a copy, where x does not lie in memory as it is read
        for h, weight in zip(hidden, weights.split([h.shape[-1] for h in hidden], 1), strict=True):
            pixels.baddbmm_(h.flatten(1, 3), weight)  # (B, T H W, hidden) by (B, hidden, C')
        return pixels.unflatten(1, y.shape[1:4])

    def _channels_at_once(self, x: Tensor) -> int:
        if x.device.type != "cpu":
            return self.expand.out_channels
        rounds = round(self.hidden_at_once / (x.shape[:4].numel() * _CHANNELS_TOGETHER))
        return max(1, rounds) * _CHANNELS_TOGETHER

    def _gate(self, mean: Tensor) -> Tensor:
        """Squeeze and excitation: a factor in (0, 1) for every hidden channel, (B, 1, 1, 1, C)."""
        return pointwise(functional.silu(pointwise(mean, self.squeeze)), self.excite).sigmoid()

    def _thinned(self, x: Tensor) -> Tensor:
        """The shortcut before its norm: as few pixels and as many channels as the result."""
        # Nearest neighbours, as published; for even sizes the rows and columns 0, 2, 4 ...
        if self.stride > 1:
            frames, height, width = x.shape[1:4]
            size = (frames, -(-height // self.stride), -(-width // self.stride))
            x = functional.interpolate(x.movedim(-1, 1), size=size, mode="nearest").movedim(1, -1)
        return tiled(x, self.project.out_channels, dim=-1)


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
