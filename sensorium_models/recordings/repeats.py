"""Repeats of one video whose frames are not exactly equal: the rule of ViV1T, made cheap.

Two videos are the same if in more than 85 % of frames all pixels lie within one grey level, where
a frame that only one of them has counts as -1 (github.com/bryanlimy/ViV1T-closed-loop, whose NaN
becomes -1). The rule is symmetric but not transitive; within an animal the first match in trial
order wins.

Only few pairs are compared by pixels: frames that are within one grey level everywhere have
quadrants whose means are, so what the means of all frames exclude is excluded for certain.
"""

from collections.abc import Callable, Collection, Iterable, Sequence

import numpy as np

from sensorium_models.recordings.store import Recording

EQUAL_SHARE = 0.85
GREY_LEVELS = 1.0
MISSING = -1.0
QUADRANTS = 4

# Quadrant means are rounded to float32; this much more is allowed to them.
_ROUNDING = 1e-3


def same_video(first: np.ndarray, second: np.ndarray) -> bool:
    """Tell whether two videos (T, H, W) are the same by the rule above.

    The share is of the longer one's frames. A black frame is within a grey level of a missing one.
    """
    if first.shape[1:] != second.shape[1:]:
        return False
    shorter, longer = sorted((first, second), key=len)
    common = len(shorter)
    # Integers of 16 bits hold differences of uint8; what is float stays float.
    wide = [
        video[:common].astype(np.int16) if video.dtype == np.uint8 else video[:common]
        for video in (first, second)
    ]
    close = np.abs(wide[0] - wide[1]) <= GREY_LEVELS
    black = (
        longer[common:] - MISSING <= GREY_LEVELS
        if longer.dtype != np.uint8
        else (longer[common:] == 0)
    )
    equal = np.count_nonzero(close.all(axis=(1, 2))) + np.count_nonzero(black.all(axis=(1, 2)))
    return bool(equal > EQUAL_SHARE * len(longer))


def quadrant_means(video: np.ndarray) -> np.ndarray:
    """Mean grey level of the four quadrants of each frame of (T, H, W): (T, 4) float32."""
    half_h, half_w = -(-video.shape[1] // 2), -(-video.shape[2] // 2)
    means = [
        # A frame one pixel high or wide has no lower or right half.
        part.mean(axis=(1, 2)) if part.size else np.zeros(len(video))
        for rows in (np.s_[:half_h], np.s_[half_h:])
        for part in (video[:, rows, :half_w], video[:, rows, half_w:])
    ]
    return np.stack(means, axis=1).astype(np.float32)


class Candidates:
    """Which of many videos may be the same as a given one, by their quadrant means.

    Args:
        means: of each video, (T, 4), as `quadrant_means` returns them.
    """

    def __init__(self, means: Sequence[np.ndarray]) -> None:
        self._frames = np.array([len(video) for video in means], dtype=np.int64)
        longest = int(self._frames.max(initial=0))
        # One quadrant after the other: the first one alone excludes nearly everything.
        self._means = np.full((QUADRANTS, len(means), longest), MISSING, dtype=np.float32)
        for index, video in enumerate(means):
            self._means[:, index, : len(video)] = video.T

    def of(self, index: int, among: np.ndarray) -> np.ndarray:
        """Those of the indices `among` that may be the same video as `index`, in their order."""
        for quadrants in (slice(0, 1), slice(1, QUADRANTS)):
            own = self._means[quadrants, index]
            distance = np.abs(self._means[quadrants][:, among] - own[:, np.newaxis])
            equal = (distance <= GREY_LEVELS + _ROUNDING).all(axis=0).sum(axis=1)
            longer = np.maximum(self._frames[among], self._frames[index])
            # Behind the end of both all frames are equal, and none counts.
            equal -= self._means.shape[2] - longer
            among = among[equal > EQUAL_SHARE * longer]
        return among


def within_animal_ids(
    signatures: Sequence[str],
    tiers: Sequence[str],
    unused: Collection[str],
    same_as: Callable[[int, np.ndarray], int | None] = lambda trial, earlier: None,
) -> np.ndarray:
    """(trials,) int32: a number per video in order of appearance, -1 in unused tiers.

    Args:
        signatures: equal text means the same video, without further ado.
        same_as: which of the given earlier trials, each the first of its video, showed the video of
            a trial whose signature is new; None if none did.
    """
    numbers: dict[str, int] = {}
    firsts: list[int] = []
    ids = np.full(len(signatures), -1, dtype=np.int32)
    for trial, (name, tier) in enumerate(zip(signatures, tiers, strict=True)):
        if tier in unused:
            continue
        if name not in numbers:
            earlier = same_as(trial, np.array(firsts, dtype=np.int64))
            if earlier is None:
                numbers[name] = len(firsts)
                firsts.append(trial)
            else:
                numbers[name] = int(ids[earlier])
        ids[trial] = numbers[name]
    return ids


def first_match(
    means: Sequence[np.ndarray], read: Callable[[int], np.ndarray]
) -> Callable[[int, np.ndarray], int | None]:
    """The `same_as` of `within_animal_ids`: by means, then by the pixels that `read` returns."""
    candidates = Candidates(means)

    def same_as(trial: int, earlier: np.ndarray) -> int | None:
        video = None
        for other in candidates.of(trial, earlier).tolist():
            video = read(trial) if video is None else video
            if same_video(video, read(other)):
                return int(other)
        return None

    return same_as


def nearly_equal_ids(recordings: Iterable[Recording]) -> dict[str, set[str]]:
    """Pairs of different video ids that are the same video by the rule above; both directions.

    Whether two ids are a pair depends on their videos alone, so another animal adds pairs and
    changes none. Compared are the first trials of the videos of all animals, unused tiers left out.
    Read are 16 bytes for each of their frames, and the pixels of what these cannot tell apart.
    """
    known: dict[str, tuple[Recording, int]] = {}
    means: list[np.ndarray] = []
    for recording in recordings:
        trials = recording.trials
        all_means = recording.video_means()
        _, firsts = np.unique(trials.video, return_index=True)
        for trial in firsts[trials.video[firsts] >= 0].tolist():
            # A signature ends at frame 300, the rule does not.
            name = f"{trials.signature[trial]} {trials.video_id[trial]} {trials.frames[trial]}"
            if name not in known:
                known[name] = (recording, trial)
                first = trials.first_frame[trial]
                means.append(all_means[first : first + trials.frames[trial]])
    videos = list(known.values())
    ids = np.array([str(recording.trials.video_id[trial]) for recording, trial in videos])
    candidates = Candidates(means)
    pairs: dict[str, set[str]] = {}
    for index, (recording, trial) in enumerate(videos):
        later = np.arange(index + 1, len(videos))
        for other in candidates.of(index, later[ids[later] != ids[index]]).tolist():
            theirs, their_trial = videos[other]
            if recording is theirs or recording.frame_shape != theirs.frame_shape:
                continue
            if same_video(recording.read("video", trial), theirs.read("video", their_trial)):
                pairs.setdefault(str(ids[index]), set()).add(str(ids[other]))
                pairs.setdefault(str(ids[other]), set()).add(str(ids[index]))
    return pairs
