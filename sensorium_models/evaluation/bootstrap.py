"""Hierarchical bootstrap of scores: animals, in each its videos with their repeats, and neurons.

Everything follows from the moments that are stored per video and neuron. Small numbers are the
rule (five animals, six videos), where a bootstrap is too narrow (Hesterberg 2015, arXiv 1411.5279):
its variance is that with ddof 0, and percentiles ignore that it is itself estimated. An interval is
therefore the score -+ t x the corrected standard error, with the degrees of freedom of the highest
level that is drawn.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import special

from sensorium_models.evaluation.correlation import EPSILON
from sensorium_models.evaluation.streaming import JointMoments

# With fewer degrees of freedom a level says next to nothing of its spread: it is held as it is.
LEAST_FREEDOM = 2
LEVELS = ("animals", "videos", "neurons")
BLOCK_NEURONS = 64  # x some 600 draws: a working array of 0.3 MB
BLOCK_DRAWN = 2**18  # units drawn at once: 2 MB


@dataclass(frozen=True)
class Interval:
    """A score or a difference with its bootstrap standard error; NaN where nothing can be drawn."""

    value: float
    standard_error: float
    lower: float
    upper: float


class Draws:
    """Which animals, videos and neurons make each resample; the same for all that is compared.

    Drawn with replacement, as many as there are: animals, then in every drawn animal, each time
    anew, videos within a stimulus type (a video keeps its repeats) and neurons. A level with fewer
    than `LEAST_FREEDOM` degrees of freedom in all is held as it is, as long as one below it can be
    drawn. Where videos rather than animals make scores differ, drawing on every level counts their
    spread twice (Davison & Hinkley 1997, section 3.8): intervals are then too wide, not too narrow.

    Resample 0 is the sample itself.

    Args:
        videos: by animal and stimulus type, the number of videos.
        neurons: by animal, the number of neurons.
        resamples: how many besides the sample itself.
        seed: of all draws; equal arguments give equal draws.

    Attributes:
        resampled: names of the levels that are drawn, highest first.
        freedom: degrees of freedom of the highest of them, 0 where none is.
    """

    def __init__(
        self,
        videos: Mapping[str, Mapping[str, int]],
        neurons: Mapping[str, int],
        *,
        resamples: int,
        seed: int,
    ) -> None:
        if resamples < 2 or not videos:
            raise ValueError(
                f"a bootstrap needs at least two resamples and one animal, got {resamples} and "
                f"{len(videos)}."
            )
        self._videos, self._neurons = videos, neurons
        self._animals, self._seed = sorted(videos), seed
        self.resamples = resamples
        several = [count for types in videos.values() for count in types.values() if count > 1]
        units = {
            "animals": (len(videos), len(videos) - 1),
            "videos": (sum(several), sum(several) - len(several)),
            "neurons": (
                sum(neurons[animal] for animal in videos),
                sum(neurons[animal] - 1 for animal in videos),
            ),
        }
        free = [level for level in LEVELS if units[level][1] >= LEAST_FREEDOM]
        self.resampled = tuple(free)
        count, self.freedom = units[free[0]] if free else (0, 0)
        # A resample's variance is that of the units with ddof 0.
        self._inflation = np.sqrt(count / self.freedom) if free else np.nan
        times = np.ones((len(videos), resamples), dtype=np.int64)
        if "animals" in free:
            generator = np.random.default_rng([seed, 0])
            drawn = generator.integers(len(videos), size=(len(videos), resamples))
            times = np.stack([(drawn == place).sum(axis=0) for place in range(len(videos))])
        self._times = dict(zip(self._animals, times, strict=True))

    def resample_of(self, animal: str) -> np.ndarray:
        """(D,) the resample of every draw of the animal, ascending; the first is the sample."""
        drawn = np.repeat(np.arange(1, 1 + self.resamples), self._times[animal])
        return np.concatenate([np.zeros(1, dtype=np.int64), drawn])

    def videos_of(self, animal: str, stimulus_type: str) -> np.ndarray:
        """(D, V) how often each video counts in every draw of the animal."""
        types = sorted(self._videos[animal])
        count = self._videos[animal][stimulus_type]
        return self._counts(
            animal, 1 + types.index(stimulus_type), count, "videos" in self.resampled
        )

    def neurons_of(self, animal: str) -> np.ndarray:
        """(D, N) how often each neuron counts in every draw of the animal, float32."""
        return self._counts(animal, 0, self._neurons[animal], "neurons" in self.resampled)

    def interval(self, values: np.ndarray, *, level: float) -> Interval:
        """The interval for `values` (1 + resamples,), of which the first is that of the sample."""
        if not self.freedom:
            return Interval(float(values[0]), np.nan, np.nan, np.nan)
        error = float(values[1:].std(ddof=1) * self._inflation)
        half = float(special.stdtrit(self.freedom, (1 + level) / 2)) * error
        value = float(values[0])
        return Interval(value, error, value - half, value + half)

    def _counts(self, animal: str, kind: int, units: int, drawn: bool) -> np.ndarray:
        draws = int(self._times[animal].sum())
        counts = np.ones((1 + draws, units), dtype=np.float32)
        if drawn and units > 1:
            key = [self._seed, 1 + self._animals.index(animal), kind]
            generator = np.random.default_rng(key)
            rows = max(1, BLOCK_DRAWN // units)
            for first in range(1, 1 + draws, rows):
                block = counts[first : first + rows]
                chosen = generator.integers(units, size=block.shape)
                chosen += units * np.arange(len(block))[:, None]
                block[:] = np.bincount(chosen.ravel(), minlength=block.size).reshape(block.shape)
        return counts


@dataclass
class ResampledScore:
    """A score in every resample, gathered animal by animal and type by type.

    As the paper aggregates: neurons of all animals pooled within a stimulus type, then the mean
    over the types that the resample holds.
    """

    resamples: int
    _types: dict[str, np.ndarray] = field(default_factory=dict)  # (2, 1 + resamples): sum, neurons

    def add(
        self, stimulus_type: str, resample: np.ndarray, sums: np.ndarray, *, neurons: int
    ) -> None:
        """Add an animal: `sums` (D,) over its drawn neurons, of the draws in `resample` (D,)."""
        total = self._types.setdefault(stimulus_type, np.zeros((2, 1 + self.resamples)))
        size = 1 + self.resamples
        total[0] += np.bincount(resample, weights=sums, minlength=size)
        total[1] += neurons * np.bincount(resample, minlength=size)

    def values(self) -> np.ndarray:
        """(1 + resamples,), the sample's own value first."""
        sums = np.stack([total[0] for total in self._types.values()])
        neurons = np.stack([total[1] for total in self._types.values()])
        present = neurons > 0
        means = np.divide(sums, neurons, out=np.zeros_like(sums), where=present)
        result: np.ndarray = means.sum(axis=0) / present.sum(axis=0)
        return result


