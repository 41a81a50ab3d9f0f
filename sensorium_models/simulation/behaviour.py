"""Behaviour of a simulated animal: pupil dilation, running speed and gaze (pupil centre) at 30 Hz.

Means and standard deviations are those of the released recordings (pupil 40 to 60 with standard
deviation about 16, speed 0.3 to 5.5, pupil centre about 155 and 152 with 4); the processes
are ours.
"""

import math
from dataclasses import dataclass

import numpy as np

PUPIL_RANGE = (-1.9, 2.6)  # in standard deviations; the lower end keeps dilation positive


@dataclass(frozen=True, kw_only=True)
class BehaviourScale:
    """Units of one animal's behaviour; arrays hold (horizontal, vertical)."""

    pupil_mean: float = 45.0
    pupil_std: float = 15.0
    speed_mean: float = 2.0
    speed_std: float = 4.0
    gaze_mean: tuple[float, float] = (155.0, 152.0)
    gaze_std: tuple[float, float] = (4.0, 4.5)


@dataclass(frozen=True)
class Behaviour:
    """Behaviour during one trial; `behavior` and `pupil_center` as recorded, (frames, 2).

    `arousal` holds what the gain of the neurons depends on: saturated running speed in 0..1 and
    standardised pupil dilation, (frames, 2). `gaze` is the standardised pupil centre, (frames, 2).
    """

    behavior: np.ndarray
    pupil_center: np.ndarray
    arousal: np.ndarray
    gaze: np.ndarray


def simulate(rng: np.random.Generator, frames: int, scale: BehaviourScale) -> Behaviour:
    """Draw one trial: running in bouts, a pupil that follows it slowly, gaze with saccades."""
    running = _fluctuation(rng, frames, time_constant=40)
    own = _fluctuation(rng, frames, time_constant=75)
    pupil = np.clip(0.6 * running + 0.8 * own, *PUPIL_RANGE)
    threshold, gain = _running_threshold(scale.speed_std / scale.speed_mean)
    speed = scale.speed_mean * gain * np.maximum(running - threshold, 0)
    gaze = np.clip(_saccades(rng, frames), -3, 3)
    return Behaviour(
        behavior=np.stack([scale.pupil_mean + scale.pupil_std * pupil, speed], axis=1),
        pupil_center=np.asarray(scale.gaze_mean) + np.asarray(scale.gaze_std) * gaze,
        arousal=np.stack([np.minimum(speed / (2 * scale.speed_std), 1), pupil], axis=1),
        gaze=gaze,
    )


def _fluctuation(rng: np.random.Generator, frames: int, *, time_constant: float) -> np.ndarray:
    """Stationary first-order process of unit variance, (frames,)."""
    keep = np.exp(-1 / time_constant)
    value = rng.standard_normal()
    path = np.empty(frames)
    for frame, kick in enumerate(rng.standard_normal(frames) * np.sqrt(1 - keep**2)):
        value = keep * value + kick
        path[frame] = value
    return path


def _saccades(rng: np.random.Generator, frames: int) -> np.ndarray:
    """Fixations of about 1.5 s between quick saccades, about unit variance, (frames, 2)."""
    target = rng.standard_normal(2)
    position = target.copy()
    jumps = rng.uniform(0, 1, frames) < 1 / 45
    drift = rng.standard_normal((frames, 2)) * 0.02
    path = np.empty((frames, 2))
    for frame in range(frames):
        if jumps[frame]:
            target = 0.5 * target + np.sqrt(0.75) * rng.standard_normal(2)
        position = position + 0.5 * (target - position) + drift[frame]
        path[frame] = position
    return path


def _running_threshold(variation: float) -> tuple[float, float]:
    """Threshold and gain for which gain * max(z - threshold, 0), z normal, has mean 1.

    Its standard deviation is then `variation`, which must lie in what the threshold can reach.
    """
    thresholds = np.linspace(-1.0, 3.0, 401)
    density = np.exp(-(thresholds**2) / 2) / np.sqrt(2 * np.pi)
    tail = np.array([_normal_tail(value) for value in thresholds])
    mean = density - thresholds * tail
    second = (1 + thresholds**2) * tail - thresholds * density
    variations = np.sqrt(second / mean**2 - 1)
    index = int(np.argmin(np.abs(variations - variation)))
    return float(thresholds[index]), float(1 / mean[index])


def _normal_tail(value: float) -> float:
    return 0.5 * math.erfc(value / math.sqrt(2))
