"""Which video a trial showed, from its frames alone: an id, an exact signature, DwiseNeuro's hash.

Ids and signatures are ours. The perceptual hash is that of github.com/lRomul/sensorium (ImageHash's
`phash` of five frames), by which its authors made their folds.

No id made from one video alone can follow "almost the same": that relation is not transitive, and
a chain of small changes leads from any video to any other. So the id here bears a few changed
frames, nearly always, and nothing else; `repeats` finds by the pixels what it misses.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence

import imagehash
import numpy as np
from PIL import Image

# Repeats of one image sequence may differ by a few frames at their end; scored frames lie below.
IDENTITY_FRAMES = 300
SECTION_FRAMES = 100


def signature(video: np.ndarray) -> str:
    """32 hexadecimal digits that two videos (T, H, W) share if they show the same frames.

    Frames are rounded to uint8, and only the first 300 count.
    """
    frames = _as_uint8(video[:IDENTITY_FRAMES])
    content = _begun(frames)
    content.update(np.ascontiguousarray(frames).data)
    return content.hexdigest()


def content_id(video: np.ndarray) -> str:
    """32 hexadecimal digits that two videos (T, H, W) share if they show nearly the same frames.

    From each section of 100 of the first 300 frames one frame is taken: the one whose hash, mixed
    with how often the section has shown this frame before, is smallest (Broder's min-wise hashing,
    1997, on a multiset). The id is the hash of the frames so chosen. A changed frame matters only
    if it was, or becomes, the smallest of its section: with k of 300 frames changed two ids agree
    with a probability of about 1 - k / 50. Frames that are the same everywhere (the grey between
    flashed images) are not chosen unless there is nothing else, and a last section counts if
    more than half of it was shown.
    """
    frames = np.ascontiguousarray(_as_uint8(video[:IDENTITY_FRAMES]))
    chosen = _begun(frames)
    for start in range(0, max(len(frames) - SECTION_FRAMES // 2, 1), SECTION_FRAMES):
        section = frames[start : start + SECTION_FRAMES]
        varied = section[(section != section[:, :1, :1]).any(axis=(1, 2))]
        shown = Counter[bytes]()
        ranked = []
        for frame in varied if len(varied) else section:
            code = hashlib.blake2b(frame.data, digest_size=8).digest()
            rank = hashlib.blake2b(code + shown[code].to_bytes(2, "big"), digest_size=8).digest()
            shown[code] += 1
            ranked.append((rank, code))
        chosen.update(min(ranked)[1] if ranked else b"")
    return chosen.hexdigest()


def video_ids(numbers: np.ndarray, contents: Sequence[str], signatures: Sequence[str]) -> list[str]:
    """The id of each trial's video, across animals, from what its own animal was shown.

    All repeats of a video have the id that most of them have by themselves (`content_id`; the
    smallest among equals), so that an odd repeat changes nothing. Where that does not tell two
    videos of the animal apart, they have their most frequent exact signatures instead.

    Args:
        numbers: (trials,) within-animal number, -1 for unused trials, which keep their own ids.
        contents, signatures: `content_id` and `signature` of each trial.
    """
    by_content = _most_frequent(numbers, contents)
    by_signature = _most_frequent(numbers, signatures)
    shared = Counter(by_content.values())
    return [
        content
        if number < 0
        else by_content[number]
        if shared[by_content[number]] == 1
        else by_signature[number]
        for number, content in zip(numbers.tolist(), contents, strict=True)
    ]


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


def _most_frequent(numbers: np.ndarray, names: Sequence[str]) -> dict[int, str]:
    counts: dict[int, Counter[str]] = {}
    for number, name in zip(numbers.tolist(), names, strict=True):
        counts.setdefault(number, Counter())[name] += 1
    return {
        number: min(found, key=lambda name: (-found[name], name))
        for number, found in counts.items()
    }


def _begun(frames: np.ndarray) -> "hashlib.blake2b":
    size = "x".join(map(str, frames.shape[1:]))
    return hashlib.blake2b(size.encode(), digest_size=16)


def _as_uint8(video: np.ndarray) -> np.ndarray:
    if video.dtype == np.uint8:
        return video
    return np.clip(np.rint(video), 0, 255).astype(np.uint8)
