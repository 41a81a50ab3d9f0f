"""Sums from which correlations follow, gathered piece by piece: joint moments and repeat averages.

Numerics: pieces are centred in float64 about their own mean before they are multiplied, and
joined by the pairwise update of Chan, Golub & LeVeque (1983), so no large numbers
cancel: the error is about 1e-16 x |mean| / std of a signal, never its square.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np

BLOCK_BYTES = 2**20  # float64 working block; fits a core's cache, which is what makes it quick
# Of the two tiles (deviations, and their sum over repeats) of `repeated_moments`: rows of 8 kB are
# long enough for loops over them; together they take a megabyte of cache. Measured, not derived.
TILE_BYTES, TILE_NEURONS = 2**19, 1024


def packed_pairs(signals: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the upper triangle in packed order: (0,0), (0,1), .., (1,1), (1,2), .."""
    return np.triu_indices(signals)


@dataclass
class JointMoments:
    """Count, means and centred products of S signals for each of N neurons, over frames.

    By convention the last signal is the recorded response and those before it are predictions.

    Attributes:
        count: frames seen.
        mean: (S, N) float64.
        products: (S (S + 1) / 2, N) float64, sum over frames of (x_i - mean_i)(x_j - mean_j), the
            upper triangle packed row by row (`packed_pairs`).
    """

    count: int
    mean: np.ndarray
    products: np.ndarray

    @classmethod
    def empty(cls, signals: int, neurons: int) -> Self:
        """Moments of no frames at all."""
        pairs = signals * (signals + 1) // 2
        return cls(0, np.zeros((signals, neurons)), np.zeros((pairs, neurons)))

    @classmethod
    def of(cls, signals: Sequence[np.ndarray]) -> Self:
        """Moments of `signals`, each (frames, N), any float type; computed in float64.

        A constant signal has products of exactly zero: each piece is shifted by its first frame
        before the mean is taken.
        """
        count, neurons = signals[0].shape
        moments = cls.empty(len(signals), neurons)
        if not count:
            return moments
        moments.count = count
        pairs = list(zip(*packed_pairs(len(signals)), strict=True))
        width = max(64, BLOCK_BYTES // (8 * count * len(signals)))
        for first in range(0, neurons, width):
            columns = slice(first, first + width)
            anchor = np.stack([signal[0, columns] for signal in signals]).astype(np.float64)
            block = np.empty((len(signals), count, anchor.shape[1]))
            for row, signal in enumerate(signals):
                np.subtract(signal[:, columns], anchor[row], out=block[row], dtype=np.float64)
            mean = block.mean(axis=1)
            block -= mean[:, None]
            moments.mean[:, columns] = anchor + mean
            if len(signals) <= 4:
                for index, (i, j) in enumerate(pairs):
                    moments.products[index, columns] = np.einsum("tn,tn->n", block[i], block[j])
            else:  # many pairs: one small matrix product per neuron is quicker
                by_neuron = np.ascontiguousarray(block.transpose(2, 0, 1))
                gram = by_neuron @ by_neuron.transpose(0, 2, 1)
                moments.products[:, columns] = gram[:, *packed_pairs(len(signals))].T
        return moments

    def add(self, other: "JointMoments") -> None:
        """Join with the moments of other frames of the same signals, in place."""
        if self.mean.shape != other.mean.shape:
            raise ValueError(
                f"moments of (signals, neurons) {self.mean.shape} and {other.mean.shape} cannot be "
                f"joined."
            )
        if not other.count:
            return
        total = self.count + other.count
        difference = other.mean - self.mean
        if self.count:
            weight = self.count * other.count / total
            rows, columns = packed_pairs(len(self.mean))
            for index, (i, j) in enumerate(zip(rows, columns, strict=True)):
                self.products[index] += weight * difference[i] * difference[j]
            self.mean += difference * (other.count / total)
        else:
            self.mean[:] = other.mean
        self.products += other.products
        self.count = total

    def is_finite(self) -> bool:
        """Whether every value that entered was finite (NaN and infinity spread to the products)."""
        return bool(np.isfinite(self.products).all())


def repeated_moments(
    repeats: Sequence[Sequence[np.ndarray]],
    factor: np.ndarray | None = None,
) -> tuple[JointMoments, JointMoments]:
    """Joint moments of S signals over all repeats of one video, and of their average over repeats.

    The same as `JointMoments.of` for every repeat and `RepeatAverage` over them (frames that some
    repeat lacks are dropped from the average), but with everything about one block of neurons done
    while it is in the cache: each value is fetched from memory once.

    Args:
        repeats: for every repeat the S signals, each (frames, N) float32; at least one repeat.
        factor: (frames or 1, N) by which every signal is multiplied first, a block at a time: all
            repeats of a video multiplied would be in memory a second time.
    """
    signals, neurons = len(repeats[0]), repeats[0][0].shape[1]
    lengths = [len(repeat[0]) for repeat in repeats]
    single, average = (JointMoments.empty(signals, neurons) for _ in range(2))
    single.count, average.count = sum(lengths), min(lengths)
    pairs = list(zip(*packed_pairs(signals), strict=True))
    spans = _spans(lengths, max(8, TILE_BYTES // (8 * signals * TILE_NEURONS)))
    longest = max(stop - start for start, stop in spans)

    for first in range(0, neurons, TILE_NEURONS):
        columns = slice(first, first + TILE_NEURONS)
        # Deviations are from a value near the mean, so that the correction below is a small one.
        # The mean of equal numbers is that number: a constant signal deviates by exactly zero.
        some = slice(None, None, 8)
        near = [
            _tile(signal, factor, some, columns).mean(axis=0, dtype=np.float64)
            for signal in repeats[0]
        ]
        wide = near[0].size
        sums, average_sums = np.zeros((2, signals, wide))
        squares, average_squares = np.zeros((2, len(pairs), wide))
        block, total = np.empty((2, signals, longest, wide))
        for start, stop in spans:
            part, added = block[:, : stop - start], total[:, : stop - start]
            added[:] = 0
            for repeat in repeats:
                if len(repeat[0]) < stop:
                    continue
                for row, signal in enumerate(repeat):
                    part[row] = _tile(signal, factor, slice(start, stop), columns)
                    part[row] -= near[row]
                _add_products(squares, part, pairs)
                added += part
            of_span = np.einsum("stn->sn", added)
            sums += of_span
            if stop <= average.count:
                average_sums += of_span / len(repeats)
                added /= len(repeats)
                _add_products(average_squares, added, pairs)
        _settle(single, columns, np.stack(near), sums, squares)
        _settle(average, columns, np.stack(near), average_sums, average_squares)
    return single, average


def _spans(lengths: Sequence[int], most: int) -> list[tuple[int, int]]:
    """Frames [start, stop) of at most `most`; each a repeat has as a whole or not at all."""
    return [
        (start, min(start + most, stop))
        for begin, stop in pairwise([0, *sorted(set(lengths))])
        for start in range(begin, stop, most)
    ]


def _tile(
    signal: np.ndarray, factor: np.ndarray | None, frames: slice, columns: slice
) -> np.ndarray:
    values = signal[frames, columns]
    if factor is None:
        return values
    by_frame = factor if len(factor) == 1 else factor[: len(signal)][frames]
    product: np.ndarray = values * by_frame[:, columns]
    return product


def _add_products(
    products: np.ndarray, block: np.ndarray, pairs: Sequence[tuple[int, int]]
) -> None:
    """Add the sums of products over the frames of (S, frames, N)."""
    for index, (i, j) in enumerate(pairs):
        products[index] += np.einsum("tn,tn->n", block[i], block[j])


def _settle(
    moments: JointMoments, columns: slice, near: np.ndarray, sums: np.ndarray, squares: np.ndarray
) -> None:
    """Turn sums of deviations from `near` (S, N) into means and centred products."""
    rows, others = packed_pairs(len(near))
    moments.mean[:, columns] = near + sums / moments.count
    centred = squares - sums[rows] * sums[others] / moments.count
    diagonal = rows == others
    centred[diagonal] = np.maximum(centred[diagonal], 0)  # a variance, up to rounding
    moments.products[:, columns] = centred


class RepeatAverage:
    """Frame-wise average of S signals over the repeats of one video, as running sums.

    Sums of float32 values in float64 are exact in practice, so the order of trials does not matter.
    Frames that some repeat lacks are dropped: repeats of unequal length are cut to the shortest.
    Holds S x frames x N float64, so close videos one by one (`moments`) where memory matters.
    """

    def __init__(self, signals: int, neurons: int) -> None:
        self.sums = np.zeros((signals, 0, neurons))
        self.covered = np.zeros(0, dtype=np.int64)  # how many repeats reached each frame

    def add(self, signals: Sequence[np.ndarray], *, start: int = 0) -> None:
        """Add frames `start` onwards, each (frames, N), of one repeat (or a part of it)."""
        stop = start + len(signals[0])
        self._reach(stop)
        for total, signal in zip(self.sums, signals, strict=True):
            total[start:stop] += signal
        self.covered[start:stop] += 1

    def merge(self, other: "RepeatAverage") -> None:
        """Add the sums of other repeats, in place."""
        frames = len(other.covered)
        self._reach(frames)
        self.sums[:, :frames] += other.sums
        self.covered[:frames] += other.covered

    def moments(self, repeats: int) -> JointMoments:
        """Joint moments of the averages over the frames that all `repeats` have."""
        common = self.covered == repeats
        sums = self.sums if common.all() else self.sums[:, common]
        moments = JointMoments.of(list(sums))
        # Of the sums first, then scaled: saves a second copy of S x frames x N.
        moments.mean /= repeats
        moments.products /= repeats**2
        return moments

    def _reach(self, frames: int) -> None:
        missing = frames - len(self.covered)
        if missing > 0:
            signals, known, neurons = self.sums.shape
            grown = np.zeros((signals, frames, neurons))
            grown[:, :known] = self.sums
            self.sums = grown
            self.covered = np.concatenate([self.covered, np.zeros(missing, dtype=np.int64)])
