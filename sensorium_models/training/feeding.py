"""What a member is fed: its animals and trials, its streams of random clips, and reading ahead.

Everything random follows from the member's seed. Each animal and purpose has a stream of its own
(`RandomClips` tells animals apart), so that validating twice, say, changes no other stream.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from sensorium_models.finished import LEARNED_SPLIT
from sensorium_models.recipes import Recipe
from sensorium_models.recordings import splits as split_lists
from sensorium_models.recordings.clips import Clip
from sensorium_models.recordings.readers import Readers
from sensorium_models.recordings.samplers import RandomClips, Sampler
from sensorium_models.recordings.store import Recording


class TrainingError(ValueError):
    """A training that cannot start or go on; the message says what to do."""


@dataclass(frozen=True)
class Trials:
    """The rows of a split that concern one member: trial indices by animal, in reading order."""

    train: dict[str, np.ndarray]
    select: dict[str, np.ndarray]

    @property
    def animals(self) -> list[str]:
        """Animals that the member learns from, in the order in which they take turns."""
        return list(self.train)


def keep_learned(
    folder: Path, splits: pd.DataFrame, member: str, teacher: Path | None = None
) -> None:
    """Write what `member` learned from beside its weights, by which it is judged ever after.

    Args:
        teacher: folder of the finished member that it learned from, if any.
    """
    taught = None if teacher is None else split_lists.read_splits(teacher / LEARNED_SPLIT)
    rows = split_lists.learned_from(splits, member, taught)
    split_lists.write_splits(rows, folder / LEARNED_SPLIT)


def member_trials(splits: pd.DataFrame, member: str, animals: Sequence[str]) -> Trials:
    """Training and selecting trials of a member; `animals` decides the order.

    Raises:
        TrainingError: nothing to learn from, nothing to select on, or an animal that selects but is
            not learned from.
    """
    chosen = {
        role: {
            animal: rows
            for animal in animals
            if len(rows := np.sort(split_lists.trials_of(splits, member, animal, role)))
        }
        for role in ("train", "select")
    }
    trials = Trials(train=chosen["train"], select=chosen["select"])
    if not trials.train:
        raise TrainingError(
            f"The split has no training trials for member {member} in {', '.join(animals)}; "
            "make the split again or name the right member."
        )
    if not trials.select:
        raise TrainingError(
            f"The split has no trials that select the best epoch of member {member}; "
            "add tiers under training_sets.*.select."
        )
    strangers = [animal for animal in trials.select if animal not in trials.train]
    if strangers:
        raise TrainingError(
            f"Member {member} is to be selected on {', '.join(strangers)}, from which it does not "
            "learn; add these animals to training_sets.*.train."
        )
    return trials


def stream_seed(seed: int, purpose: str) -> int:
    """Seed of the random numbers for one purpose: 63 bits that follow from the member's seed."""
    words = f"{seed}/{purpose}".encode()
    return int.from_bytes(hashlib.blake2b(words, digest_size=8).digest(), "little") >> 1


def random_clips(
    recordings: Mapping[str, Recording],
    trials: Mapping[str, np.ndarray],
    *,
    recipe: Recipe,
    caps: Mapping[str, int | None],
    seed: int,
    purpose: str,
    sequential: bool = False,
) -> dict[str, RandomClips]:
    """A stream of random clips per animal; `sequential` keeps the order of the trials."""
    return {
        animal: RandomClips(
            recording=recordings[animal],
            trials=rows,
            clip_frames=recipe.clip_frames,
            batch_size=recipe.clips_per_batch,
            cap_frames=caps[animal],
            seed=stream_seed(seed, purpose),
            sequential=sequential,
        )
        for animal, rows in trials.items()
    }


