"""The core of ViV1T's successor of 2025: causal in time, padded in space, rotary positions.

Facts: model card of ViV1T, part B (bryanlimy/ViV1T-closed-loop d2cbafd). A rate depends on all
frames of the clip up to its own, so a trial must be predicted in one pass.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from sensorium_models.networks.cores.attention import (
    BlockSettings,
    Transformer,
    rate,
    whole_number,
)
from sensorium_models.networks.cores.patches import PatchEmbedding, patch_grid
from sensorium_models.networks.cores.rotary import RotaryPositions
from sensorium_models.networks.encoder import Core


class CausalViV1TCore(Core):
    """Padded patches, attention over space, causal attention over time, registers in both.

    (B, C, T, H, W) to (B, `channels`, T, ceil(H / stride), ceil(W / stride)). All planes get zeros
    around them and `patch_frames` - 1 zero frames before them, those of behaviour, too.
    `patch_dropout` zeroes whole tokens. Registers are learned tokens that only attention sees.

    `time_registers: last`, as published, puts those of time behind all frames, where causal
    attention never looks: they have no effect on any rate and get no gradient, so they are left
    out of the computation and kept only because published weights have them. `first` lets every
    frame see them. `divide_keys` is the other correction, see `RotaryPositions`.
    """

    history_frames = 0
    undivided = True

    def __init__(
        self,
        *,
        in_channels: int,
        frame_shape: tuple[int, int],
        channels: int,
        patch_frames: int,
        patch_pixels: int,
        patch_stride: int,
        nominal_clip_frames: int,
        registers: int,
        time_registers: Literal["last", "first"],
        spatial_blocks: int,
        temporal_blocks: int,
        heads: int,
        head_channels: int,
        divide_keys: bool,
        feedforward_channels: int,
        patch_dropout: float,
        attention_dropout: float,
        feedforward_dropout: float,
        drop_path: float,
        recompute_blocks: bool = False,
    ) -> None:
        """`nominal_clip_frames`: the length on which the rotary scale over time is centred."""
        super().__init__()
        for name, value, least in (
            ("patch_frames", patch_frames, 1),
            ("patch_pixels", patch_pixels, 1),
            ("patch_stride", patch_stride, 1),
            ("nominal_clip_frames", nominal_clip_frames, 1),
            ("registers", registers, 0),
            ("spatial_blocks", spatial_blocks, 0),
            ("temporal_blocks", temporal_blocks, 0),
        ):
            whole_number(name, value, least=least)
        rate("patch_dropout", patch_dropout)
        if time_registers not in ("last", "first"):
            raise ValueError(f"time_registers must be last or first, not {time_registers!r}")
        settings = BlockSettings(
            channels=channels,
            heads=heads,
            head_channels=head_channels,
            feedforward_channels=feedforward_channels,
            activation="relu",
            attention_dropout=attention_dropout,
            feedforward_dropout=feedforward_dropout,
            drop_path=drop_path,
        )
        top, bottom = _padding(frame_shape[0], patch_pixels, patch_stride)
        left, right = _padding(frame_shape[1], patch_pixels, patch_stride)
        self.padding = (left, right, top, bottom, patch_frames - 1, 0)
        self.out_channels = channels
        self.out_shape = patch_grid(
            (frame_shape[0] + top + bottom, frame_shape[1] + left + right),
            pixels=patch_pixels,
            stride=patch_stride,
        )
        self.patch_dropout = patch_dropout
        self.time_registers_first = time_registers == "first"
        self.patches = PatchEmbedding(
            in_channels=in_channels,
            frames=patch_frames,
            pixels=patch_pixels,
            stride=patch_stride,
            out_channels=channels,
        )
        self.spatial_registers = nn.Parameter(torch.randn(registers, channels))
        self.temporal_registers = nn.Parameter(torch.randn(registers, channels))
        tokens = self.out_shape[0] * self.out_shape[1]
        self.spatial_rotary, self.temporal_rotary = (
            RotaryPositions(length=length, head_channels=head_channels, divide_keys=divide_keys)
            for length in (tokens, nominal_clip_frames)
        )
        self.spatial = Transformer(settings, blocks=spatial_blocks, recompute=recompute_blocks)
        self.temporal = Transformer(settings, blocks=temporal_blocks, recompute=recompute_blocks)

    def forward(self, x: Tensor) -> Tensor:
        clips, _, frames = x.shape[:3]
        x = self.patches(functional.pad(x, self.padding)).flatten(2, 3)  # (B, T, P, D)
        tokens = x.shape[2]
        x = functional.dropout1d(x.flatten(1, 2), self.patch_dropout, self.training)
        x = _with_registers(x.unflatten(1, (frames, tokens)).flatten(0, 1), self.spatial_registers)
        registers = len(self.spatial_registers)
        x = self.spatial(x, self.spatial_rotary(tokens, after=registers))[:, :tokens]
        x = x.unflatten(0, (clips, frames)).transpose(1, 2).flatten(0, 1)  # (B P, T, D)
        if self.time_registers_first:
            x = _with_registers(x, self.temporal_registers, first=True)
            rotary = self.temporal_rotary(frames, before=registers)
            x = self.temporal(x, rotary, causal=True)[:, registers:]
        else:
            x = self.temporal(x, self.temporal_rotary(frames), causal=True)
        x = x.unflatten(0, (clips, *self.out_shape))  # (B, h, w, T, D)
        return x.permute(0, 4, 3, 1, 2)


def _padding(size: int, patch: int, stride: int) -> tuple[int, int]:
    """Pixels before and after, so that there are ceil(size / stride) patches."""
    lacking = max(0, (-(-size // stride) - 1) * stride + patch - size)
    return lacking // 2, lacking - lacking // 2


def _with_registers(x: Tensor, registers: Tensor, *, first: bool = False) -> Tensor:
    """(R, N, D) with the same registers beside every row's tokens."""
    added = registers.to(x.dtype).expand(len(x), -1, -1)
    return torch.cat([added, x] if first else [x, added], dim=1)
