"""Running statistics equal the direct computation, also where it is numerically hard."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensorium_models.recordings.statistics import RunningStatistics


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    shape=st.sampled_from([(1,), (5,), (3, 4)]),
    offset=st.sampled_from([0.0, -7.0, 4096.0]),
    seed=st.integers(0, 2**16),
)
def test_equal_to_direct_computation(
    lengths: list[int], shape: tuple[int, ...], offset: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    trials = [(offset + rng.normal(size=(n, *shape))).astype(np.float32) for n in lengths]
    running = RunningStatistics(frames=10, shape=shape)
    for trial in trials:
        running.add(trial)
    per_frame, pooled = running.per_frame(), running.pooled()
    together = np.concatenate(trials).astype(np.float64)
    # Welford's update loses a few units in the last place of the offset per trial.
    tolerance = 1e-13 * (1 + abs(offset))
    np.testing.assert_allclose(pooled.mean, together.mean(axis=0), atol=tolerance, rtol=1e-13)
    np.testing.assert_allclose(pooled.std, together.std(axis=0), atol=tolerance, rtol=1e-11)
    np.testing.assert_array_equal(pooled.min, together.min(axis=0))
    for t in range(10):
        reaching = [trial[t].astype(np.float64) for trial in trials if len(trial) > t]
        if not reaching:
            assert np.isnan(per_frame.mean[t]).all()
            assert np.isnan(per_frame.max[t]).all()
            continue
        np.testing.assert_allclose(per_frame.mean[t], np.mean(reaching, axis=0), atol=tolerance)
        np.testing.assert_allclose(per_frame.std[t], np.std(reaching, axis=0), atol=tolerance)
        np.testing.assert_array_equal(per_frame.max[t], np.max(reaching, axis=0))


def test_uint8_is_not_wrapped_around() -> None:
    running = RunningStatistics(frames=2, shape=(1,))
    for value in (0, 255, 255):
        running.add(np.full((2, 1), value, dtype=np.uint8))
    assert running.pooled().mean[0] == pytest.approx(170)
    assert running.pooled().std[0] == pytest.approx(np.std([0, 255, 255]))


def test_trial_that_does_not_fit_is_refused() -> None:
    running = RunningStatistics(frames=3, shape=(2,))
    with pytest.raises(ValueError, match=r"\(4, 2\) does not fit statistics over at most 3 frames"):
        running.add(np.zeros((4, 2), np.float32))
    with pytest.raises(ValueError, match="No trial was added"):
        running.pooled()


def test_what_is_constant_has_exactly_no_spread() -> None:
    running = RunningStatistics(frames=33, shape=(1,))
    for length in (29, 31, 30, 24, 33):
        running.add(np.full((length, 1), 0.1, dtype=np.float32))
    assert running.pooled().std[0] == 0
    assert not running.per_frame().std.any()