class ReadAhead:
    """The batches of a sampler, read in the background while earlier ones are used.

    Batches lie in memory that is used again: the arrays of one are valid until the next is taken
    (copy what must last longer). On its way to a GPU that memory is pinned, so that copies with
    `non_blocking=True` run beside computing; here, too, a batch need only last until the next is
    taken, because its memory is written again only after the GPU has done all that was asked of it
    before.

    `state` is the position after the batches that were TAKEN, whatever was read ahead, so a restart
    neither skips nor repeats one.

    Args:
        sampler: which batches, in which order.
        device: where batches go.
        workers, start_method: see `Readers`; they change no batch.
    """

    def __init__(
        self,
        sampler: Sampler,
        *,
        device: torch.device | str = "cpu",
        workers: int = 0,
        start_method: str = "spawn",
    ) -> None:
        self._sampler = sampler
        self._device = torch.device(device)
        pinned = self._device.type == "cuda"
        # In use: one batch, and the one before while the GPU may still work on it. The others are
        # being read.
        self._used = 2 if pinned else 1
        count = self._used + max(workers, 1)
        self._readers = Readers(
            sampler.recordings,
            arenas=count,
            batch_bytes=sampler.batch_bytes,
            workers=workers,
            start_method=start_method,
        )
        self._pinned = [_pin(arena.bytes) for arena in self._readers.arenas] if pinned else []
        self._free = deque(range(count))
        self._coming: deque[_Batch] = deque()
        self._taken: deque[_Batch] = deque()
        self._state = sampler.state()
        self._read_on()

    def next_batch(self) -> Clip:
        """The next batch; errors of reading are raised here, again and again."""
        if self._taken and self._device.type == "cuda":
            self._taken[-1].done = torch.cuda.Event()
            self._taken[-1].done.record(torch.cuda.current_stream(self._device))
        while len(self._taken) >= self._used:
            self._give_back()
        self._read_on()
        batch = self._coming[0]
        try:
            for read in batch.reads:
                read.result()
        except BrokenProcessPool as error:
            raise TrainingError(
                "A process that reads clips died, perhaps killed for lack of memory. Use fewer of"
                " them, or none: threads read as well."
            ) from error
        self._taken.append(self._coming.popleft())
        self._state = batch.state
        return batch.clip

    def state(self) -> dict[str, Any]:
        """Position in the data order, in plain numbers."""
        return self._state

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        self._drop_coming()
        self._sampler.restore(state)
        self._state = state
        self._read_on()

    def close(self) -> None:
        """Stop reading. The arrays of all batches are invalid then."""
        self._drop_coming()
        self._readers.close()
        while self._taken:
            self._give_back()
        while self._pinned:
            self._pinned.pop()()

    def _read_on(self) -> None:
        while self._free:
            arena = self._free.popleft()
            clip, reads = self._readers.read(arena, self._sampler.next_places())
            self._coming.append(_Batch(arena, clip, reads, self._sampler.state()))

    def _drop_coming(self) -> None:
        """Batches read ahead are of no use; wait until their reading ends."""
        while self._coming:
            batch = self._coming.popleft()
            for read in batch.reads:
                if not read.cancel():
                    read.exception()
            self._free.append(batch.arena)

    def _give_back(self) -> None:
        batch = self._taken.popleft()
        if batch.done is not None:
            batch.done.synchronize()
        self._free.append(batch.arena)


@dataclass
class _Batch:
    """A batch in its arena, and the sampler's position after it."""

    arena: int
    clip: Clip
    reads: list[Future[None]]
    state: dict[str, Any]
    done: torch.cuda.Event | None = None  # what the GPU was asked to do with it


def _pin(memory: np.ndarray) -> Callable[[], None]:
    """Let the GPU copy from `memory` by itself; returns what ends that."""
    cuda = torch.cuda.cudart()
    place = memory.ctypes.data
    if int(cuda.cudaHostRegister(place, memory.nbytes, 0)) != 0:
        raise TrainingError(
            f"{memory.nbytes:,} bytes of memory could not be pinned for the GPU. Ask for more"
            " memory, or use smaller batches."
        )
    return lambda: cuda.cudaHostUnregister(place)