def summed_correlations(
    videos: Sequence[JointMoments], video_counts: np.ndarray, neuron_counts: np.ndarray
) -> np.ndarray:
    """Sum over neurons of the correlation between prediction and response, in every draw.

    Args:
        videos: V moments of (prediction, response), N neurons each.
        video_counts: (D, V) how often each video counts.
        neuron_counts: (D, N) how often each neuron counts.

    Returns:
        (D,) float64; the correlations are those of `correlation.correlation` for the joined videos.
    """
    frames = np.array([video.count for video in videos], dtype=np.float64)
    weights = np.asarray(video_counts, dtype=np.float64)
    total = (weights @ frames)[:, None]  # (D, 1)
    means = np.stack([video.mean for video in videos])  # (V, 2, N)
    products = np.stack([video.products for video in videos])  # (V, 3, N)
    # Deviations from one value per neuron, so that nothing large cancels.
    means = means - np.tensordot(frames / frames.sum(), means, axes=1)
    scaled = frames[:, None] * means.transpose(1, 0, 2)  # (2, V, N)
    prediction, response = means[:, 0], means[:, 1]
    squares = products + frames[:, None, None] * np.stack(
        [prediction**2, prediction * response, response**2], axis=1
    )
    sums = np.zeros(len(weights))
    for first in range(0, means.shape[2], BLOCK_NEURONS):
        block = slice(first, first + BLOCK_NEURONS)
        predicted = weights @ scaled[0, :, block] / total  # (D, n)
        recorded = weights @ scaled[1, :, block] / total
        covariance = weights @ squares[:, 1, block] / total - predicted * recorded
        predicted = weights @ squares[:, 0, block] / total - predicted**2
        recorded = weights @ squares[:, 2, block] / total - recorded**2
        # Rounding can leave the variance of a constant below zero.
        for variance in (predicted, recorded):
            np.sqrt(np.maximum(variance, 0, out=variance), out=variance)
            variance += EPSILON
        covariance /= predicted
        covariance /= recorded
        sums += np.einsum("dn,dn->d", covariance, neuron_counts[:, block])
    return sums
