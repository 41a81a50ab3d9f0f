"""The core of DwiseNeuro: depth-wise inverted residual blocks on windows, then the "cortex".

Facts: model card of DwiseNeuro, section 2 (lRomul/sensorium 6849050; first place of SENSORIUM
2023). Space is averaged away, so the features are 1 x 1 pixel; there is no history, because an
output step sees the whole window, later frames included.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sensorium_models.networks.cores.batch_norm import batch_normalised, statistics_kept
from sensorium_models.networks.cores.dwiseneuro_blocks import (
    InvertedResidual,
    ShuffleLayer,
    initialise,
    pointwise,
    with_positions,
)
from sensorium_models.networks.cores.dwiseneuro_evaluation import EvaluatedBlocks
from sensorium_models.networks.encoder import Core


class DwiseNeuroCore(Core):
    """(B, C, T, H, W) to (B, cortex_channels[-1], T, 1, 1).

    Block i maps channels[i] to channels[i + 1] (the last one keeps its width) with strides[i], so
    the widening comes in the last block of a group. Drop path grows from 0 at the first block
    towards `drop_path`, which even the last one does not reach: block i has drop_path * i / blocks.
    """

    history_frames = 0
    out_shape = (1, 1)

    def __init__(
        self,
        *,
        in_channels: int,
        frame_shape: tuple[int, int],
        channels: Sequence[int],
        strides: Sequence[int],
        expansion: int,
        squeeze_reduction: int,
        spatial_kernel: int,
        temporal_kernel: int,
        drop_path: float,
        cortex_channels: Sequence[int],
        cortex_groups: int,
        cortex_drop_path: float,
        recompute_blocks: bool = False,
    ) -> None:
        """`recompute_blocks`: a training keeps what enters the blocks and computes the rest again.

        The result is the same bit for bit, and running statistics see a batch once.
        """
        super().__init__()
        for name, values in (
            ("channels", channels),
            ("strides", strides),
            ("cortex_channels", cortex_channels),
        ):
            if not isinstance(values, list | tuple) or not values or not all(map(_counts, values)):
                raise ValueError(
                    f"{name} must be a list of whole numbers from 1 on, not {values!r}"
                )
        if len(strides) != len(channels):
            raise ValueError(
                f"strides has {len(strides)} entries and channels {len(channels)}; each block "
                "needs one of each"
            )
        for name, number in (
            ("expansion", expansion),
            ("squeeze_reduction", squeeze_reduction),
            ("spatial_kernel", spatial_kernel),
            ("temporal_kernel", temporal_kernel),
            ("cortex_groups", cortex_groups),
        ):
            if not _counts(number):
                raise ValueError(f"{name} must be a whole number from 1 on, not {number!r}")
        for name, kernel in (
            ("spatial_kernel", spatial_kernel),
            ("temporal_kernel", temporal_kernel),
        ):
            if kernel % 2 == 0:
                raise ValueError(f"{name} must be odd, so that it has a middle, not {kernel}")
        widths = [channels[-1], *cortex_channels]
        if any(width % cortex_groups for width in widths):
            raise ValueError(
                f"channels[-1] and cortex_channels ({', '.join(map(str, widths))}) must be "
                f"multiples of cortex_groups ({cortex_groups})"
            )
        self.stem = nn.Conv3d(in_channels, channels[0], 1, bias=False)
        self.stem_norm = nn.BatchNorm3d(channels[0])
        self.blocks = nn.ModuleList(
            InvertedResidual(
                in_channels=inputs,
                out_channels=outputs,
                expansion=expansion,
                squeeze_reduction=squeeze_reduction,
                spatial_kernel=spatial_kernel,
                temporal_kernel=temporal_kernel,
                stride=stride,
                drop_path=drop_path * index / len(channels),
            )
            for index, (inputs, outputs, stride) in enumerate(
                zip(channels, [*channels[1:], channels[-1]], strides, strict=True)
            )
        )
        self.cortex = nn.Sequential(
            *(
                ShuffleLayer(
                    in_channels=inputs,
                    out_channels=outputs,
                    groups=cortex_groups,
                    drop_path=cortex_drop_path,
                )
                for inputs, outputs in zip(widths[:-1], cortex_channels, strict=True)
            )
        )
        self.out_channels = cortex_channels[-1]
        self.recompute_blocks = recompute_blocks
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        if self.training or torch.is_grad_enabled():
            x = self._layer_by_layer(x)
        else:
            frames, height, width = x.shape[2:]
            blocks = EvaluatedBlocks(
                self.stem,
                self.stem_norm,
                cast(Sequence[InvertedResidual], self.blocks),
                shape=(frames, height, width),
                rows_first=x.device.type == "cpu",
            )
            # On a CPU clip by clip, because that fits into the cache.
            clips = x.split(1) if x.device.type == "cpu" else [x]
            x = torch.cat([blocks(clip) for clip in clips])
        x = self.cortex(x)
        return x.transpose(1, 2)[..., None, None]

    def _layer_by_layer(self, x: Tensor) -> Tensor:
        """Up to the mean over space, (B, T, C)."""
        x = x.permute(0, 2, 3, 4, 1)  # (B, T, H, W, C), see dwiseneuro_blocks
        x = batch_normalised(pointwise(x, self.stem), self.stem_norm)  # and no activation
        for block in self.blocks:
            x = self._through(block, with_positions(x))
        return x.mean(dim=(2, 3))

    def _through(self, block: nn.Module, x: Tensor) -> Tensor:
        if not self.recompute_blocks or not torch.is_grad_enabled() or x.is_meta:
            return block(x)

        def contexts() -> Any:
            return nullcontext(), statistics_kept(block)

        return checkpoint(block, x, use_reentrant=False, context_fn=contexts)


def _counts(value: object) -> bool:
    return type(value) is int and value >= 1
