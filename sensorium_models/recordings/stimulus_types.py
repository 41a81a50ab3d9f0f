"""Which of the six kinds of stimuli a trial showed: pixels propose, the study's table restricts.

The kinds are told apart by what defines them: stills of 15 frames between grey (images), one dot at
a time for 9 frames (Gaussian dots), one grating for 25 frames (Gabor), one direction of oriented
1/f noise for 27 frames (pink noise), many small dots (random dots), none of these but the 1/f
spectrum of natural scenes (movie). What fits no description with room to spare is `unknown`.
"""

from collections.abc import Sequence

import numpy as np

from sensorium_models.recordings.stimulus_features import Features, features
from sensorium_models.recordings.stimulus_lengths import FRAMES_OF_TYPE, fits
from sensorium_models.recordings.store import Trials

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


def type_from_pixels(video: np.ndarray) -> str:
    """The type that the frames of (T, H, W) show by themselves, `unknown` where in doubt."""
    found = features(video)
    return "unknown" if found is None else _described(found)


def stimulus_type(by_pixels: str, frames: int, tier: str, candidates: Sequence[str]) -> str:
    """The type of a trial: the pixels propose, `candidates`, what its animal shows there, restrict.

    No candidate means a movie. Where the pixels leave it open the length decides: one candidate is
    taken if a trial of it lasts so long, give or take a few frames; among several the one that
    lasts exactly so long, or else `images`, whose lengths vary. A proposal that is no candidate
    makes the type `unknown`, as a length that fits none does; `type_notes` says so.

    Args:
        by_pixels: of `type_from_pixels`.
        frames: valid ones, at 30 Hz.

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
    allowed = candidates or ("movie",)
    if by_pixels != "unknown":
        return by_pixels if by_pixels in allowed else "unknown"
    if len(allowed) == 1:
        return allowed[0] if fits(allowed[0], frames) else "unknown"
    exact = [name for name in allowed if FRAMES_OF_TYPE.get(name) == (frames, frames)]
    if len(exact) == 1:
        return exact[0]
    images = not exact and "images" in allowed and fits("images", frames)
    return "images" if images else "unknown"


def type_notes(trials: Trials) -> list[str]:
    """Sentences on trials whose pixels disagree with the study's table, or leave the type open."""
    notes = []
    used = trials.video >= 0
    groups = np.stack([trials.tier, trials.pixel_type, trials.stimulus_type], axis=1)
    for tier, by_pixels, chosen in np.unique(groups[used], axis=0).tolist():
        if doubt := type_doubt(by_pixels, chosen):
            those = np.flatnonzero(used & (groups == [tier, by_pixels, chosen]).all(axis=1))
            count = f"{len(those)} trial{'s' if len(those) > 1 else ''}"
            notes.append(f"{count} of tier {tier} (first: {those[0]}): {doubt}")
    return notes


def type_doubt(by_pixels: str, chosen: str) -> str | None:
    """Why the type of a trial is in doubt, and what to do; None where pixels and table agree."""
    if by_pixels == chosen != "unknown":
        return None
    if by_pixels != "unknown":
        return (
            f"the frames show {by_pixels}, which the study's table does not list there, so the type"
            " is unknown. Correct the table, or look at the video."
        )
    if chosen != "unknown":
        return (
            f"the frames fit no type clearly; by the study's table and the length it is {chosen}."
        )
    return (
        "neither the frames nor the study's table with the length tell the type, so it is unknown."
        " List the types of this tier in the table."
    )


def _described(found: Features) -> str:
    """The one description that fits, else `unknown`.

    Thresholds lie in gaps, as measured on clips of the simulation and of a second, independent
    synthesis, at contrasts from 0.02 to 1 and noise up to 15 grey levels, 36 x 64 pixels: beside
    each description are the values of nearly all clips of its own type | the nearest ones of those
    that it excludes. In the gaps, and in what lies beyond both, the answer is `unknown`.
    """
    orientation = max(found.gabor_orientation, found.noise_orientation)
    rests = found.blank_runs >= 4
    clear = found.contrast > 0.55 * found.noise
    descriptions = {
        # blank_share 0.4..0.6, blank_runs 7.. | 5. Where noise hides weak frames, those of any
        # type look blank.
        "images": found.blank_runs >= (5 if found.contrast > 2 * found.noise else 6)
        and 0.3 <= found.blank_share <= 0.75
        and found.slope > 1.0
        and found.contrast > 0.9 * found.noise,
        # dot_jumps 4.4.. | 1.4, dot_spread ..0.14 | 0.2
        "gaussian_dots": not rests and found.dot_jumps > 2.8 and found.dot_spread < 0.18,
        # gabor_orientation 0.65.. | 0.3 (movie), gabor_jumps over those of 27 frames 1.5.. | 0.6
        # (pink noise), rank_two 0.6.., slope ..-0.3, or 4 with gratings as long as the frame
        "gabor": not rests
        and found.gabor_orientation > 0.6
        and found.gabor_jumps > max(1.8, 1.2 * found.noise_jumps)
        and found.rank_two > 0.55
        and (
            found.slope < 1.2
            or (found.rank_two > 0.8 and found.gabor_jumps > 2.5 * found.noise_jumps)
        ),
        # noise_orientation 0.6.. | 0.3 (movie), noise_jumps over those of 25 frames 2.. | 0.7
        "pink_noise": not rests
        and found.noise_orientation > 0.5
        and found.noise_jumps > max(1.9, 1.5 * found.gabor_jumps)
        and found.dot_jumps < 2.2
        and found.slope > 1.0,
        # slope 0.1..0.5 | 0.9 (movie), orientation ..0.16 | 0.6, change ..0.6 | 1 (nothing lasts)
        "random_dots": not rests
        and clear
        and -0.5 < found.slope < 0.7
        and orientation < 0.35
        and found.dot_jumps < 2.2
        and 0.02 < found.change < 0.75,
        # slope 0.9..3.2 | 0.5 (random dots), orientation ..0.35 | 0.6, dot_jumps ..1.7 | 4.4,
        # change ..0.2 | 1 (nothing lasts)
        "movie": not rests
        and clear
        and found.slope > 0.85
        and orientation < 0.45
        and found.dot_jumps < 2.2
        and found.change < 0.6
        # In noise, pink noise loses orientation, as a movie seldom has it. What is left of its
        # segments: noise_jumps over those of 25 frames 1.6.. | 1.4, or change 0.3.. | 0.25.
        and (
            orientation < 0.3
            or (found.noise_jumps < 1.5 * found.gabor_jumps and found.change < 0.28)
        )
        # What moves and yet is made of two images is a sum of gratings.
        and (found.rank_two < 0.93 or found.change < 0.03),
    }
    fitting = [name for name, fits in descriptions.items() if fits]
    return fitting[0] if len(fitting) == 1 else "unknown"
