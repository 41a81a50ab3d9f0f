"""What a batch adds to the gradient: network, loss and, where the recipe says so, what is mixed in.

A batch of one animal, or of animals mixed clip by clip (card of DwiseNeuro, section 4). Either may
be computed in parts, whose gradients add up to that of the batch.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sensorium_models.networks.cores.batch_norm import statistics_kept
from sensorium_models.networks.encoder import Encoder
from sensorium_models.networks.inputs import AnimalInputs, select_rows, to_device
from sensorium_models.recipes import Recipe
from sensorium_models.recordings.clips import Clip
from sensorium_models.training.augmentation import Box, boxes, mix_inputs, mix_responses
from sensorium_models.training.distillation import Teacher
from sensorium_models.training.feeding import TrainingError, stream_seed
from sensorium_models.training.losses import PoissonLoss, TrialCounts, clip_weights


class Gradients:
    """Adds the gradient of a batch to that of the network's parameters."""

    def __init__(
        self,
        encoder: Encoder,
        *,
        recipe: Recipe,
        counts: Mapping[str, TrialCounts],
        fabric: Fabric,
        seed: int,
        teacher: Teacher | None,
    ) -> None:
        """`counts` by animal, for the scale of the loss; `seed` of noise and augmentation.

        Raises:
            TrainingError: the network keeps statistics of its batches, which would be split.
        """
        self._encoder = encoder
        self._recipe = recipe
        self._counts = counts
        self._fabric = fabric
        self._seed = seed
        self._teacher = teacher
        self._loss = PoissonLoss(recipe.loss)
        # Read at every step, so that it can be tried out what fits into memory.
        self.clips_per_part = recipe.clips_per_part
        self.recompute = recipe.recompute_activations
        exact = recipe.allow_inexact_split or not has_batch_statistics(encoder)
        if fabric.world_size > 1 and not exact:
            raise TrainingError(
                "resources.gpus: this network keeps statistics of its batches, of which each of "
                f"{fabric.world_size} processes sees a part. Set gpus: 1, or set "
                "recipe.allow_inexact_split: true to accept those of the last animal's process."
            )
        if self.clips_per_part and not exact:
            raise TrainingError(
                "recipe.clips_per_part: this network normalises by the statistics of its batches, "
                "which are other ones in parts. Use recompute_activations: true instead, or set "
                "allow_inexact_split: true to accept another result."
            )

    def add(self, batch: Clip, *, step: int) -> Tensor:
        """Add the gradient of one batch of the training's step number `step`; returns its loss.

        All noise of the batch follows from seed, step and animal, whatever was computed before.
        """
        torch.manual_seed(stream_seed(self._seed, f"noise/{step}/{batch.animal[0]}"))
        partner = None if batch.partner is None else to_device(batch.partner, self._fabric.device)
        clip = to_device(dataclasses.replace(batch, partner=None), self._fabric.device)
        cut = self._boxes(clip, step) if partner is not None else None
        total = torch.zeros((), device=self._fabric.device)
        for rows in self._parts(len(batch.animal)):
            if self._recipe.batches == "mixed_animals":
                loss = self._of_mixed(clip, rows, partner, cut)
            else:
                loss = self._of_one_animal(clip, rows)
            self._fabric.backward(loss)
            total += loss.detach()
        return total

    def _of_one_animal(self, clip: Clip, rows: range) -> Tensor:
        clips, animal = len(clip.animal), clip.animal[0]
        part = clip if len(rows) == clips else select_rows(clip, rows)
        features = self._features(self._encoder.core_inputs(part))
        rates = self._rates(features, part, animal, None)  # (b, T_out, N), the last of the clip
        loss = self._loss(
            rates,
            self._recorded(part, animal)[:, -rates.shape[1] :],
            counts=self._counts[animal],
            valid=_validity(part, rates.shape[1]),
            clips=clips,
        )
        # Once for every batch, as published.
        return loss + self._encoder.regularizer(animal) if rows.start == 0 else loss

    def _of_mixed(
        self, clip: Clip, rows: range, partner: Clip | None, cut: Sequence[Box | None] | None
    ) -> Tensor:
        animals = self._encoder.animals
        own = torch.tensor([[name == animal for animal in animals] for name in clip.animal])
        ratio = self._recipe.distillation.ratio if self._recipe.distillation else None
        weights = clip_weights(own, ratio=ratio)[rows.start : rows.stop].to(self._fabric.device)
        part = select_rows(clip, rows)
        cut = None if cut is None else cut[rows.start : rows.stop]
        video, *state = self._encoder.core_inputs(part)
        second = None
        if partner is not None and cut is not None:
            second = select_rows(partner, rows)
            video = mix_inputs(video, self._encoder.core_inputs(second)[0], cut)
        features = self._features((video, *state))
        taught = None
        if self._teacher is not None:
            with self._fabric.autocast():
                taught = self._teacher.features((video, *state))
        loss = torch.zeros((), device=self._fabric.device)
        if rows.start == 0:
            loss = loss + _regularizer(self._encoder, set(clip.animal))
        for column, animal in enumerate(animals):
            mine = [row for row, name in enumerate(part.animal) if name == animal]
            others = [row for row, name in enumerate(part.animal) if name != animal]
            used = mine if taught is None else mine + others
            if not used:
                continue
            rates = self._rates(features, part, animal, used)
            targets = []
            if mine:
                recorded = self._recorded(select_rows(part, mine), animal)
                if second is not None and cut is not None:
                    other = self._recorded(select_rows(second, mine), animal)
                    size = (video.shape[-2], video.shape[-1])
                    recorded = mix_responses(recorded, other, [cut[row] for row in mine], size)
                targets.append(recorded[:, -rates.shape[1] :])
            if taught is not None and others:
                with self._fabric.autocast():
                    told = cast(Teacher, self._teacher).rates(taught, part, animal, others)
                targets.append(told.float())
            valid = _validity(select_rows(part, used), rates.shape[1])
            of_clips = self._loss.by_clip(rates, torch.cat(targets), valid)
            loss = loss + (weights[used, column] * of_clips).sum()
        return loss

    def _features(self, inputs: Sequence[Tensor]) -> Tensor:
        core = self._encoder.core
        with self._fabric.autocast():
            if self.recompute:
                features = checkpoint(
                    core,
                    *inputs,
                    use_reentrant=False,
                    context_fn=lambda: (nullcontext(), statistics_kept(core)),
                )
            else:
                features = core(*inputs)
        return features.float() if self._recipe.low_precision_part == "core" else features

    def _rates(
        self, features: Tensor, clip: Clip, animal: str, rows: Sequence[int] | None
    ) -> Tensor:
        low = self._recipe.low_precision_part == "network"
        with self._fabric.autocast() if low else nullcontext():
            return self._encoder.read(features, clip, animal, rows).float()

    def _recorded(self, clip: Clip, animal: str) -> Tensor:
        recorded = cast(AnimalInputs, self._encoder.inputs[animal]).responses(clip)
        return recorded.clamp(min=0) if self._recipe.negative_responses == "zero" else recorded

    def _parts(self, clips: int) -> list[range]:
        size = self.clips_per_part or clips
        return [range(start, min(start + size, clips)) for start in range(0, clips, size)]

    def _boxes(self, clip: Clip, step: int) -> list[Box | None] | None:
        if self._recipe.cutmix is None:
            return None
        # The frame that the core sees, which may be padded.
        height, width = self._encoder.core_inputs(select_rows(clip, [0]))[0].shape[-2:]
        random = np.random.default_rng([stream_seed(self._seed, "cutmix"), step])
        return boxes(
            self._recipe.cutmix,
            clips=len(clip.animal),
            frame_shape=(height, width),
            random=random,
        )


def has_batch_statistics(network: nn.Module) -> bool:
    """Whether a clip's rates depend on the other clips of its batch in training."""
    return any(name.endswith("running_mean") for name in network.state_dict())


def _regularizer(encoder: Encoder, animals: set[str]) -> Tensor:
    total = cast(Any, encoder.core).regularizer()
    for animal in encoder.animals:
        if animal in animals:
            total = total + cast(Any, encoder.readouts[animal]).regularizer()
    return cast(Tensor, total)


def _validity(clip: Clip, frames: int) -> Tensor | None:
    """Which of the last `frames` frames count (B, T_out); None where all do."""
    valid = torch.as_tensor(clip.valid)[:, -frames:]
    return None if bool(valid.all()) else valid
