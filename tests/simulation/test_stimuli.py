"""The six stimuli: lengths, segments and statistics."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensorium_models.simulation import stimuli

SHAPE = (36, 64)


def clip_of(kind: str, seed: int = 0) -> np.ndarray:
    return stimuli.render(kind, np.random.default_rng(seed), SHAPE)


@pytest.mark.parametrize("kind", stimuli.STIMULUS_TYPES)
@pytest.mark.parametrize("shape", [(36, 64), (18, 32), (30, 50)])
def test_shape_and_determinism(kind, shape):
    clip, again = (stimuli.render(kind, np.random.default_rng(4), shape) for _ in range(2))
    assert clip.dtype == np.uint8
    assert clip.shape[1:] == shape
    assert np.array_equal(clip, again)
    assert clip.std() > 10
    if kind != "images":
        assert len(clip) == stimuli.FRAMES[kind]


def change_frames(clip: np.ndarray) -> np.ndarray:
    """Mean absolute difference of each frame to the one before, (frames - 1,)."""
    return np.abs(np.diff(clip.astype(float), axis=0)).mean(axis=(1, 2))


def test_natural_movie():
    clips = np.concatenate([clip_of("movie", seed) for seed in range(6)]).astype(float)
    assert abs(clips.mean() - 80) < 15  # the released training movies: mean 80, std 57
    assert abs(clips.std() - 57) < 15
    # Amplitude falls about as 1/f: the slope of log amplitude on log frequency.
    spectrum = np.abs(np.fft.fft(clips[:, 18] - clips[:, 18].mean(1, keepdims=True), axis=1)) ** 2
    power = spectrum.mean(axis=0)[1:17]
    slope = np.polyfit(np.log(np.arange(1, 17)), np.log(power), 1)[0]
    assert -3.2 < slope < -0.7
    centred = clips[:300] - clips[:300].mean(axis=0)
    near = np.mean(centred[1:] * centred[:-1]) / np.mean(centred**2)
    far = np.mean(centred[60:] * centred[:-60]) / np.mean(centred**2)
    assert near > 0.8
    assert far < near - 0.2


def test_dots_stay_nine_frames():
    changes = np.flatnonzero(change_frames(clip_of("gaussian_dots"))) + 1
    assert np.array_equal(changes, np.arange(9, 315, 9))


def test_images_and_grey_alternate():
    clip = clip_of("images")
    changes = (np.flatnonzero(change_frames(clip)) + 1).tolist()
    assert len(changes) == 19
    bounds = [0, *changes, len(clip)]
    lengths = np.diff(bounds)
    assert np.all(lengths[::2] == 15)
    assert np.all((lengths[1::2] >= 12) & (lengths[1::2] <= 18))
    for start, stop in zip(bounds[1::2], bounds[2::2], strict=True):
        assert np.all(clip[start:stop] == stimuli.GREY)


@pytest.mark.parametrize(("kind", "segment"), [("gabor", 25), ("pink_noise", 27)])
def test_segments_start_with_a_jump(kind, segment):
    changes = change_frames(clip_of(kind, 1))
    at_start = changes[segment - 1 :: segment]
    inside = np.delete(changes, np.arange(segment - 1, len(changes), segment))
    assert len(at_start) == stimuli.FRAMES[kind] // segment - 1
    assert np.median(at_start) > 1.5 * np.median(inside)


def test_pink_noise_drifts_across_one_orientation():
    """Within a segment a frame is the one before, moved: shifting back along it fits best."""
    clip = clip_of("pink_noise", 2).astype(float)[:27]
    power = np.abs(np.fft.fft2(clip - clip.mean())) ** 2
    power = power.mean(axis=0)
    fy, fx = np.meshgrid(np.fft.fftfreq(36), np.fft.fftfreq(64), indexing="ij")
    angle = np.exp(2j * np.arctan2(fy, fx))
    concentration = np.abs(np.sum(power * angle)) / power.sum()
    assert concentration > 0.5


def test_random_dots_move_coherently():
    clip = clip_of("random_dots", 3).astype(float) - 127
    for segment in range(4):
        frames = clip[60 * segment : 60 * segment + 60]
        spectra = np.fft.fft2(frames[:-5]).conj() * np.fft.fft2(frames[5:])
        shifted = np.fft.ifft2(spectra.sum(axis=0)).real  # circular cross-correlation, five frames
        dy, dx = np.unravel_index(np.argmax(shifted), shifted.shape)
        dy, dx = (dy + 18) % 36 - 18, (dx + 32) % 64 - 32
        assert 1.5 <= np.hypot(dy, dx) <= 6.5  # 0.4 to 1 pixel a frame


@given(st.integers(0, 2**32), st.integers(-2, 2))
def test_image_clip_lengths_are_unambiguous(seed, change):
    rng = np.random.default_rng(seed)
    frames = 150 + sum(stimuli.image_clip_segments(rng))
    clip = np.arange(frames)
    longer = stimuli.with_last_grey(clip, change)
    assert 305 <= len(longer) <= 326
    assert len(longer) not in {240, 300, 315, 324}
    assert len(longer) in {frames, frames + change}
    common = min(len(longer), frames)
    assert np.array_equal(longer[:common], clip[:common])


def test_unknown_type():
    with pytest.raises(ValueError, match="no stimulus type 'plaid'"):
        stimuli.render("plaid", np.random.default_rng(0), SHAPE)
