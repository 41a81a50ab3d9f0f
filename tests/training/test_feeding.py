"""Trials from the split, streams of clips, and reading ahead without losing the place."""

import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sensorium_models.recordings.clips import Clip
from sensorium_models.recordings.samplers import StackedClips
from sensorium_models.recordings.several_animals import AnimalCycle, MixedAnimals
from sensorium_models.recordings.splits import trial_digests
from sensorium_models.recordings.store import Recording, StoreError
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
    digests = trial_digests(laboratory.splits, "seed3")
    assert trial_digests(shuffled, "seed3") == digests
    less = laboratory.splits.drop(index=0)
    assert trial_digests(less, "seed3") != digests


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


def copied(clip: Clip | None) -> list[Any]:
    """Everything in a clip, in memory of its own: that of the batch is used again."""
    if clip is None:
        return []
    arrays = [clip.video, clip.behavior, clip.pupil_center, *clip.responses]
    arrays += [clip.trial, clip.frame, clip.valid]
    return [clip.animal, *(np.array(array) for array in arrays), *copied(clip.partner)]


def mixed_stacks(laboratory: Any) -> MixedAnimals:
    recordings = {animal: Recording(path) for animal, path in laboratory.stores.items()}
    clips = {
        animal: StackedClips(
            recording=recording,
            trials=recording.trials_of(["train"]),
            clip_frames=5,
            step=2,
            clips_per_pass=9,
            batch_size=4,
            cap_frames=None,
            seed=1,
            partner=True,
        )
        for animal, recording in recordings.items()
    }
    return MixedAnimals(clips, batch_size=4, seed=1)


@pytest.mark.parametrize(
    ("workers", "method"), [(0, "spawn"), (1, "spawn"), (2, "spawn"), (1, "fork"), (2, "fork")]
)
def test_whoever_reads_the_batches_are_the_same(laboratory: Any, workers: int, method: str) -> None:
    """Bit for bit, over the end of an epoch of 5 batches and after a restart."""
    sampler = mixed_stacks(laboratory)
    expected = [copied(sampler.next_batch()) for _ in range(11)]
    ahead = ReadAhead(mixed_stacks(laboratory), workers=workers, start_method=method)
    found = [copied(ahead.next_batch()) for _ in range(7)]
    state = ahead.state()
    ahead.next_batch()
    ahead.restore(state)
    found += [copied(ahead.next_batch()) for _ in range(4)]
    ahead.close()
    for batch, right in zip(found, expected, strict=True):
        for value, value_right in zip(batch, right, strict=True):
            np.testing.assert_array_equal(value, value_right)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_lie_in_memory_that_is_used_again(laboratory: Any, workers: int) -> None:
    ahead = ReadAhead(mixed_stacks(laboratory), workers=workers, start_method="fork")
    addresses = set()
    for _ in range(12):
        clip = ahead.next_batch()
        before = copied(clip)
        for reading in ahead._coming[-1].reads:
            reading.result()  # the reader is done with all it could do meanwhile
        for value, value_before in zip(copied(clip), before, strict=True):
            np.testing.assert_array_equal(value, value_before)
        assert clip.video.ctypes.data % 64 == 0
        addresses.add(clip.video.ctypes.data)
    assert len(addresses) == 1 + max(workers, 1)
    ahead.close()


@pytest.mark.parametrize("workers", [0, 1])
def test_errors_of_the_reader_arrive(laboratory: Any, tmp_path: Path, workers: int) -> None:
    """A store that loses its end while it is read, as when a disk fails."""
    damaged = replace(laboratory, stores={})
    for animal, path in laboratory.stores.items():
        damaged.stores[animal] = Path(shutil.copy(path, tmp_path / path.name))
    sampler = mixed_stacks(damaged)
    ahead = ReadAhead(sampler, workers=workers, start_method="fork")
    ahead.next_batch()
    for batch in ahead._coming:
        for reading in batch.reads:
            reading.result()
    for path in damaged.stores.values():
        os.truncate(path, 4096)
    for _ in range(len(ahead._coming)):  # were read before the disk failed
        ahead.next_batch()
    for _ in range(2):
        with pytest.raises(StoreError, match=r"cannot be read any more .the file ends before"):
            ahead.next_batch()
    ahead.close()


