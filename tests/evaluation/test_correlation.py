"""The correlation is the published one, numerically, and its aggregates are what they say."""

import numpy as np
import pytest

from sensorium_models.evaluation.correlation import (
    animal_mean,
    correlation,
    mean_over_types,
    pooled,
)
from sensorium_models.evaluation.streaming import JointMoments


def direct_correlation(response: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """specs/metrics.md section 2, steps 2 and 3, in float64: (frames, N) -> (N,)."""
    response, prediction = response.astype(np.float64), prediction.astype(np.float64)
    z_response = (response - response.mean(axis=0)) / (response.std(axis=0, ddof=0) + 1e-8)
    z_prediction = (prediction - prediction.mean(axis=0)) / (prediction.std(axis=0, ddof=0) + 1e-8)
    return (z_response * z_prediction).mean(axis=0)


def test_by_hand():
    # neuron 0: deviations (-2, -1, 3) and (-2, 2, 0): cov 2/3, variances 14/3 and 8/3
    # neuron 1: prediction = -response
    prediction = np.array([[1.0, 1.0], [2.0, 2.0], [6.0, 3.0]])
    response = np.array([[0.0, -1.0], [4.0, -2.0], [2.0, -3.0]])
    found = correlation(JointMoments.of([prediction, response]))
    np.testing.assert_allclose(found, [2 / np.sqrt(14 * 8), -1], atol=3e-8)  # eps: 2 x 1e-8 / std


@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e-8, 1e-10])
def test_epsilon_is_on_the_standard_deviation(scale):
    """With a spread like eps its place in the formula decides the value."""
    rng = np.random.default_rng(0)
    response = rng.normal(size=(500, 20))
    prediction = scale * (response + rng.normal(size=(500, 20)))
    found = correlation(JointMoments.of([prediction, response]))
    expected = direct_correlation(response, prediction)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)
    if scale == 1e-8:
        assert (found < 0.7 * np.diag(np.corrcoef(response.T, prediction.T)[:20, 20:])).all()


def test_constants_give_zero():
    varying = np.random.default_rng(0).normal(size=(50, 1))
    constant = np.full((50, 1), 0.3)
    assert correlation(JointMoments.of([constant, varying]))[0] == 0
    assert correlation(JointMoments.of([varying, constant]))[0] == 0
    assert correlation(JointMoments.of([constant, constant]))[0] == 0


def test_weighted_predictions():
    rng = np.random.default_rng(0)
    *predictions, response = rng.gamma(0.5, size=(4, 300, 5))
    moments = JointMoments.of([*predictions, response])
    weightings = np.array([[1, 0, 0], [0.2, 0.3, 0.5], [2, -1, 0.5]])
    expected = [
        direct_correlation(response, np.tensordot(weights, predictions, axes=1))
        for weights in weightings
    ]
    np.testing.assert_allclose(correlation(moments, weightings), expected, atol=1e-13)
    np.testing.assert_allclose(correlation(moments, weightings[1]), expected[1], atol=1e-13)
    mean = direct_correlation(response, np.mean(predictions, axis=0))
    np.testing.assert_allclose(correlation(moments), mean, atol=1e-13)


def test_undefined_questions_are_refused():
    with pytest.raises(ValueError, match="2 weights were given for 1 predictions"):
        correlation(JointMoments.of([np.ones((3, 1)), np.ones((3, 1))]), [1, 2])
    with pytest.raises(ValueError, match="over no frames"):
        correlation(JointMoments.empty(2, 4))


def test_aggregates():
    values = {"A": np.array([0.1, 0.3]), "B": np.array([0.8])}
    assert pooled(values) == pytest.approx(0.4)
    assert animal_mean(values) == pytest.approx(0.5)
    assert mean_over_types({"gabor": 0.1, "images": 0.3}) == pytest.approx(0.2)
    assert np.isnan([pooled({}), animal_mean({}), mean_over_types({})]).all()
