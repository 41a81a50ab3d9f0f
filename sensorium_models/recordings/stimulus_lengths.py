"""How long a trial of each stimulus type lasts, and what is said of tiers that last otherwise.

The durations are those of the released recordings of SENSORIUM 2023 (arXiv 2407.09100), as the
trial metadata of github.com/bryanlimy/ViV1T-closed-loop have them.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

_RELEASED_HZ = 30.0
FRAMES_OF_TYPE = {
    "movie": (300, 300),
    "gabor": (300, 300),
    "random_dots": (240, 240),
    "gaussian_dots": (315, 315),
    "pink_noise": (324, 324),
    # 305 to 326 but for single trials of 403 and 414.
    "images": (305, 414),
}
# A trial may miss a few frames, and an odd one have some more.
_TOLERANCE = 0.03


def fits(kind: str, frames: float, frame_rate_hz: float = _RELEASED_HZ) -> bool:
    """Whether a trial of this type may have so many frames, within 3 %; never for `unknown`."""
    if kind not in FRAMES_OF_TYPE:
        return False
    shortest, longest = FRAMES_OF_TYPE[kind]
    usual = frames * _RELEASED_HZ / frame_rate_hz
    return shortest * (1 - _TOLERANCE) <= usual <= longest * (1 + _TOLERANCE)


def doubtful_lengths(
    tiers: Sequence[str],
    frames: Sequence[int],
    *,
    types: Mapping[str, Sequence[str]],
    unused: Collection[str],
    frame_rate_hz: float,
) -> list[str]:
    """A sentence on every tier of which more than half of the trials do not last what they should.

    Args:
        tiers, frames: of every trial.
        types: by tier, what the study's table lists; other tiers show movies.
        unused: tiers that may show anything.
    """
    sentences = []
    for tier in dict.fromkeys(tiers):
        kinds = list(types.get(tier, ())) or ["movie"]
        if tier in unused or not set(kinds) <= set(FRAMES_OF_TYPE):
            continue
        those = [trial for trial, name in enumerate(tiers) if name == tier]
        odd = [t for t in those if not any(fits(k, frames[t], frame_rate_hz) for k in kinds)]
        if len(odd) <= len(those) / 2:
            continue
        other = _rate_that_fits([frames[t] for t in those], kinds)
        sentences.append(
            f"{len(odd):,} of {len(those):,} trials of tier {tier} do not last as long as"
            f" {known_durations(kinds, ' or ')} in the release: trial {odd[0]} has"
            f" {frames[odd[0]]} frames, {frames[odd[0]] / frame_rate_hz:.2f} s at"
            f" {frame_rate_hz:g} Hz" + (f"; most would fit at {other:.3g} Hz." if other else ".")
        )
    return sentences


def known_durations(kinds: Sequence[str] = tuple(FRAMES_OF_TYPE), between: str = ", ") -> str:
    """Words such as `movie (10 s), random_dots (8 s)`."""
    said = []
    for kind in kinds:
        shortest, longest = (frames / _RELEASED_HZ for frames in FRAMES_OF_TYPE[kind])
        seconds = f"{shortest:.3g}" + (f" to {longest:.3g}" if longest > shortest else "")
        said.append(f"{kind} ({seconds} s)")
    return between.join(said)


def _rate_that_fits(frames: Sequence[int], kinds: Sequence[str]) -> float | None:
    """The rate at which more than half of the trials would last what they should."""
    for kind in kinds:
        rate = float(np.median(frames)) * _RELEASED_HZ / FRAMES_OF_TYPE[kind][0]
        if sum(any(fits(k, f, rate) for k in kinds) for f in frames) > len(frames) / 2:
            return rate
    return None
