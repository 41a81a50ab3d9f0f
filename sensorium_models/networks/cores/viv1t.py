"""ViV1T's core: a video transformer, factorised into space and time.

Facts: model card of ViV1T, section A2 (bryanlimy/ViV1T 765cf77, third place of SENSORIUM 2023). The
features at a frame look at patches that end there, but attention over time is not causal: a rate
depends on the whole clip, so a trial must be predicted in one pass.
"""

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
from sensorium_models.networks.encoder import Core


class ViV1TCore(Core):
    """Patches, learned positions, attention over space, then over time.

    (B, C, T, H, W) to (B, `channels`, T - patch_frames + 1, h, w); the temporal length is not
    restored. `patch_dropout` zeroes single numbers of the embedding, not tokens, as published.
    `longest_clip_frames` fixes the table of positions in time; rows beyond the clips of the
    training keep their random start, only shrunk by weight decay, and are used all the same when a
    whole trial is predicted, as published. `recompute_blocks` saves memory in training.
    """

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
        longest_clip_frames: int,
        spatial_blocks: int,
        temporal_blocks: int,
        heads: int,
        head_channels: int,
        feedforward_channels: int,
        patch_dropout: float,
        attention_dropout: float,
        feedforward_dropout: float,
        drop_path: float,
        recompute_blocks: bool = False,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("patch_frames", patch_frames, 1),
            ("patch_pixels", patch_pixels, 1),
            ("patch_stride", patch_stride, 1),
            ("longest_clip_frames", longest_clip_frames, patch_frames),
            ("spatial_blocks", spatial_blocks, 0),
            ("temporal_blocks", temporal_blocks, 0),
        ):
            whole_number(name, value, least=least)
        rate("patch_dropout", patch_dropout)
        settings = BlockSettings(
            channels=channels,
            heads=heads,
            head_channels=head_channels,
            feedforward_channels=feedforward_channels,
            activation="gelu",
            attention_dropout=attention_dropout,
            feedforward_dropout=feedforward_dropout,
            drop_path=drop_path,
        )
        self.out_channels = channels
        self.out_shape = patch_grid(frame_shape, pixels=patch_pixels, stride=patch_stride)
        self.history_frames = patch_frames - 1
        self.longest_clip_frames = longest_clip_frames
        self.patch_dropout = patch_dropout
        self.patches = PatchEmbedding(
            in_channels=in_channels,
            frames=patch_frames,
            pixels=patch_pixels,
            stride=patch_stride,
            out_channels=channels,
        )
        tokens = self.out_shape[0] * self.out_shape[1]
        self.spatial_positions = nn.Parameter(torch.randn(tokens, channels))
        self.temporal_positions = nn.Parameter(
            torch.randn(longest_clip_frames - self.history_frames, channels)
        )
        self.spatial = Transformer(settings, blocks=spatial_blocks, recompute=recompute_blocks)
        self.temporal = Transformer(settings, blocks=temporal_blocks, recompute=recompute_blocks)

    def forward(self, x: Tensor) -> Tensor:
        clips, _, frames = x.shape[:3]
        if frames > self.longest_clip_frames:
            raise ValueError(
                f"a clip of {frames} frames is longer than the {self.longest_clip_frames} for "
                "which this network has positions; cap trials there, or set longest_clip_frames"
            )
        x = self.patches(x).flatten(2, 3)  # (B, T', P, D)
        x = functional.dropout(x, self.patch_dropout, self.training)
        x = x + self.spatial_positions + self.temporal_positions[: x.shape[1], None]
        x = self.spatial(x.flatten(0, 1)).unflatten(0, (clips, -1))
        x = self.temporal(x.transpose(1, 2).flatten(0, 1))  # (B P, T', D)
        x = x.unflatten(0, (clips, *self.out_shape))  # (B, h, w, T', D)
        return x.permute(0, 4, 3, 1, 2)
