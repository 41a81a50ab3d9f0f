"""Transformers of parallel blocks: attention and feed-forward side by side on the same input.

Facts: model card of ViV1T, sections A2 and B (bryanlimy/ViV1T 765cf77, ViV1T-closed-loop d2cbafd).
Attention is PyTorch's fused one: no matrix of token pairs is kept.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

# Sequences are independent: about this many tokens go through all blocks together where nothing has
# to be kept for a backward pass; in evaluation on a CPU fewer, because its cache holds them.
_TOKENS_AT_ONCE = 16_384
_TOKENS_IN_CACHE = 4_096

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "relu": functional.relu,
}


@dataclass(frozen=True)
class BlockSettings:
    """Sizes and rates of the blocks of one transformer; `drop_path` drops whole sequences."""

    channels: int
    heads: int
    head_channels: int
    feedforward_channels: int
    activation: str
    attention_dropout: float
    feedforward_dropout: float
    drop_path: float

    def __post_init__(self) -> None:
        for name in ("channels", "heads", "head_channels", "feedforward_channels"):
            whole_number(name, getattr(self, name), least=1)
        for name in ("attention_dropout", "feedforward_dropout", "drop_path"):
            rate(name, getattr(self, name))
        if self.activation not in ACTIVATIONS:
            raise ValueError(
                f"activation must be one of {', '.join(ACTIVATIONS)}, not {self.activation!r}"
            )


@dataclass(frozen=True)
class Rotary:
    """Turns queries or keys (..., N, head_channels): x cos + rotate_half(x) sin.

    `sin` has the signs of rotate_half, (-x2, x1), in it: its first half is negative.
    """

    cos: Tensor
    sin: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=-1)
        turned = x * self.cos
        if torch.is_grad_enabled():
            return torch.addcmul(turned, torch.cat([second, first], dim=-1), self.sin)
        for half, other, sin in zip(
            turned.chunk(2, dim=-1), (second, first), self.sin.chunk(2, dim=-1), strict=True
        ):
            half.addcmul_(other, sin)
        return turned


Turns = tuple[Rotary, Rotary]  # of queries, of keys


class ParallelBlock(nn.Module):
    """x + path(W_a attention(LN x)) + path(W_f activation(LN x)), the first projection fused.

    No projection has a bias. Dropout acts on what attention returns (not on its weights) and on the
    activated features. Both paths are dropped independently, for whole rows of the batch.
    """

    def __init__(self, settings: BlockSettings) -> None:
        super().__init__()
        inner = settings.heads * settings.head_channels
        self.settings = settings
        self.sizes = [inner, inner, inner, settings.feedforward_channels]  # q, k, v, features
        self.norm = nn.LayerNorm(settings.channels)
        self.fused = nn.Linear(settings.channels, sum(self.sizes), bias=False)
        self.attention_out = nn.Linear(inner, settings.channels, bias=False)
        self.feedforward_out = nn.Linear(
            settings.feedforward_channels, settings.channels, bias=False
        )
        for linear in (self.fused, self.attention_out, self.feedforward_out):
            nn.init.trunc_normal_(linear.weight, std=0.02)

    def forward(self, x: Tensor, rotary: Turns | None = None, causal: bool = False) -> Tensor:
        s = self.settings
        *heads, features = self.fused(self.norm(x)).split(self.sizes, dim=-1)
        query, key, value = (part.unflatten(-1, (s.heads, -1)).transpose(1, 2) for part in heads)
        if rotary is not None:
            turn_query, turn_key = rotary
            query, key = turn_query(query).to(value.dtype), turn_key(key).to(value.dtype)
        attended = functional.scaled_dot_product_attention(query, key, value, is_causal=causal)
        attended = attended.transpose(1, 2).flatten(2)  # (R, N, heads * head_channels)
        attended = functional.dropout(attended, s.attention_dropout, self.training)
        features = functional.dropout(
            ACTIVATIONS[s.activation](features), s.feedforward_dropout, self.training
        )
        return (
            x
            + self._path(self.attention_out(attended))
            + self._path(self.feedforward_out(features))
        )

    def _path(self, x: Tensor) -> Tensor:
        dropped = self.settings.drop_path
        if not self.training or dropped == 0:
            return x
        kept = torch.empty(len(x), 1, 1, device=x.device, dtype=x.dtype).bernoulli_(1 - dropped)
        return x * kept / (1 - dropped)


class Transformer(nn.Module):
    """A stack of parallel blocks on (R, N, D), row by row; no final norm.

    With `recompute` a training keeps only what enters the stack and computes the rest again in the
    backward pass, some rows at a time.
    """

    def __init__(self, settings: BlockSettings, *, blocks: int, recompute: bool = False) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ParallelBlock(settings) for _ in range(blocks))
        self.recompute = recompute
        self.tokens_at_once = _TOKENS_AT_ONCE

    def forward(self, x: Tensor, rotary: Turns | None = None, causal: bool = False) -> Tensor:
        keeps = torch.is_grad_enabled()
        # Without memory (a shape is tried out before any job) there is none to save.
        if x.is_meta or (keeps and not self.recompute):
            return self._run(x, rotary, causal)
        at_once = self.tokens_at_once
        if not keeps and x.device.type == "cpu":
            at_once = min(at_once, _TOKENS_IN_CACHE)
        pieces = x.split(max(1, at_once // x.shape[1]))
        if keeps:
            done = [checkpoint(self._run, p, rotary, causal, use_reentrant=False) for p in pieces]
        else:
            done = [self._run(piece, rotary, causal) for piece in pieces]
        return torch.cat(done)

    def _run(self, x: Tensor, rotary: Turns | None, causal: bool) -> Tensor:
        for block in self.blocks:
            x = block(x, rotary, causal)
        return x


def whole_number(name: str, value: object, *, least: int) -> None:
    """Refuse a setting that is no whole number from `least` on."""
    if type(value) is not int or value < least:
        raise ValueError(f"{name} must be a whole number from {least} on, not {value!r}")


def rate(name: str, value: object) -> None:
    """Refuse a setting that is no probability below 1."""
    if not isinstance(value, int | float) or not 0 <= value < 1:
        raise ValueError(f"{name} must be from 0 to below 1, not {value!r}")
