"""A population of visual neurons whose true rates are known.

Simple and complex cells as in Adelson & Bergen (1985, J. Opt. Soc. Am. A 2:284): pairs of spatial
Gabor filters in quadrature, each convolved with two temporal filters in quadrature; their sum and
difference prefer opposite directions. A saturating rate function (Naka & Rushton 1966), a gain set
by running and pupil, and a shift of all receptive fields by gaze complete the model.
"""

from dataclasses import dataclass

import numpy as np

from sensorium_models.simulation import imaging
from sensorium_models.simulation.behaviour import Behaviour
from sensorium_models.simulation.stimuli import GREY

LATENCY_FRAMES = 2
TEMPORAL_FRAMES = 6
KINDS = ("simple", "complex")
HALF_SATURATION = 2.5  # drive, in standard deviations during natural movies
EXPONENT = 2.0
SPONTANEOUS = 0.08  # share of the mean rate that needs no stimulus
RATE_RANGE_HZ = (0.1, 15.0)


@dataclass(frozen=True)
class Units:
    """Parameters of N neurons, each array (N,) unless said otherwise.

    Attributes:
        receptive_field: (N, 2) centre (x, y) in pixels of the frame, gaze straight ahead.
        kind: index into `KINDS`.
        direction: preferred direction of motion, radians, 0 = rightwards, pi/2 = downwards.
        direction_selectivity: 0 (both directions alike) to 1 (one direction only).
        wavelength, envelope: spatial period and standard deviation of the Gabor, pixels.
        phase: spatial phase, radians.
        temporal_frequency: cycles per second.
        running_gain, pupil_gain: relative rate change at full running, per sd of dilation.
    """

    receptive_field: np.ndarray
    kind: np.ndarray
    direction: np.ndarray
    direction_selectivity: np.ndarray
    wavelength: np.ndarray
    envelope: np.ndarray
    phase: np.ndarray
    temporal_frequency: np.ndarray
    running_gain: np.ndarray
    pupil_gain: np.ndarray


def draw_coordinates(rng: np.random.Generator, neurons: int) -> np.ndarray:
    """Draw cell positions as in the released recordings: 600 x 600 um, ten planes, int64 (N, 3)."""
    x = rng.integers(-1259, -658, neurons)
    y = rng.integers(-659, -41, neurons)
    z = 200 + 25 * rng.permutation(np.arange(neurons) % imaging.PLANES)
    return np.stack([x, y, z], axis=1).astype(np.int64)


def retinotopy(
    coordinates: np.ndarray, frame_shape: tuple[int, int], *, rotation: float
) -> np.ndarray:
    """Map cortical positions to receptive-field centres (N, 2), x and y in pixels.

    A linear map: the imaged field, turned by `rotation` radians, covers the middle 70 per cent of
    the frame. Independent of the sample of neurons up to the extent of the field.
    """
    height, width = frame_shape
    place = coordinates[:, :2].astype(float)
    low, high = place.min(axis=0), place.max(axis=0)
    unit = 2 * (place - (low + high) / 2) / np.maximum(high - low, 1)  # -1..1
    turn = np.array([[np.cos(rotation), -np.sin(rotation)], [np.sin(rotation), np.cos(rotation)]])
    unit = unit @ turn.T
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    mapped: np.ndarray = centre + unit * np.array([0.35 * width, 0.33 * height])
    return mapped


def draw_units(
    rng: np.random.Generator, coordinates: np.ndarray, frame_shape: tuple[int, int]
) -> Units:
    """Draw the parameters of one neuron per cortical position."""
    neurons = len(coordinates)
    height, width = frame_shape
    pixel = height / 36  # sizes are for the released frames of 36 x 64
    centre = retinotopy(coordinates, frame_shape, rotation=float(rng.uniform(-0.4, 0.4)))
    centre = centre + rng.normal(0, 0.8 * pixel, (neurons, 2))
    margin = 2.5 * pixel
    centre = np.clip(centre, margin, np.array([width, height]) - 1 - margin)
    wavelength = rng.uniform(6.5, 12.0, neurons) * pixel
    return Units(
        receptive_field=centre,
        kind=(rng.uniform(0, 1, neurons) < 0.35).astype(np.int64),
        direction=rng.uniform(0, 2 * np.pi, neurons),
        direction_selectivity=rng.beta(1.2, 1.2, neurons),
        wavelength=wavelength,
        envelope=wavelength * rng.uniform(0.28, 0.38, neurons),
        phase=rng.uniform(0, 2 * np.pi, neurons),
        temporal_frequency=rng.uniform(1.5, 4.5, neurons),
        running_gain=rng.uniform(0.0, 0.8, neurons),
        pupil_gain=rng.uniform(-0.1, 0.25, neurons),
    )


