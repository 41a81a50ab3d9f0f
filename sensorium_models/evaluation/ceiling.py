"""What bounds the score of any model: how well repeats of a video agree with each other.

Sums per neuron over the repeats of each video, from which follow the oracle correlations of the
SENSORIUM competitions, signal power (Sahani & Linden 2003), normalised correlation (Schoppe et al.
2016) and the fraction of explainable variance explained (Cadena et al. 2019; SENSORIUM 2022, arXiv
2206.08666). What behaviour adds to a response differs between repeats and counts as noise in all of
them, so a model that sees behaviour can exceed them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sensorium_models.evaluation.correlation import correlation
from sensorium_models.evaluation.moments import GroupMoments
from sensorium_models.evaluation.streaming import BLOCK_BYTES, JointMoments

CEILINGS = (
    "oracle_jackknife",
    "oracle_conservative",
    "explainable_variance",
    "signal_power",
    "ceiling_single_trial",
    "ceiling_to_average",
)
RELATIVE_SCORES = ("normalised_correlation", "feve")
_SUMS = ("noise", "noise_of_repeats", "noise_biased", "noise_of_mean", "offsets")


@dataclass
class RepeatStatistics:
    """Sums over the repeats of one or several videos, of frames that all repeats of a video have.

    A point is one frame of one video. Videos with a single trial tell nothing and are counted only.

    Attributes:
        jackknife: joint moments of (mean of the other repeats, response), over repeats and frames.
        average: moments of the mean over repeats, over points.
        noise: (N,) sum over points of the variance between repeats, ddof 1.
        noise_of_repeats: (N,) the same sum, each point as often as it has repeats.
        noise_biased: as `noise`, with ddof 0.
        noise_of_mean: (N,) sum over points of that variance (ddof 1) / repeats.
        offsets: (N,) sum over videos of frames^2 x variance between the repeats' time means (ddof
            1) / repeats: what slow drift adds to `noise_of_mean` without moving the mean's variance
            within a video.
    """

    jackknife: JointMoments
    average: JointMoments
    noise: np.ndarray
    noise_of_repeats: np.ndarray
    noise_biased: np.ndarray
    noise_of_mean: np.ndarray
    offsets: np.ndarray
    videos: int = 0
    videos_without_repeats: int = 0

    @classmethod
    def empty(cls, neurons: int) -> "RepeatStatistics":
        """Of no video at all."""
        sums: dict[str, Any] = {name: np.zeros(neurons) for name in _SUMS}
        return cls(JointMoments.empty(2, neurons), JointMoments.empty(1, neurons), **sums)

    @classmethod
    def of_video(cls, repeats: Sequence[np.ndarray]) -> "RepeatStatistics":
        """Of one video: its repeats, each (frames, N); cut to the shortest."""
        neurons = repeats[0].shape[1]
        result = cls.empty(neurons)
        count, frames = len(repeats), min(len(repeat) for repeat in repeats)
        if count < 2:
            result.videos_without_repeats = 1
            return result
        result.videos = 1
        jackknife, average = result.jackknife, result.average
        jackknife.count, average.count = count * frames, frames
        width = max(16, BLOCK_BYTES // (8 * frames * count))
        for first in range(0, neurons, width):
            columns = slice(first, first + width)
            block = np.stack([repeat[:frames, columns] for repeat in repeats]).astype(np.float64)
            near = block[0, ::8].mean(axis=0)
            block -= near  # (repeats, frames, n), small deviations: nothing large cancels below
            mean = block.mean(axis=0)
            residual = block - mean
            biased = np.einsum("rtn,rtn->n", residual, residual) / count
            unbiased = biased * (count / (count - 1))
            result.noise_biased[columns] = biased
            result.noise[columns] = unbiased
            result.noise_of_repeats[columns] = unbiased * count
            result.noise_of_mean[columns] = unbiased / count
            drift = residual.mean(axis=1)  # (repeats, n), of mean zero over repeats
            result.offsets[columns] = frames**2 * (drift**2).sum(axis=0) / (count - 1) / count
            centre = mean.mean(axis=0)
            average.mean[0, columns] = near + centre
            average.products[0, columns] = ((mean - centre) ** 2).sum(axis=0)
            # The mean of the others deviates from the mean by -residual / (count - 1).
            shared = count * average.products[0, columns]
            spread = biased * count
            jackknife.mean[:, columns] = near + centre
            jackknife.products[0, columns] = shared + spread / (count - 1) ** 2
            jackknife.products[1, columns] = shared - spread / (count - 1)
            jackknife.products[2, columns] = shared + spread
        return result

    def add(self, other: "RepeatStatistics") -> None:
        """Join with the statistics of other videos, in place."""
        self.jackknife.add(other.jackknife)
        self.average.add(other.average)
        for name in _SUMS:
            getattr(self, name).__iadd__(getattr(other, name))
        self.videos += other.videos
        self.videos_without_repeats += other.videos_without_repeats

    @property
    def points(self) -> int:
        """Frames of distinct videos."""
        return self.average.count

    def signal_power(self) -> np.ndarray:
        """(N,) unbiased variance over points of the response's repeatable part; may be negative.

        The variance of the mean, less what noise leaves in it. For one video it is Sahani and
        Linden's (R P(mean) - mean P(repeat)) / (R - 1), P being the variance over time; it extends
        theirs to several videos, whose repeats have no pairing, and to unequal numbers of repeats.
        """
        of_mean = self.average.products[0] / self.points
        left_in_it = self.noise_of_mean / self.points - self.offsets / self.points**2
        return of_mean - left_in_it

    def total_variance(self) -> np.ndarray:
        """(N,) variance of single responses, over repeats and points, ddof 1."""
        return self.jackknife.products[2] / (self.jackknife.count - 1)

    def noise_variance(self) -> np.ndarray:
        """(N,) mean over points of the variance between repeats, ddof 1."""
        return self.noise / self.points


def ceilings(statistics: RepeatStatistics) -> dict[str, np.ndarray]:
    """Each of `CEILINGS` per neuron, (N,) float64; NaN where repeats do not determine it.

    oracle_jackknife: correlation of each response with the mean of the other repeats.
    oracle_conservative: V / sqrt(V (V + noise)), V the variance of the mean, noise with ddof 0.
    explainable_variance: (total - noise) / total variance of single responses.
    signal_power: see `RepeatStatistics.signal_power`.
    ceiling_single_trial, ceiling_to_average: the correlation that a model of the repeatable part
        would reach, sqrt(signal power / variance) of single responses and of their mean.
    """
    neurons = len(statistics.noise)
    if not statistics.points:
        return {name: np.full(neurons, np.nan) for name in CEILINGS}
    of_mean = statistics.average.products[0] / statistics.points
    biased = statistics.noise_biased / statistics.points
    total, power = statistics.total_variance(), statistics.signal_power()
    single = statistics.jackknife.products[2] / statistics.jackknife.count
    positive = np.where(power > 0, power, np.nan)
    return {
        "oracle_jackknife": correlation(statistics.jackknife),
        "oracle_conservative": _ratio(of_mean, np.sqrt(of_mean * (of_mean + biased))),
        "explainable_variance": _ratio(total - statistics.noise_variance(), total),
        "signal_power": power,
        "ceiling_single_trial": np.sqrt(_ratio(positive, single)),
        "ceiling_to_average": np.sqrt(_ratio(positive, of_mean)),
    }


def relative_scores(group: GroupMoments, statistics: RepeatStatistics) -> dict[str, np.ndarray]:
    """Each of `RELATIVE_SCORES` of one model per neuron, (N,) float64.

    normalised_correlation: cov(mean prediction, mean response) / sqrt(var(mean prediction) x signal
        power); NaN where the signal power is not positive, 0 for a constant prediction.
    feve: 1 - (mean squared error - noise) / (total - noise variance), each of them over the same
        repeats: where some videos have more, they weigh more in all three. NaN where nothing can be
        explained. It may be negative: unlike a correlation it also judges scale and offset.

    Args:
        group: the model's moments on the videos of `statistics` that have repeats, on no other.

    Raises:
        ValueError: they are of another number of videos.
    """
    if group.videos != statistics.videos:
        raise ValueError(
            f"a model's moments on {group.videos} videos cannot be judged by the repeats of "
            f"{statistics.videos}; give those of the repeated videos only."
        )
    neurons = len(statistics.noise)
    if not statistics.points:
        return {name: np.full(neurons, np.nan) for name in RELATIVE_SCORES}
    power = statistics.signal_power()
    variance, covariance = group.repeat_average.products[:2] / group.repeat_average.count
    scale = np.sqrt(variance * np.where(power > 0, power, np.nan))
    normalised = np.where((variance == 0) & (power > 0), 0.0, _ratio(covariance, scale))
    moments = group.single_trial
    of_prediction, joint, of_response = moments.products / moments.count
    error = (moments.mean[0] - moments.mean[1]) ** 2 + of_prediction - 2 * joint + of_response
    noise = statistics.noise_of_repeats / statistics.jackknife.count
    explainable = statistics.total_variance() - noise
    explainable = np.where(explainable > 0, explainable, np.nan)
    return {"normalised_correlation": normalised, "feve": 1 - (error - noise) / explainable}


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """numerator / denominator, NaN where the denominator is not positive."""
    possible = denominator > 0
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=possible)
