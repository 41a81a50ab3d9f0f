"""What tells one kind of stimulus from another, measured on the frames of a trial.

Segments of 9, 25 and 27 frames are those of the Gaussian dots, Gabors and pink noise of SENSORIUM
2023, as the trial metadata of the released recordings describe them
(github.com/bryanlimy/ViV1T-closed-loop); `stimulus_types` draws the conclusions.
"""

from dataclasses import dataclass

import numpy as np

_DOT_FRAMES, _GABOR_FRAMES, _NOISE_FRAMES = 9, 25, 27
# Several segments of every type, and as many as its statistics need.
_SHORTEST_FRAMES = 150
_SMALLEST_FRAME = (12, 12)
# Frames of about this size, by averaging square blocks: enough for every type, and cheap.
_POOLED_SIZE = (18, 32)
_SPECTRUM_STEP = 3
_SLOPE_BANDS = ((0.54, 1.26), (2.3, 3.8))  # cycles per frame height
# Variance of a normal distribution over the median of its square.
_NORMAL_MEDIAN = 0.4549
_SMALL = 1e-9


@dataclass(frozen=True, kw_only=True)
class Features:
    """What a video's type is told by; all but the first two are free of units and of contrast.

    Attributes:
        contrast, noise: standard deviations over space, grey levels, of averaged pixels: of what is
            shown, and of the noise in it.
        blank_share: share of frames with less than a tenth of the contrast (power) of others.
        blank_runs: how often such frames follow one another for 6 to 30 frames.
        change: mean square difference of successive frames over twice the power of the contrast.
        dot_jumps, gabor_jumps, noise_jumps: change at the ends of segments of 9, 25 and 27 frames
            over the change in between, at the best of all phases.
        dot_spread: share of the frame over which the contrast of one segment of 9 frames is spread
            (participation ratio); the median over segments.
        gabor_orientation, noise_orientation: concentration of the power on one orientation within
            segments of that length, 0 (none) to 1 (a grating); the median over segments.
        rank_two: share of the variance within 25 frames that two images explain, as sine and cosine
            of a drifting grating do.
        slope: minus the slope of log power on log spatial frequency, from about one to about three
            cycles per frame height: 0 for scattered points, towards 2 for 1/f amplitudes, negative
            for gratings.
    """

    contrast: float
    noise: float
    blank_share: float
    blank_runs: int
    change: float
    dot_jumps: float
    gabor_jumps: float
    noise_jumps: float
    dot_spread: float
    gabor_orientation: float
    noise_orientation: float
    rank_two: float
    slope: float


