"""Trials from the split, streams of clips, and reading ahead without losing the place."""

from typing import Any

import numpy as np
import pytest

from sensorium_models.recordings.several_animals import AnimalCycle
from sensorium_models.recordings.store import Recording
from sensorium_models.training.feeding import (
    ReadAhead,
    TrainingError,
    member_trials,
    random_clips,
    stream_seed,
)


def cycle_of(laboratory: Any, recipe: Any) -> AnimalCycle:
    recordings = {animal: Recording(path) for animal, path in laboratory.stores.items()}
    trials = member_trials(laboratory.splits, "seed3", ["A", "B"]).train
    clips = random_clips(
        recordings, trials, recipe=recipe, caps={"A": None, "B": None}, seed=3, purpose="train"
    )
    return AnimalCycle(clips)


def places(cycle: Any, batches: int) -> list[tuple]:
    clips = [cycle.next_batch() for _ in range(batches)]
    return [(clip.animal, clip.trial.tolist(), clip.frame[:, 0].tolist()) for clip in clips]


def test_trials_come_in_the_order_of_the_animals(laboratory: Any) -> None:
    trials = member_trials(laboratory.splits, "seed3", ["B", "A"])
    assert trials.animals == ["B", "A"]
    assert trials.train["A"].tolist() == list(range(14))
    assert trials.select["B"].tolist() == list(range(6, 11))
    shuffled = laboratory.splits.sample(frac=1, random_state=0)
    assert member_trials(shuffled, "seed3", ["B", "A"]).digests() == trials.digests()
    less = laboratory.splits.drop(index=0)
    assert member_trials(less, "seed3", ["B", "A"]).digests() != trials.digests()


def test_splits_that_do_not_serve(laboratory: Any) -> None:
    table = laboratory.splits
    with pytest.raises(TrainingError, match="no training trials for member seed3 in A, B"):
        member_trials(table[table.role == "select"], "seed3", ["A", "B"])
    with pytest.raises(TrainingError, match="no trials that select the best epoch"):
        member_trials(table[table.role == "train"], "seed3", ["A", "B"])
    table = table[(table.role == "select") | (table.animal == "A")]
    with pytest.raises(TrainingError, match="selected on B, from which it does not learn"):
        member_trials(table, "seed3", ["A", "B"])


def test_purposes_have_streams_of_their_own() -> None:
    seeds = {stream_seed(seed, purpose) for seed in range(20) for purpose in ("train", "select")}
    assert len(seeds) == 40
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert stream_seed(3, "train") == stream_seed(3, "train")


@pytest.mark.parametrize("taken", [0, 1, 5, 11])
def test_reading_ahead_keeps_the_place(laboratory: Any, shrunk: Any, taken: int) -> None:
    recipe = shrunk().recipe
    expected = places(cycle_of(laboratory, recipe), 24)
    first = ReadAhead(cycle_of(laboratory, recipe))
    assert places(first, taken) == expected[:taken]
    state = first.state()
    first.close()
    second = ReadAhead(cycle_of(laboratory, recipe))
    second.next_batch()
    second.restore(state)
    assert places(second, 24 - taken) == expected[taken:]
    second.close()


def test_errors_of_the_reader_arrive(laboratory: Any, shrunk: Any) -> None:
    cycle = cycle_of(laboratory, shrunk().recipe)
    ahead = ReadAhead(cycle)
    ahead.next_batch()
    ahead._coming.result()

    def broken() -> None:
        raise OSError("the disk is gone")

    cycle.next_batch = broken  # type: ignore[method-assign,assignment]
    ahead.next_batch()  # was read before the disk went
    with pytest.raises(OSError, match="the disk is gone"):
        ahead.next_batch()
    ahead.close()


def test_each_epoch_visits_every_trial_of_the_larger_animal(laboratory: Any, shrunk: Any) -> None:
    cycle = cycle_of(laboratory, shrunk().recipe)
    assert cycle.rounds_per_epoch == 4  # ceil(14 / 4)
    visited = [
        trial for animal, trials, _ in places(cycle, 8) if animal[0] == "A" for trial in trials
    ]
    assert sorted(visited) == list(range(14))
    assert np.all(np.array(visited) >= 0)
