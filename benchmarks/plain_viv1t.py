"""ViV1T of 2023 and its successor of 2025 written down plainly: the benchmarks' other side.

From the model card, sections A2 to A4 (bryanlimy/ViV1T 765cf77) and part B (ViV1T-closed-loop
d2cbafd): all patches as one tensor, all scores of attention as another, blocks on the whole clip,
features sampled for all frames, channels and neurons at once. Without dropout and drop path.
Weights are those of the project's own modules.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def rates(encoder: Any, clip: Any) -> Tensor:
    """Rates (B, T', N) of a batch of clips of one animal."""
    (animal,) = encoder.animals
    inputs, readout = encoder.inputs[animal], encoder.readouts[animal]
    later = hasattr(encoder.core, "spatial_registers")
    x = (_features_of_2025 if later else _features)(encoder.core, inputs(clip))
    clips, _, frames = x.shape[:3]
    shift = encoder.shifters[animal](inputs.pupil_center(clip)[:, -frames:])
    maps = x.transpose(1, 2).flatten(0, 1)
    grid = readout.sampled_positions(len(maps)) + shift.reshape(-1, 1, 2)
    sampled = functional.grid_sample(maps, grid[:, :, None], align_corners=True)[..., 0]
    if not later:
        state = readout.state_encoder(inputs.state(clip)[:, -frames:])
        sampled = sampled + state.flatten(0, 1)[..., None]
    y = (sampled * readout.features).sum(dim=1) + readout.bias
    return encoder.output(y.unflatten(0, (clips, frames)))


def _features(core: Any, x: Tensor) -> Tensor:
    """Features (B, C', T', h, w) of clips (B, C, T, H, W)."""
    x, grid = _tokens(core.patches, x)
    clips, steps = x.shape[:2]
    x = x + core.spatial_positions + core.temporal_positions[:steps, None]
    x = _transformed(core.spatial, x.flatten(0, 1)).unflatten(0, (clips, steps))
    x = _transformed(core.temporal, x.transpose(1, 2).flatten(0, 1))
    return x.reshape(clips, *grid, steps, -1).permute(0, 4, 3, 1, 2)


def _features_of_2025(core: Any, x: Tensor) -> Tensor:
    """The same with zeros around the clip, registers behind the tokens, and rotary positions."""
    x, grid = _tokens(core.patches, functional.pad(x, core.padding))
    clips, steps, places = x.shape[:3]

    def turned_up_to(tokens: int, centre: int) -> Callable[[Tensor], Tensor]:
        def turn(heads: Tensor) -> Tensor:  # (rows, heads, tokens and registers, channels)
            return torch.cat([_turned(heads[:, :, :tokens], centre), heads[:, :, tokens:]], dim=2)

        return turn

    x = x.flatten(0, 1)
    x = torch.cat([x, core.spatial_registers.expand(len(x), -1, -1)], dim=1)
    turn = turned_up_to(places, max(places, core.spatial_rotary.length) // 2)
    x = _transformed(core.spatial, x, functional.relu, turn)[:, :places]
    x = x.unflatten(0, (clips, steps)).transpose(1, 2).flatten(0, 1)
    x = torch.cat([x, core.temporal_registers.expand(len(x), -1, -1)], dim=1)
    later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).triu(1)
    turn = turned_up_to(steps, max(steps, core.temporal_rotary.length) // 2)
    x = _transformed(core.temporal, x, functional.relu, turn, later)[:, :steps]
    return x.reshape(clips, *grid, steps, -1).permute(0, 4, 3, 1, 2)


def _tokens(patches: Any, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Embedded patches (B, T', h w, D), and (h, w)."""
    frames, pixels, _ = patches.window
    x = x.unfold(2, frames, 1)
    x = x.unfold(3, pixels, patches.stride).unfold(4, pixels, patches.stride)
    clips, _, steps, rows, columns = x.shape[:5]
    x = x.permute(0, 2, 3, 4, 1, 5, 6, 7).reshape(clips, steps, rows * columns, -1)
    return patches.norm(patches.linear(patches.patch_norm(x))), (rows, columns)


def _turned(x: Tensor, centre: int) -> Tensor:
    """Rotated by position with xPos's scale, which multiplies queries and keys alike."""
    channels = x.shape[-1]
    pair = torch.arange(channels // 2, device=x.device, dtype=x.dtype).repeat(2)
    position = torch.arange(x.shape[-2], device=x.device, dtype=x.dtype)[:, None]
    angle = position * 10_000 ** (-2 * pair / channels)
    scale = ((2 * pair + 0.4 * channels) / (1.4 * channels)) ** ((position - centre) / 512)
    first, second = x.chunk(2, dim=-1)
    half_turned = torch.cat([-second, first], dim=-1)
    return (x * angle.cos() + half_turned * angle.sin()) * scale


def _transformed(
    transformer: Any,
    x: Tensor,
    activation: Callable[[Tensor], Tensor] = functional.gelu,
    turn: Callable[[Tensor], Tensor] = lambda heads: heads,
    hidden: Tensor | None = None,
) -> Tensor:
    """Parallel blocks on (rows, tokens, D); a token does not see those that are `hidden` to it."""
    for block in transformer.blocks:
        heads = block.settings.heads
        *projected, widened = block.fused(block.norm(x)).split(block.sizes, dim=-1)
        query, key, value = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in projected)
        scores = turn(query) @ turn(key).transpose(2, 3) * query.shape[-1] ** -0.5
        if hidden is not None:
            scores = scores.masked_fill(hidden, float("-inf"))
        attended = (torch.softmax(scores, dim=-1) @ value).transpose(1, 2).flatten(2)
        x = x + block.attention_out(attended) + block.feedforward_out(activation(widened))
    return x
