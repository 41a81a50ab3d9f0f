"""Best achievable scores from plain arrays, and reading the truth file."""

import numpy as np
import pytest

from sensorium_models.simulation.truth import Truth, TruthError, best_scores


def test_scores_of_a_small_case():
    """Two repeats of one video and one of another, scored frames worked out by hand."""
    rng = np.random.default_rng(0)
    responses = [rng.gamma(1.0, 1.0, (n, 3)) for n in (12, 11, 9)]
    rates = [r + rng.normal(0, 0.5, r.shape) for r in responses]
    precision = rng.uniform(0.5, 2, (12, 3))
    scores = best_scores(
        responses=responses,
        rates=rates,
        videos=["a", "a", "b"],
        precision=precision,
        first_frame=2,
        cap_frames=10,
        drop_last_frames=1,
    )
    frames = [slice(2, 9), slice(2, 9), slice(2, 8)]
    scaled = [
        [trace[f] * precision[f] for trace, f in zip(traces, frames, strict=True)]
        for traces in (responses, rates)
    ]
    averaged = [[(a + b) / 2, c] for a, b, c in scaled]
    for neuron in range(3):
        single, average = (
            np.corrcoef(*(np.concatenate([t[:, neuron] for t in traces]) for traces in pairs))[0, 1]
            for pairs in (scaled, averaged)
        )
        assert scores.single_trial[neuron] == pytest.approx(single, abs=1e-6)
        assert scores.to_average[neuron] == pytest.approx(average, abs=1e-6)


def test_repeats_of_different_length_are_cut_to_the_shortest():
    rng = np.random.default_rng(1)
    rates = rng.uniform(1, 2, (60, 2))
    long, short = rates, rates[:57]
    scores = best_scores(
        responses=[long, short], rates=[long, short], videos=[0, 0], first_frame=50
    )
    np.testing.assert_allclose(scores.to_average, 1, atol=1e-6)


def test_constant_rates_score_zero():
    responses = [np.random.default_rng(0).uniform(size=(80, 2))]
    scores = best_scores(responses=responses, rates=[np.ones((80, 2))], videos=["a"])
    assert np.array_equal(scores.single_trial, [0, 0])


def test_unequal_lists():
    with pytest.raises(ValueError, match="one of each per trial"):
        best_scores(responses=[np.ones((60, 1))], rates=[], videos=["a"])


def test_no_truth_file(tmp_path):
    with pytest.raises(TruthError, match="no truth file"):
        Truth(tmp_path / "a.truth.h5")
    (tmp_path / "b.truth.h5").write_bytes(b"nothing")
    with pytest.raises(TruthError, match="no readable truth file"):
        Truth(tmp_path / "b.truth.h5")


def test_unit_parameters(pair):
    truth = pair[0].truth
    assert set(truth.units("kind")) <= {"simple", "complex"}
    assert truth.units("direction").shape == (24,)
    assert truth.receptive_fields.shape == (24, 2)
    with pytest.raises(TruthError, match="holds no parameter"):
        truth.units("colour")
    with pytest.raises(TruthError, match="no trial 999"):
        truth.rates(999)
