"""Where the windows lie in which a network that sees clips of one length predicts a trial.

Facts: model cards of DwiseNeuro, section 5, and of Dynamic-V1FM, section 7.
"""

import numpy as np


class TooShortError(ValueError):
    """A trial that no window fits into."""


def sliding(frames: int, *, window_frames: int, step: int, wanted: slice) -> np.ndarray:
    """Frames (W, window_frames) of a window that ends at every frame of a trial, `step` apart.

    The first window begins at frame 0. Windows without any frame `wanted` are left out.

    Raises:
        TooShortError: some frame of the trial would lie in no window.
    """
    span = (window_frames - 1) * step
    if frames < span + step:
        raise TooShortError(
            f"{frames} frames are too few for windows of {window_frames} frames, {step} apart, at "
            f"every frame (at least {span + step})"
        )
    places = np.arange(frames - span)[:, None] + step * np.arange(window_frames)
    return places[((places >= wanted.start) & (places < wanted.stop)).any(axis=1)]


def tiled(wanted: slice, *, window_frames: int, output_frames: int) -> np.ndarray:
    """Frames (W, window_frames) of windows that predict their last `output_frames` frames.

    These lie end to end from the first frame wanted on; where they do not fit evenly, one more
    window ends with the last. The first begins `window_frames - output_frames` frames earlier.
    The published code, given 300 frames, drops the first one, so that its predictions are late by
    one; this layout is that for 299 frames, which it had of natural movies, for any length.

    Raises:
        TooShortError: fewer frames than a window before the last one wanted.
    """
    if wanted.stop < window_frames:
        raise TooShortError(
            f"{wanted.stop} frames are too few for a window of {window_frames} frames"
        )
    count = wanted.stop - wanted.start
    first = wanted.start - (window_frames - output_frames)
    starts = list(range(first, first + (count // output_frames) * output_frames, output_frames))
    if count % output_frames:
        starts.append(wanted.stop - window_frames)
    return np.asarray(starts)[:, None] + np.arange(window_frames)
