"""The six kinds of stimuli of SENSORIUM 2023, rendered from a random generator.

Lengths and segment structure follow the third-party trial metadata of the released recordings
(natural movie 300 frames; the other five as in `SEGMENT_FRAMES`); the pixels are our own synthesis.
Every renderer returns grey levels, uint8, shape (frames, height, width), at 30 frames per second.
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np

STIMULUS_TYPES = ("movie", "pink_noise", "gaussian_dots", "random_dots", "gabor", "images")
FRAMES = {
    "movie": 300,
    "pink_noise": 324,
    "gaussian_dots": 315,
    "random_dots": 240,
    "gabor": 300,
}
"""Frames of one clip; clips of flashed images have 305 to 326, see `image_clip_segments`."""
SEGMENT_FRAMES = {"pink_noise": 27, "gaussian_dots": 9, "random_dots": 60, "gabor": 25}
IMAGES_PER_CLIP = 10
IMAGE_FRAMES = 15
GREY_FRAMES = (12, 18)
IMAGE_CLIP_FRAMES = (305, 326)
# A clip of flashed images never lasts as long as a clip of another type, so that the length of a
# trial and the types shown in its tier always decide the type.
AMBIGUOUS_FRAMES = frozenset(FRAMES.values())
GREY = 127
# The released frames have mean 80 and standard deviation 57 over the training movies.
MOVIE_MEAN = 80.0
# Textures come in 64 steps of luminance, as after a lossy codec: far below the contrast that drives
# a neuron, and a third off the size of an archive.
LUMINANCE_STEP = 4


def render(
    stimulus_type: str, rng: np.random.Generator, frame_shape: tuple[int, int]
) -> np.ndarray:
    """Render one clip of a type, (frames, height, width) uint8.

    Raises:
        ValueError: the type is none of `STIMULUS_TYPES`.
    """
    renderers: dict[str, Callable[[np.random.Generator, tuple[int, int]], np.ndarray]] = {
        "movie": natural_movie,
        "pink_noise": directional_pink_noise,
        "gaussian_dots": gaussian_dots,
        "random_dots": random_dot_kinematogram,
        "gabor": drifting_gabor,
        "images": flashed_images,
    }
    if stimulus_type not in renderers:
        raise ValueError(
            f"There is no stimulus type {stimulus_type!r}; choose among {', '.join(renderers)}."
        )
    return renderers[stimulus_type](rng, frame_shape)


def natural_movie(rng: np.random.Generator, frame_shape: tuple[int, int]) -> np.ndarray:
    """One to three scenes of three 1/f textures each, moving past each other with pauses.

    The luminance is an exponential of the summed textures, which gives the skewed histogram of
    natural scenes (many dark pixels, few bright ones).
    """
    frames = FRAMES["movie"]
    cuts = np.sort(
        rng.choice(np.array([75, 125, 175, 225]), int(rng.integers(0, 3)), replace=False)
    )
    bounds = [0, *cuts.tolist(), frames]
    scenes = [_moving_scene(rng, stop - start, frame_shape) for start, stop in pairwise(bounds)]
    return np.concatenate(scenes)


def directional_pink_noise(rng: np.random.Generator, frame_shape: tuple[int, int]) -> np.ndarray:
    """1/f noise around one orientation, drifting across it; 12 directions in random order."""
    length = SEGMENT_FRAMES["pink_noise"]
    segments = FRAMES["pink_noise"] // length
    height, width = frame_shape
    canvas, frequency_y, frequency_x = _canvas(frame_shape)
    directions = rng.permutation(segments) * (2 * np.pi / segments)
    clip = []
    for direction in directions:
        along = frequency_x * np.cos(direction) + frequency_y * np.sin(direction)
        radius = np.hypot(frequency_x, frequency_y)
        tuning = (along / np.maximum(radius, 1e-9)) ** 8  # half width about 25 degrees
        spectrum = _pink_spectrum(rng, canvas) * tuning
        speed = rng.uniform(0.5, 1.2) * height / 36
        steps = np.arange(length) * speed
        texture = _drift(spectrum, steps * np.sin(direction), steps * np.cos(direction), canvas)
        texture = texture[:, :height, :width]
        clip.append(GREY + 45.0 * texture / texture.std())
    return _stepped_grey_levels(np.concatenate(clip))


def gaussian_dots(rng: np.random.Generator, frame_shape: tuple[int, int]) -> np.ndarray:
    """One black or white dot with a Gaussian profile at a time, each 9 frames, anywhere on grey."""
    length = SEGMENT_FRAMES["gaussian_dots"]
    dots = FRAMES["gaussian_dots"] // length
    height, width = frame_shape
    centre_y, centre_x = rng.uniform(0, height, dots), rng.uniform(0, width, dots)
    radius = rng.uniform(0.08, 0.16, dots) * height
    contrast = rng.choice([-1.0, 1.0], dots) * GREY
    profile_y = np.exp(-0.5 * ((np.arange(height) - centre_y[:, None]) / radius[:, None]) ** 2)
    profile_x = np.exp(-0.5 * ((np.arange(width) - centre_x[:, None]) / radius[:, None]) ** 2)
    images = GREY + contrast[:, None, None] * profile_y[:, :, None] * profile_x[:, None, :]
    return np.repeat(_grey_levels(images), length, axis=0)


def random_dot_kinematogram(rng: np.random.Generator, frame_shape: tuple[int, int]) -> np.ndarray:
    """Black and white dots on grey, most of them moving in one direction per 60-frame segment.

    A quarter of the dots is replaced at random places every five frames; what leaves the frame on
    one side comes back on the other.
    """
    length = SEGMENT_FRAMES["random_dots"]
    segments = FRAMES["random_dots"] // length
    height, width = frame_shape
    dots = 60
    scale = height / 36
    extent = np.array([height, width], dtype=float)
    place = rng.uniform(0, 1, (dots, 2)) * extent
    polarity = np.where(np.arange(dots) % 2 == 0, 1.0, -1.0)
    directions = rng.permutation(8)[:segments] * (np.pi / 4)
    places = np.empty((FRAMES["random_dots"], dots, 2))
    for segment, direction in enumerate(directions):
        speed = rng.uniform(0.4, 1.0) * scale
        velocity = np.tile([np.sin(direction), np.cos(direction)], (dots, 1)) * speed
        stray = rng.uniform(0, 1, dots) > 0.8  # coherence 80 per cent
        angle = rng.uniform(0, 2 * np.pi, dots)
        velocity[stray] = speed * np.stack([np.sin(angle), np.cos(angle)], axis=1)[stray]
        for frame in range(length):
            if frame % 5 == 0:
                reborn = rng.uniform(0, 1, dots) < 0.25
                place[reborn] = rng.uniform(0, 1, (int(reborn.sum()), 2)) * extent
            place = (place + velocity) % extent
            places[segment * length + frame] = place
    radius = 1.3 * scale
    profile_y = np.exp(-0.5 * ((np.arange(height) - places[:, :, :1]) / radius) ** 2)
    profile_x = np.exp(-0.5 * ((np.arange(width) - places[:, :, 1:]) / radius) ** 2)
    sheet = (profile_y * polarity[None, :, None]).transpose(0, 2, 1) @ profile_x
    return _grey_levels(GREY + 1.3 * GREY * sheet)


def drifting_gabor(rng: np.random.Generator, frame_shape: tuple[int, int]) -> np.ndarray:
    """Gratings under a broad Gaussian window, 12 blocks of direction, wavelength and frequency."""
    length = SEGMENT_FRAMES["gabor"]
    blocks = FRAMES["gabor"] // length
    height, width = frame_shape
    y = np.arange(height)[:, None] - (height - 1) / 2
    x = np.arange(width)[None, :] - (width - 1) / 2
    window = np.exp(-0.5 * (np.hypot(y, x) / (0.4 * height)) ** 2)
    directions = rng.permutation(np.arange(blocks) % 8) * (np.pi / 4)
    wavelengths = rng.choice(np.array([0.2, 0.3, 0.45]), blocks) * height
    cycles_per_frame = rng.choice(np.array([1.0, 2.0, 4.0]), blocks) / 30
    clip = []
    for direction, wavelength, speed in zip(directions, wavelengths, cycles_per_frame, strict=True):
        along = (x * np.cos(direction) + y * np.sin(direction)) / wavelength
        time = np.arange(length)[:, None, None] * speed
        clip.append(GREY + GREY * window * np.cos(2 * np.pi * (along - time)))
    return _grey_levels(np.concatenate(clip))


def flashed_images(rng: np.random.Generator, frame_shape: tuple[int, int]) -> np.ndarray:
    """Ten still 1/f images, each 15 frames and then 12 to 18 frames of grey."""
    height, width = frame_shape
    canvas, _, _ = _canvas(frame_shape)
    clip = []
    for grey in image_clip_segments(rng):
        texture = np.fft.irfft2(_pink_spectrum(rng, canvas), s=canvas)[:height, :width]
        image = _luminance(texture[None] / texture.std(), contrast=0.8)
        clip += [np.repeat(image, IMAGE_FRAMES, axis=0)]
        clip += [np.full((grey, height, width), GREY, dtype=np.uint8)]
    return np.concatenate(clip)


def image_clip_segments(rng: np.random.Generator) -> list[int]:
    """Draw the grey frames after each image so that the clip has an allowed, unambiguous length."""
    while True:
        grey = rng.integers(GREY_FRAMES[0], GREY_FRAMES[1] + 1, IMAGES_PER_CLIP).tolist()
        frames = IMAGES_PER_CLIP * IMAGE_FRAMES + sum(grey)
        if is_image_clip_length(frames):
            return [int(value) for value in grey]


def is_image_clip_length(frames: int) -> bool:
    """Tell whether a clip of flashed images may have this many frames."""
    shortest, longest = IMAGE_CLIP_FRAMES
    return shortest <= frames <= longest and frames not in AMBIGUOUS_FRAMES


def with_last_grey(clip: np.ndarray, change: int) -> np.ndarray:
    """Return a clip of flashed images whose last grey lasts `change` frames longer or shorter.

    Repeats of one image sequence differ by a few frames in the released recordings. The change is
    left out where it would give a length that `is_image_clip_length` refuses; all frames that both
    versions have are the same.
    """
    frames = len(clip) + change
    if not is_image_clip_length(frames):
        return clip
    if change < 0:
        return clip[:frames]
    return np.concatenate([clip, np.repeat(clip[-1:], change, axis=0)])


def _moving_scene(
    rng: np.random.Generator, frames: int, frame_shape: tuple[int, int]
) -> np.ndarray:
    height, width = frame_shape
    canvas, _, _ = _canvas(frame_shape)
    spectrum: np.ndarray | float = 0.0
    for weight in (1.0, 0.8, 0.6):
        path_y, path_x = _smooth_path(rng, frames, speed=0.9 * height / 36)
        spectrum = spectrum + _phases(path_y, path_x, canvas) * (
            weight * _pink_spectrum(rng, canvas)
        )
    textures = np.fft.irfft2(spectrum, s=canvas)[:, :height, :width]
    textures -= textures.mean()
    return _luminance(textures / textures.std(), contrast=rng.uniform(0.55, 0.9))


def _smooth_path(
    rng: np.random.Generator, frames: int, *, speed: float
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a camera path in pixels: velocity changes over about 15 frames, with pauses."""
    keep = np.exp(-1 / 15)
    kicks = rng.standard_normal((frames, 2)) * np.sqrt(1 - keep**2)
    velocity = np.empty((frames, 2))
    current = rng.standard_normal(2)
    for frame in range(frames):
        current = keep * current + kicks[frame]
        velocity[frame] = current
    still = np.repeat(rng.uniform(0, 1, frames // 25 + 1) < 0.25, 25)[:frames]
    velocity[still] = 0.0
    path = np.cumsum(velocity * speed, axis=0)
    return path[:, 0], path[:, 1]


def _canvas(frame_shape: tuple[int, int]) -> tuple[tuple[int, int], np.ndarray, np.ndarray]:
    """Size of the periodic canvas of which a frame is a cut-out, and its spatial frequencies."""
    height, width = frame_shape
    canvas = (8 * -(-3 * height // 16), 8 * -(-3 * width // 16))  # 1.5 times the frame
    return canvas, np.fft.fftfreq(canvas[0])[:, None], np.fft.rfftfreq(canvas[1])[None, :]


def _pink_spectrum(rng: np.random.Generator, canvas: tuple[int, int]) -> np.ndarray:
    """Fourier coefficients with 1/f amplitude and random phase, complex64 (rows, columns/2+1)."""
    frequency = np.hypot(np.fft.fftfreq(canvas[0])[:, None], np.fft.rfftfreq(canvas[1])[None, :])
    frequency[0, 0] = np.inf  # no mean
    # Nothing finer than the optics of the down-sampled frames would pass.
    amplitude = np.exp(-((frequency / 0.3) ** 2)) / frequency
    real, imaginary = rng.standard_normal((2, *frequency.shape), dtype=np.float32)
    return (amplitude * (real + 1j * imaginary)).astype(np.complex64)


def _phases(path_y: np.ndarray, path_x: np.ndarray, canvas: tuple[int, int]) -> np.ndarray:
    """Phase factors that move a canvas along a path, complex64 (frames, rows, columns/2+1)."""
    rows = np.exp(-2j * np.pi * path_y[:, None] * np.fft.fftfreq(canvas[0])).astype(np.complex64)
    columns = np.exp(-2j * np.pi * path_x[:, None] * np.fft.rfftfreq(canvas[1]))
    phases: np.ndarray = rows[:, :, None] * columns.astype(np.complex64)[:, None, :]
    return phases


def _drift(
    spectrum: np.ndarray, path_y: np.ndarray, path_x: np.ndarray, canvas: tuple[int, int]
) -> np.ndarray:
    moved = _phases(path_y, path_x, canvas) * spectrum.astype(np.complex64)
    texture: np.ndarray = np.fft.irfft2(moved, s=canvas)
    return texture


def _luminance(texture: np.ndarray, *, contrast: float) -> np.ndarray:
    """Exponentiate a texture of unit variance; the mean stays near `MOVIE_MEAN` before clipping."""
    return _stepped_grey_levels(MOVIE_MEAN * np.exp(contrast * texture - contrast**2 / 2))


def _grey_levels(image: np.ndarray) -> np.ndarray:
    levels: np.ndarray = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    return levels


def _stepped_grey_levels(image: np.ndarray) -> np.ndarray:
    levels: np.ndarray = (
        _grey_levels(image) // LUMINANCE_STEP * LUMINANCE_STEP + LUMINANCE_STEP // 2
    )
    return levels
