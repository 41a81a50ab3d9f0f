"""What a member is judged by: the objective of its recipe, and what all systems are compared by.

The comparison: correlation with single trials over all scored frames, in the score unit, of those
oracle trials from which the member did not learn.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from sensorium_models.inference import readable_frames, to_score_unit
from sensorium_models.networks.build import animal_facts
from sensorium_models.networks.encoder import Encoder
from sensorium_models.recordings.normalisation import score_precision
from sensorium_models.recordings.store import Recording
from sensorium_models.systems import System
from sensorium_models.training.facts import usable_caps
from sensorium_models.training.feeding import Trials, random_clips
from sensorium_models.training.validation import (
    ClipObjective,
    Objective,
    Pair,
    WholeTrialObjective,
    WindowObjective,
)


def make_objective(
    encoder: Encoder,
    *,
    system: System,
    seed: int,
    recordings: Mapping[str, Recording],
    trials: Mapping[str, np.ndarray],
    caps: Mapping[str, int | None],
    scored: tuple[int, int | None, int],
    device: torch.device,
) -> Objective:
    """The objective that the system's recipe describes, on `trials`.

    `caps`: frames of a trial that may be learned from, by animal. `scored`: first scored frame, cap
    and frames dropped at the end, for whole trials.
    """
    recipe = system.recipe
    skipped = max(recipe.validation.skip_frames, encoder.history_frames)
    objective: Objective
    match recipe.validation.frames:
        case "clips":
            streams = random_clips(
                recordings,
                trials,
                recipe=recipe,
                caps=caps,
                seed=seed,
                purpose="select",
                sequential=True,
            )
            objective = ClipObjective(
                encoder, device=device, clips=streams, frames=recipe.clip_frames - skipped
            )
        case "windows":
            objective = WindowObjective(
                encoder,
                device=device,
                recordings=recordings,
                trials=trials,
                caps=caps,
                clip_frames=recipe.clip_frames,
                frame_step=recipe.frame_step,
                windows_per_batch=recipe.clips_per_batch,
                frames=recipe.clip_frames - skipped,
            )
        case "whole_trials":
            objective = WholeTrialObjective(
                encoder,
                device=device,
                system=system,
                recordings=recordings,
                trials=trials,
                caps={a: readable_frames(encoder, a, scored[1]) for a in trials},
                first_frame=max(scored[0], skipped),
                drop_last_frames=scored[2],
            )
    objective.mean_over = recipe.validation.mean_over
    return objective


def unlearned_trials(
    recordings: Mapping[str, Recording], trials: Trials, tiers: Sequence[str]
) -> dict[str, np.ndarray]:
    """Trials of `tiers` with responses that are not trained on, of the animals that have some."""
    found = {}
    for animal in trials.animals:
        recording = recordings[animal]
        rows = np.setdiff1d(recording.trials_of(tiers), trials.train[animal])
        rows = rows[recording.trials.first_response_frame[rows] >= 0]
        if len(rows):
            found[animal] = rows
    return found


def compared(
    encoder: Encoder,
    *,
    system: System,
    recordings: Mapping[str, Recording],
    trials: Trials,
    tiers: Sequence[str],
    scored: tuple[int, int | None, int],
    unit: str,
    device: torch.device,
    evaluated: Callable[[Callable[..., float]], float],
) -> dict[str, Any]:
    """What a finished member is compared by with those of other systems, for its record.

    Correlation with single trials over all scored frames, of the trials of `tiers` from which the
    member did not learn; None where there are no such trials. `evaluated` runs an objective.
    """
    unlearned = unlearned_trials(recordings, trials, tiers)
    facts = {animal: animal_facts(recordings[animal], system) for animal in unlearned}
    objective = Comparison(
        encoder,
        device=device,
        system=system,
        recordings=recordings,
        trials=unlearned,
        caps=usable_caps(facts, scored[1]),
        first_frame=scored[0],
        drop_last_frames=scored[2],
    )
    objective.set_unit(unit)
    return {
        "correlation": evaluated(objective) if unlearned else None,
        "tiers": list(tiers),
        "trials": {animal: len(rows) for animal, rows in unlearned.items()},
        "unit": unit,
    }


class Comparison(WholeTrialObjective):
    """Whole trials in a unit of choice, whatever unit the network predicts in."""

    def set_unit(self, unit: str) -> None:
        """Compare in the response unit `unit`."""
        self._precisions = {
            animal: tuple(
                score_precision(kind, self._recordings[animal])
                for kind in (self._system.response_unit, unit)
            )
            for animal in self._trials
        }

    def converted(self, animal: str, pair: Pair, frames: np.ndarray) -> Pair:
        model, score = self._precisions[animal]
        rates, recorded = (
            to_score_unit(values, frames=frames, model_precision=model, score_precision=score)
            for values in pair
        )
        return rates, recorded
