"""Neurons do what their parameters say: direction, gain, gaze, place, history, expectation."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensorium_models.simulation import behaviour, imaging, neurons, stimuli

SHAPE = (36, 64)
REFERENCE = [stimuli.natural_movie(np.random.default_rng(seed), SHAPE) for seed in range(2)]


def population(units: neurons.Units, **changes) -> neurons.Population:
    arguments = {
        "units": units,
        "frame_shape": SHAPE,
        "gaze_shift_pixels": 1.0,
        "reference": REFERENCE,
        "mean_arousal": np.zeros(3),
    }
    return neurons.Population(**(arguments | changes))


def some_units(count: int = 40, seed: int = 0) -> neurons.Units:
    rng = np.random.default_rng(seed)
    return neurons.draw_units(rng, neurons.draw_coordinates(rng, count), SHAPE)


def at_rest(frames: int, gaze: tuple[float, float] = (0.0, 0.0)) -> behaviour.Behaviour:
    still = np.zeros((frames, 2))
    return behaviour.Behaviour(still, still, still, np.tile(gaze, (frames, 1)))


def grating(direction: float, wavelength: float, frequency: float) -> np.ndarray:
    height, width = SHAPE
    y, x = np.mgrid[:height, :width]
    along = (x * np.cos(direction) + y * np.sin(direction)) / wavelength
    time = np.arange(90)[:, None, None] * frequency / 30
    return np.rint(127 + 60 * np.cos(2 * np.pi * (along - time))).astype(np.uint8)


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("direction", [0.0, np.pi / 2, 4.0])
def test_direction_selectivity(kind, direction):
    """A grating drifting the preferred way drives selective cells, those at 0 both ways alike."""
    count = 21
    selectivity = np.repeat([0.0, 0.5, 1.0], 7)
    units = replace(
        some_units(count),
        receptive_field=np.tile([32.0, 18.0], (count, 1)),
        kind=np.full(count, kind),
        direction=np.full(count, direction),
        direction_selectivity=selectivity,
        wavelength=np.full(count, 8.0),
        envelope=np.full(count, 3.0),
        temporal_frequency=np.full(count, 4.0),
    )
    cells = population(units)
    preferred, opposite = (
        cells.relative_rates(grating(way, 8.0, 4.0), None)[:, 30:].mean(axis=1)
        for way in (direction, direction + np.pi)
    )
    index = (preferred - opposite) / (preferred + opposite)
    assert np.all(np.abs(index[selectivity == 0]) < 0.05)
    assert np.all(index[selectivity == 1] > 0.5)
    assert index[selectivity == 0.5].mean() < index[selectivity == 1].mean()
    # Across the preferred orientation hardly anything is left of the stimulus-driven rate.
    across = cells.relative_rates(grating(direction + np.pi / 2, 8.0, 4.0), None)[:, 30:]
    assert np.all(across.mean(axis=1) - neurons.SPONTANEOUS < 0.2 * preferred)


def test_simple_cells_see_phase_and_complex_cells_do_not():
    units = replace(
        some_units(40),
        receptive_field=np.tile([32.0, 18.0], (40, 1)),
        kind=np.arange(40) % 2,
        direction=np.zeros(40),
        direction_selectivity=np.ones(40),
        wavelength=np.full(40, 8.0),
        envelope=np.full(40, 3.0),
        temporal_frequency=np.full(40, 3.0),
    )
    rates = population(units).relative_rates(grating(0.0, 8.0, 3.0), None)[:, 30:]
    modulation = rates.std(axis=1) / rates.mean(axis=1)
    assert modulation[units.kind == 0].min() > 0.7
    assert modulation[units.kind == 1].max() < 0.2


def test_mean_rate_during_natural_movies_is_one():
    cells = population(some_units(), gaze_shift_pixels=0.0)
    rates = np.mean([cells.relative_rates(m, None).mean(axis=1) for m in REFERENCE], axis=0)
    np.testing.assert_allclose(rates, 1.0, rtol=1e-4)


def test_gain_multiplies_the_rates():
    scale = behaviour.BehaviourScale()
    units = some_units()
    moved = behaviour.simulate(np.random.default_rng(5), 300, scale)
    still = at_rest(300)
    moved_gaze_fixed = replace(moved, gaze=still.gaze)
    cells = population(units)
    ratio = cells.relative_rates(REFERENCE[0], moved_gaze_fixed) / cells.relative_rates(
        REFERENCE[0], still
    )
    running, pupil = moved.arousal.T
    expected = (1 + np.outer(units.running_gain, running)) * (1 + np.outer(units.pupil_gain, pupil))
    np.testing.assert_allclose(ratio, expected, rtol=1e-4)
    assert running.max() > 0
    fixed = population(units, mean_arousal=None)
    np.testing.assert_array_equal(fixed.gain(moved), np.ones((40, 1)))


def test_gain_has_mean_one():
    rng = np.random.default_rng(0)
    scale = behaviour.BehaviourScale()
    arousal = np.concatenate([behaviour.simulate(rng, 300, scale).arousal for _ in range(50)])
    running, pupil = arousal.T
    cells = population(
        some_units(),
        mean_arousal=np.array([running.mean(), pupil.mean(), (running * pupil).mean()]),
    )
    empty = np.zeros((len(arousal), 2))
    gain = cells.gain(behaviour.Behaviour(empty, empty, arousal, empty))
    np.testing.assert_allclose(gain.mean(axis=1), 1.0, rtol=1e-4)


@settings(max_examples=10, deadline=None)
@given(st.integers(-4, 4), st.integers(-3, 3))
def test_gaze_moves_the_receptive_fields(right, down):
    """Gaze to (right, down) is the same as receptive fields drawn there."""
    units = replace(some_units(6), receptive_field=np.tile([32.0, 18.0], (6, 1)))
    units = replace(units, envelope=np.full(6, 1.8))
    moved = replace(units, receptive_field=units.receptive_field + np.array([right, down]))
    clip = REFERENCE[0][:60]
    by_gaze = population(units)._drive(clip, np.tile([right, down], (60, 1)).astype(float))
    drawn = population(moved)._drive(clip, None)
    # The Gabors reach their 1e-4 tails within the frame for all these shifts.
    np.testing.assert_allclose(by_gaze, drawn, atol=2e-3 * np.abs(drawn).max())


def test_shift_between_pixels_is_linear():
    ramp = np.tile(np.arange(12, dtype=np.float32), (3, 8, 1))
    seen = neurons.shift(ramp, np.array([[0.25, 0.0], [-1.5, 0.7], [3.0, -2.0]]))
    np.testing.assert_allclose(seen[0, 4, 3:8], np.arange(3, 8) + 0.25)
    np.testing.assert_allclose(seen[1, 4, 3:8], np.arange(3, 8) - 1.5)
    np.testing.assert_allclose(seen[2, 4, -1], 11.0)  # the border repeated


def test_cells_answer_where_their_receptive_field_is():
    """The centre of gravity of the answers to single spots is the receptive field."""
    units = some_units(30)
    cells = population(units)
    spots = [(y, x) for y in range(0, 36, 2) for x in range(0, 64, 2)]
    video = np.full((len(spots), *SHAPE), 127, dtype=np.uint8)
    for frame, (y, x) in enumerate(spots):
        video[frame, y, x] = 255
    # Filters applied to single frames: no time involved.
    projected = cells._filters @ (video.reshape(len(video), -1).T.astype(np.float32) - 127)
    energy = projected[:30] ** 2 + projected[30:] ** 2
    centre = energy @ np.array(spots)[:, ::-1] / energy.sum(axis=1, keepdims=True)
    assert np.all(np.abs(centre - units.receptive_field) < 1.5)


def expected_trace(cells: neurons.Population, clip: np.ndarray, phase: float) -> np.ndarray:
    planes = np.arange(len(cells.units.kind)) % imaging.PLANES
    counts = imaging.expected_counts(cells.relative_rates(clip, None), planes, phase)
    return imaging.display(counts, planes, phase, len(clip))


@pytest.mark.parametrize("phase", [0.0, 0.37, 0.999])
def test_a_response_depends_on_the_last_twenty_frames_only(phase):
    cells = population(some_units(20))
    before = REFERENCE[0][:120]
    after = before.copy()
    after[60] = 255 - after[60]
    change = np.abs(expected_trace(cells, after, phase) - expected_trace(cells, before, phase))
    moved = np.flatnonzero(change.max(axis=0) > 1e-5)
    assert moved.min() >= 60
    assert moved.max() <= 60 + 20
    # Most of the effect is over after 15 frames.
    assert change[:, 60:76].sum() > 0.9 * change.sum()


def test_recorded_trace_has_the_stated_expectation():
    """Mean over many Poisson repeats against the linear map of the rates, five standard errors."""
    rng = np.random.default_rng(1)
    cells = population(some_units(20))
    planes = np.arange(20) % imaging.PLANES
    rates = 3.0 * cells.relative_rates(REFERENCE[0][:60], None)
    counts = imaging.expected_counts(rates, planes, 0.4)
    expected = imaging.display(counts, planes, 0.4, 60)
    direct = np.stack(
        [
            imaging.scan(60, imaging.plane_phase(0.4, plane)).expectation @ rate
            for plane, rate in zip(planes, rates, strict=True)
        ]
    )
    np.testing.assert_allclose(expected, direct, rtol=1e-4, atol=1e-6)
    repeats = 1500
    total, square = np.zeros((20, 60)), np.zeros((20, 60))
    for _ in range(repeats):
        trace = imaging.display([rng.poisson(c) for c in counts], planes, 0.4, 60)
        total += trace
        square += trace.astype(float) ** 2
    mean = total / repeats
    error = np.sqrt((square / repeats - mean**2) / repeats)
    # 1200 correlated values: five standard errors are exceeded by chance once in thousands of runs;
    # the floor covers values whose Poisson counts were all zero.
    assert np.all(np.abs(mean - expected) < 5 * error + 5 * np.sqrt(1e-3 / repeats))


@settings(max_examples=20, deadline=None)
@given(st.integers(30, 340), st.floats(0, 0.999))
def test_scanning_keeps_a_constant_rate(frames, phase):
    trace = imaging.scan(frames, phase).expectation @ np.full(frames, 16.0)
    np.testing.assert_allclose(trace, 16.0 / imaging.SCAN_RATE_HZ, rtol=1e-4)


def test_behaviour_has_its_scale():
    scale = behaviour.BehaviourScale(speed_mean=1.0, speed_std=2.0)
    rng = np.random.default_rng(2)
    trials = [behaviour.simulate(rng, 300, scale) for _ in range(300)]
    pupil, speed = np.concatenate([t.behavior for t in trials]).T
    gaze = np.concatenate([t.pupil_center for t in trials])
    # About 300 independent draws of slow processes: means within a few standard errors.
    assert abs(pupil.mean() - 45) < 5 * 15 / np.sqrt(300)
    assert abs(pupil.std() - 15) < 2.5
    assert pupil.min() > 0
    assert speed.min() == 0
    assert abs(speed.mean() - 1.0) < 5 * 2.0 / np.sqrt(300)
    assert abs(speed.std() - 2.0) < 0.5
    assert np.all(np.abs(gaze.mean(axis=0) - scale.gaze_mean) < 1.0)
    assert np.all(np.abs(gaze.std(axis=0) / scale.gaze_std - 1) < 0.15)
