"""Samplers: what each recipe draws, and that a saved position continues exactly."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensorium_models.recordings.clips import Clip
from sensorium_models.recordings.samplers import RandomClips, Sampler, StackedClips, WholeTrials
from sensorium_models.recordings.several_animals import AnimalCycle, MixedAnimals
from sensorium_models.recordings.store import Recording

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


def whole_trials(recording: Recording, **changes: Any) -> WholeTrials:
    arguments: dict[str, Any] = {
        "recording": recording,
        "trials": recording.trials_of(["train"]),
        "batch_size": 3,
        "cap_frames": None,
        "seed": 0,
    }
    return WholeTrials(**{**arguments, **changes})


def stacked_clips(recording: Recording, **changes: Any) -> StackedClips:
    """Stacks of 4 frames, 3 apart: the anchor is frame 9 or later."""
    arguments: dict[str, Any] = {
        "recording": recording,
        "trials": recording.trials_of(["train", "oracle"]),
        "clip_frames": 4,
        "step": 3,
        "clips_per_pass": 10,
        "batch_size": 4,
        "cap_frames": None,
        "seed": 0,
    }
    return StackedClips(**{**arguments, **changes})


def mixed_animals(*recordings: Recording, **changes: Any) -> MixedAnimals:
    clips = {
        recording.animal: stacked_clips(
            recording, **{"trials": recording.trials_of(["train"]), **changes}
        )
        for recording in recordings
    }
    return MixedAnimals(clips, batch_size=6, seed=changes.get("seed", 0))


def assert_equal(one: Clip, other: Clip) -> None:
    for name in (*MODALITIES, "trial", "frame", "valid"):
        values = getattr(one, name), getattr(other, name)
        for value, expected in zip(*values, strict=True):
            np.testing.assert_array_equal(value, expected)
    assert one.animal == other.animal
    assert (one.partner is None) == (other.partner is None)
    if one.partner is not None and other.partner is not None:
        assert_equal(one.partner, other.partner)


def test_every_trial_once_per_pass_in_new_order(recording: Recording) -> None:
    clips = random_clips(recording)
    assert clips.batches_per_epoch == 3  # 8 trials, the last batch has 2
    passes = []
    for _ in range(3):
        batches = [clips.next_batch() for _ in range(clips.batches_per_epoch)]
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


def rows(clip: Clip) -> list[tuple[str, int, tuple[int, ...]]]:
    """Animal, trial and frames of every clip."""
    frames = map(tuple, clip.frame.tolist())
    return list(zip(clip.animal, clip.trial.tolist(), frames, strict=True))


def test_whole_trials_are_visited_once_and_filled_up(recording: Recording) -> None:
    sampler = whole_trials(recording)
    batches = [sampler.next_batch() for _ in range(sampler.batches_per_epoch)]
    assert [len(batch.trial) for batch in batches] == [3, 3, 2]
    visited = np.concatenate([batch.trial for batch in batches])
    assert sorted(visited) == recording.trials_of(["train"]).tolist()
    assert rows(sampler.next_batch()) != rows(batches[0])
    lengths = recording.trials.frames[visited]
    assert len(set(lengths)) > 1
    for batch in batches:
        assert batch.frame.shape[1] == recording.trials.frames[batch.trial].max()
        for row, trial in enumerate(batch.trial):
            frames = int(recording.trials.frames[trial])
            np.testing.assert_array_equal(batch.frame[row], np.arange(batch.frame.shape[1]))
            np.testing.assert_array_equal(batch.valid[row], batch.frame[row] < frames)
            for modality in MODALITIES:
                values = getattr(batch, modality)[row]
                values = values[0] if modality == "video" else values
                np.testing.assert_array_equal(values[:frames], recording.read(modality, trial))
                assert not values[frames:].any()
    capped = whole_trials(recording, cap_frames=20, sequential=True, batch_size=8).next_batch()
    assert capped.frame.shape == (8, 20)
    assert capped.valid.all()
    np.testing.assert_array_equal(capped.trial, recording.trials_of(["train"]))


def test_stacks_hold_every_third_frame_up_to_their_anchor(recording: Recording) -> None:
    sampler = stacked_clips(recording)
    assert sampler.batches_per_epoch == 3
    batches = [sampler.next_batch() for _ in range(3)]
    assert [len(batch.trial) for batch in batches] == [4, 4, 2]
    for batch in batches:
        assert batch.valid.all()
        for row, trial in enumerate(batch.trial):
            anchor = batch.frame[row, -1]
            np.testing.assert_array_equal(batch.frame[row], anchor + np.array([-9, -6, -3, 0]))
            for modality in MODALITIES:
                values = getattr(batch, modality)[row]
                values = values[0] if modality == "video" else values
                whole = recording.read(modality, trial)
                np.testing.assert_array_equal(values, whole[batch.frame[row]])
    assert batches[0].partner is None


def test_the_published_stack_reaches_thirty_frames_back(
    make: Any, zipped: Any, prepare: Any, tmp_path: Path
) -> None:
    """16 frames with step 2: f - 30, f - 28, ..., f, with f from 30 to the last frame."""
    longer = prepare(zipped(make(padded=42), tmp_path / "A.zip"), tmp_path / "A.h5")
    trial = int(np.argmax(longer.trials.frames))
    last = int(longer.trials.frames[trial]) - 1
    frame = (
        stacked_clips(
            longer, trials=[trial], clip_frames=16, step=2, clips_per_pass=200, batch_size=200
        )
        .next_batch()
        .frame
    )
    np.testing.assert_array_equal(frame - frame[:, -1:], np.tile(np.arange(-30, 1, 2), (200, 1)))
    # One of at most 12 anchors is missed with probability 12 * (11 / 12) ** 200 < 1e-6.
    assert last > 30
    assert set(frame[:, -1].tolist()) == set(range(30, last + 1))


def test_trials_and_anchors_of_stacks_are_uniform(recording: Recording) -> None:
    """With replacement, unlike clips; the first and the last possible anchor occur."""
    trials = recording.trials_of(["train"])[:3]
    sampler = stacked_clips(recording, trials=trials, clips_per_pass=3000, cap_frames=13)
    places = sampler.visits(0)
    of_trials = Counter(places.trial.tolist())
    assert sorted(of_trials) == sorted(trials.tolist())
    # Binomial(3000, 1/3): standard deviation 26; six of them.
    assert all(abs(count - 1000) < 155 for count in of_trials.values())
    anchors = Counter((places.start + 9).tolist())
    assert sorted(anchors) == [9, 10, 11, 12]
    # Binomial(3000, 1/4): standard deviation 24; six of them.
    assert all(abs(count - 750) < 143 for count in anchors.values())


def test_partners_are_second_draws_of_the_same_animal(
    recording: Recording, competition: Recording
) -> None:
    alone = mixed_animals(recording, competition).next_batch()
    paired = mixed_animals(recording, competition, partner=True).next_batch()
    assert rows(paired) == rows(alone)  # the partner draws nothing from the first one's stream
    assert paired.partner is not None
    assert paired.partner.animal == paired.animal
    assert paired.partner.partner is None
    assert rows(paired.partner) != rows(paired)
    for values, own in zip(paired.partner.responses, paired.responses, strict=True):
        assert values.shape == own.shape
    many = stacked_clips(recording, clips_per_pass=4000, partner=True, cap_frames=13).visits(0)
    assert many.partner is not None
    both = np.stack([many.start, many.partner.start]).astype(np.float64)
    # The correlation of 4000 independent pairs has standard deviation 1 / sqrt(4000) = 0.016.
    assert abs(np.corrcoef(both)[0, 1]) < 6 * 0.016


def test_mixed_batches_give_every_animal_its_share(
    recording: Recording, competition: Recording
) -> None:
    sampler = mixed_animals(recording, competition)
    assert sampler.batches_per_epoch == 4  # 20 clips in batches of 6
    orders = []
    for epoch in range(2):
        batches = [sampler.next_batch() for _ in range(4)]
        assert [len(batch.trial) for batch in batches] == [6, 6, 6, 2]
        clips = [row for batch in batches for row in rows(batch)]
        # The epoch's clips are those of each animal's own pass, in another order.
        expected: list[Any] = []
        for animal in (recording, competition):
            places = stacked_clips(animal, trials=animal.trials_of(["train"])).visits(epoch)
            frames = places.start[:, np.newaxis] + [0, 3, 6, 9]
            expected += zip(
                places.animal, places.trial.tolist(), map(tuple, frames.tolist()), strict=True
            )
        assert sorted(clips) == sorted(expected)
        assert any(len(set(batch.animal)) == 2 for batch in batches)
        orders.append([animal for animal, _, _ in clips])
    assert orders[0] != orders[1]


def test_mixed_responses_are_those_of_their_animals(
    make: Any, zipped: Any, prepare: Any, tmp_path: Path, recording: Recording
) -> None:
    """Animals differ in the number of neurons."""
    path = zipped(make(seed=8, neurons=11), tmp_path / "B.zip")
    other = prepare(path, tmp_path / "B.h5", animal="B")
    batch = mixed_animals(recording, other).next_batch()
    stores = {"A": recording, "B": other}
    assert set(batch.animal) == {"A", "B"}
    assert batch.video.shape == (6, 1, 4, 6, 9)
    for row, (animal, trial, frames) in enumerate(rows(batch)):
        for modality in MODALITIES:
            values = getattr(batch, modality)[row]
            values = values[0] if modality == "video" else values
            whole = stores[animal].read(modality, trial)
            np.testing.assert_array_equal(values, whole[list(frames)])


SAMPLERS: dict[str, Callable[..., Sampler]] = {
    "random": lambda a, f: random_clips(a),
    "whole": lambda a, f: whole_trials(a),
    "stacked": lambda a, f: stacked_clips(a, partner=True),
    "cycle": lambda a, f: AnimalCycle({"A": whole_trials(a), "F": stacked_clips(f, trials=[1, 3])}),
    "mixed": lambda a, f: mixed_animals(a, f, partner=True),
}


@pytest.mark.parametrize("kind", SAMPLERS)
@settings(deadline=None, max_examples=10)
@given(before=st.integers(0, 14))
def test_every_sampler_continues_exactly(
    kind: str, before: int, recording: Recording, competition: Recording
) -> None:
    sampler = SAMPLERS[kind](recording, competition)
    for _ in range(before):
        sampler.next_batch()
    state = json.loads(json.dumps(sampler.state()))
    again = SAMPLERS[kind](recording, competition)
    again.restore(state)
    for _ in range(sampler.batches_per_epoch + 1):
        assert_equal(again.next_batch(), sampler.next_batch())
    assert again.state() == sampler.state()


@pytest.mark.parametrize("kind", SAMPLERS)
def test_a_batch_takes_no_more_memory_than_its_sampler_says(
    kind: str, recording: Recording, competition: Recording
) -> None:
    sampler = SAMPLERS[kind](recording, competition)
    for _ in range(2 * sampler.batches_per_epoch):
        clip: Clip | None = sampler.next_batch()
        size = 0
        while clip is not None:
            for modality in MODALITIES:
                values = getattr(clip, modality)
                size += sum(value.nbytes for value in values)
            clip = clip.partner
        assert size <= sampler.batch_bytes


def test_refusals_of_other_recipes(
    recording: Recording,
    competition: Recording,
    make: Any,
    zipped: Any,
    prepare: Any,
    tmp_path: Any,
) -> None:
    with pytest.raises(ValueError, match="usable frames, fewer than a clip of 37"):
        stacked_clips(recording, clip_frames=13)
    with pytest.raises(ValueError, match="at least one frame apart, not step=0"):
        stacked_clips(recording, step=0)
    with pytest.raises(ValueError, match="0 clips per epoch"):
        stacked_clips(recording, clips_per_pass=0)
    with pytest.raises(ValueError, match=r"has trials 0 to 25, not trial 26\. The split"):
        whole_trials(recording, trials=[3, 26])
    with pytest.raises(ValueError, match="equal shares of an epoch, not A 10, F 9 clips"):
        MixedAnimals(
            {
                "A": stacked_clips(recording),
                "F": stacked_clips(competition, trials=[1], clips_per_pass=9),
            },
            batch_size=4,
            seed=0,
        )
    with pytest.raises(ValueError, match="at least one animal"):
        MixedAnimals({}, batch_size=4, seed=0)
    with pytest.raises(ValueError, match=r"batch 5 of an epoch, but .* has 4 batches"):
        mixed_animals(recording, competition).restore({"epoch": 0, "batch": 5})
    with pytest.raises(ValueError, match="of another kind of sampling"):
        mixed_animals(recording, competition).restore(stacked_clips(recording).state())
    blind = prepare(
        zipped(make(modalities=("videos", "responses")), tmp_path / "B.zip"),
        tmp_path / "B.h5",
        animal="B",
    )
    with pytest.raises(ValueError, match=r"Animals A and B cannot share a batch: their modalities"):
        mixed_animals(recording, blind)
