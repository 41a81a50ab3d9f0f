"""Rotary positions with a length scale (xPos), as ViV1T's successor has them.

Facts: model card of ViV1T, part B (bryanlimy/ViV1T-closed-loop d2cbafd; Su et al. 2021, arXiv
2104.09864; Sun et al. 2022, arXiv 2212.10554).
"""

from typing import cast

import torch
from torch import Tensor, nn

from sensorium_models.networks.cores.attention import Rotary

_BASE = 10_000.0
_SCALE_FRAMES = 512


class RotaryPositions(nn.Module):
    """Angles and scales of positions 0, 1, ..., `length` - 1; nothing is learned or saved.

    The scale is centred on `length` // 2 and multiplies queries and keys alike. So published,
    although xPos divides the keys, which makes attention a function of distance: `divide_keys` does
    that. A shorter sequence takes the first rows, a longer one makes its own.
    """

    def __init__(self, *, length: int, head_channels: int, divide_keys: bool) -> None:
        super().__init__()
        if head_channels % 2:
            raise ValueError(f"head_channels must be even to be rotated, not {head_channels}")
        self.length = length
        self.divide_keys = divide_keys
        pairs = torch.arange(0, head_channels, 2).float()
        frequencies = 1.0 / _BASE ** (pairs / head_channels)
        scale = (pairs + 0.4 * head_channels) / (1.4 * head_channels)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.register_buffer("scale", scale, persistent=False)

    def forward(self, length: int, *, before: int = 0, after: int = 0) -> tuple[Rotary, Rotary]:
        """What turns queries and what turns keys of `length` positions.

        `before` and `after` them come registers, which are not turned.
        """
        frequencies, base = cast(Tensor, self.frequencies), cast(Tensor, self.scale)
        position = torch.arange(length, device=base.device).to(base.dtype)
        angle = position[:, None] * frequencies
        power = (position - max(length, self.length) // 2) / _SCALE_FRAMES
        scale = base ** power[:, None]
        cos, sin = angle.cos(), angle.sin()

        def turning(scale: Tensor) -> Rotary:
            return Rotary(
                cos=_surrounded(cos * scale, cos * scale, 1.0, before, after),
                sin=_surrounded(-sin * scale, sin * scale, 0.0, before, after),
            )

        of_queries = turning(scale)
        return of_queries, turning(1 / scale) if self.divide_keys else of_queries


def _surrounded(first: Tensor, second: Tensor, value: float, before: int, after: int) -> Tensor:
    """The tables of both halves of a head side by side; registers get `value`."""
    table = torch.cat([first, second], dim=1)
    return torch.cat(
        [
            table.new_full((before, table.shape[1]), value),
            table,
            table.new_full((after, table.shape[1]), value),
        ]
    )
