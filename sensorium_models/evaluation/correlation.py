"""Single-trial correlation and correlation to average, from moments; their aggregation.

Formulas: specs/metrics.md sections 2 to 4. The correlation is the mean product of z-scores, where
the z-score divides by the standard deviation (ddof 0) PLUS 1e-8, so a constant gives 0, never NaN.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from sensorium_models.evaluation.streaming import JointMoments, packed_pairs

EPSILON = 1e-8


def correlation(
    moments: JointMoments, weights: Sequence[float] | np.ndarray | None = None
) -> np.ndarray:
    """Correlation of the response with a weighted sum of the predictions, per neuron.

    Args:
        moments: of S signals, the last of which is the response.
        weights: (S - 1,), used as they are; or (Q, S - 1) for Q weightings at once. Default: the
            mean of all predictions.

    Returns:
        (N,) or (Q, N) float64, exactly as if the weighted sum itself had been correlated:
        (cov / (std_response + 1e-8)) / (std_prediction + 1e-8), ddof 0.

    Raises:
        ValueError: no frames, or a wrong number of weights.
    """
    predictions = len(moments.mean) - 1
    if weights is None:
        weights = np.full(predictions, 1 / predictions)
    given = np.asarray(weights, dtype=np.float64)
    queries = np.atleast_2d(given)
    if queries.shape[1] != predictions:
        raise ValueError(f"{queries.shape[1]} weights were given for {predictions} predictions.")
    if not moments.count:
        raise ValueError("a correlation over no frames is not defined; check the count first.")
    rows, columns = packed_pairs(predictions + 1)
    between = columns < predictions  # pairs of two predictions; the rest involve the response
    with_response = (columns == predictions) & (rows < predictions)
    twice = np.where(rows == columns, 1.0, 2.0)[between]
    squares = queries[:, rows[between]] * queries[:, columns[between]] * twice
    variance = squares @ moments.products[between] / moments.count
    covariance = queries @ moments.products[with_response] / moments.count
    # Weights that cancel can leave a rounding error below zero.
    std_prediction = np.sqrt(np.maximum(variance, 0))
    std_response = np.sqrt(moments.products[-1] / moments.count)
    values = covariance / (std_response + EPSILON) / (std_prediction + EPSILON)
    return values[0] if given.ndim == 1 else values


def pooled(by_animal: Mapping[str, np.ndarray]) -> float:
    """One mean over the neurons of all animals (as the paper does); NaN where there are none."""
    values = np.concatenate([np.zeros(0), *by_animal.values()])
    return float(values.mean()) if values.size else float("nan")


def animal_mean(by_animal: Mapping[str, np.ndarray]) -> float:
    """Mean over animals of the mean over neurons; NaN where there are none."""
    means = [values.mean() for values in by_animal.values() if len(values)]
    return float(np.mean(means)) if means else float("nan")


def mean_over_types(by_type: Mapping[str, float]) -> float:
    """Mean over stimulus types of an aggregate computed per type (bonus track).

    With a single type, as in the main track, this is that type's value.
    """
    return float(np.mean(list(by_type.values()))) if by_type else float("nan")
