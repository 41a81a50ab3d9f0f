"""Clips: what is in them, where their memory lies, and what cannot be read."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sensorium_models.recordings.clips import whole_trial
from sensorium_models.recordings.samplers import RandomClips
from sensorium_models.recordings.store import Recording, WithheldResponsesError

MODALITIES = ("video", "behavior", "pupil_center", "responses")


def random_clips(recording: Recording, **changes: Any) -> RandomClips:
    arguments: dict[str, Any] = {
        "recording": recording,
        "trials": recording.trials_of(["train"]),
        "clip_frames": 10,
        "batch_size": 3,
        "cap_frames": None,
        "seed": 0,
    }
    return RandomClips(**{**arguments, **changes})


def test_clips_hold_what_the_store_holds(recording: Recording) -> None:
    clip = random_clips(recording).next_batch()
    assert clip.video.shape == (3, 1, 10, 6, 9)
    assert clip.video.dtype == np.uint8
    assert clip.animal == ("A", "A", "A")
    assert clip.frame.dtype == np.int64
    assert clip.valid.all()
    for row, trial in enumerate(clip.trial):
        start, stop = clip.frame[row, 0], clip.frame[row, -1] + 1
        np.testing.assert_array_equal(clip.frame[row], np.arange(start, stop))
        for modality in MODALITIES:
            values = getattr(clip, modality)[row]
            expected = recording.read(modality, trial, start, stop)
            np.testing.assert_array_equal(values[0] if modality == "video" else values, expected)


def test_whole_trials_and_caps(recording: Recording) -> None:
    frames = int(recording.trials.frames[2])
    assert whole_trial(recording, 2, cap_frames=None, responses=True).video.shape[2] == frames
    capped = whole_trial(recording, 2, cap_frames=20, responses=False)
    assert capped.video.shape == (1, 1, 20, 6, 9)
    assert capped.responses is None
    assert whole_trial(recording, 2, cap_frames=300, responses=False).valid.shape == (1, frames)


def test_missing_modalities_and_withheld_responses(
    competition: Recording, make: Any, zipped: Any, prepare: Any, tmp_path: Path
) -> None:
    content = make(modalities=("videos", "responses"))
    bare = prepare(zipped(content, tmp_path / "A.zip"), tmp_path / "A.h5")
    clip = random_clips(bare).next_batch()
    assert clip.behavior is None
    assert clip.pupil_center is None
    withheld = int(competition.trials_of(["live_test_main"])[0])
    assert whole_trial(competition, withheld, cap_frames=None, responses=False).responses is None
    with pytest.raises(WithheldResponsesError):
        whole_trial(competition, withheld, cap_frames=None, responses=True)
