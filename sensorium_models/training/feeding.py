"""What a member is fed: its animals and trials, its streams of random clips, and reading ahead.

Everything random follows from the member's seed. Each animal and purpose has a stream of its own
(`RandomClips` tells animals apart), so that validating twice, say, changes no other stream.
"""

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sensorium_models.recipes import Recipe
from sensorium_models.recordings import splits as split_lists
from sensorium_models.recordings.clips import Clip
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

    def digests(self) -> dict[str, dict[str, str]]:
        """A short hash of every list, by role and animal: equal exactly if the trials are."""
        return {
            role: {
                animal: hashlib.sha256(np.asarray(rows, dtype="<i8").tobytes()).hexdigest()[:16]
                for animal, rows in lists.items()
            }
            for role, lists in (("train", self.train), ("select", self.select))
        }


def member_trials(splits: pd.DataFrame | Path, member: str, animals: Sequence[str]) -> Trials:
    """Training and selecting trials of a member; `animals` decides the order.

    Raises:
        TrainingError: nothing to learn from, nothing to select on, or an animal that selects but is
            not learned from.
    """
    table = splits if isinstance(splits, pd.DataFrame) else split_lists.read_splits(splits)
    chosen = {
        role: {
            animal: rows
            for animal in animals
            if len(rows := np.sort(split_lists.trials_of(table, member, animal, role)))
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
    """A sampler whose next batch is read by a thread while the current one is used.

    `state` is the position after the batches that were TAKEN, whatever was read ahead, so a restart
    neither skips nor repeats one.
    """

    def __init__(self, cycle: Sampler) -> None:
        self._cycle = cycle
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="clips")
        self._taken = cycle.state()
        self._coming = self._reader.submit(self._read)

    def next_batch(self) -> Clip:
        """The next animal's batch; errors of reading are raised here."""
        clip, self._taken = self._coming.result()
        self._coming = self._reader.submit(self._read)
        return clip

    def state(self) -> dict[str, Any]:
        """Position in the data order, in plain numbers."""
        return self._taken

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        self._coming.exception()  # the batch read ahead is of no use; wait until its reading ends
        self._cycle.restore(state)
        self._taken = state
        self._coming = self._reader.submit(self._read)

    def close(self) -> None:
        """Stop reading."""
        self._reader.shutdown(wait=True, cancel_futures=True)

    def _read(self) -> tuple[Clip, dict[str, Any]]:
        clip = self._cycle.next_batch()
        return clip, self._cycle.state()
