"""DwiseNeuro written down plainly, as the published code computes it: the benchmark's other side.

Three-dimensional convolutions on (B, C, T, H, W), batch norms and activations as separate steps,
nothing shared or fused. Takes its weights from the project's own modules.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from sensorium_models.networks.cores.dwiseneuro_blocks import encoding_there, tiled


def features(core: Any, x: Tensor) -> Tensor:
    """Features (B, C', T) of windows (B, C, T, H, W), without drop path."""
    x = core.stem_norm(core.stem(x))
    for block in core.blocks:
        positions = encoding_there((*x.shape[2:], x.shape[1]), x.device, x.dtype)
        x = _block(block, x + positions.movedim(-1, 0))
    x = functional.adaptive_avg_pool3d(x, (None, 1, 1)).flatten(2)
    for layer in core.cortex:
        groups = layer.convolution.groups
        shortcut = layer.shortcut_norm(tiled(x, layer.convolution.out_channels, dim=1))
        x = functional.silu(layer.norm(layer.convolution(x)))
        x = x.view(len(x), groups, -1, x.shape[2]).transpose(1, 2).reshape(x.shape) + shortcut
    return x


def drive(readout: Any, x: Tensor) -> Tensor:
    """Drive (B, N, T) of one animal."""
    return readout.convolution(x)[:, : readout.neurons]


def rates(encoder: Any, clip: Any) -> Tensor:
    """Rates (B, T, N) of a batch of windows of one animal, without dropout."""
    (animal,) = encoder.animals
    x = features(encoder.core, encoder.inputs[animal](clip))
    return encoder.output(drive(encoder.readouts[animal], x)).transpose(1, 2)


def trial(encoder: Any, inputs: Tensor, *, window_frames: int, step: int) -> Tensor:
    """Rates (L, N) of a trial (C, L, H, W): a window at every frame, one by one, averaged."""
    (readout,) = encoder.readouts.values()
    frames, span = inputs.shape[1], (window_frames - 1) * step
    total = inputs.new_zeros(readout.neurons, frames)
    counts = inputs.new_zeros(frames)
    for anchor in range(span, frames):
        index = list(range(anchor - span, anchor + 1, step))
        rates = encoder.output(drive(readout, features(encoder.core, inputs[None, :, index])))
        total[:, index] += rates[0]
        counts[index] += 1
    return (total / counts.clamp(min=1)).T


def _block(block: Any, x: Tensor) -> Tensor:
    shortcut = x
    if block.stride > 1:
        size = (x.shape[2], -(-x.shape[3] // block.stride), -(-x.shape[4] // block.stride))
        shortcut = functional.interpolate(x, size=size, mode="nearest")
    shortcut = block.shortcut_norm(tiled(shortcut, block.project.out_channels, dim=1))
    x = functional.silu(block.expand_norm(block.expand(x)))
    x = functional.silu(block.spatial_norm(block.spatial(x)))
    x = functional.silu(block.temporal_norm(block.temporal(x)))
    mean = x.mean((2, 3, 4), keepdim=True)
    x = x * torch.sigmoid(block.excite(functional.silu(block.squeeze(mean))))
    return block.project_norm(block.project(x)) + shortcut
