"""Which trials showed the same video, and what kind of video it was.

Identity is exact content (uint8-rounded frames); the perceptual hash is the one by which DwiseNeuro
made its folds; the kind follows from the trial's length and what its animal shows in that tier.
"""

import hashlib
from collections.abc import Collection, Iterable, Sequence

import imagehash
import numpy as np
import pandas as pd
from PIL import Image

from sensorium_models.recordings.store import Recording

STIMULUS_TYPES = (
    "movie",
    "pink_noise",
    "gaussian_dots",
    "random_dots",
    "gabor",
    "images",
    "unknown",
)
UNUSED_TIER = "none"
VIDEO_COLUMNS = ("animal", "trial", "video_id", "tier", "stimulus_type", "frames")

# Repeats of one image sequence may differ by a few frames at their end; scored frames lie below.
SIGNATURE_FRAMES = 300

# Valid frames of a trial of each type in the release; `images` has no fixed length.
_FRAMES_OF_TYPE = {
    "movie": 300,
    "gabor": 300,
    "random_dots": 240,
    "gaussian_dots": 315,
    "pink_noise": 324,
}


def signature(video: np.ndarray) -> str:
    """32 hexadecimal digits that two videos (T, H, W) share if they show the same frames.

    Frames are rounded to uint8, and only the first 300 count.
    """
    frames = _as_uint8(video[:SIGNATURE_FRAMES])
    size = "x".join(map(str, frames.shape[1:]))
    content = hashlib.blake2b(size.encode(), digest_size=16)
    content.update(np.ascontiguousarray(frames).data)
    return content.hexdigest()


def perceptual_hash(video: np.ndarray) -> str:
    """XOR of 64-bit perceptual hashes of five evenly spaced frames of (T, H, W), 16 hex digits.

    DwiseNeuro's video hash; its folds are `int(perceptual_hash, 16) % 7`.

    Raises:
        ValueError: the video has no frame.
    """
    length = len(video)
    if length == 0:
        raise ValueError("A video without frames has no perceptual hash. Remove the trial.")
    step = length // 5
    combined = 0
    for index in range(step // 2, step // 2 + 5 * step, step) if step else [0] * 5:
        # Truncated, not rounded, as its authors do.
        frame = Image.fromarray(video[index].astype(np.uint8))
        combined ^= int(str(imagehash.phash(frame, hash_size=8, highfreq_factor=4)), 16)
    return f"{combined:016x}"


def within_animal_ids(
    signatures: Sequence[str], tiers: Sequence[str], unused: Collection[str] = (UNUSED_TIER,)
) -> np.ndarray:
    """(trials,) int32: a number per signature in order of appearance, -1 in unused tiers."""
    numbers: dict[str, int] = {}
    ids = [
        -1 if tier in unused else numbers.setdefault(name, len(numbers))
        for name, tier in zip(signatures, tiers, strict=True)
    ]
    return np.asarray(ids, dtype=np.int32)


def stimulus_type(frames: int, tier: str, candidates: Sequence[str]) -> str:
    """The type of a trial of `frames` valid frames, of the types that its animal shows in `tier`.

    One candidate decides by itself, none means `movie`; among several the length decides, where
    `images` is what has no other candidate's length. `unknown` rather than a guess.

    Raises:
        ValueError: a candidate is not one of `STIMULUS_TYPES`.
    """
    if strange := [name for name in candidates if name not in STIMULUS_TYPES]:
        raise ValueError(
            f"Stimulus type {strange[0]!r} of tier {tier!r} is not known. Use one of"
            f" {', '.join(STIMULUS_TYPES)} in the study's table of animals."
        )
    if tier == UNUSED_TIER:
        return "unknown"
    if not candidates:
        return "movie"
    if len(candidates) == 1:
        return candidates[0]
    fitting = [name for name in candidates if _FRAMES_OF_TYPE.get(name) == frames]
    if len(fitting) == 1:
        return fitting[0]
    return "images" if not fitting and "images" in candidates else "unknown"


def videos_table(recordings: Iterable[Recording]) -> pd.DataFrame:
    """One row per trial of all `recordings`: animal, trial, video_id, tier, stimulus_type, frames.

    `video_id` is the content signature, so it holds across animals and adding one changes none.
    """
    tables = [
        pd.DataFrame(
            {
                "animal": recording.animal,
                "trial": np.arange(len(recording.trials)),
                "video_id": recording.trials.signature,
                "tier": recording.trials.tier,
                "stimulus_type": recording.trials.stimulus_type,
                "frames": recording.trials.frames,
            },
            columns=list(VIDEO_COLUMNS),
        )
        for recording in recordings
    ]
    if not tables:
        raise ValueError("A table of videos needs at least one recording. Preprocess one first.")
    return pd.concat(tables, ignore_index=True)


def _as_uint8(video: np.ndarray) -> np.ndarray:
    if video.dtype == np.uint8:
        return video
    return np.clip(np.rint(video), 0, 255).astype(np.uint8)
