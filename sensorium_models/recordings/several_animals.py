"""How the clips of several animals make an epoch: in turn, or mixed within batches.

In turn: the released kit's long cycle, which all recipes but one have. Mixed: DwiseNeuro
(lRomul/sensorium), whose batches hold clips of any animal.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from sensorium_models.recordings.clips import Places, common_inputs, joined
from sensorium_models.recordings.samplers import AnimalSampler, Sampler, integers
from sensorium_models.recordings.store import Recording


class AnimalCycle(Sampler):
    """Batches of several animals in turn, as many rounds per epoch as the largest animal needs.

    Smaller animals begin further passes within the epoch; every epoch begins all animals anew, as
    the released kit's long cycle does.
    """

    def __init__(self, clips: Mapping[str, AnimalSampler]) -> None:
        self.recordings = _recordings(clips)
        self._clips = dict(clips)
        self._batch = 0  # within the epoch

    @property
    def animals(self) -> tuple[str, ...]:
        return tuple(self._clips)

    @property
    def rounds_per_epoch(self) -> int:
        return max(clips.batches_per_epoch for clips in self._clips.values())

    @property
    def batches_per_epoch(self) -> int:
        return self.rounds_per_epoch * len(self._clips)

    @property
    def batch_bytes(self) -> int:
        return max(clips.batch_bytes for clips in self._clips.values())

    def next_places(self) -> Places:
        if self._batch == self.batches_per_epoch:
            self._batch = 0
            for clips in self._clips.values():
                clips.restart()
        animal = self.animals[self._batch % len(self._clips)]
        self._batch += 1
        return self._clips[animal].next_places()

    def state(self) -> dict[str, Any]:
        return {
            "batch": self._batch,
            "animals": {animal: clips.state() for animal, clips in self._clips.items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        (batch,) = integers(state, "batch")
        saved = state["animals"]
        if list(saved) != list(self._clips) or not 0 <= batch <= self.batches_per_epoch:
            raise ValueError(
                f"The saved position is of animals {', '.join(saved)}, but this training is of"
                f" {', '.join(self._clips)} with {self.batches_per_epoch} batches. Train anew."
            )
        self._batch = batch
        for animal, clips in self._clips.items():
            clips.restore(saved[animal])


class MixedAnimals(Sampler):
    """Batches that mix animals clip by clip (DwiseNeuro): every animal has the same share.

    An epoch is one pass of every animal, all clips shuffled together; its last batch may be
    smaller. Responses come as one array per clip.

    Args:
        clips: a sampler per animal, all with the same number of clips per pass.
        batch_size: clips per batch.
        seed: of the order of the clips; the clips themselves follow from their samplers' seeds.
    """

    def __init__(self, clips: Mapping[str, AnimalSampler], *, batch_size: int, seed: int) -> None:
        self.recordings = _recordings(clips)
        common_inputs(self.recordings)
        shares = {animal: sampler.visits_per_pass for animal, sampler in clips.items()}
        if len(set(shares.values())) > 1:
            said = ", ".join(f"{animal} {share}" for animal, share in shares.items())
            raise ValueError(
                f"Animals that mix within batches have equal shares of an epoch, not {said} clips."
                " Give all the same number of clips per pass."
            )
        if batch_size < 1 or seed < 0:
            raise ValueError(
                "Batches need at least one clip and a seed from 0 on, not"
                f" batch_size={batch_size}, seed={seed}."
            )
        self._clips = dict(clips)
        self._batch_size = batch_size
        self._seed = seed
        self._clips_per_epoch = sum(shares.values())
        self._begin(0)

    @property
    def animals(self) -> tuple[str, ...]:
        return tuple(self._clips)

    @property
    def batches_per_epoch(self) -> int:
        return -(-self._clips_per_epoch // self._batch_size)

    @property
    def batch_bytes(self) -> int:
        clips = min(self._batch_size, self._clips_per_epoch)
        return clips * max(sampler.clip_bytes for sampler in self._clips.values())

    def next_places(self) -> Places:
        if self._batch == self.batches_per_epoch:
            self._begin(self._epoch + 1)
        first = self._batch * self._batch_size
        self._batch += 1
        return self._visits.at(self._order[first : first + self._batch_size])

    def state(self) -> dict[str, int]:
        return {"epoch": self._epoch, "batch": self._batch}

    def restore(self, state: Mapping[str, Any]) -> None:
        epoch, batch = integers(state, "epoch", "batch")
        if not 0 <= batch <= self.batches_per_epoch:
            raise ValueError(
                f"The saved position is batch {batch} of an epoch, but an epoch of this training"
                f" has {self.batches_per_epoch} batches: the recipe has changed. Train anew."
            )
        self._begin(epoch)
        self._batch = batch

    def _begin(self, epoch: int) -> None:
        visits = [sampler.visits(epoch) for sampler in self._clips.values()]
        self._visits = replace(joined(visits), mixed=True)
        self._order = np.random.default_rng([self._seed, epoch]).permutation(self._clips_per_epoch)
        self._epoch = epoch
        self._batch = 0


def _recordings(clips: Mapping[str, AnimalSampler]) -> dict[str, Recording]:
    if not clips:
        raise ValueError("Training needs at least one animal. Check the split.")
    return {sampler.recording.animal: sampler.recording for sampler in clips.values()}
