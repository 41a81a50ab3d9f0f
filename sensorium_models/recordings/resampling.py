"""Signals from their own clocks onto frame times: pure functions of numbers, no files.

Upsampling interpolates, downsampling low-passes first; both filters are Kaiser-windowed sincs
(Kaiser, Proc. IEEE ISCAS 1974; Oppenheim & Schafer, Discrete-Time Signal Processing, ch. 7). They
are evaluated at the times that are asked for, so that clocks, their offsets and the phases of
single signals cost no second interpolation. NaN comes out where nothing trustworthy was recorded.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

Interpolation = Literal["linear", "band_limited"]

ATTENUATION_DB = 50.0
"""Design of both filters: ripple below 0.4 %, tones beyond the stop edge at most 0.4 %."""
PASS_SHARE = 0.9
"""A filter passes up to this share of the Nyquist frequency that binds it.

Between it and that frequency lies the transition that every filter of finite length needs: half of
it doubles the length, and with it the ringing and what the ends of a recording and of its gaps
touch.
"""

# Kaiser's empirical formulae for the shape of the window and the length of the filter.
_BETA = 0.1102 * (ATTENUATION_DB - 8.7)
_LENGTH = (ATTENUATION_DB - 7.95) / (2.285 * 2 * np.pi)
# Samples further than this share of a period from a regular clock are moved onto one.
_JITTER = 1e-3


@dataclass(frozen=True)
class Filter:
    """A linear-phase low-pass: passes up to `pass_hz`, stops from `stop_hz` on.

    It answers a step by ringing within `half_width_seconds` of it and nowhere else: by less than
    10 % of the step where it downsamples, by less than 15 % between the samples of a step that
    happens from one sample to the next.
    """

    pass_hz: float
    stop_hz: float

    @property
    def half_width_seconds(self) -> float:
        """How far from an output time a sample may lie and still count."""
        return float(_LENGTH / (2 * (self.stop_hz - self.pass_hz)))

    def at(self, lag_seconds: np.ndarray) -> np.ndarray:
        """Impulse response, up to a factor, at lags of any shape."""
        relative = lag_seconds / self.half_width_seconds
        window = np.i0(_BETA * np.sqrt(np.maximum(1 - relative**2, 0)))
        cutoff = self.pass_hz + self.stop_hz
        return np.where(np.abs(relative) <= 1, np.sinc(cutoff * lag_seconds) * window, 0.0)


def filter_for(rate_hz: float, target_hz: float, interpolation: Interpolation) -> Filter | None:
    """The filter between two rates; None where samples are joined by straight lines.

    Downsampling always low-passes: from 0.9 of the new Nyquist frequency to that frequency.
    Upsampling with `band_limited` keeps what lies below 0.9 of the old one and removes its images
    beyond 1.1; `linear` keeps the range of the samples (no ringing, nothing below zero), but is
    within 1 % only for tones below a 22nd of the old rate.
    """
    if rate_hz > target_hz * (1 + 1e-6):
        nyquist = target_hz / 2
        return Filter(PASS_SHARE * nyquist, nyquist)
    if interpolation == "linear":
        return None
    nyquist = rate_hz / 2
    return Filter(PASS_SHARE * nyquist, (2 - PASS_SHARE) * nyquist)


def reach_seconds(
    rate_hz: float, target_hz: float, interpolation: Interpolation, longest_gap_seconds: float
) -> float:
    """How far before and after the asked times samples are needed for an exact answer."""
    chosen = filter_for(rate_hz, target_hz, interpolation)
    half_width = chosen.half_width_seconds if chosen else 0.0
    return half_width + _longest(longest_gap_seconds, rate_hz) + 3 / rate_hz


def resample(
    values: np.ndarray,
    times: np.ndarray,
    at: np.ndarray,
    *,
    rate_hz: float,
    target_hz: float,
    interpolation: Interpolation,
    longest_gap_seconds: float,
    shifts: np.ndarray | None = None,
) -> np.ndarray:
    """Values of all signals at the times `at`, (frames, signals) float64; NaN is masked.

    Missing are samples that are NaN and samples that were never taken. Between two valid samples at
    most `longest_gap_seconds` apart a straight line fills in; frames strictly between samples
    further apart are masked, and to the filter the signal ends there. The signal is held constant
    beyond its ends: answers are given up to one sampling period before the first and after the last
    sample, if that one is valid, and masked further out.

    Args:
        values: (samples, signals), NaN where missing.
        times: (samples,) seconds, increasing, jitter allowed.
        at: (frames,) seconds, on the same clock.
        rate_hz: nominal rate of the samples.
        target_hz: rate of `at`; decides the filter.
        shifts: (signals,) seconds: sample i of signal n was taken at times[i] + shifts[n].

    Raises:
        ValueError: shapes disagree, times do not increase, or a rate is not positive.
    """
    values = np.asarray(values)
    shifts = np.zeros(values.shape[-1]) if shifts is None else np.asarray(shifts, dtype=np.float64)
    _check(values, times, shifts, rate_hz, target_hz)
    chosen = filter_for(rate_hz, target_hz, interpolation)
    longest = _longest(longest_gap_seconds, rate_hz)
    result = np.full((len(at), values.shape[1]), np.nan)
    for valid, signals in _patterns(values):
        if not valid.any():
            continue
        samples, taken, late = values[np.ix_(valid, signals)], times[valid], shifts[signals]
        if chosen is None:
            found = _straight_lines(samples, taken, np.asarray(at)[:, None] - late)
        else:
            found = _filtered(samples, taken, np.asarray(at), late, chosen, rate_hz, longest)
        phases, place = np.unique(late, return_inverse=True)
        asked = np.asarray(at)[:, None] - phases
        covered = _covered(taken, asked, 1 / rate_hz, longest, valid[0], valid[-1])
        result[:, signals] = np.where(covered[:, place], found, np.nan)
    return result


def covered(
    values: np.ndarray,
    times: np.ndarray,
    at: np.ndarray,
    *,
    rate_hz: float,
    longest_gap_seconds: float,
    shifts: np.ndarray | None = None,
) -> np.ndarray:
    """Frames of which `resample` masks no signal, (frames,) bool, without resampling anything."""
    shifts = np.zeros(values.shape[-1]) if shifts is None else np.asarray(shifts, dtype=np.float64)
    longest = _longest(longest_gap_seconds, rate_hz)
    result = np.ones(len(at), dtype=bool)
    for valid, signals in _patterns(values):
        if not valid.any():
            return np.zeros(len(at), dtype=bool)
        asked = np.asarray(at)[:, None] - np.unique(shifts[signals])
        taken = times[valid]
        result &= _covered(taken, asked, 1 / rate_hz, longest, valid[0], valid[-1]).all(axis=1)
    return result


def bridged(values: np.ndarray) -> np.ndarray:
    """(frames, signals) with straight lines across NaN, held at the ends; zeros if all is NaN."""
    frames = np.arange(len(values))
    result = np.zeros_like(values)
    for column in range(values.shape[1]):
        valid = ~np.isnan(values[:, column])
        if valid.any():
            result[:, column] = np.interp(frames, frames[valid], values[valid, column])
    return result


def _check(
    values: np.ndarray, times: np.ndarray, shifts: np.ndarray, rate_hz: float, target_hz: float
) -> None:
    if values.ndim != 2 or times.shape != values.shape[:1] or shifts.shape != values.shape[1:]:
        raise ValueError(
            f"Signals of shape {values.shape}, times {times.shape} and shifts {shifts.shape} do not"
            " agree: (samples, signals), (samples,) and (signals,) are needed."
        )
    if len(times) == 0 or not (rate_hz > 0 and target_hz > 0):
        raise ValueError(
            f"{len(times)} samples at {rate_hz} Hz cannot be resampled to {target_hz} Hz."
        )
    if not (np.diff(times) > 0).all():
        raise ValueError("The times of the samples do not increase; sort them.")


def _longest(longest_gap_seconds: float, rate_hz: float) -> float:
    # Neighbouring samples of a jittered clock are no gap, however small the limit.
    return max(longest_gap_seconds, 1.5 / rate_hz) * (1 + 1e-9)


def _patterns(values: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Signals that miss the same samples: which samples are valid, which signals they are."""
    with np.errstate(invalid="ignore", over="ignore"):
        complete = np.isfinite(values.sum())
    if complete:
        yield np.ones(len(values), dtype=bool), np.arange(values.shape[1])
        return
    valid = ~np.isnan(values)
    _, kind = np.unique(np.packbits(valid, axis=0), axis=1, return_inverse=True)
    kind = kind.reshape(-1)
    for one in np.unique(kind):
        signals = np.flatnonzero(kind == one)
        yield valid[:, signals[0]], signals


