"""What a recipe feeds its network: which sampler, how many steps an epoch, how many batches a step.

`recordings.samplers` and `recordings.several_animals` have the samplers themselves.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sensorium_models.recipes import Recipe
from sensorium_models.recordings.samplers import Sampler, StackedClips
from sensorium_models.recordings.several_animals import AnimalCycle, MixedAnimals
from sensorium_models.recordings.store import Recording
from sensorium_models.training.feeding import TrainingError, random_clips, stream_seed


@dataclass(frozen=True)
class Feed:
    """A sampler and how its batches make steps and epochs."""

    sampler: Sampler
    steps_per_epoch: int
    batches_per_step: int


def make_feed(
    recipe: Recipe,
    recordings: Mapping[str, Recording],
    trials: Mapping[str, np.ndarray],
    *,
    caps: Mapping[str, int | None],
    seed: int,
) -> Feed:
    """The training batches of a recipe.

    Args:
        trials: training trials by animal, in the order in which animals take turns.
        caps: frames of a trial that may be read, by animal.
        seed: of the member.
    """
    if recipe.batches == "mixed_animals":
        mixed = _mixed(recipe, recordings, trials, caps=caps, seed=seed)
        return Feed(mixed, steps_per_epoch=mixed.batches_per_epoch, batches_per_step=1)
    cycle = AnimalCycle(
        random_clips(recordings, trials, recipe=recipe, caps=caps, seed=seed, purpose="train")
    )
    if recipe.batches == "one_animal":
        return Feed(cycle, steps_per_epoch=cycle.batches_per_epoch, batches_per_step=1)
    return Feed(cycle, steps_per_epoch=cycle.rounds_per_epoch, batches_per_step=len(trials))


def _mixed(
    recipe: Recipe,
    recordings: Mapping[str, Recording],
    trials: Mapping[str, np.ndarray],
    *,
    caps: Mapping[str, int | None],
    seed: int,
) -> MixedAnimals:
    share = (recipe.samples_per_epoch or 0) // len(trials)
    if share < 1:
        raise TrainingError(
            f"recipe.samples_per_epoch: {recipe.samples_per_epoch} clips are fewer than one for "
            f"each of {len(trials)} animals; raise it"
        )
    stacks = {
        animal: StackedClips(
            recording=recordings[animal],
            trials=rows,
            clip_frames=recipe.clip_frames,
            step=recipe.frame_step,
            clips_per_pass=share,
            batch_size=recipe.clips_per_batch,
            cap_frames=caps[animal],
            seed=stream_seed(seed, "train"),
            partner=recipe.cutmix is not None,
        )
        for animal, rows in trials.items()
    }
    return MixedAnimals(
        stacks, batch_size=recipe.clips_per_batch, seed=stream_seed(seed, "train order")
    )
