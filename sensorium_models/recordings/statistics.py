"""Mean, standard deviation, minimum and maximum of raw recordings, per frame index and pooled.

Running sums after Welford (1962), one trial at a time, in float64; pooling over frame indices after
Chan et al. (1983). The standard deviation is the population's (ddof 0).
"""

from dataclasses import dataclass

import numpy as np

# Rows of a block: four float64 arrays of some frames stay in the processor's cache together.
_BLOCK_ELEMENTS = 32_768


@dataclass(frozen=True)
class Statistics:
    """float64 arrays of one shape: (frames, ...) per frame index, (...) pooled over frames.

    NaN where nothing was recorded: frame indices that no trial reached.
    """

    mean: np.ndarray
    std: np.ndarray
    min: np.ndarray
    max: np.ndarray


class RunningStatistics:
    """Statistics over trials, separately for every frame index, from one pass over the trials.

    Args:
        frames: the longest trial that will be added.
        shape: the shape of one frame: (H, W), (N,) or (2,).
    """

    def __init__(self, *, frames: int, shape: tuple[int, ...]) -> None:
        if frames < 1 or 0 in shape:
            raise ValueError(f"Statistics need frames and elements, got {frames} frames {shape}.")
        self._shape = shape
        elements = int(np.prod(shape, dtype=np.int64))
        self._trials = np.zeros(frames, dtype=np.int64)
        self._mean = np.zeros((frames, elements))
        self._squares = np.zeros((frames, elements))  # sum of squared deviations from the mean
        # Extremes of float32 values are float32 values, so half the memory holds them exactly.
        self._min = np.full((frames, elements), np.inf, dtype=np.float32)
        self._max = np.full((frames, elements), -np.inf, dtype=np.float32)

    def add(self, trial: np.ndarray) -> None:
        """Add one trial (T, *shape) without NaN, float32 or integers that float32 holds."""
        frames = len(trial)
        if trial.shape[1:] != self._shape or frames > len(self._trials):
            raise ValueError(
                f"A trial of shape {trial.shape} does not fit statistics over at most"
                f" {len(self._trials)} frames of shape {self._shape}."
            )
        values = trial.reshape(frames, -1)
        self._trials[:frames] += 1
        rows = max(1, _BLOCK_ELEMENTS // values.shape[1])
        for start in range(0, frames, rows):
            block = slice(start, min(start + rows, frames))
            x, mean = values[block], self._mean[block]
            deviation = x - mean  # float64, whatever x is
            mean += deviation / self._trials[block, np.newaxis]
            deviation *= x - mean  # never negative: `mean` moved towards x, not past it
            self._squares[block] += deviation
            np.minimum(self._min[block], x, out=self._min[block])
            np.maximum(self._max[block], x, out=self._max[block])

    def per_frame(self) -> Statistics:
        """Statistics over trials for every frame index, (frames, *shape)."""
        reached = self._trials > 0
        trials = np.maximum(self._trials, 1)[:, np.newaxis]
        return Statistics(
            mean=self._frames(self._mean, reached),
            std=self._frames(np.sqrt(self._squares / trials), reached),
            min=self._frames(self._min, reached),
            max=self._frames(self._max, reached),
        )

    def pooled(self) -> Statistics:
        """Statistics over trials and frames together, (*shape)."""
        total = int(self._trials.sum())
        if total == 0:
            raise ValueError("No trial was added, so there are no statistics to pool.")
        weights = self._trials / total
        # Relative to one frame's mean, so that what is constant has exactly no deviation.
        reference = self._mean[np.argmax(self._trials > 0)]
        mean = reference + weights @ (self._mean - reference)
        between = weights @ np.square(self._mean - mean)
        variance = self._squares.sum(axis=0) / total + between
        return Statistics(
            mean=mean.reshape(self._shape),
            std=np.sqrt(variance).reshape(self._shape),
            min=self._min.min(axis=0).astype(np.float64).reshape(self._shape),
            max=self._max.max(axis=0).astype(np.float64).reshape(self._shape),
        )

    def _frames(self, values: np.ndarray, reached: np.ndarray) -> np.ndarray:
        filled = values.astype(np.float64)
        filled[~reached] = np.nan
        return filled.reshape(len(reached), *self._shape)
