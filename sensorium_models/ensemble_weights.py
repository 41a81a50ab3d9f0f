"""Weights of an ensemble that are fitted: the best mean single-trial correlation on some trials."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from scipy import optimize

from sensorium_models.ensemble import EnsembleError
from sensorium_models.evaluation.correlation import EPSILON
from sensorium_models.evaluation.responses import RecordedResponses, scoring_plan
from sensorium_models.evaluation.scores import matching
from sensorium_models.evaluation.streaming import JointMoments, packed_pairs
from sensorium_models.predictions import Predictions
from sensorium_models.progress import track


def fitting_moments(
    *,
    members: Sequence[Path],
    responses: Mapping[str, RecordedResponses],
    tiers: Collection[str],
    left_out: Mapping[str, Collection[int]],
) -> list[JointMoments]:
    """Joint moments of the members' predictions and the response, per animal, over some tiers.

    Args:
        left_out: by animal, trials whose video any member trained on.

    Raises:
        EnsembleError: no trial is left.
    """
    found = []
    with ExitStack() as stack:
        sources = [stack.enter_context(Predictions(path)) for path in members]
        first = sources[0]
        start = first.attributes.first_scored_frame
        for animal in track(first.animals, "moments to fit weights", unit="animal"):
            recorded = matching(first, animal, responses)
            named = [t for t in first.trials(animal) if recorded.tiers[int(t)] in tiers]
            plan = scoring_plan(named, recorded, left_out.get(animal, ()))
            trials = [t for videos in plan.scored.values() for r in videos.values() for t in r]
            moments = JointMoments.empty(len(sources) + 1, recorded.neuron_ids.size)
            for trial in sorted(trials):
                signals = [source.read(animal, trial) for source in sources]
                signals.append(recorded.read(trial, start, start + len(signals[0])))
                moments.add(JointMoments.of(signals))
            if moments.count:
                found.append(moments)
    if not found:
        raise EnsembleError(
            f"no trial of tier {', '.join(tiers)} is left to fit weights on: every video was "
            "trained on by a member, or its responses are withheld. Give weights."
        )
    return found


def fitted_weights(moments: Sequence[JointMoments]) -> np.ndarray:
    """Weights (K,), none negative, sum one, of the highest correlation in the mean over neurons.

    Args:
        moments: per animal, of K predictions and the response; neurons of all animals count alike.

    Raises:
        EnsembleError: no best weights were found.
    """
    members = len(moments[0].mean) - 1
    rows, columns = packed_pairs(members + 1)
    square = np.empty((members + 1, members + 1), dtype=np.int64)
    square[rows, columns] = square[columns, rows] = np.arange(len(rows))
    scaled = np.concatenate([part.products / part.count for part in moments], axis=1)
    between = scaled[square[:members, :members]]  # (K, K, N)
    with_response = scaled[square[:members, members]]  # (K, N)
    response = np.sqrt(scaled[-1]) + EPSILON

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        image = np.tensordot(weights, between, axes=1)  # (K, N)
        spread = np.sqrt(np.maximum(weights @ image, 0))
        covariance = weights @ with_response
        scale = 1 / ((spread + EPSILON) * response)
        slope = image / np.maximum(spread, EPSILON) / (spread + EPSILON)
        gradient = (with_response - covariance * slope) * scale
        return -float((covariance * scale).mean()), -gradient.mean(axis=1)

    found = optimize.minimize(
        loss,
        np.full(members, 1 / members),
        jac=True,
        method="SLSQP",
        bounds=[(0, 1)] * members,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like},
        options={"ftol": 1e-12, "maxiter": 1000},
    )
    if not found.success:
        raise EnsembleError(f"no best weights were found ({found.message}). Give weights.")
    weights = np.maximum(found.x, 0)
    result: np.ndarray = weights / weights.sum()
    return result
