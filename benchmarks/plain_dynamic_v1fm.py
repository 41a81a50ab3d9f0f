"""Dynamic-V1FM written down plainly, as the published code computes it: the benchmark's other side.

Shifted windows as in torchvision (pad, roll, cut, a table of all scores, softmax), convolutions in
three dimensions, every level of the readout sampled anew. Takes its weights from the project's own
modules.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from sensorium_models.networks.cores.window_attention import relative_index


def features(core: Any, video: Tensor, state: Tensor) -> Tensor:
    """Features (B, C, T', H', W') of clips (B, 1, T, H, W)."""
    x = core.patch_embedding.projection(video).permute(0, 2, 3, 4, 1)
    x = core.patch_embedding.norm(x)
    for block in core.blocks:
        embedding = block.state_embedding.layers(state)
        x = x + embedding.reshape(len(x), x.shape[1], 1, 1, -1)
        x = x + _attention(block.attention, x)
        x = x + _mlp(block.mlp, x)
    return x.permute(0, 4, 1, 2, 3)


def drive(readout: Any, x: Tensor, shift: Tensor) -> Tensor:
    """Drive (B, T, N) from features and gaze shift (B, T, 2); all levels, and their mean."""
    clips, frames = len(x), x.shape[2]
    maps = x.transpose(1, 2).flatten(0, 1)
    grid = readout.sampled_positions(len(maps)) + shift.reshape(-1, 1, 2)
    neurons = grid.shape[1]
    levels = [_sample(maps, grid, readout.features)]
    for name, scale in readout.scales.items():
        size = (neurons // int(name), 2)
        few = functional.interpolate(grid[:, None], size=size, mode="nearest")[:, 0]
        level = functional.interpolate(_sample(maps, few, scale.features)[:, None], size=neurons)
        levels.append(scale.refine(level[:, 0, :, None])[..., 0])
    y = torch.stack(levels).mean(dim=0) + readout.bias
    return y.unflatten(0, (clips, frames))


def rates(encoder: Any, clip: Any) -> Tensor:
    """Rates (B, T', N) of a batch of clips of one animal."""
    (animal,) = encoder.animals
    inputs = encoder.inputs[animal]
    core = features(encoder.core, inputs(clip), inputs.state(clip))
    shift = encoder.shifters[animal](inputs.pupil_center(clip)[:, -core.shape[2] :])
    return encoder.output(drive(encoder.readouts[animal], core, shift))


def trial(encoder: Any, clip: Any, *, wanted: slice) -> Tensor:
    """Rates (frames, N) of a trial: all windows of 30 frames in one batch, one of them twice."""
    (animal,) = encoder.animals
    inputs = encoder.inputs[animal]
    video, state = inputs(clip)[0], inputs.state(clip)[0]
    stop = wanted.stop
    starts = [*range(wanted.start - 15, stop - 24, 15), stop - 39, stop - 30]
    index = torch.tensor(starts)[:, None] + torch.arange(30)
    shift = encoder.shifters[animal](inputs.pupil_center(clip)[0][index[:, 15:]])
    core = features(encoder.core, video[:, index].transpose(0, 1), state[index])
    rates = encoder.output(drive(encoder.readouts[animal], core, shift))
    rest = (stop - wanted.start) % 15
    return torch.cat([rates[:-2].flatten(0, 1), rates[-1, 15 - rest :]])


def _attention(attention: Any, x: Tensor) -> Tensor:
    (pt, ph, pw), heads = attention.window, attention.heads
    shift = [size // 2 for size in attention.window]
    clips, t, h, w, channels = x.shape
    x = functional.pad(x, (0, 0, 0, -w % pw, 0, -h % ph, 0, -t % pt))
    _, tt, hh, ww, _ = x.shape
    counts = (tt // pt, hh // ph, ww // pw)
    x = torch.roll(x, [-s for s in shift], dims=(1, 2, 3))

    def cut(y: Tensor) -> Tensor:
        y = y.view(len(y), counts[0], pt, counts[1], ph, counts[2], pw, -1)
        return y.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(
            len(y) * counts[0] * counts[1] * counts[2], pt * ph * pw, -1
        )

    tokens = cut(x)
    qkv = attention.qkv(tokens).view(len(tokens), -1, 3, heads, channels // heads)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    scores = (q * (channels // heads) ** -0.5).matmul(k.transpose(-2, -1))
    index = relative_index(attention.window).flatten()
    scores = scores + attention.relative_bias[index].view(len(k[0, 0]), len(k[0, 0]), -1).permute(
        2, 0, 1
    )
    regions = torch.zeros(1, tt, hh, ww, 1)
    number = 0
    for a in (slice(-pt), slice(-pt, -shift[0]), slice(-shift[0], None)):
        for b in (slice(-ph), slice(-ph, -shift[1]), slice(-shift[1], None)):
            for c in (slice(-pw), slice(-pw, -shift[2]), slice(-shift[2], None)):
                regions[:, a, b, c] = number
                number += 1
    region = cut(regions)[..., 0]
    mask = torch.where(region[:, None] != region[:, :, None], -100.0, 0.0)
    scores = scores.view(clips, len(mask), heads, *mask.shape[1:]) + mask[None, :, None]
    weights = scores.view(-1, heads, *mask.shape[1:]).softmax(dim=-1)
    y = attention.projection(weights.matmul(v).transpose(1, 2).reshape(tokens.shape))
    y = y.view(clips, *counts, pt, ph, pw, channels).permute(0, 1, 4, 2, 5, 3, 6, 7)
    y = torch.roll(y.reshape(clips, tt, hh, ww, channels), shift, dims=(1, 2, 3))
    return y[:, :t, :h, :w]


def _mlp(mlp: Any, x: Tensor) -> Tensor:
    value, gate = mlp.widen(x).chunk(2, dim=-1)
    x = (functional.silu(gate) * value).permute(0, 4, 1, 2, 3)
    return mlp.narrow(functional.gelu(mlp.convolution(x)).permute(0, 2, 3, 4, 1))


def _sample(maps: Tensor, grid: Tensor, weights: Tensor) -> Tensor:
    sampled = functional.grid_sample(maps, grid[:, :, None], align_corners=True)[..., 0]
    return (sampled * weights).sum(dim=1)
