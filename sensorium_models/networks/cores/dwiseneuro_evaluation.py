"""DwiseNeuro's blocks where nothing is learned: batch norms folded away, linear maps joined.

The layers are those of `dwiseneuro_blocks`, with their weights; only the order of the arithmetic
differs. What all windows of a call have in common is computed once. All maps behind the first block
may lie rows first in memory, (B, H, T, W, C): what a convolution over time adds up is then near
enough to be found in the cache of a CPU, and takes half the time.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from sensorium_models.networks.cores.batch_norm import affine
from sensorium_models.networks.cores.dwiseneuro_blocks import (
    InvertedResidual,
    encoding_there,
    spatially,
    temporally,
    thinned,
    tiled,
    time_channels,
)

# On a CPU hidden channels are computed about this many numbers at a time (16 MB): what stays in the
# cache is not written to memory and read back.
_HIDDEN_AT_ONCE = 4_000_000
_CHANNELS_TOGETHER = 64  # or multiples of it: whole vector registers, and enough for a product


class EvaluatedBlocks:
    """Stem, positions and inverted residual blocks, then the mean over space.

    (B, C, T, H, W) to (B, T, C') for clips of one shape.
    """

    def __init__(
        self,
        stem: nn.Conv3d,
        stem_norm: nn.BatchNorm3d,
        blocks: Sequence[InvertedResidual],
        *,
        shape: tuple[int, int, int],
        rows_first: bool,
    ) -> None:
        """`shape` is (T, H, W); `rows_first` changes how maps lie in memory, and rounding."""
        frames, height, width = shape
        self._rows_first = rows_first
        positions = []  # what is added to what enters a block
        for block in blocks:
            size = (frames, height, width, block.expand.in_channels)
            encoding = encoding_there(size, stem.weight.device, stem.weight.dtype)
            positions.append(encoding)
            height, width = -(-height // block.stride), -(-width // block.stride)
        self._first = _FirstBlock(stem, stem_norm, blocks[0], positions=positions[0])
        added = [*(self._ordered(encoding) for encoding in positions[1:]), None]
        self._added_to_first = added[0]
        kind = _RowsFirstBlock if rows_first else _Block
        pairs = zip(blocks[1:], added[1:], strict=True)
        self._others = [kind(block, added=positions) for block, positions in pairs]

    def __call__(self, x: Tensor) -> Tensor:
        x = self._ordered(self._first(x.permute(0, 2, 3, 4, 1)))
        if self._added_to_first is not None:
            x.add_(self._added_to_first)
        for block in self._others:
            x = block(x)
        return x.mean(dim=(1, 3) if self._rows_first else (2, 3))

    def _ordered(self, x: Tensor) -> Tensor:
        """(..., T, H, W, C) in the order that the blocks behind the first one want."""
        return x.transpose(-4, -3).contiguous() if self._rows_first else x


class _Block:
    """An inverted residual block: x (B, T, H, W, C) to (B, T, H', W', C'), plus `added`.

    Up to the gate hidden channels do not see each other, so that some are computed after the other,
    and the gate of a clip is a factor of its projection's weights.
    """

    def __init__(self, block: InvertedResidual, *, added: Tensor | None) -> None:
        """`added`, as large as a clip's result, are the positions that the next block sees."""
        self.block = block
        self.expand, self.expand_bias = _folded(block.expand, block.expand_norm)
        self.spatial, self.spatial_bias = _folded(block.spatial, block.spatial_norm)
        self.temporal, self.temporal_bias = _folded(block.temporal, block.temporal_norm)
        self.project, project_bias = _folded(block.project, block.project_norm)
        self.scale, offset = affine(block.shortcut_norm)
        self.offset = offset + project_bias
        self.offset_and_added = self.offset if added is None else self.offset + added

    def __call__(self, x: Tensor) -> Tensor:
        hidden, means = [], []
        for part in self._parts(x):
            h = functional.silu(self.widened(x, part), inplace=True)
            h = functional.silu(self.around_in_space(h, part), inplace=True)
            h = functional.silu(self.around_in_time(h, part), inplace=True)
            hidden.append(h)
            means.append(h.mean(dim=(1, 2, 3), keepdim=True))
        gate = self.block.gate(torch.cat(means, dim=-1)).flatten(1)  # (B, hidden)
        weights = (self.project.flatten(1) * gate[:, None]).transpose(1, 2).to(h.dtype)
        y = self.shortcut(x).to(h.dtype)
        pixels = y.flatten(1, 3)  # a copy, where x does not lie in memory as it is read
        for h, weight in zip(hidden, weights.split([h.shape[-1] for h in hidden], 1), strict=True):
            pixels.baddbmm_(h.flatten(1, 3), weight)  # (B, T H W, hidden) by (B, hidden, C')
        return pixels.unflatten(1, y.shape[1:4])

    def widened(self, x: Tensor, part: slice) -> Tensor:
        """Some hidden channels before their activation."""
        # A convolution, because PyTorch's linear map writes its bias first and then adds to it.
        return spatially(x, self.expand[part], self.expand_bias[part])

    def around_in_space(self, h: Tensor, part: slice) -> Tensor:
        return spatially(h, self.spatial[part], self.spatial_bias[part], self.block.stride)

    def around_in_time(self, h: Tensor, part: slice) -> Tensor:
        return temporally(h, self.temporal[part], self.temporal_bias[part])

    def shortcut(self, x: Tensor) -> Tensor:
        """What the block adds to its projection."""
        x = tiled(self.thinned(x), len(self.scale), dim=-1)
        return torch.addcmul(self.offset_and_added, x, self.scale)

    def thinned(self, x: Tensor) -> Tensor:
        return thinned(x, self.block.stride)

    def _parts(self, x: Tensor) -> Iterable[slice]:
        hidden = len(self.expand)
        size = hidden
        if x.device.type == "cpu":
            together = x.shape[:4].numel() * _CHANNELS_TOGETHER
            size = max(1, round(_HIDDEN_AT_ONCE / together)) * _CHANNELS_TOGETHER
        return (slice(start, start + size) for start in range(0, hidden, size))


class _RowsFirstBlock(_Block):
    """The same of x (B, H, T, W, C) to (B, H', T, W', C')."""

    def around_in_space(self, h: Tensor, part: slice) -> Tensor:
        weight, stride = self.spatial[part], self.block.stride
        h = functional.conv3d(
            h.movedim(-1, 1),  # (B, C, H, T, W) in channels-last memory
            weight.transpose(2, 3),
            self.spatial_bias[part],
            stride=(stride, 1, stride),
            padding=(weight.shape[-1] // 2, 0, weight.shape[-1] // 2),
            groups=len(weight),
        )
        return h.movedim(1, -1)

    def around_in_time(self, h: Tensor, part: slice) -> Tensor:
        rows = h.flatten(0, 1)[:, :, None]  # (B H, T, 1, W, C)
        rows = temporally(rows, self.temporal[part], self.temporal_bias[part])
        return rows[:, :, 0].unflatten(0, h.shape[:2])

    def thinned(self, x: Tensor) -> Tensor:
        return super().thinned(x.transpose(1, 2)).transpose(1, 2)


class _FirstBlock(_Block):
    """The first block with the stem before it, which has no activation.

    x (B, T, H, W, C) is what the stem sees. With the encodings of its pixels and ones beside it,
    stem, positions and what follows them are a single linear map, another one for each step of a
    clip, because the encoding of time is part of its constant.
    """

    def __init__(
        self,
        stem: nn.Conv3d,
        stem_norm: nn.BatchNorm3d,
        block: InvertedResidual,
        *,
        positions: Tensor,
    ) -> None:
        """`positions` (T, H, W, C') are added to what leaves the stem."""
        super().__init__(block, added=None)
        weight, bias = _folded(stem, stem_norm)
        inputs, time = stem.in_channels, time_channels(stem.out_channels)
        space = positions[0, :, :, time:]
        self.places = torch.cat([space, torch.ones_like(positions[0, :, :, :1])], dim=-1)
        seen = positions.new_zeros(  # what enters the block, (T, K, C)
            len(positions), inputs + self.places.shape[-1], stem.out_channels
        )
        seen[:, :inputs] = weight.flatten(1).T
        seen[:, inputs:-1, time:].diagonal(dim1=1, dim2=2).fill_(1)
        seen[:, -1] = bias
        seen[:, -1, :time] += positions[:, 0, 0, :time]
        # In double precision, which autocast leaves alone.
        into_hidden = seen.double() @ self.expand.flatten(1).T.double()
        self.into_hidden = into_hidden.to(seen.dtype)
        self.into_hidden[:, -1] += self.expand_bias
        self.into_result = tiled(seen, len(self.scale), dim=-1) * self.scale
        self.into_result[:, -1] += self.offset

    def __call__(self, x: Tensor) -> Tensor:
        return super().__call__(torch.cat([x, self.places.expand(*x.shape[:2], -1, -1, -1)], -1))

    def widened(self, x: Tensor, part: slice) -> Tensor:
        return _step_by_step(x, self.into_hidden[..., part])

    def shortcut(self, x: Tensor) -> Tensor:
        return _step_by_step(self.thinned(x), self.into_result)


def _step_by_step(x: Tensor, weight: Tensor) -> Tensor:
    """x (B, T, H, W, K) by a matrix (T, K, C) for each step."""
    return torch.matmul(x.flatten(2, 3), weight).unflatten(2, x.shape[2:4])


def _folded(convolution: nn.Conv3d, norm: nn.BatchNorm3d) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution without bias and the batch norm after it, in evaluation."""
    scale, offset = affine(norm)
    return convolution.weight * scale.reshape(-1, 1, 1, 1, 1), offset