class Population:
    """Units that answer to video: filters built once, then one matrix product per trial.

    Args:
        units: parameters of the N neurons.
        frame_shape: (height, width) of the video.
        gaze_shift_pixels: shift of all receptive fields per standard deviation of gaze.
        reference: natural movies, each (frames, height, width), that set each neuron's drive to
            unit variance and its stimulus-driven rate to mean 1.
        mean_arousal: expectation of `Behaviour.arousal` and of the product of its two columns,
            (3,); with it the mean over behaviours of every neuron's gain is 1. None: gain 1.
    """

    def __init__(
        self,
        *,
        units: Units,
        frame_shape: tuple[int, int],
        gaze_shift_pixels: float,
        reference: list[np.ndarray],
        mean_arousal: np.ndarray | None,
    ) -> None:
        if not reference:
            raise ValueError("A population needs at least one reference movie to scale its drive.")
        self.units = units
        self.frame_shape = frame_shape
        self.gaze_shift_pixels = gaze_shift_pixels
        self._filters = _spatial_filters(units, frame_shape)
        self._first, self._second = _temporal_filters(units)
        self._drive_scale = np.ones((len(units.kind), 1), dtype=np.float32)
        drives = [self._drive(movie, None) for movie in reference]
        power = np.mean([np.mean(drive**2, axis=1) for drive in drives], axis=0)
        # Half-wave rectified drive has half the power of the drive.
        power = np.where(units.kind == KINDS.index("simple"), 2 * power, power)
        self._drive_scale = (1 / np.sqrt(np.maximum(power, 1e-12)))[:, None].astype(np.float32)
        responses = [_saturate(drive * self._drive_scale) for drive in drives]
        mean = np.mean([np.mean(response, axis=1) for response in responses], axis=0)
        self._response_scale = (1 / np.maximum(mean, 1e-6))[:, None].astype(np.float32)
        self.signal_variance = self._signal_variance(responses)
        if mean_arousal is None:
            self._mean_gain = None
        else:
            running, pupil, product = mean_arousal
            self._mean_gain = (
                1
                + units.running_gain * running
                + units.pupil_gain * pupil
                + units.running_gain * units.pupil_gain * product
            )

    def relative_rates(self, video: np.ndarray, behaviour: Behaviour | None) -> np.ndarray:
        """Rate of every neuron relative to its mean during natural movies, float32 (N, frames).

        Args:
            video: grey levels (frames, height, width). Before the first frame the screen is grey.
            behaviour: gain and gaze during the trial; None: resting gain 1, gaze straight ahead.
        """
        gaze = None if behaviour is None else behaviour.gaze
        response = _saturate(self._drive(video, gaze) * self._drive_scale) * self._response_scale
        response *= 1 - SPONTANEOUS
        response += SPONTANEOUS
        if behaviour is not None:
            response *= self.gain(behaviour)
        return response

    def gain(self, behaviour: Behaviour) -> np.ndarray:
        """Factor by which running and pupil change the rates, float32 (N, frames), mean 1."""
        if self._mean_gain is None:
            return np.ones((len(self.units.kind), 1), dtype=np.float32)
        running, pupil = behaviour.arousal.T.astype(np.float32)
        gain = 1 + self.units.running_gain[:, None].astype(np.float32) * running
        gain *= 1 + self.units.pupil_gain[:, None].astype(np.float32) * pupil
        gain /= self._mean_gain[:, None].astype(np.float32)
        return gain

    def _drive(self, video: np.ndarray, gaze: np.ndarray | None) -> np.ndarray:
        """Filtered video: linear for simple cells, root of the energy for complex ones."""
        frames = len(video)
        contrast = (video.astype(np.float32) - GREY) / GREY
        if gaze is not None and self.gaze_shift_pixels:
            contrast = shift(contrast, gaze * self.gaze_shift_pixels)
        # (2 N, pixels) @ (pixels, frames): even and odd Gabor of every neuron.
        projected = self._filters @ contrast.reshape(frames, -1).T
        even, odd = projected[: len(projected) // 2], projected[len(projected) // 2 :]
        even_first, odd_second = _convolve(even, self._first), _convolve(odd, self._second)
        selectivity = self.units.direction_selectivity[:, None].astype(np.float32)
        drive = even_first - selectivity * odd_second
        np.maximum(drive, 0, out=drive)
        chosen = self.units.kind == KINDS.index("complex")
        if chosen.any():
            even_first, odd_second = even_first[chosen], odd_second[chosen]
            even_second = _convolve(even[chosen], self._second[chosen])
            odd_first = _convolve(odd[chosen], self._first[chosen])
            preferred = (even_first - odd_second) ** 2 + (odd_first + even_second) ** 2
            opposite = (even_first + odd_second) ** 2 + (odd_first - even_second) ** 2
            drive[chosen] = np.sqrt(preferred + (1 - selectivity[chosen]) * opposite)
        return drive

    def _signal_variance(self, responses: list[np.ndarray]) -> np.ndarray:
        """Variance of the expected recorded trace during natural movies, mean rate 1, (N,)."""
        traces = []
        for response in responses:
            smooth = imaging.scan(response.shape[1], 0.0).expectation.T
            traces.append((response * self._response_scale) @ smooth[:, 50:])
        together = np.concatenate(traces, axis=1)
        variance: np.ndarray = np.var(together, axis=1) / np.mean(together, axis=1) ** 2
        return variance * (1 - SPONTANEOUS) ** 2


def shift(video: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """What receptive fields moved by `offset` (frames, 2: x, y pixels) see of a video.

    Frame by frame, bilinear between pixels; beyond the border the nearest pixel is repeated.
    """
    frames, height, width = video.shape
    margin = int(np.ceil(np.abs(offset).max())) + 1
    wide = np.pad(video, ((0, 0), (margin, margin), (margin, margin)), mode="edge")
    whole = np.floor(offset).astype(np.int64)
    rest = (offset - whole).astype(np.float32)
    seen = np.empty_like(video)
    for frame in range(frames):
        left, top = (margin + whole[frame]).tolist()
        window = wide[frame, top : top + height + 1, left : left + width + 1]
        rows = window[:-1] + rest[frame, 1] * (window[1:] - window[:-1])
        seen[frame] = rows[:, :-1] + rest[frame, 0] * (rows[:, 1:] - rows[:, :-1])
    return seen


def _spatial_filters(units: Units, frame_shape: tuple[int, int]) -> np.ndarray:
    """Even, then odd Gabor of every neuron, each without mean, float32 (2 N, pixels)."""
    height, width = frame_shape
    neurons = len(units.kind)
    filters = np.empty((2, neurons, height * width), dtype=np.float32)
    y, x = np.mgrid[:height, :width].reshape(2, 1, -1).astype(np.float32)
    for start in range(0, neurons, 512):  # blocks keep the temporaries small
        block = slice(start, start + 512)
        centre = units.receptive_field[block].astype(np.float32)
        dx, dy = x - centre[:, :1], y - centre[:, 1:]
        envelope = np.exp(-(dx**2 + dy**2) / (2 * units.envelope[block, None] ** 2))
        envelope[envelope < 1e-4] = 0  # the far tails are denormal numbers, slow to multiply
        direction = units.direction[block, None]
        along = dx * np.cos(direction) + dy * np.sin(direction)
        angle = 2 * np.pi * along / units.wavelength[block, None] + units.phase[block, None]
        share = envelope / envelope.sum(axis=1, keepdims=True)
        for carrier, target in ((np.cos, filters[0]), (np.sin, filters[1])):
            gabor = envelope * carrier(angle)
            target[block] = gabor - share * gabor.sum(axis=1, keepdims=True)
    return filters.reshape(2 * neurons, -1)


def _temporal_filters(units: Units) -> tuple[np.ndarray, np.ndarray]:
    """Two temporal filters in quadrature, each (N, lags); lag 0 is `LATENCY_FRAMES` back."""
    lag = np.arange(TEMPORAL_FRAMES)[None, :]
    window = (lag + 1) * np.exp(-(lag + 1) / 1.6)
    angle = 2 * np.pi * units.temporal_frequency[:, None] * lag / imaging.FRAME_RATE_HZ
    first, second = window * np.cos(angle), window * np.sin(angle)
    # Equal energy, else slow neurons would hardly be selective for direction.
    first, second = (
        values / np.sqrt(np.sum(values**2, axis=1, keepdims=True)) for values in (first, second)
    )
    return first.astype(np.float32), second.astype(np.float32)


def _convolve(signal: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Causal convolution of (N, frames) with one kernel per neuron, zero before the trial."""
    filtered = np.zeros_like(signal)
    frames = signal.shape[1]
    for lag in range(kernel.shape[1]):
        back = lag + LATENCY_FRAMES
        if back < frames:
            filtered[:, back:] += kernel[:, lag : lag + 1] * signal[:, : frames - back]
    return filtered


def _saturate(drive: np.ndarray) -> np.ndarray:
    """Naka-Rushton function of a non-negative drive."""
    power = drive**EXPONENT
    return np.asarray(power / (power + HALF_SATURATION**EXPONENT), dtype=np.float32)
