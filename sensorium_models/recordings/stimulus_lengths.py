"""How long a trial of each stimulus type lasts.

The durations are those of the released recordings of SENSORIUM 2023 (arXiv 2407.09100), as the
trial metadata of github.com/bryanlimy/ViV1T-closed-loop have them.
"""

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
