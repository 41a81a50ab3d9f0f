"""Self-attention within shifted windows of space and time, without a table of scores being kept.

Facts: model card of Dynamic-V1FM, section 2.2 (zhuyu-cs/Dynamic-VFM 5dc582a; Video Swin
Transformer, Liu et al. 2022). Tokens are (B, T, H, W, C).
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

# Added to the logit of two tokens that only the cyclic shift brought together; not minus infinity,
# as published.
_APART = -100.0

# Windows whose scores exist at the same time in the backward pass.
_WINDOWS_AT_ONCE = 8

Size = tuple[int, int, int]


class WindowAttention(nn.Module):
    """Attention among the tokens of each window of a grid that is shifted by half a window.

    Where the grid is no larger than the window along a dimension, the window is the grid and is not
    shifted. The grid is padded with zeros behind its end to whole windows: a padded token's query,
    key and value are the biases, and the others attend to it (not masked, as published).
    """

    def __init__(self, *, channels: int, heads: int, window: Size) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"{channels} channels are no multiple of {heads} heads")
        self.heads = heads
        self.window = window
        self.qkv = nn.Linear(channels, 3 * channels)
        self.projection = nn.Linear(channels, channels)
        spans = [2 * size - 1 for size in window]
        self.relative_bias = nn.Parameter(torch.empty(spans[0] * spans[1] * spans[2], heads))
        self.register_buffer("relative_index", relative_index(window), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        clips, *grid, channels = x.shape
        window, shift = self.window_and_shift((grid[0], grid[1], grid[2]))
        layout = _layout((grid[0], grid[1], grid[2]), window, shift, x.device)
        padded = functional.pad(x.flatten(1, 3), (0, 0, 0, 1))  # the last token is the padding
        first = len(padded[0]) * torch.arange(clips, device=x.device)[:, None]
        rows = padded.flatten(0, 1)
        bias = self._bias(window)
        attended = []
        for tokens, mask in layout.groups:
            # Windows of a group, then clips: (M, L) rows, M = windows * clips.
            index = (tokens[:, None] + first).flatten(0, 1)
            qkv = self.qkv(rows[index]).unflatten(-1, (3, self.heads, -1))  # (M, L, 3, heads, d)
            logits = bias if mask is None else bias + mask.to(bias.dtype)
            query, key, value = qkv.permute(2, 0, 3, 1, 4)
            y = attend(query, key, value, logits)  # (M, heads, L, d)
            attended.append(y.transpose(1, 2).reshape(len(tokens), clips, -1, channels))
        every = torch.cat(attended).transpose(0, 1).flatten(1, 2)  # (B, windows * L, C)
        return self.projection(every[:, layout.origin]).unflatten(1, grid)

    def window_and_shift(self, grid: Size) -> tuple[Size, Size]:
        """The window, no larger than the grid, and by how much it is shifted."""
        window = tuple(min(w, g) for w, g in zip(self.window, grid, strict=True))
        shift = tuple(w // 2 if g > w else 0 for w, g in zip(self.window, grid, strict=True))
        return window, shift  # type: ignore[return-value]

    def _bias(self, window: Size) -> Tensor:
        """Learned logits (heads, L, L) by the distance of two tokens.

        For a smaller window the first rows and columns of the full one's table of indices are
        taken, as published, although its tokens lie at other distances.
        """
        tokens = window[0] * window[1] * window[2]
        index = self.relative_index[:tokens, :tokens]  # type: ignore[index]
        return self.relative_bias[index.flatten()].unflatten(0, (tokens, tokens)).permute(2, 0, 1)


def attend(query: Tensor, key: Tensor, value: Tensor, logits: Tensor) -> Tensor:
    """softmax(query key' / sqrt(d) + logits) value for M windows, as (M, heads, L, d).

    `logits` (heads, L, L) are those of all windows, and may learn. No scores are kept: the backward
    pass computes them again, for some windows at a time.
    """
    return cast(Tensor, _Attention.apply(query, key, value, logits))


class _Attention(torch.autograd.Function):
    # PyTorch's fused attention alone has no gradient of the logits: where they learn, it falls back
    # to plain attention, which keeps all scores.
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, logits: Tensor) -> Tensor:
        # Detached, because the choice of the fused kernel looks at what requires a gradient.
        q, k, v, mask = (values.detach() for values in (query, key, value, logits))
        y = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask.to(q.dtype)[None])
        ctx.save_for_backward(query, key, value, logits, y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, y_gradient: Tensor) -> tuple[Tensor, ...]:
        *inputs, logits, y = ctx.saved_tensors
        gradients = [torch.empty_like(values) for values in inputs]
        logits_gradient = torch.zeros_like(logits)
        scale = inputs[0].shape[-1] ** -0.5
        for start in range(0, len(y), _WINDOWS_AT_ONCE):
            part = slice(start, start + _WINDOWS_AT_ONCE)
            q, k, v = (values[part].contiguous() for values in inputs)
            dy = y_gradient[part].to(q.dtype).contiguous()
            weights = (q @ k.transpose(2, 3)).to(logits.dtype).mul_(scale).add_(logits)
            weights = weights.softmax(dim=-1)
            scores = (dy @ v.transpose(2, 3)).to(logits.dtype)  # becomes the scores' gradient
            scores.sub_((dy * y[part]).sum(dim=-1, keepdim=True)).mul_(weights)
            logits_gradient += scores.sum(dim=0)
            scores = scores.to(q.dtype)
            gradients[0][part] = (scores @ k).mul_(scale)
            gradients[1][part] = (scores.transpose(2, 3) @ q).mul_(scale)
            gradients[2][part] = weights.to(q.dtype).transpose(2, 3) @ dy
        return *gradients, logits_gradient


def relative_index(window: Size) -> Tensor:
    """Row of the table of relative biases for two tokens of a window, (L, L) int64."""
    axes = [torch.arange(size) for size in window]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)  # (3, L)
    apart = places[:, :, None] - places[:, None]
    index = torch.zeros_like(apart[0])
    for distance, size in zip(apart, window, strict=True):
        index = index * (2 * size - 1) + distance + size - 1
    return index


@dataclass(frozen=True)
class _Layout:
    """Which token lies where: windows in groups that share a mask, and the way back.

    A group is the tokens of its windows (windows, L), as places in the flattened grid, whose end
    stands for padding, and its mask (L, L) or None. `origin` (tokens of the grid,) is where each
    token lies when all groups follow each other.
    """

    groups: tuple[tuple[Tensor, Tensor | None], ...]
    origin: Tensor


@lru_cache(maxsize=32)
@torch.inference_mode(False)  # also when it is first needed where nothing is learned
def _layout(grid: Size, window: Size, shift: Size, device: torch.device) -> _Layout:
    counts = [-(-g // w) for g, w in zip(grid, window, strict=True)]
    places = torch.arange(math.prod(grid)).reshape(grid)
    t, h, w = (n * w - g for n, w, g in zip(counts, window, grid, strict=True))
    places = functional.pad(places, (0, w, 0, h, 0, t), value=math.prod(grid))
    places = places.roll([-s for s in shift], dims=(0, 1, 2))
    for dimension, size in enumerate(window):
        places = places.unflatten(2 * dimension, (-1, size))
    places = places.permute(0, 2, 4, 1, 3, 5).flatten(3)  # (nt, nh, nw, L), tokens in order t, h, w
    # Along a shifted dimension only the last windows hold tokens that the roll brought together.
    choices = [
        [(False, slice(0, n - 1)), (True, slice(n - 1, n))] if moved else [(False, slice(0, n))]
        for n, moved in zip(counts, shift, strict=True)
    ]
    groups = []
    for corner in product(*choices):
        mixed, part = zip(*corner, strict=True)
        tokens = places[part].flatten(0, 2)
        if len(tokens):
            groups.append((tokens, _mask(window, shift, mixed)))
    origin = torch.empty(math.prod(grid) + 1, dtype=torch.int64)
    order = torch.cat([tokens.flatten() for tokens, _ in groups])
    origin[order] = torch.arange(len(order))
    # Where they are used: a copy in every block would keep a GPU waiting.
    there = [(t.to(device), None if mask is None else mask.to(device)) for t, mask in groups]
    return _Layout(tuple(there), origin[:-1].to(device))


def _mask(window: Size, shift: Size, mixed: tuple[bool, ...]) -> Tensor | None:
    """Logits (L, L) that keep apart the tokens that lie apart in the grid; None where none do."""
    if not any(mixed):
        return None
    parts = [
        (torch.arange(size) >= size - moved) & last
        for size, moved, last in zip(window, shift, mixed, strict=True)
    ]
    region = torch.stack(torch.meshgrid(*parts, indexing="ij")).flatten(1)  # (3, L)
    apart = (region[:, :, None] != region[:, None]).any(dim=0)
    return torch.where(apart, _APART, 0.0)
