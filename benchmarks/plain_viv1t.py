"""ViV1T of 2023 written down plainly: the benchmark's other side.

From the model card, sections A2 to A4 (bryanlimy/ViV1T 765cf77): all patches as one tensor, all
scores of attention as another, blocks on the whole clip, features sampled for all frames, channels
and neurons at once. Without dropout and drop path. Weights are those of the project's own modules.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def features(core: Any, x: Tensor) -> Tensor:
    """Features (B, C', T', h, w) of clips (B, C, T, H, W)."""
    patches, stride = core.patches, core.patches.stride
    frames, pixels, _ = patches.window
    x = x.unfold(2, frames, 1).unfold(3, pixels, stride).unfold(4, pixels, stride)
    clips, _, steps, rows, columns = x.shape[:5]
    x = x.permute(0, 2, 3, 4, 1, 5, 6, 7).reshape(clips, steps, rows * columns, -1)
    x = patches.norm(patches.linear(patches.patch_norm(x)))
    x = x + core.spatial_positions + core.temporal_positions[:steps, None]
    x = _transformed(core.spatial, x.flatten(0, 1)).unflatten(0, (clips, steps))
    x = _transformed(core.temporal, x.transpose(1, 2).flatten(0, 1))
    return x.reshape(clips, rows, columns, steps, -1).permute(0, 4, 3, 1, 2)


def rates(encoder: Any, clip: Any) -> Tensor:
    """Rates (B, T', N) of a batch of clips of one animal."""
    (animal,) = encoder.animals
    inputs, readout = encoder.inputs[animal], encoder.readouts[animal]
    x = features(encoder.core, inputs(clip))
    clips, _, frames = x.shape[:3]
    shift = encoder.shifters[animal](inputs.pupil_center(clip)[:, -frames:])
    state = readout.state_encoder(inputs.state(clip)[:, -frames:])
    maps = x.transpose(1, 2).flatten(0, 1)
    grid = readout.sampled_positions(len(maps)) + shift.reshape(-1, 1, 2)
    sampled = functional.grid_sample(maps, grid[:, :, None], align_corners=True)[..., 0]
    sampled = sampled + state.flatten(0, 1)[..., None]
    y = (sampled * readout.features).sum(dim=1) + readout.bias
    return encoder.output(y.unflatten(0, (clips, frames)))


def _transformed(transformer: Any, x: Tensor) -> Tensor:
    for block in transformer.blocks:
        heads = block.settings.heads
        *projected, widened = block.fused(block.norm(x)).split(block.sizes, dim=-1)
        query, key, value = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in projected)
        scores = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5
        attended = (torch.softmax(scores, dim=-1) @ value).transpose(1, 2).flatten(2)
        x = x + block.attention_out(attended) + block.feedforward_out(functional.gelu(widened))
    return x
