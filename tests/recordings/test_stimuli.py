"""Video identity, the perceptual hash of DwiseNeuro, and stimulus types by length."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.fftpack import dct

from sensorium_models.recordings import stimuli
from sensorium_models.recordings.store import Recording


def hash_from_the_card(video: np.ndarray) -> str:
    """Written from the model card: DCT of a 32 x 32 image, bits above the median, XOR."""
    step = len(video) // 5
    total = 0
    for k in range(5):
        image = Image.fromarray(video[step // 2 + k * step].astype(np.uint8), mode="L")
        pixels = np.asarray(image.resize((32, 32), Image.Resampling.LANCZOS))
        low = dct(dct(pixels, axis=0), axis=1)[:8, :8]
        bits = (low > np.median(low)).ravel()
        total ^= int("".join("1" if bit else "0" for bit in bits), 2)
    return f"{total:016x}"


@pytest.mark.parametrize("frames", [5, 7, 240, 300, 324])
def test_perceptual_hash_as_the_card_describes(frames: int) -> None:
    rng = np.random.default_rng(frames)
    smooth = np.cumsum(np.cumsum(rng.normal(size=(frames, 36, 64)), axis=1), axis=2)
    video = 255 * (smooth - smooth.min()) / np.ptp(smooth)
    assert stimuli.perceptual_hash(video) == hash_from_the_card(video)
    assert len(stimuli.perceptual_hash(video)) == 16


def test_perceptual_hash_of_very_short_videos() -> None:
    video = np.random.default_rng(0).integers(0, 256, (3, 8, 8))
    first = stimuli.perceptual_hash(video[:1])
    assert stimuli.perceptual_hash(video) == first
    with pytest.raises(ValueError, match="without frames"):
        stimuli.perceptual_hash(video[:0])


def test_signature_is_content() -> None:
    video = np.random.default_rng(1).integers(0, 256, (320, 6, 9)).astype(np.uint8)
    reference = stimuli.signature(video)
    assert len(reference) == 32
    assert stimuli.signature(video.astype(np.float64) + 0.3) == reference  # rounds to the same
    assert stimuli.signature(video[:305]) == reference  # beyond the frames that count
    assert stimuli.signature(video[:299]) != reference
    assert stimuli.signature(video.reshape(320, 9, 6)) != reference
    changed = video.copy()
    changed[299, 5, 8] ^= 1
    assert stimuli.signature(changed) != reference
    strided = np.moveaxis(np.ascontiguousarray(np.moveaxis(video, 0, -1)), -1, 0)
    assert stimuli.signature(strided) == reference


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from(["train", "none"]))))
def test_within_animal_ids(trials: list[tuple[str, str]]) -> None:
    signatures, tiers = [s for s, _ in trials], [t for _, t in trials]
    ids = stimuli.within_animal_ids(signatures, tiers)
    assert ids.dtype == np.int32
    used = [(s, i) for s, t, i in zip(signatures, tiers, ids, strict=True) if t != "none"]
    assert all(i == -1 for t, i in zip(tiers, ids, strict=True) if t == "none")
    for first, one in used:
        for second, other in used:
            assert (one == other) == (first == second)
    assert sorted({i for _, i in used}) == list(range(len({s for s, _ in used})))


@pytest.mark.parametrize(
    ("frames", "candidates", "expected"),
    [
        (300, (), "movie"),
        (307, (), "movie"),
        (324, ("pink_noise",), "pink_noise"),
        (298, ("gabor",), "gabor"),
        (315, ("gaussian_dots", "random_dots"), "gaussian_dots"),
        (240, ("gaussian_dots", "random_dots"), "random_dots"),
        (300, ("random_dots", "gabor"), "gabor"),
        (324, ("pink_noise", "gaussian_dots"), "pink_noise"),
        (324, ("pink_noise", "images"), "pink_noise"),
        (305, ("pink_noise", "images"), "images"),
        (315, ("gabor", "images"), "images"),
        (403, ("random_dots", "images"), "images"),
        (288, ("gaussian_dots", "random_dots"), "unknown"),
        (300, ("movie", "gabor"), "unknown"),
    ],
)
def test_stimulus_type_by_length(frames: int, candidates: tuple[str, ...], expected: str) -> None:
    assert stimuli.stimulus_type(frames, "final_test_bonus", candidates) == expected


def test_stimulus_type_of_unused_trials_and_of_a_typing_error() -> None:
    assert stimuli.stimulus_type(300, "none", ()) == "unknown"
    with pytest.raises(ValueError, match="'noise' of tier 'live_test_bonus' is not known"):
        stimuli.stimulus_type(300, "live_test_bonus", ["noise"])


def test_table_of_videos_is_stable_when_an_animal_is_added(
    recording: Recording, make: Any, zipped: Any, prepare: Any, tmp_path: Path
) -> None:
    """The partner saw one of the same videos; ids of the first animal stay what they were."""
    own = make()
    content = make(seed=9)
    content["data/videos/0.npy"] = own["data/videos/6.npy"]
    length = int(recording.trials.frames[6])
    for modality in ("responses", "behavior", "pupil_center"):
        array = np.ones_like(content[f"data/{modality}/0.npy"])
        array[..., length:] = np.nan
        content[f"data/{modality}/0.npy"] = array
    partner = prepare(zipped(content, tmp_path / "F.zip"), tmp_path / "F.h5", animal="F")
    alone = stimuli.videos_table([recording])
    both = stimuli.videos_table([recording, partner])
    assert tuple(both.columns) == stimuli.VIDEO_COLUMNS
    assert both.iloc[: len(alone)].equals(alone)
    shared = both[both["video_id"] == recording.trials.signature[6]]
    assert list(zip(shared["animal"], shared["trial"], strict=True)) == [("A", 6), ("F", 0)]
    assert (alone["frames"].to_numpy() == recording.trials.frames).all()
    with pytest.raises(ValueError, match="at least one recording"):
        stimuli.videos_table([])
