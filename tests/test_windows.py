"""Where windows lie: the published layouts, and what holds for trials of every length."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensorium_models import windows


@pytest.mark.parametrize(
    ("scored", "starts"),
    [
        # Card of Dynamic-V1FM, section 7: trials of 300 (or 299) and 240 (or 239) frames, the last
        # of which is not scored.
        ((50, 299), [*range(35, 261, 15), 269]),
        ((50, 239), [*range(35, 201, 15), 209]),
        ((50, 298), [*range(35, 261, 15), 268]),
        ((50, 80), [35, 50]),
        ((50, 51), [21]),
    ],
)
def test_published_tiles(scored, starts):
    places = windows.tiled(slice(*scored), window_frames=30, output_frames=15)
    assert places[:, 0].tolist() == starts
    assert (np.diff(places, axis=1) == 1).all()


@given(
    history=st.integers(0, 20),
    output=st.integers(1, 20),
    first=st.integers(0, 30),
    count=st.integers(1, 100),
)
def test_tiles_predict_every_wanted_frame_from_frames_of_the_trial(history, output, first, count):
    wanted = slice(first + history, first + history + count)
    if wanted.stop < history + output:
        with pytest.raises(windows.TooShortError):
            windows.tiled(wanted, window_frames=history + output, output_frames=output)
        return
    places = windows.tiled(wanted, window_frames=history + output, output_frames=output)
    assert places.min() >= 0
    assert places.max() == wanted.stop - 1
    outputs = places[:, history:]
    assert set(range(wanted.start, wanted.stop)) <= set(outputs.flatten().tolist())
    # Only the last tile may repeat what the others predict.
    before = outputs[:-1].flatten().tolist()
    assert before == list(range(wanted.start, wanted.start + len(before)))


def test_published_sliding_windows():
    places = windows.sliding(300, window_frames=16, step=2, wanted=slice(0, 300))
    assert len(places) == 270
    assert places[0].tolist() == list(range(0, 31, 2))
    assert places[-1].tolist() == list(range(269, 300, 2))
    counts = np.bincount(places.flatten())
    assert (counts[30:270] == 16).all()
    assert counts[0] == counts[1] == counts[299] == counts[298] == 1


@given(
    frames=st.integers(1, 80),
    window=st.integers(1, 12),
    step=st.integers(1, 4),
    first=st.integers(0, 60),
    count=st.integers(1, 20),
)
def test_sliding_windows_hold_every_frame(frames, window, step, first, count):
    if frames < window * step:
        with pytest.raises(windows.TooShortError, match=f"at least {window * step}"):
            windows.sliding(frames, window_frames=window, step=step, wanted=slice(0, frames))
        return
    every = windows.sliding(frames, window_frames=window, step=step, wanted=slice(0, frames))
    assert set(every.flatten().tolist()) == set(range(frames))
    wanted = slice(first, first + count)
    some = windows.sliding(frames, window_frames=window, step=step, wanted=wanted)
    held = [[f for f in places if wanted.start <= f < wanted.stop] for places in every.tolist()]
    assert some.tolist() == [p for p, h in zip(every.tolist(), held, strict=True) if h]
