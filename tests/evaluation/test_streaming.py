"""Joint moments and repeat averages against the plain computation on everything at once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensorium_models.evaluation.streaming import JointMoments, RepeatAverage, packed_pairs


def plain(signals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and packed products of (S, frames, N) from the definition, in extended precision."""
    signals = signals.astype(np.longdouble)
    mean = signals.mean(axis=1)
    centred = signals - mean[:, None]
    rows, columns = packed_pairs(len(signals))
    return mean, (centred[rows] * centred[columns]).sum(axis=1)


def test_by_hand():
    prediction, response = np.array([[1.0], [2.0], [6.0]]), np.array([[0.0], [4.0], [2.0]])
    moments = JointMoments.of([prediction, response])
    assert moments.count == 3
    np.testing.assert_array_equal(moments.mean[:, 0], [3, 2])
    # deviations (-2, -1, 3) and (-2, 2, 0): 4 + 1 + 9, 4 - 2 + 0, 4 + 4 + 0
    np.testing.assert_array_equal(moments.products[:, 0], [14, 2, 8])


@given(
    signals=st.integers(1, 7),
    frames=st.integers(1, 40),
    cuts=st.lists(st.integers(0, 40), max_size=5),
    seed=st.integers(0, 1000),
)
def test_any_pieces_in_any_order_give_the_same(signals, frames, cuts, seed):
    rng = np.random.default_rng(seed)
    data = rng.gamma(0.3, size=(signals, frames, 3)).astype(np.float32)
    pieces = np.split(data, sorted(min(cut, frames) for cut in cuts), axis=1)
    moments = JointMoments.empty(signals, 3)
    for index in rng.permutation(len(pieces)):
        moments.add(JointMoments.of(list(pieces[index])))
    mean, products = plain(data)
    assert moments.count == frames
    # 40 additions of values of the size of the largest one: 40 x 1e-16 relative to it
    scale = np.abs(data).max() + 1e-30
    np.testing.assert_allclose(moments.mean, mean.astype(float), rtol=0, atol=1e-14 * scale)
    limit = 1e-14 * scale**2 * frames
    np.testing.assert_allclose(moments.products, products.astype(float), rtol=0, atol=limit)


def test_wide_input_is_the_same_as_narrow():
    """More neurons than one working block holds."""
    data = np.random.default_rng(0).normal(size=(2, 30, 5000)).astype(np.float32)
    whole = JointMoments.of(list(data))
    part = JointMoments.of(list(data[:, :, 4990:]))
    np.testing.assert_allclose(whole.products[:, 4990:], part.products, rtol=1e-13)


@pytest.mark.parametrize("value", [0.1, 1e-20, 12345.678])
def test_constant_has_exactly_zero_products(value):
    moments = JointMoments.empty(2, 1)
    for frames in (7, 3, 1):
        signals = [np.full((frames, 1), value), np.arange(frames, dtype=float)[:, None]]
        moments.add(JointMoments.of(signals))
    assert moments.products[0, 0] == 0
    assert moments.products[1, 0] == 0


def test_large_offset_costs_no_more_than_it_must():
    """Offset 1e3 times the spread: the naive sum of squares would lose six digits."""
    data = np.random.default_rng(1).normal(size=(2, 2000, 4))
    shifted = (data + 1000).astype(np.float32)
    moments = JointMoments.empty(2, 4)
    for first in range(0, 2000, 250):
        moments.add(JointMoments.of(list(shifted[:, first : first + 250])))
    _, products = plain(shifted)
    scale = products[[0]].astype(float)
    assert np.abs(moments.products - products.astype(float)).max() < 1e-13 * scale.max()


def test_joining_different_shapes_is_refused():
    with pytest.raises(ValueError, match="cannot be joined"):
        JointMoments.empty(2, 3).add(JointMoments.empty(2, 4))


def test_repeats_of_unequal_length_are_cut_to_the_shortest():
    repeats = [np.array([[1.0], [2.0], [3.0]]), np.array([[3.0], [6.0]]), np.array([[2.0], [1.0]])]
    average = RepeatAverage(1, 1)
    for repeat in repeats:
        average.add([repeat])
    moments = average.moments(3)
    assert moments.count == 2
    assert moments.mean[0, 0] == pytest.approx(2.5)  # averages 2 and 3
    assert moments.products[0, 0] == pytest.approx(0.5)


def test_merging_repeats_with_more_and_with_fewer_frames():
    short, long = np.array([[1.0], [5.0]]), np.array([[3.0], [7.0], [9.0]])
    for first, second in ((short, long), (long, short)):
        average, other = RepeatAverage(1, 1), RepeatAverage(1, 1)
        average.add([first])
        other.add([second])
        average.merge(other)
        moments = average.moments(2)
        assert (moments.count, moments.mean[0, 0]) == (2, 4)
