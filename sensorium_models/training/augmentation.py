"""CutMix of clips: a box of a second clip of the same animal replaces that of the first.

Yun et al. (2019), arXiv 1905.04899, as in the card of DwiseNeuro, section 4.1 (lRomul/sensorium).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from torch import Tensor

from sensorium_models.recipes import CutMix


@dataclass(frozen=True)
class Box:
    """Rows and columns of a frame, ends excluded."""

    top: int
    bottom: int
    left: int
    right: int

    def part(self, frame_shape: tuple[int, int]) -> float:
        """Area as a part of the frame."""
        height, width = frame_shape
        return (self.bottom - self.top) * (self.right - self.left) / (height * width)


def boxes(
    settings: CutMix, *, clips: int, frame_shape: tuple[int, int], random: np.random.Generator
) -> list[Box | None]:
    """A box for every clip that is mixed.

    The side is sqrt(lambda) of the frame's, lambda ~ Beta(alpha, alpha); the centre is uniform over
    the frame, and what of the box lies outside is cut off.
    """
    height, width = frame_shape
    drawn: list[Box | None] = []
    for _ in range(clips):
        # All is drawn for every clip, so that one clip's luck does not move another's box.
        chance, side = random.random(), sqrt(random.beta(settings.alpha, settings.alpha))
        row, column = int(random.integers(height)), int(random.integers(width))
        if chance >= settings.probability:
            drawn.append(None)
            continue
        tall, wide = int(height * side) // 2, int(width * side) // 2
        drawn.append(
            Box(
                top=max(row - tall, 0),
                bottom=min(row + tall, height),
                left=max(column - wide, 0),
                right=min(column + wide, width),
            )
        )
    return drawn


def mix_inputs(inputs: Tensor, partner: Tensor, cut: Sequence[Box | None]) -> Tensor:
    """Inputs (B, C, T, H, W) with the partner's values in the boxes, in all channels and frames."""
    mixed = inputs.clone()
    for row, box in enumerate(cut):
        if box is not None:
            place = (row, ..., slice(box.top, box.bottom), slice(box.left, box.right))
            mixed[place] = partner[place]
    return mixed


def mix_responses(
    responses: Tensor, partner: Tensor, cut: Sequence[Box | None], frame_shape: tuple[int, int]
) -> Tensor:
    """Responses (B, T, N): the partner's in proportion to the area of the box, frame by frame."""
    parts = [0.0 if box is None else box.part(frame_shape) for box in cut]
    share = responses.new_tensor(parts)[:, None, None]
    return (1 - share) * responses + share * partner
