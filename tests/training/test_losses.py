"""The Poisson loss against the formula worked out by hand."""

import math

import pytest
import torch

from sensorium_models.recipes import Loss
from sensorium_models.training.losses import PoissonLoss, TrialCounts, clip_weights

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


def test_epsilon_in_rate_and_response() -> None:
    settings = {"kind": "poisson", "epsilon": 0.5, "scale": "none"}
    both = PoissonLoss(Loss.model_validate({**settings, "epsilon_added_to": "rate_and_response"}))
    value = both(RATES[:1], RESPONSES[:1], counts=COUNTS)
    # (1.5 - 0.5 ln 1.5) + (2.5 - 3.5 ln 2.5)
    assert float(value) == pytest.approx(4 - 0.5 * math.log(1.5) - 3.5 * math.log(2.5), rel=1e-6)
    plain = PoissonLoss(Loss.model_validate(settings))
    value = plain(RATES[:1], RESPONSES[:1], counts=COUNTS)
    assert float(value) == pytest.approx(3 - 3 * math.log(2.5), rel=1e-6)


def test_scales_by_training_trials() -> None:
    unscaled = PoissonLoss(Loss.model_validate({**SETTINGS, "scale": "none"}))
    plain = float(unscaled(RATES, RESPONSES, counts=COUNTS))
    viv1t = {**SETTINGS, "scale": "sqrt_training_trials_per_clip"}
    loss = PoissonLoss(Loss.model_validate(viv1t))
    assert float(loss(RATES, RESPONSES, counts=COUNTS)) == pytest.approx(plain * math.sqrt(200))
    # 2025: total trials / (animals x trials of this one), over animals x clips.
    loss = PoissonLoss(Loss.model_validate({**SETTINGS, "scale": "equal_animals"}))
    expected = plain * (4000 / (5 * 400)) / (5 * 2)
    assert float(loss(RATES, RESPONSES, counts=COUNTS)) == pytest.approx(expected, rel=1e-6)


def test_parts_of_a_batch_add_up_to_it() -> None:
    loss = PoissonLoss(Loss.model_validate({**SETTINGS, "scale": "sqrt_trials_per_clip"}))
    parts = [loss(RATES[i : i + 1], RESPONSES[i : i + 1], counts=COUNTS, clips=2) for i in (0, 1)]
    assert float(sum(parts)) == pytest.approx(float(loss(RATES, RESPONSES, counts=COUNTS)))


def test_correlation_in_the_loss() -> None:
    settings = {**SETTINGS, "scale": "none"}
    plain = PoissonLoss(Loss.model_validate(settings))
    both = PoissonLoss(Loss.model_validate({**settings, "correlation_weight": 1000.0}))
    added = both(RATES, RESPONSES, counts=COUNTS) - plain(RATES, RESPONSES, counts=COUNTS)
    # Two values each: neuron 0 falls while its response rises (-1), so does neuron 1.
    assert float(added) == pytest.approx(1000 * (2 + 2), rel=1e-5)


def test_loss_by_clip_leaves_padding_out() -> None:
    loss = PoissonLoss(Loss.model_validate({**SETTINGS, "scale": "weighted_clips"}))
    first, second = 3 - 3 * math.log(2), 4.5 - math.log(0.5)
    assert loss.by_clip(RATES, RESPONSES).tolist() == pytest.approx([first, second], rel=1e-6)
    valid = torch.tensor([[True], [False]])
    assert loss.by_clip(RATES, RESPONSES, valid).tolist() == pytest.approx([first, 0.0])


def test_weights_of_clips_and_teacher_are_those_of_the_card() -> None:
    own = torch.zeros(32, 10, dtype=torch.bool)
    own[torch.arange(32), torch.arange(32) % 10] = True
    alone = clip_weights(own, ratio=None)
    assert alone[own].tolist() == pytest.approx([1 / 32] * 32)
    assert float(alone[~own].sum()) == 0
    taught = clip_weights(own, ratio=0.36)
    assert float(taught.sum()) == pytest.approx(1, rel=1e-6)
    assert float(taught[own].sum()) == pytest.approx(0.64, rel=1e-6)
    # 0.0625 of a recorded clip's weight for each of the nine other animals
    ratio = taught[~own] / taught[own][0]
    assert ratio.tolist() == pytest.approx([0.0625] * 288, rel=1e-6)


def test_low_precision_is_summed_in_float32() -> None:
    loss = PoissonLoss(Loss.model_validate({**SETTINGS, "scale": "none"}))
    many = torch.ones(1, 100, 100, dtype=torch.float16)
    assert float(loss(many * 40, many * 0, counts=COUNTS)) == 400000  # more than float16 holds
