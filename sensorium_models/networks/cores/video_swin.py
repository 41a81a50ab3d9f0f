"""The core of Dynamic-V1FM: a video Swin transformer into which behaviour is added.

Facts: model card of Dynamic-V1FM, section 2 (zhuyu-cs/Dynamic-VFM 5dc582a; second place of
SENSORIUM 2023). As published, and unlike Swin: no layer norm in or after the blocks, and every
block shifted.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from sensorium_models.networks.cores.window_attention import Size, WindowAttention
from sensorium_models.networks.encoder import Core


class PatchEmbedding(nn.Module):
    """Patches of the video (B, C, T, H, W) to tokens (B, T', H', W', embedding), layer-normalised.

    Where a size is no multiple of the patch, zeros follow at its end.
    """

    def __init__(self, *, in_channels: int, embedding: int, patch: Size) -> None:
        super().__init__()
        self.patch = patch
        self.projection = nn.Conv3d(in_channels, embedding, patch, stride=patch)
        self.norm = nn.LayerNorm(embedding)

    def forward(self, x: Tensor) -> Tensor:
        t, h, w = (-size % patch for size, patch in zip(x.shape[2:], self.patch, strict=True))
        x = functional.pad(x, (0, w, 0, h, 0, t))
        # Patches do not overlap: the convolution is a linear map of each.
        for dimension, patch in enumerate(self.patch):
            x = x.unflatten(2 + 2 * dimension, (-1, patch))
        patches = x.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4)  # (B, T', H', W', C t h w)
        weight = self.projection.weight.flatten(1)
        return self.norm(functional.linear(patches, weight, self.projection.bias))


class StateEmbedding(nn.Module):
    """Two tanh layers on every frame's behaviour; the frames of a patch lie side by side.

    (B, T, S) to (B, T / frames, channels): with two frames per patch, channels 0 .. C/2 - 1 come
    from the first of them and the others from the second.
    """

    def __init__(self, *, state_channels: int, channels: int, frames: int) -> None:
        super().__init__()
        width = channels // frames
        self.frames = frames
        self.layers = nn.Sequential(
            nn.Linear(state_channels, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh()
        )

    def forward(self, state: Tensor) -> Tensor:
        return self.layers(state).unflatten(1, (-1, self.frames)).flatten(2)


class GatedConvolution(nn.Module):
    """Swish-gated linear unit, 3 x 3 x 3 depth-wise convolution, GELU, linear map back.

    Tokens (B, T, H, W, C). Of the widened map the first half is the value, the second its gate.
    """

    def __init__(self, *, channels: int, hidden: int) -> None:
        super().__init__()
        self.widen = nn.Linear(channels, 2 * hidden)
        self.convolution = nn.Conv3d(hidden, hidden, 3, padding=1, groups=hidden)
        self.narrow = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.widen(x).chunk(2, dim=-1)
        x = self._convolved(functional.silu(gate) * value)
        return self.narrow(functional.gelu(x))

    def _convolved(self, x: Tensor) -> Tensor:
        # Two-dimensional convolutions of channels-last frames, one per tap in time: Conv3d's
        # depth-wise numbers at a multiple of its speed on a CPU.
        clips, steps = x.shape[:2]
        weight = self.convolution.weight
        frames = x.flatten(0, 1).permute(0, 3, 1, 2)  # (B T, C, H, W)

        def tap(k: int, bias: Tensor | None) -> Tensor:
            y = functional.conv2d(frames, weight[:, :, k], bias, padding=1, groups=len(weight))
            return y.permute(0, 2, 3, 1).unflatten(0, (clips, steps))

        y = tap(1, self.convolution.bias)
        y[:, 1:] += tap(0, None)[:, :-1]
        y[:, :-1] += tap(2, None)[:, 1:]
        return y


class SwinBlock(nn.Module):
    """x + behaviour, + attention in shifted windows, + gated convolution; no norm anywhere."""

    def __init__(
        self,
        *,
        channels: int,
        heads: int,
        window: Size,
        hidden: int,
        state_channels: int,
        patch_frames: int,
    ) -> None:
        super().__init__()
        self.state_embedding = (
            StateEmbedding(state_channels=state_channels, channels=channels, frames=patch_frames)
            if state_channels
            else None
        )
        self.attention = WindowAttention(channels=channels, heads=heads, window=window)
        self.mlp = GatedConvolution(channels=channels, hidden=hidden)

    def forward(self, x: Tensor, state: Tensor) -> Tensor:
        if self.state_embedding is not None:
            x = x + self.state_embedding(state)[:, :, None, None]
        x = x + self.attention(x)
        return x + self.mlp(x)


class VideoSwinCore(Core):
    """(B, C, T, H, W) and state (B, T, S) to (B, embedding, T / patch[0], H', W').

    Step k of the output is made of input frames 2 k and 2 k + 1 (with patches of two frames) and
    stands for frame T / 2 + k, as published: the output is aligned to the last steps of a clip of
    exactly `clip_frames`. Without behaviour (S = 0) the blocks have no state embedding.
    """

    takes_state = True

    def __init__(
        self,
        *,
        in_channels: int,
        frame_shape: tuple[int, int],
        state_channels: int,
        clip_frames: int,
        patch: Sequence[int],
        window: Sequence[int],
        embedding: int,
        heads: int,
        blocks: int,
        mlp_hidden: int,
    ) -> None:
        super().__init__()
        sizes = {
            "clip_frames": [clip_frames],
            "patch": patch,
            "window": window,
            "embedding": [embedding],
            "heads": [heads],
            "blocks": [blocks],
            "mlp_hidden": [mlp_hidden],
        }
        for name, values in sizes.items():
            whole = isinstance(values, list | tuple) and all(
                type(v) is int and v >= 1 for v in values
            )
            if not whole or (name in ("patch", "window") and len(values) != 3):
                raise ValueError(
                    f"{name} must be "
                    + ("three whole numbers" if name in ("patch", "window") else "a whole number")
                    + f" from 1 on, not {values if name in ('patch', 'window') else values[0]!r}"
                )
        if clip_frames % patch[0]:
            raise ValueError(
                f"clip_frames ({clip_frames}) must be a multiple of a patch's {patch[0]} frames"
            )
        if embedding % patch[0] or embedding % heads:
            raise ValueError(
                f"embedding ({embedding}) must be a multiple of the {patch[0]} frames of a patch "
                f"and of {heads} heads"
            )
        self.patch_embedding = PatchEmbedding(
            in_channels=in_channels, embedding=embedding, patch=_three(patch)
        )
        self.blocks = nn.ModuleList(
            SwinBlock(
                channels=embedding,
                heads=heads,
                window=_three(window),
                hidden=mlp_hidden,
                state_channels=state_channels,
                patch_frames=patch[0],
            )
            for _ in range(blocks)
        )
        self.clip_frames = clip_frames
        self.history_frames = clip_frames - clip_frames // patch[0]
        self.out_channels = embedding
        self.out_shape = (-(-frame_shape[0] // patch[1]), -(-frame_shape[1] // patch[2]))
        # Linear maps and tables of the blocks; convolutions and the norm keep PyTorch's start.
        for part in self.blocks.modules():
            if isinstance(part, nn.Linear):
                nn.init.trunc_normal_(part.weight, std=0.02)
                nn.init.zeros_(part.bias)
            elif isinstance(part, WindowAttention):
                nn.init.trunc_normal_(part.relative_bias, std=0.02)

    def forward(self, x: Tensor, state: Tensor) -> Tensor:
        if x.shape[2] != self.clip_frames:
            raise ValueError(
                f"this core serves clips of {self.clip_frames} frames only, not {x.shape[2]}"
            )
        tokens = self.patch_embedding(x)
        for block in self.blocks:
            tokens = block(tokens, state)
        return tokens.permute(0, 4, 1, 2, 3)


def _three(values: Sequence[int]) -> Size:
    first, second, third = values
    return first, second, third
