"""CutMix by the card of DwiseNeuro: boxes, what they replace, and the targets' proportions."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sensorium_models.recipes import CutMix
from sensorium_models.training.augmentation import Box, boxes, mix_inputs, mix_responses

ALWAYS = CutMix(probability=1.0, alpha=1.0)


class Drawn:
    """A generator that gives what the test wants."""

    def __init__(self, chance: float, lam: float, row: int, column: int) -> None:
        self._chance, self._lam, self._places = chance, lam, [row, column]

    def random(self) -> float:
        return self._chance

    def beta(self, first: float, second: float) -> float:
        assert (first, second) == (1.0, 1.0)
        return self._lam

    def integers(self, below: int) -> int:
        return self._places.pop(0)


def drawn(chance: float, lam: float, row: int, column: int) -> Box | None:
    (box,) = boxes(
        CutMix(probability=0.5, alpha=1.0),
        clips=1,
        frame_shape=(64, 64),
        random=Drawn(chance, lam, row, column),  # type: ignore[arg-type]
    )
    return box


def test_box_worked_by_hand() -> None:
    # sqrt(0.25) of 64 is 32: sixteen to either side of the centre.
    assert drawn(0.2, 0.25, 30, 40) == Box(top=14, bottom=46, left=24, right=56)
    # Cut off at the edges, and the proportion is that of what is left: 20 x 16 pixels.
    corner = drawn(0.2, 0.25, 4, 64 - 0 - 64)
    assert corner == Box(top=0, bottom=20, left=0, right=16)
    assert corner.part((64, 64)) == 20 * 16 / 4096
    # int(64 x 0.3) is 19, half of it 9.
    assert drawn(0.2, 0.09, 20, 20) == Box(top=11, bottom=29, left=11, right=29)
    assert drawn(0.5, 0.25, 30, 40) is None


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.integers(1, 6))
def test_inputs_and_responses_mix_in_proportion(seed: int, clips: int) -> None:
    height, width = 9, 13
    cut = boxes(
        CutMix(probability=0.5, alpha=1.0),
        clips=clips,
        frame_shape=(height, width),
        random=np.random.default_rng(seed),
    )
    ones, zeros = torch.ones(clips, 5, 4, height, width), torch.zeros(clips, 5, 4, height, width)
    mixed = mix_inputs(ones, zeros, cut)
    responses = mix_responses(torch.ones(clips, 4, 3), torch.zeros(clips, 4, 3), cut, (9, 13))
    # Every channel and frame has the same box, and targets know how much of the frame it is.
    kept = mixed.mean(dim=(3, 4))
    torch.testing.assert_close(kept, kept[:, :1, :1].expand_as(kept))
    torch.testing.assert_close(responses, kept[:, :1, 0, None].expand(clips, 4, 3))
    assert (ones == 1).all()


def test_half_of_the_clips_are_mixed_and_areas_are_uniform() -> None:
    half = CutMix(probability=0.5, alpha=1.0)
    random = np.random.default_rng(1)
    cut = boxes(half, clips=4000, frame_shape=(64, 64), random=random)
    some = [box for box in cut if box is not None]
    # A binomial's standard deviation is 32; six of them.
    assert abs(len(some) - 2000) < 190
    assert all(0 <= box.top <= box.bottom <= 64 for box in some)
    again = boxes(half, clips=4000, frame_shape=(64, 64), random=np.random.default_rng(1))
    assert again == cut
