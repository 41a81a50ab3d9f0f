"""Normalisation schemes by name, and the score unit of predictions.

Every scheme is an affine map per array, y = (x - offset) * scale, with one row per frame index or
one row for all:

- `per_frame_published`, `per_frame_train`: the released kit's (dataset card, section 5), with the
  published statistics or those of the training tier. Per frame index video and pupil centre become
  (x - mean) / std, behaviour x / std, responses x * precision (1 % rule).
- `viv1t`: ViV1T of 2023 (card A1; bryanlimy/ViV1T), from the training tier, per frame index. Video
  becomes (x - mean) / (std - mean): its authors meant minimum and maximum. Behaviour and pupil
  centre become (x - min) / (max - min), responses x * precision.
- `global_train`: as `per_frame_train` with statistics over trials and time, one mean and one
  standard deviation for all pixels. It is that of ViV1T of 2025 (card B), whose 1.2e-7 added to the
  standard deviations of grey levels and pupil centres is less than float32 resolves.
- `none`: raw values.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from sensorium_models.recordings.statistics import Statistics
from sensorium_models.recordings.store import Recording

Choice = TypeVar("Choice")

# Below this fraction of the animal's mean standard deviation a neuron's is not trusted.
LEAST_RELATIVE_STD = 0.01


@dataclass(frozen=True)
class Affine:
    """y = (x - offset[frame]) * scale[frame]; float32, first axis frame index or length 1."""

    offset: np.ndarray
    scale: np.ndarray

    def __post_init__(self) -> None:
        if self.offset.shape != self.scale.shape:
            raise ValueError(
                f"Offset {self.offset.shape} and scale {self.scale.shape} differ in shape."
            )

    @property
    def per_frame(self) -> bool:
        return len(self.scale) > 1

    def apply(self, values: np.ndarray, frame: np.ndarray) -> np.ndarray:
        """Normalise `values` (T, ...) of the frame indices `frame` (T,) in their trial."""
        rows = frame if self.per_frame else np.zeros_like(frame)
        return (values - self.offset[rows]) * self.scale[rows]


@dataclass(frozen=True)
class Normalisation:
    """Maps of all arrays of one recording; None where the recording lacks the modality.

    `frames` is how many frame indices of a trial the scheme is defined for, None without limit;
    readers must not go beyond it.
    """

    video: Affine  # (F, H, W), or (1, 1, 1)
    behavior: Affine | None  # (F or 1, 2)
    pupil_center: Affine | None  # (F or 1, 2)
    responses: Affine  # (F or 1, N)
    frames: int | None


def normalisation(scheme: str, recording: Recording) -> Normalisation:
    """The maps of `scheme` (one of `SCHEMES`) for one recording.

    An input that never varied over the statistics' trials (a border of the screen, a dead channel)
    becomes 0, where the released kit divides by zero.

    Raises:
        ValueError: there is no such scheme, or it is defined for no frame of this recording.
        StoreError: the recording lacks the statistics that the scheme needs.
    """
    return _choose(scheme, _SCHEMES, "normalisation scheme")(recording)


def score_precision(unit: str, recording: Recording) -> np.ndarray:
    """Factor from raw rate to score unit, (F or 1, N) float32; `unit` is one of `SCORE_UNITS`."""
    return _choose(unit, _SCORE_UNITS, "score unit")(recording)


def response_precision(std: np.ndarray) -> np.ndarray:
    """1 / std, or 1 / threshold where std is not above the threshold or NaN (the 1 % rule).

    The threshold is 1 % of the mean of all standard deviations of the animal, one scalar
    (`NeuroNormalizer` of the released kit). float32, same shape.

    Raises:
        ValueError: no standard deviation is above 0.
    """
    reached = std[~np.isnan(std)]
    threshold = LEAST_RELATIVE_STD * reached.mean() if reached.size else 0.0
    if not threshold > 0:
        raise ValueError(
            "No neuron's response varied over the trials of the statistics, so there is no response"
            " precision. Use global_train, or unit raw, or record more training trials."
        )
    trusted = std > threshold  # False where NaN
    return (1.0 / np.where(trusted, std, threshold)).astype(np.float32)


def _per_frame(recording: Recording, source: Literal["published", "train"]) -> Normalisation:
    return _by_frame(
        recording,
        source,
        video=_standardise,
        behavior=lambda statistics: _standardise(statistics, centred=False),
        pupil_center=_standardise,
    )


def _by_frame(
    recording: Recording,
    source: Literal["published", "train"],
    **mappings: Callable[[Statistics], Affine],
) -> Normalisation:
    """The scheme with a map per frame index for every modality, by its name."""
    statistics = {
        name: recording.statistics(source, name, per_frame=True) for name in recording.modalities
    }
    maps = {
        name: to_map(statistics[name]) for name, to_map in mappings.items() if name in statistics
    }
    frames = min(
        _frames_before_nan(row) for map in maps.values() for row in (map.offset, map.scale)
    )
    # A frame index that a single trial reached has a mean, but no spread to divide by; a blank
    # frame at the start of every trial has none either, but frames after it do.
    varying = np.flatnonzero(_varies(statistics["video"])[:frames].any(axis=(1, 2)))
    frames = int(varying[-1]) + 1 if len(varying) else 0
    if frames == 0:
        raise ValueError(
            f"The {source} statistics of animal {recording.animal} are defined for no frame index:"
            " from the first on, a value is missing or no video varied over trials. Use"
            " global_train."
        )
    maps = {name: Affine(map.offset[:frames], map.scale[:frames]) for name, map in maps.items()}
    precision = response_precision(statistics["responses"].std)[:frames]
    return Normalisation(
        video=maps["video"],
        behavior=maps.get("behavior"),
        pupil_center=maps.get("pupil_center"),
        responses=_scaled(precision),
        frames=frames,
    )


def _global_train(recording: Recording) -> Normalisation:
    pooled = {
        name: _one_row(recording.statistics("train", name, per_frame=False))
        for name in recording.modalities
    }
    maps = {
        name: _standardise(value, centred=name != "behavior")
        for name, value in pooled.items()
        if name not in ("video", "responses")
    }
    return Normalisation(
        video=_standardise(_over_pixels(pooled["video"]), centred=True),
        behavior=maps.get("behavior"),
        pupil_center=maps.get("pupil_center"),
        responses=_scaled(response_precision(pooled["responses"].std)),
        frames=None,
    )


def _none(recording: Recording) -> Normalisation:
    def pair(modality: str) -> Affine | None:
        present = modality in recording.modalities
        return _scaled(np.ones((1, 2), np.float32)) if present else None

    return Normalisation(
        video=_scaled(np.ones((1, 1, 1), np.float32)),
        behavior=pair("behavior"),
        pupil_center=pair("pupil_center"),
        responses=_scaled(np.ones((1, recording.neurons), np.float32)),
        frames=None,
    )


def _per_frame_published(recording: Recording) -> Normalisation:
    return _per_frame(recording, "published")


def _per_frame_train(recording: Recording) -> Normalisation:
    return _per_frame(recording, "train")


def _viv1t(recording: Recording) -> Normalisation:
    def video(statistics: Statistics) -> Affine:
        # As published, though the minimum and maximum were meant.
        return _ranged(statistics.mean, statistics.std)

    def pair(statistics: Statistics) -> Affine:
        return _ranged(statistics.min, statistics.max)

    return _by_frame(recording, "train", video=video, behavior=pair, pupil_center=pair)


def _published_precision(recording: Recording) -> np.ndarray:
    return response_precision(recording.statistics("published", "responses", per_frame=True).std)


def _train_precision(recording: Recording) -> np.ndarray:
    return response_precision(recording.statistics("train", "responses", per_frame=True).std)


def _neuron_precision(recording: Recording) -> np.ndarray:
    std = recording.statistics("train", "responses", per_frame=False).std
    return response_precision(std)[np.newaxis]


def _raw_precision(recording: Recording) -> np.ndarray:
    return np.ones((1, recording.neurons), dtype=np.float32)


def _standardise(statistics: Statistics, *, centred: bool = True) -> Affine:
    offset = statistics.mean if centred else np.zeros_like(statistics.mean)
    return _divided(offset, statistics.std, _varies(statistics))


def _ranged(low: np.ndarray, high: np.ndarray) -> Affine:
    """(x - low) / (high - low), 0 where they differ by no more than float32 resolves."""
    resolved = np.finfo(np.float32).eps * np.maximum(np.abs(low), np.abs(high))
    return _divided(low, high - low, np.abs(high - low) > resolved)


def _divided(offset: np.ndarray, divisor: np.ndarray, varies: np.ndarray) -> Affine:
    """(x - offset) / divisor, 0 where nothing varies; NaN where the divisor is."""
    where = varies | np.isnan(divisor)
    scale = np.divide(1.0, divisor, out=np.zeros_like(divisor), where=where)
    return Affine(offset.astype(np.float32), scale.astype(np.float32))


def _varies(statistics: Statistics) -> np.ndarray:
    """Where values differed at all: by more than float32 resolves (rounding of a mean is less)."""
    return statistics.std > np.finfo(np.float32).eps * np.abs(statistics.mean)


def _scaled(scale: np.ndarray) -> Affine:
    return Affine(np.zeros_like(scale), scale)


def _over_pixels(video: Statistics) -> Statistics:
    """Statistics of all pixels together, (1, 1, 1): every pixel counts equally often."""
    mean = video.mean.mean()
    variance = np.square(video.std).mean() + np.square(video.mean - mean).mean()
    one = np.ones((1, 1, 1))
    return Statistics(
        mean=mean * one,
        std=np.sqrt(variance) * one,
        min=video.min.min() * one,
        max=video.max.max() * one,
    )


def _one_row(pooled: Statistics) -> Statistics:
    return Statistics(
        mean=pooled.mean[np.newaxis],
        std=pooled.std[np.newaxis],
        min=pooled.min[np.newaxis],
        max=pooled.max[np.newaxis],
    )


def _frames_before_nan(array: np.ndarray) -> int:
    undefined = np.flatnonzero(np.isnan(array).any(axis=tuple(range(1, array.ndim))))
    return int(undefined[0]) if len(undefined) else len(array)


def _choose(name: str, choices: dict[str, Choice], kind: str) -> Choice:
    if name not in choices:
        raise ValueError(f"There is no {kind} {name!r}. Use one of {', '.join(choices)}.")
    return choices[name]


_SCHEMES: dict[str, Callable[[Recording], Normalisation]] = {
    "per_frame_published": _per_frame_published,
    "per_frame_train": _per_frame_train,
    "viv1t": _viv1t,
    "global_train": _global_train,
    "none": _none,
}
SCHEMES = tuple(_SCHEMES)

_SCORE_UNITS: dict[str, Callable[[Recording], np.ndarray]] = {
    "per_frame_published": _published_precision,
    "per_frame_train": _train_precision,
    "per_neuron_train": _neuron_precision,
    "raw": _raw_precision,
}
SCORE_UNITS = tuple(_SCORE_UNITS)
