"""Resampling against signals whose values are known at every time."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensorium_models.recordings.resampling import covered, filter_for, reach_seconds, resample

TARGET = 30.0
MARGIN = 2.0  # seconds at both ends where the filter sees the held edge
NATIVE = {  # what is recorded, at which rate, with which interpolation
    "responses": (8.0, "band_limited"),
    "pupil": (20.0, "band_limited"),
    "treadmill": (100.0, "linear"),
    "screen at 60 Hz": (60.0, "linear"),
}


def clock(rate: float, seconds: float = 20.0, start: float = 0.0) -> np.ndarray:
    return start + np.arange(int(seconds * rate) + 1) / rate


def frames(seconds: float = 20.0, start: float = 0.0, margin: float = MARGIN) -> np.ndarray:
    return start + margin + np.arange(int((seconds - 2 * margin) * TARGET)) / TARGET


def run(
    values: np.ndarray, times: np.ndarray, at: np.ndarray, rate: float, **changes: Any
) -> np.ndarray:
    values = np.asarray(values)
    options: dict[str, Any] = {
        "rate_hz": rate,
        "target_hz": TARGET,
        "interpolation": "linear",
        "longest_gap_seconds": 0.5,
    }
    one = values.ndim == 1
    result = resample(values[:, None] if one else values, times, at, **{**options, **changes})
    return result[:, 0] if one else result


@pytest.mark.parametrize("native", NATIVE)
@pytest.mark.parametrize("start", [0.0, 0.0137])
def test_tones_in_the_pass_band_come_back_within_one_percent(native: str, start: float) -> None:
    """At any phase, with a clock that starts at a time of its own."""
    rate, interpolation = NATIVE[native]
    edge = 0.9 * min(rate, TARGET) / 2
    times, at = clock(rate, start=start), frames()
    tones = np.repeat(np.linspace(0.02, 1.0, 12) * edge, 2)
    phases = np.tile([0.0, 1.0], 12)

    def signals(seconds: np.ndarray) -> np.ndarray:
        return np.sin(2 * np.pi * seconds[:, None] * tones + phases)

    found = run(signals(times), times, at, rate, interpolation=interpolation)
    worst = np.abs(found - signals(at)).max(axis=0)
    assert worst.max() < 0.01, (tones[worst.argmax()], phases[worst.argmax()])


@pytest.mark.parametrize("rate", [60.0, 100.0, 120.0, 1000.0])
def test_tones_above_the_new_nyquist_frequency_are_attenuated_by_40_db(rate: float) -> None:
    times, at = clock(rate, start=0.004), frames()
    tones = np.linspace(TARGET / 2, rate / 2, 15)
    found = run(np.cos(2 * np.pi * times[:, None] * tones), times, at, rate)
    amplitudes = np.sqrt(2) * np.sqrt(np.mean(found**2, axis=0))  # hence aliases
    assert amplitudes.max() < 1e-2, tones[amplitudes.argmax()]
    assert np.abs(found).max() < 1e-2


def test_upsampling_removes_the_images_of_a_tone() -> None:
    """Seven of 20 Hz repeats at 13 Hz in the samples; nothing of that may be in the answer."""
    times, at = clock(20.0, 40.0), frames(40.0)
    found = run(np.sin(2 * np.pi * 7 * times), times, at, 20.0, interpolation="band_limited")
    spectrum = np.abs(np.fft.rfft(found * np.hanning(len(found))))
    frequency = np.fft.rfftfreq(len(found), 1 / TARGET)
    image = spectrum[np.abs(frequency - 13) < 0.5].max()
    assert image < 0.01 * spectrum[np.abs(frequency - 7) < 0.5].max()


def test_straight_lines_are_within_one_percent_up_to_a_22nd_of_the_rate() -> None:
    """As documented: 1 - cos(pi f / rate) is the error half-way between two samples."""
    times, at = clock(8.0, 40.0), frames(40.0)
    for tone in (0.1, 0.2, 8 / 22.2):
        found = run(np.sin(2 * np.pi * tone * times), times, at, 8.0)
        assert np.abs(found - np.sin(2 * np.pi * tone * at)).max() < 0.0101


@pytest.mark.parametrize("interpolation", ["linear", "band_limited"])
def test_phase_offsets_are_recovered_to_a_tenth_of_a_frame(interpolation: str) -> None:
    """Eighty neurons see one tone, each scanned at a time of its own; ignoring that shows."""
    rate, tone = 8.0, 0.7
    rng = np.random.default_rng(0)
    shifts = rng.uniform(0, 1 / rate, 80)
    times, at = clock(rate, 40.0, start=0.031), frames(40.0)
    sampled = np.sin(2 * np.pi * tone * (times[:, None] + shifts))

    def delays(found: np.ndarray) -> np.ndarray:  # of the tone, in frames, by projection
        wave = np.exp(-2j * np.pi * tone * at)
        whole = int(np.floor((len(at) / TARGET) * tone) / tone * TARGET)
        angle = np.angle((found[:whole] * wave[:whole, None]).sum(axis=0)) + np.pi / 2
        return -angle / (2 * np.pi * tone) * TARGET

    found = run(sampled, times, at, rate, interpolation=interpolation, shifts=shifts)
    assert np.abs(delays(found)).max() < 0.1
    ignored = run(sampled, times, at, rate, interpolation=interpolation)
    assert np.abs(delays(ignored)).max() > 2.0


@pytest.mark.parametrize("native", NATIVE)
@pytest.mark.parametrize("missing", [0, 3])
def test_a_constant_stays_constant_up_to_its_edges(native: str, missing: int) -> None:
    rate, interpolation = NATIVE[native]
    times = clock(rate, 6.0)
    values = np.full(len(times), 7.3)
    values[len(values) // 2 : len(values) // 2 + missing] = np.nan
    at = np.arange(int(6 * TARGET)) / TARGET
    found = run(values, times, at, rate, interpolation=interpolation)
    np.testing.assert_allclose(found, 7.3, rtol=1e-12)


def test_steps_ring_no_more_than_the_filter_states() -> None:
    for native, (rate, interpolation) in NATIVE.items():
        times, at = clock(rate, 12.0), np.arange(int(12 * TARGET)) / TARGET
        found = run((times >= 6).astype(float), times, at, rate, interpolation=interpolation)
        filtering = filter_for(rate, TARGET, interpolation)
        assert filtering is not None
        ringing = 0.1 if rate > TARGET else 0.15
        assert found.max() < 1 + ringing, native
        assert found.min() > -ringing, native
        far = np.abs(at - 6) > filtering.half_width_seconds + 1 / rate
        np.testing.assert_allclose(found[far], at[far] >= 6, atol=1e-12)
    times = clock(8.0, 12.0)
    found = run((times >= 6).astype(float), times, np.arange(300) / TARGET, 8.0)
    assert found.min() == 0.0  # straight lines do not ring at all
    assert found.max() == 1.0
    assert (np.diff(found) >= 0).all()


def test_filters_are_as_long_as_kaisers_formula_says() -> None:
    assert filter_for(100.0, 30.0, "linear") == filter_for(60.0, 30.0, "band_limited")
    assert filter_for(8.0, 30.0, "linear") is None
    assert filter_for(100.0, 30.0, "linear").half_width_seconds == pytest.approx(0.976, abs=1e-3)
    assert filter_for(20.0, 30.0, "band_limited").half_width_seconds < 0.74


@pytest.mark.parametrize(
    ("rate", "tone", "tolerance"), [(100.0, 3.0, 0.01), (100.0, 10.0, 0.01), (20.0, 2.0, 0.01)]
)
def test_jittered_clocks(rate: float, tone: float, tolerance: float) -> None:
    """Samples a fifth of a period off, times known: as good as on a regular clock."""
    rng = np.random.default_rng(1)
    times = clock(rate, 20.0, start=3.2) + rng.uniform(-0.2, 0.2, int(20 * rate) + 1) / rate
    at = frames(start=3.2)
    wave = np.sin(2 * np.pi * tone * times)
    found = run(wave, times, at, rate, interpolation="band_limited")
    expected = np.sin(2 * np.pi * tone * at)
    assert np.abs(found - expected).max() < tolerance
    regular = run(wave, clock(rate, 20.0, start=3.2), at, rate, interpolation="band_limited")
    assert np.abs(regular - expected).max() > 2 * tolerance  # so the times were used


def test_a_clock_that_runs_at_another_rate_than_stated() -> None:
    """A camera of 19.93 Hz that calls itself 20 Hz: its times say so."""
    times, at = clock(19.93, 40.0), frames(40.0)
    found = run(np.sin(2 * np.pi * 3 * times), times, at, 20.0, interpolation="band_limited")
    assert np.abs(found - np.sin(2 * np.pi * 3 * at)).max() < 0.01


@pytest.mark.parametrize("native", ["responses", "pupil", "treadmill"])
@pytest.mark.parametrize("dropped", [False, True])
def test_long_gaps_are_masked_and_short_ones_filled(native: str, dropped: bool) -> None:
    """NaN or not there at all makes no difference. Worked by hand on a ramp, which lines meet."""
    rate, interpolation = NATIVE[native]
    times, at = clock(rate, 20.0), frames(margin=0.0)
    values = times.copy()
    short, long = (5.0, 5.4), (10.0, 11.0)
    missing = np.zeros(len(times), dtype=bool)
    for start, stop in (short, long):
        missing |= (times > start) & (times < stop - 1e-9)
    if dropped:
        times, values = times[~missing], values[~missing]
    else:
        values[missing] = np.nan
    valid = times[~np.isnan(values)]
    last, following = valid[valid <= 10][-1], valid[valid > 10][0]
    found = run(values, times, at, rate, interpolation=interpolation)
    masked = (at > last + 1e-9) & (at < following - 1e-9)
    np.testing.assert_array_equal(np.isnan(found), masked)
    assert masked.sum() >= 0.9 * TARGET
    # Away from edges, where a ramp that is held bends, the short gap leaves no trace.
    inside = (at > 4) & (at < 6.4)
    np.testing.assert_allclose(found[inside], at[inside], atol=0.02)
    np.testing.assert_array_equal(
        covered(values[:, None], times, at, rate_hz=rate, longest_gap_seconds=0.5), ~masked
    )


def test_a_gap_of_one_signal_is_no_gap_of_another() -> None:
    times, at = clock(8.0), frames()
    values = np.ones((len(times), 3))
    values[60:90, 1] = np.nan
    found = run(values, times, at, 8.0, interpolation="linear")
    assert not np.isnan(found[:, [0, 2]]).any()
    assert np.isnan(found[:, 1]).any()


@pytest.mark.parametrize("interpolation", ["linear", "band_limited"])
def test_edges_are_held_for_one_period_and_masked_beyond(interpolation: str) -> None:
    times = clock(10.0, 2.0, start=1.0)
    at = np.array([0.85, 0.92, 1.0, 2.0, 3.0, 3.08, 3.15])
    found = run(np.full(len(times), 2.0), times, at, 10.0, interpolation=interpolation)
    np.testing.assert_allclose(found, [np.nan, 2, 2, 2, 2, 2, np.nan])
    values = np.full(len(times), 2.0)
    values[0] = np.nan  # a missing end is not held
    found = run(values, times, at, 10.0, interpolation=interpolation)
    np.testing.assert_allclose(found, [np.nan, np.nan, np.nan, 2, 2, 2, np.nan])


@settings(max_examples=40, deadline=None)
@given(
    rate=st.floats(4.0, 200.0),
    start=st.floats(-50.0, 50.0),
    interpolation=st.sampled_from(["linear", "band_limited"]),
    jitter=st.sampled_from([0.0, 0.1]),
    seed=st.integers(0, 1000),
)
def test_any_clock(rate: float, start: float, interpolation: str, jitter: float, seed: int) -> None:
    """Linear in the signal, blind to a common shift of both clocks, local, NaN only where masked,
    and with straight lines within the range of the samples."""
    rng = np.random.default_rng(seed)
    times = clock(rate, 5.0, start=start)
    times = times + jitter * rng.uniform(-1, 1, len(times)) / rate
    values = rng.gamma(0.5, 2.0, (len(times), 2))
    values[rng.random(len(times)) < 0.05] = np.nan
    at = start + np.arange(30, 90) / TARGET
    options: dict[str, Any] = {"interpolation": interpolation}
    found = run(values, times, at, rate, **options)
    again = run(values, times + 1000, at + 1000, rate, **options)
    np.testing.assert_allclose(found, again, rtol=1e-4, atol=1e-5)
    combined = run((2 * values[:, :1] - values[:, 1:]), times, at, rate, **options)
    np.testing.assert_allclose(combined, 2 * found[:, :1] - found[:, 1:], rtol=1e-9, atol=1e-9)
    seen = covered(values, times, at, rate_hz=rate, longest_gap_seconds=0.5)
    np.testing.assert_array_equal(seen, ~np.isnan(found).any(axis=1))
    if filter_for(rate, TARGET, interpolation) is None and seen.any():  # type: ignore[arg-type]
        assert np.nanmin(found) >= np.nanmin(values)
        assert np.nanmax(found) <= np.nanmax(values)
    if jitter:  # the clock that is laid through jittered times depends on all of them
        return
    # Only samples within reach count: the rest may be cut off.
    reach = reach_seconds(rate, TARGET, interpolation, 0.5)  # type: ignore[arg-type]
    kept = (times >= at[0] - reach) & (times <= at[-1] + reach)
    cut = run(values[kept], times[kept], at, rate, **options)
    np.testing.assert_allclose(cut, found, atol=1e-6)


def test_nonsense_is_refused_in_a_sentence() -> None:
    times = clock(10.0, 1.0)
    with pytest.raises(ValueError, match="do not agree"):
        run(np.ones((3, 1)), times, times, 10.0)
    with pytest.raises(ValueError, match="do not increase"):
        run(np.ones(len(times)), times[::-1], times, 10.0)
    with pytest.raises(ValueError, match=r"at 0.0 Hz cannot be resampled"):
        run(np.ones(len(times)), times, times, 0.0)