def features(video: np.ndarray) -> Features | None:
    """Measure (T, H, W), grey levels; None if it is too short, too small or shows nothing."""
    if len(video) < _SHORTEST_FRAMES or video.shape[1:] < _SMALLEST_FRAME:
        return None
    block = max(1, min(video.shape[1] // _POOLED_SIZE[0], video.shape[2] // _POOLED_SIZE[1]))
    frames = _pooled(video, block)
    noise = _noise_power(video) / block**2
    power = frames.var(axis=(1, 2)) - noise
    strongest = float(np.quantile(power, 0.8))
    if strongest < max(1.0, 0.05 * noise):
        return None
    change = np.square(np.diff(frames, axis=0)).mean(axis=(1, 2))
    # What noise alone changes, but never more than what changes when the stimulus rests.
    moved = np.maximum(change - min(2 * noise, float(np.quantile(change, 0.2))), 0.0)
    profile = _folded(moved, _NOISE_FRAMES)
    spectra = _Spectra(frames, noise)
    # Over five frames, which no pause is shorter than, noise hardly hides a blank frame.
    blank = np.convolve(power, np.ones(5) / 5, mode="same") < 0.1 * strongest
    return Features(
        contrast=float(np.sqrt(strongest)),
        noise=float(np.sqrt(noise)),
        blank_share=float(blank.mean()),
        blank_runs=_runs(blank, 6, 30),
        change=float(np.maximum(change - 2 * noise, 0).mean() / (2 * strongest)),
        dot_jumps=_jumps(profile, np.arange(0, _NOISE_FRAMES, _DOT_FRAMES)),
        gabor_jumps=_jumps(_folded(moved, _GABOR_FRAMES), np.zeros(1, int)),
        noise_jumps=_jumps(profile, np.zeros(1, int)),
        dot_spread=_dot_spread(frames, noise, int(_folded(moved, _DOT_FRAMES).argmax()) + 1),
        gabor_orientation=spectra.orientation(_GABOR_FRAMES),
        noise_orientation=spectra.orientation(_NOISE_FRAMES),
        rank_two=_rank_two(frames, _GABOR_FRAMES),
        slope=spectra.slope(),
    )


def _pooled(video: np.ndarray, block: int) -> np.ndarray:
    """Means of blocks x blocks pixels, float32 (T, h, w); incomplete blocks are left out."""
    height, width = (size // block * block for size in video.shape[1:])
    frames = np.zeros((len(video), height // block, width // block), dtype=np.float32)
    for row in range(block):
        for column in range(block):
            frames += video[:, row:height:block, column:width:block]
    return frames / np.float32(block**2)


def _noise_power(video: np.ndarray) -> float:
    """Variance of noise that is independent from pixel to pixel, from the finest checkerboard.

    The median makes it blind to the edges of what is shown.
    """
    some = video[::8, : video.shape[1] // 2 * 2, : video.shape[2] // 2 * 2].astype(np.float32)
    finest = some[:, ::2, ::2] - some[:, 1::2, ::2] - some[:, ::2, 1::2] + some[:, 1::2, 1::2]
    return float(np.median(np.square(finest))) / 4 / _NORMAL_MEDIAN


def _runs(marks: np.ndarray, shortest: int, longest: int) -> int:
    """Number of runs of True with a length in these bounds."""
    bounds = np.flatnonzero(np.diff(np.concatenate([[False], marks, [False]]).astype(int)))
    lengths = bounds[1::2] - bounds[::2]
    return int(np.count_nonzero((lengths >= shortest) & (lengths <= longest)))


def _folded(values: np.ndarray, period: int) -> np.ndarray:
    """Mean at each phase of a period, (period,)."""
    return np.array([values[phase::period].mean() for phase in range(period)])


def _jumps(profile: np.ndarray, peaks: np.ndarray) -> float:
    """Smallest of the peaks at the best phase, over the median of the profile."""
    shifted = np.stack([np.roll(profile, -int(peak)) for peak in peaks])
    best = float(shifted.min(axis=0).max())
    return best / max(float(np.median(profile)), 0.01 * float(profile.max()), _SMALL)


def _dot_spread(frames: np.ndarray, noise: float, start: int) -> float:
    """Median over segments of 9 frames of (sum d^2)^2 / sum d^4 / pixels, d from the background."""
    length = _DOT_FRAMES
    start %= length
    count = (len(frames) - start) // length
    segments = frames[start : start + count * length].reshape(count, length, -1).mean(axis=1)
    squares = np.square(segments - np.median(segments, axis=0))
    # Four deviations of what is left of the noise in the mean of a segment, or half a grey level.
    squares[squares < max(16 * noise / length, 0.25)] = 0.0
    fourth = np.maximum(np.square(squares).sum(axis=1), _SMALL)
    return float(np.median(np.square(squares.sum(axis=1)) / fourth)) / squares.shape[1]


def _rank_two(frames: np.ndarray, length: int) -> float:
    """Share of the variance over time within segments that its two largest components explain."""
    explained = total = 0.0
    for start in range(0, len(frames) - length + 1, length):
        segment = frames[start : start + length].reshape(length, -1)
        segment = segment - segment.mean(axis=0)
        values = np.linalg.eigvalsh(segment @ segment.T / segment.shape[1])[::-1]
        # Noise spreads evenly over all components, and centring took one away.
        values = np.maximum(values - np.median(values[length // 2 : -1]), 0.0)
        explained += float(values[:2].sum())
        total += float(values.sum())
    return explained / max(total, _SMALL)


class _Spectra:
    """Spatial power of every third frame, without the power of noise."""

    def __init__(self, frames: np.ndarray, noise: float) -> None:
        height, width = frames.shape[1:]
        taper = np.hanning(height + 2)[1:-1, None] * np.hanning(width + 2)[None, 1:-1]
        some = frames[::_SPECTRUM_STEP]
        some = (some - some.mean(axis=(1, 2), keepdims=True)) * taper.astype(np.float32)
        self._power = np.square(np.abs(np.fft.rfft2(some))) - noise * np.square(taper).sum()
        rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
        # Coefficients of a real image come in pairs, of which only one is here.
        pairs = np.where((columns == 0) | (columns == 0.5), 1.0, 2.0)
        self._power *= pairs
        self._pairs = np.broadcast_to(pairs, self._power.shape[1:])
        self._frequency = np.hypot(rows, columns)
        self._direction = np.exp(2j * np.arctan2(rows, columns))
        self._height = height

    def orientation(self, length: int) -> float:
        """Median over segments: the length of the mean of exp(2i orientation), by power."""
        kept = (self._frequency > 0.04) & (self._frequency < 0.4)
        direction, power = self._direction[kept], self._power[:, kept]
        starts = np.arange(0, len(power) * _SPECTRUM_STEP - length + 1, length)
        found = []
        for start in starts:
            first, last = -(-start // _SPECTRUM_STEP), -(-(start + length) // _SPECTRUM_STEP)
            segment = np.maximum(power[first:last].mean(axis=0), 0.0)
            found.append(abs((segment * direction).sum()) / max(float(segment.sum()), _SMALL))
        return float(np.median(found))

    def slope(self) -> float:
        """Minus the slope of log power on log frequency, between two bands."""
        mean, cycles = self._power.mean(axis=0), self._frequency * self._height
        levels = []
        for low, high in _SLOPE_BANDS:
            kept = (cycles >= low) & (cycles < high)
            levels.append(max(float(mean[kept].sum() / self._pairs[kept].sum()), _SMALL))
        centres = [(low + high) / 2 for low, high in _SLOPE_BANDS]
        return float(np.log(levels[0] / levels[1]) / np.log(centres[1] / centres[0]))
