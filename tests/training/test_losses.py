"""The Poisson loss against the formula worked out by hand."""

import math

import pytest
import torch

from sensorium_models.recipes import Loss
from sensorium_models.training.losses import PoissonLoss, TrialCounts

SETTINGS = {"kind": "poisson", "epsilon": 1e-8}
RATES = torch.tensor([[[1.0, 2.0]], [[0.5, 4.0]]])  # (2 clips, 1 frame, 2 neurons)
COUNTS = TrialCounts(recording=711, training=400, training_of_all=4000, animals=5)
EIGHT = TrialCounts(recording=8, training=8, training_of_all=8, animals=1)
RESPONSES = torch.tensor([[[0.0, 3.0]], [[1.0, 0.0]]])


def test_sum_scaled_by_all_trials_over_clips() -> None:
    loss = PoissonLoss(Loss.model_validate({**SETTINGS, "scale": "sqrt_trials_per_clip"}))
    # o - r ln o: 1, 2 - 3 ln 2, 0.5 - ln 0.5, 4
    expected = math.sqrt(711 / 2) * (7.5 - 3 * math.log(2) - math.log(0.5))
    assert float(loss(RATES, RESPONSES, counts=COUNTS)) == pytest.approx(expected, rel=1e-6)


def test_a_smaller_batch_weighs_more() -> None:
    loss = PoissonLoss(Loss.model_validate({**SETTINGS, "scale": "sqrt_trials_per_clip"}))
    both = loss(RATES[:1], RESPONSES[:1], counts=EIGHT)
    twice = loss(RATES[:1].repeat(2, 1, 1), RESPONSES[:1].repeat(2, 1, 1), counts=EIGHT)
    assert float(twice) == pytest.approx(math.sqrt(2) * float(both), rel=1e-6)


def test_unscaled_and_without_padding() -> None:
    loss = PoissonLoss(Loss.model_validate({**SETTINGS, "scale": "none"}))
    valid = torch.tensor([[True], [False]])
    value = loss(RATES, RESPONSES, counts=COUNTS, valid=valid)
    assert float(value) == pytest.approx(3 - 3 * math.log(2), rel=1e-6)


def test_a_rate_of_zero_is_finite() -> None:
    loss = PoissonLoss(Loss.model_validate({**SETTINGS, "scale": "none"}))
    value = loss(torch.zeros(1, 1, 1), torch.full((1, 1, 1), 2.0), counts=COUNTS)
    assert float(value) == pytest.approx(-2 * math.log(1e-8), rel=1e-6)