class FakeGPU:
    """Enough of CUDA to see in which order memory is pinned, used, waited for and written."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[Any] = []
        self.pinned: dict[int, int] = {}
        self.failure = 0
        monkeypatch.setattr(torch.cuda, "cudart", lambda: self)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "stream")
        monkeypatch.setattr(torch.cuda, "Event", lambda: FakeEvent(self.log))

    def cudaHostRegister(self, place: int, size: int, flags: int) -> int:
        self.pinned[place] = size
        return self.failure

    def cudaHostUnregister(self, place: int) -> None:
        del self.pinned[place]


class FakeEvent:
    def __init__(self, log: list[Any]) -> None:
        self.log, self.number = log, sum(entry[0] == "record" for entry in log)

    def record(self, stream: str) -> None:
        self.log.append(("record", self.number))

    def synchronize(self) -> None:
        self.log.append(("wait", self.number))


def test_pinned_memory_is_written_again_only_after_the_gpu_is_done(
    laboratory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = FakeGPU(monkeypatch)
    sampler = mixed_stacks(laboratory)
    expected = [copied(sampler.next_batch()) for _ in range(7)]
    ahead = ReadAhead(mixed_stacks(laboratory), device="cuda")
    assert len(gpu.pinned) == 3
    read = ahead._readers.read
    monkeypatch.setattr(
        ahead._readers, "read", lambda *a: (gpu.log.append(("read", a[0])), read(*a))[1]
    )
    for batch in expected:
        clip = ahead.next_batch()
        (start,) = (p for p, size in gpu.pinned.items() if 0 <= clip.video.ctypes.data - p < size)
        gpu.log.append(("use", [a.bytes.ctypes.data for a in ahead._readers.arenas].index(start)))
        for value, right in zip(copied(clip), batch, strict=True):
            np.testing.assert_array_equal(value, right)
    ahead.close()
    assert not gpu.pinned
    # Batches 0 and 1 are in use before arena 0 is given back. From then on, before arena k is
    # written again, the GPU has done what was asked until the batch after k was taken.
    beginning = [("use", 0), ("record", 0), ("use", 1), ("record", 1), ("wait", 0), ("read", 0)]
    assert gpu.log[:6] == beginning
    for place, entry in enumerate(gpu.log):
        if entry[0] == "read":
            assert gpu.log[place - 1][0] == "wait"
            number = gpu.log[place - 1][1]
            used = [e for e in gpu.log if e[0] == "use"][number]
            assert used[1] == entry[1]
            assert gpu.log.index(("record", number)) < place


def test_memory_that_cannot_be_pinned(laboratory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeGPU(monkeypatch).failure = 2
    with pytest.raises(TrainingError, match="could not be pinned for the GPU"):
        ReadAhead(mixed_stacks(laboratory), device="cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_reach_a_busy_gpu_unchanged(laboratory: Any, workers: int) -> None:
    """Copies wait behind long computations, while reading goes on."""
    sampler = mixed_stacks(laboratory)
    expected = [copied(sampler.next_batch()) for _ in range(30)]
    ahead = ReadAhead(mixed_stacks(laboratory), device="cuda", workers=workers)
    assert torch.as_tensor(ahead._readers.arenas[0].bytes).is_pinned()
    slow = torch.rand(4000, 4000, device="cuda")
    videos = []
    for _ in expected:
        slow = (slow @ slow).clamp(0, 1)
        video = torch.as_tensor(ahead.next_batch().video)
        videos.append(video.to("cuda", non_blocking=True))
    torch.cuda.synchronize()
    for video, batch in zip(videos, expected, strict=True):
        np.testing.assert_array_equal(video.cpu().numpy(), batch[1])
    ahead.close()


def test_a_process_that_dies_is_named(laboratory: Any) -> None:
    ahead = ReadAhead(mixed_stacks(laboratory), workers=1, start_method="fork")
    ahead.next_batch()
    for process in ahead._readers._executor._processes.values():  # type: ignore[attr-defined]
        os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(TrainingError, match="process that reads clips died"):
        places(ahead, 4)
    ahead.close()


def test_bad_numbers_of_processes(laboratory: Any) -> None:
    with pytest.raises(ValueError, match="not by -1 processes"):
        ReadAhead(mixed_stacks(laboratory), workers=-1)
    with pytest.raises(ValueError, match="started by spawn or fork, not by 1 processes and 'for"):
        ReadAhead(mixed_stacks(laboratory), workers=1, start_method="forkserver")


def test_each_epoch_visits_every_trial_of_the_larger_animal(laboratory: Any, shrunk: Any) -> None:
    cycle = cycle_of(laboratory, shrunk().recipe)
    assert cycle.rounds_per_epoch == 4  # ceil(14 / 4)
    visited = [
        trial for animal, trials, _ in places(cycle, 8) if animal[0] == "A" for trial in trials
    ]
    assert sorted(visited) == list(range(14))
    assert np.all(np.array(visited) >= 0)