def _covered(
    taken: np.ndarray,
    asked: np.ndarray,
    period: float,
    longest: float,
    starts_valid: bool,
    ends_valid: bool,
) -> np.ndarray:
    """Whether each asked time lies between close samples, or within a period of a valid end."""
    slack = 1e-9 * period + 1e-12 * np.abs(taken).max()  # times in float64
    inside = np.ones(asked.shape, dtype=bool)
    if (np.diff(taken) > longest).any():
        before = np.clip(np.searchsorted(taken, asked + slack, side="right") - 1, 0, len(taken) - 1)
        after = np.minimum(before + 1, len(taken) - 1)
        on_sample = np.abs(asked - taken[before]) <= slack
        inside = on_sample | (taken[after] - taken[before] <= longest)
    early, late = asked < taken[0] - slack, asked > taken[-1] + slack
    inside[early] = starts_valid & (taken[0] - asked[early] <= period + slack)
    inside[late] = ends_valid & (asked[late] - taken[-1] <= period + slack)
    return inside


def _straight_lines(samples: np.ndarray, taken: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Linear interpolation of each signal at its own times, held beyond the ends.

    Args:
        samples: (samples, signals) at the times `taken`.
        asked: (frames, signals) seconds.
    """
    if len(taken) == 1:
        return np.broadcast_to(samples[0].astype(np.float64), asked.shape)
    before = np.clip(np.searchsorted(taken, asked, side="right") - 1, 0, len(taken) - 2)
    share = np.clip((asked - taken[before]) / (taken[before + 1] - taken[before]), 0, 1)
    low = np.take_along_axis(samples, before, axis=0).astype(np.float64)
    high = np.take_along_axis(samples, before + 1, axis=0)
    return (1 - share) * low + share * high


def _filtered(
    samples: np.ndarray,
    taken: np.ndarray,
    at: np.ndarray,
    shifts: np.ndarray,
    chosen: Filter,
    rate_hz: float,
    longest: float,
) -> np.ndarray:
    """Filter each stretch between long gaps on its own; (frames, signals)."""
    result = np.full((len(at), samples.shape[1]), np.nan)
    breaks = np.flatnonzero(np.diff(taken) > longest) + 1
    first = np.concatenate([[0], breaks])
    last = np.concatenate([breaks, [len(taken)]])
    order = np.argsort(shifts, kind="stable")
    alike = np.split(order, np.flatnonzero(np.diff(shifts[order])) + 1)
    for start, stop in zip(first, last, strict=True):
        begins = -np.inf if start == 0 else taken[start] - 1e-9 / rate_hz
        ends = np.inf if stop == len(taken) else taken[stop - 1] + 1e-9 / rate_hz
        stretch, origin, period = _regular(samples[start:stop], taken[start:stop], rate_hz)
        for signals in alike:
            asked = at - shifts[signals[0]]
            frames = np.flatnonzero((asked >= begins) & (asked <= ends))
            if len(frames):
                found = _weighted(stretch[:, signals], origin, period, asked[frames], chosen)
                result[np.ix_(frames, signals)] = found
    return result


def _regular(
    samples: np.ndarray, taken: np.ndarray, rate_hz: float
) -> tuple[np.ndarray, float, float]:
    """The samples of one stretch on a regular clock: values, time of the first, period.

    The clock is the line through the numbered times. Short gaps become straight lines; samples off
    the clock (by less than a quarter of a period) are moved onto it along a cubic spline.
    """
    if len(taken) == 1:
        return samples.astype(np.float64), float(taken[0]), 1 / rate_hz
    number = np.concatenate([[0], np.cumsum(np.maximum(np.rint(np.diff(taken) * rate_hz), 1))])
    period = float(np.polyfit(number, taken - taken[0], 1)[0])
    origin = float(taken[0] + np.mean(taken - taken[0] - period * number))
    count = int(number[-1]) + 1
    clock = origin + period * np.arange(count)
    regular = np.abs(taken - clock[number.astype(int)]).max() <= _JITTER * period
    if regular and count == len(taken):
        return samples.astype(np.float64), origin, period
    missing = clock[np.setdiff1d(np.arange(count), number.astype(int))]
    near = np.searchsorted(taken, missing)
    missing = missing[np.minimum(taken[near] - missing, missing - taken[near - 1]) > period / 4]
    filling = _straight_lines(samples, taken, np.repeat(missing[:, None], samples.shape[1], axis=1))
    knots = np.concatenate([taken, missing])
    order = np.argsort(knots)
    knots, known = knots[order], np.concatenate([samples.astype(np.float64), filling])[order]
    if regular:
        return known, origin, period
    # Here, because it weighs 45 MB in every job that does no more than open a recording.
    from scipy.interpolate import CubicSpline

    return CubicSpline(knots, known)(np.clip(clock, knots[0], knots[-1])), origin, period


def _weighted(
    stretch: np.ndarray, origin: float, period: float, asked: np.ndarray, chosen: Filter
) -> np.ndarray:
    """Apply the filter at the asked times; (frames, signals). A constant stays what it is."""
    taps = int(np.ceil(chosen.half_width_seconds / period))
    nearest = np.rint((asked - origin) / period).astype(np.int64)
    number = nearest[:, None] + np.arange(-taps, taps + 1)
    weights = chosen.at(asked[:, None] - (origin + period * number))
    weights /= weights.sum(axis=1, keepdims=True)
    # Held beyond both ends: the weights of the samples that are not there go to the last one.
    place = np.clip(number, 0, len(stretch) - 1)
    first, last = place.min(), place.max() + 1
    cell = np.arange(len(asked))[:, None] * (last - first) + place - first
    matrix = np.bincount(cell.ravel(), weights.ravel(), minlength=len(asked) * (last - first))
    return matrix.reshape(len(asked), last - first) @ stretch[first:last]
