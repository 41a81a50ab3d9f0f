"""Where a readout starts to look: the peak of each neuron's response-triggered average.

With random starting positions a Gaussian readout loses many neurons for good; starting at the peak
of the average video before a response loses none. Uses training trials only and no coordinates, so
it serves any tissue. Memory is bounded: trials are streamed, neurons go block by block.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from scipy import ndimage
from torch import nn

from sensorium_models.progress import track
from sensorium_models.recordings.clips import usable_frames
from sensorium_models.recordings.normalisation import Affine
from sensorium_models.recordings.store import Recording

# Running sums of one block of neurons; more neurons mean another pass over the trials.
_BLOCK_BYTES = 512 * 2**20


@dataclass(frozen=True)
class ResponseTriggered:
    """Peak of every neuron's response-triggered average.

    Attributes:
        rows_columns: (N, 2) float64 pixel of the frame, (row, column), fractional after pooling.
        strength: (N,) energy at the peak over the mean energy of the frame; about 1 means no field.
    """

    rows_columns: np.ndarray
    strength: np.ndarray


def response_triggered_peaks(
    recording: Recording,
    trials: Sequence[int] | np.ndarray,
    *,
    responses: Affine,
    lag_frames: int,
    pool: int,
    smoothing_pixels: float,
    cap_frames: int | None,
) -> ResponseTriggered:
    """Pixel around which the video before a response differs most from the average video.

    For each neuron n, lag l = 0..lag_frames and pixel p the correlation c[l,n,p] of response r_n(t)
    with pixel p at t - l is taken over all frames of `trials` (never across a trial), smoothed
    over space, and the pixel with the largest sum over l of c^2 is the peak.

    Args:
        responses: normalisation of the responses, by frame index in the trial.
        pool: side of the squares of pixels that are averaged first; 1 keeps every pixel.
        smoothing_pixels: standard deviation of the smoothing, in pixels of the frame.
        cap_frames: frames of a trial that are used at most.

    Raises:
        ValueError: no trials, or every trial is shorter than the lags.
    """
    height, width = recording.frame_shape
    rows, columns = height // pool, width // pool
    if not rows or not columns:
        raise ValueError(
            f"start_positions.pool: {pool} is more than a side of the frames of {recording.animal} "
            f"({height} x {width}); choose less."
        )
    per_neuron = (lag_frames + 1) * rows * columns * 4
    block = max(1, min(recording.neurons, _BLOCK_BYTES // per_neuron))
    starts = range(0, recording.neurons, block)
    peaks, strengths = [], []
    for start in starts:
        name = f"start positions of {recording.animal}"
        if len(starts) > 1:
            name += f", neurons {start}-{min(start + block, recording.neurons) - 1}"
        sums = _Sums(lag_frames, min(block, recording.neurons - start), rows * columns)
        for trial in track(list(trials), name, unit="trial"):
            frames = usable_frames(recording, int(trial), cap_frames)
            video = _pooled(recording.read("video", int(trial), 0, frames), pool)
            recorded = recording.read("responses", int(trial), 0, frames)
            recorded = responses.apply(recorded, np.arange(frames))
            sums.add(video, recorded[:, start : start + block])
        energy = _energy(sums, (rows, columns), smoothing_pixels / pool)
        flat = energy.reshape(len(energy), -1)
        peak = flat.argmax(axis=1)
        peaks.append(np.stack(np.unravel_index(peak, (rows, columns)), axis=1))
        mean = flat.mean(axis=1)
        strengths.append(flat.max(axis=1) / np.where(mean > 0, mean, 1.0))
    # Centre of the pooled square, in pixels of the frame.
    pixels = np.concatenate(peaks) * pool + (pool - 1) / 2
    return ResponseTriggered(rows_columns=pixels, strength=np.concatenate(strengths))


@dataclass(frozen=True)
class FeatureLayout:
    """Which pixel of the frame a feature of a core's output looks at: offset + stride * index.

    Attributes:
        map_shape: (H', W') of the feature map.
        offset: frame pixel (row, column) at the centre of what feature (0, 0) sees.
        stride: frame pixels from one feature to the next, (vertical, horizontal).
    """

    map_shape: tuple[int, int]
    offset: tuple[float, float]
    stride: tuple[float, float]


def grid_positions(rows_columns: np.ndarray, layout: FeatureLayout) -> np.ndarray:
    """Pixels of the frame (row, column) as (x, y) in [-1, 1] on the feature map, (N, 2) float32.

    The convention is that of `grid_sample` with `align_corners=True`: -1 and 1 are the CENTRES of
    the first and the last feature. Pixels beyond the outermost features become -1 or 1.
    """
    index = (np.asarray(rows_columns, dtype=np.float64) - layout.offset) / layout.stride
    last = np.asarray(layout.map_shape) - 1
    # A map of one row has a single place, its middle.
    coordinates = np.divide(2 * index, last, out=np.ones_like(index), where=last > 0) - 1
    return np.clip(coordinates, -1, 1)[:, ::-1].astype(np.float32)


def feature_layout(
    core: nn.Module, *, in_channels: int, frame_shape: tuple[int, int]
) -> FeatureLayout:
    """Find out what a core's features look at, by asking which pixels two of them depend on.

    The first and the last feature of each axis tell offset and stride exactly where nothing is
    padded, two neighbours in the middle where something is. Where these see the whole frame
    (attention, very large kernels), features are taken to be spread evenly over it.
    """
    anycore = cast(Any, core)
    map_shape = (int(anycore.out_shape[0]), int(anycore.out_shape[1]))
    generator = torch.Generator().manual_seed(0)
    # Noise, because in a constant video rectifiers that are off would hide their pixels. Two clips,
    # because PyTorch 2.13's batch norm gets the gradient of one frame of one clip wrong on the CPU
    # when it arrives channels-last.
    shape = (2, in_channels, int(anycore.history_frames) + 1, *frame_shape)
    video = torch.randn(shape, generator=generator).requires_grad_()
    was_training = core.training

    def field(axis: int, index: int) -> tuple[int, int]:
        """First and last pixel along `axis` on which feature `index` of the middle line depends."""
        at = [(size - 1) // 2 for size in map_shape]
        at[axis] = index
        drive = features[:, at[0], at[1]].square().sum()
        (gradient,) = torch.autograd.grad(drive, video, retain_graph=True)
        seen = gradient[0].abs().sum(dim=(0, 1, 3 - axis)).nonzero().flatten().tolist()
        return (seen[0], seen[-1]) if seen else (0, frame_shape[axis] - 1)

    core.eval()  # until the last gradient: what is computed again for one must be the same
    try:
        features = core(video)[0, :, -1]  # (C', H', W')
        (top, down), (left, right) = (
            _line_layout(map_shape[axis], frame_shape[axis], partial(field, axis))
            for axis in (0, 1)
        )
    finally:
        core.train(was_training)
    return FeatureLayout(map_shape=map_shape, offset=(top, left), stride=(down, right))


def _line_layout(
    size: int, frame: int, field: Callable[[int], tuple[int, int]]
) -> tuple[float, float]:
    """Offset and stride of `size` features along a line of `frame` pixels."""
    middle = (size - 1) // 2
    first, last = 0, size - 1
    reaches = {high - low for low, high in map(field, (first, middle, last))}
    whole = len(reaches) == 1
    if not whole:  # padded: fields at the edges are cut off, those in the middle may be whole
        first, last = middle, min(middle + 1, size - 1)
    (low, high), (last_low, last_high) = field(first), field(last)
    if low == last_low or not (whole or (low > 0 and last_high < frame - 1)):
        return (frame / size - 1) / 2, frame / size
    stride = (last_low + last_high - low - high) / 2 / (last - first)
    return (low + high) / 2 - first * stride, stride


class _Sums:
    """Sums over frames from which the correlation at every lag follows."""

    def __init__(self, lag_frames: int, neurons: int, pixels: int) -> None:
        lags = lag_frames + 1
        self.frames = np.zeros(lags)
        # float32 holds millions of products of centred values well enough for a peak.
        self.products = np.zeros((lags, neurons, pixels), dtype=np.float32)
        self.response = np.zeros((lags, neurons))
        self.video = np.zeros((lags, pixels))
        self.video_squared = np.zeros(pixels)
        self.video_total = np.zeros(pixels)
        self.video_frames = 0

    def add(self, video: np.ndarray, responses: np.ndarray) -> None:
        """Frames of one trial: video (T, pixels), responses (T, neurons)."""
        frames = len(video)
        if self.video_frames == 0:
            # Centring by the first trial keeps the sums small; the rest cancels exactly later.
            self._grey, self._rate = video.mean(), responses.mean(axis=0)
        video = video - self._grey
        responses = (responses - self._rate).astype(np.float32)
        self.video_squared += np.square(video, dtype=np.float64).sum(axis=0)
        self.video_total += video.sum(axis=0, dtype=np.float64)
        self.video_frames += frames
        for lag in range(min(len(self.frames), frames)):
            late, early = responses[lag:], video[: frames - lag]
            self.products[lag] += late.T @ early
            self.response[lag] += late.sum(axis=0, dtype=np.float64)
            self.video[lag] += early.sum(axis=0, dtype=np.float64)
            self.frames[lag] += frames - lag


def _energy(sums: _Sums, shape: tuple[int, int], smoothing: float) -> np.ndarray:
    """Squared correlation summed over lags, (neurons, rows, columns); up to a factor per neuron."""
    if not sums.video_frames:
        raise ValueError("start positions need at least one training trial.")
    mean = sums.video_total / sums.video_frames
    variance = sums.video_squared / sums.video_frames - mean**2
    # Pixels that never change carry nothing and would only amplify rounding.
    varies = variance > 1e-6 * max(float(variance.max()), 1e-12)
    scale = np.where(varies, 1 / np.sqrt(np.where(varies, variance, 1)), 0).astype(np.float32)
    energy = np.zeros((sums.products.shape[1], *shape), dtype=np.float32)
    for lag, frames in enumerate(sums.frames):
        if not frames:
            continue
        expected = np.outer(sums.response[lag], sums.video[lag] / frames)
        average = (sums.products[lag] - expected.astype(np.float32)) * (scale / frames)
        field = average.astype(np.float32).reshape(-1, *shape)
        if smoothing > 0:
            field = ndimage.gaussian_filter(field, (0, smoothing, smoothing), mode="nearest")
        energy += field**2
    return energy


def _pooled(video: np.ndarray, pool: int) -> np.ndarray:
    """Video (T, H, W) averaged over squares of `pool` pixels, (T, pixels) float32; edges cut."""
    frames, height, width = video.shape
    rows, columns = height // pool, width // pool
    cut = video[:, : rows * pool, : columns * pool].astype(np.float32)
    return cut.reshape(frames, rows, pool, columns, pool).mean(axis=(2, 4)).reshape(frames, -1)
