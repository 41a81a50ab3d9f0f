"""Clips: what is in them, how they are drawn, and that a saved position continues exactly."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensorium_models.recordings.clips import AnimalCycle, Clip, RandomClips, whole_trial
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


def assert_equal(one: Clip, other: Clip) -> None:
    for name in (*MODALITIES, "trial", "frame", "valid"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.animal == other.animal


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


def test_every_trial_once_per_pass_in_new_order(recording: Recording) -> None:
    clips = random_clips(recording)
    assert clips.batches_per_pass == 3  # 8 trials, the last batch has 2
    passes = []
    for _ in range(3):
        batches = [clips.next_batch() for _ in range(clips.batches_per_pass)]
        assert [len(batch.trial) for batch in batches] == [3, 3, 2]
        passes.append(np.concatenate([batch.trial for batch in batches]).tolist())
        assert sorted(passes[-1]) == recording.trials_of(["train"]).tolist()
    assert passes[0] != passes[1] != passes[2]


def test_sequential_keeps_order_with_random_starts(recording: Recording) -> None:
    clips = random_clips(recording, sequential=True, batch_size=8)
    first, second = clips.next_batch(), clips.next_batch()
    np.testing.assert_array_equal(first.trial, recording.trials_of(["train"]))
    np.testing.assert_array_equal(second.trial, first.trial)
    assert (first.frame[:, 0] != second.frame[:, 0]).any()


def test_starts_are_uniform_and_exclude_the_last(recording: Recording) -> None:
    trial = int(recording.trials_of(["train"])[0])
    clips = random_clips(recording, trials=[trial], clip_frames=16, cap_frames=20)
    counts = Counter(int(clips.next_batch().frame[0, 0]) for _ in range(600))
    assert sorted(counts) == [0, 1, 2, 3]  # 20 - 16 = 4 is never drawn
    # Each count is binomial(600, 1/4): standard deviation 10.6; six of them.
    assert all(abs(count - 150) < 64 for count in counts.values())
    exact = random_clips(recording, trials=[trial], clip_frames=20, cap_frames=20)
    assert all(exact.next_batch().frame[0, 0] == 0 for _ in range(3))


def test_seed_and_animal_decide_the_order(recording: Recording, competition: Recording) -> None:
    def orders(clips: RandomClips) -> list[int]:
        return np.concatenate([clips.next_batch().frame[:, 0] for _ in range(9)]).tolist()

    assert orders(random_clips(recording)) == orders(random_clips(recording))
    assert orders(random_clips(recording)) != orders(random_clips(recording, seed=1))
    assert orders(random_clips(recording)) != orders(random_clips(competition))


@settings(deadline=None, max_examples=25)
@given(before=st.integers(0, 12), batch_size=st.integers(1, 9), seed=st.integers(0, 2**31))
def test_restored_position_continues_exactly(
    before: int, batch_size: int, seed: int, recording: Recording
) -> None:
    clips = random_clips(recording, batch_size=batch_size, seed=seed)
    for _ in range(before):
        clips.next_batch()
    state = json.loads(json.dumps(clips.state()))
    expected = [clips.next_batch() for _ in range(5)]
    again = random_clips(recording, batch_size=batch_size, seed=seed)
    again.restore(state)
    for clip in expected:
        assert_equal(again.next_batch(), clip)
    assert again.state() == clips.state()


def two_animals(recording: Recording, competition: Recording) -> AnimalCycle:
    return AnimalCycle(
        {
            "A": random_clips(recording),
            "F": random_clips(competition, trials=competition.trials_of(["oracle"])),
        }
    )


def test_animals_take_turns_and_epochs_begin_anew(
    recording: Recording, competition: Recording
) -> None:
    cycle = two_animals(recording, competition)
    assert cycle.rounds_per_epoch == 3  # 8 trials of A in batches of 3; F has one batch
    assert cycle.batches_per_epoch == 6
    for _ in range(2):
        epoch = [cycle.next_batch() for _ in range(6)]
        assert [clip.animal[0] for clip in epoch] == ["A", "F"] * 3
        of_a = np.concatenate([clip.trial for clip in epoch[::2]])
        assert sorted(of_a) == recording.trials_of(["train"]).tolist()
        for clip in epoch[1::2]:  # a whole pass each
            assert sorted(clip.trial) == competition.trials_of(["oracle"]).tolist()


def test_unfinished_pass_is_dropped_at_the_end_of_an_epoch(recording: Recording) -> None:
    """Animal B has 2 batches per pass, A has 3: B's second pass is cut and not continued."""
    trials = recording.trials_of(["train"])
    cycle = AnimalCycle(
        {"A": random_clips(recording), "B": random_clips(recording, trials=trials[:6])}
    )
    for _ in range(2):
        of_b = [cycle.next_batch().trial.tolist() for _ in range(6)][1::2]
        assert sorted(of_b[0] + of_b[1]) == trials[:6].tolist()


@settings(deadline=None, max_examples=15)
@given(before=st.integers(0, 20))
def test_cycle_continues_exactly(before: int, recording: Recording, competition: Recording) -> None:
    cycle = two_animals(recording, competition)
    for _ in range(before):
        cycle.next_batch()
    state = json.loads(json.dumps(cycle.state()))
    again = two_animals(recording, competition)
    again.restore(state)
    for _ in range(8):
        assert_equal(again.next_batch(), cycle.next_batch())


def test_bad_arguments_end_in_sentences(recording: Recording, competition: Recording) -> None:
    with pytest.raises(ValueError, match=r"usable frames, fewer than a clip of 34"):
        random_clips(recording, clip_frames=34)
    with pytest.raises(ValueError, match="fewer than a clip of 10"):
        random_clips(recording, cap_frames=9)
    with pytest.raises(ValueError, match="no trial of animal A"):
        random_clips(recording, trials=[])
    with pytest.raises(ValueError, match="one clip per batch"):
        random_clips(recording, batch_size=0)
    with pytest.raises(ValueError, match="at least one animal"):
        AnimalCycle({})
    with pytest.raises(ValueError, match="another split"):
        random_clips(recording).restore({"pass": 0, "position": 99})
    with pytest.raises(ValueError, match="position is of animals A, F, but this training is of A"):
        AnimalCycle({"A": random_clips(recording)}).restore(
            two_animals(recording, competition).state()
        )
