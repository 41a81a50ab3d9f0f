"""What a network is told of each animal before it trains: usual rates, and where its neurons look.

Usual rates: card of the factorized baseline, section 3 (one batch of training clips). Positions:
`positions.py`, for systems whose readout asks for `positions: response_triggered_average`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from sensorium_models.networks.build import animal_facts, build_encoder
from sensorium_models.networks.encoder import AnimalFacts
from sensorium_models.networks.inputs import CHANNELS_OF, AnimalInputs
from sensorium_models.recipes import RatesOfClips, RatesOfTrials
from sensorium_models.recordings.clips import Clip, whole_trial
from sensorium_models.recordings.store import Recording
from sensorium_models.systems import System
from sensorium_models.training.feeding import random_clips
from sensorium_models.training.losses import TrialCounts
from sensorium_models.training.positions import (
    feature_layout,
    grid_positions,
    response_triggered_peaks,
)


def recorded_facts(
    system: System, recordings: Mapping[str, Recording], animals: list[str]
) -> dict[str, AnimalFacts]:
    """What is known without looking at responses; enough for a network whose weights are loaded."""
    facts = {animal: animal_facts(recordings[animal], system) for animal in animals}
    if not _looks_for_positions(system):
        return facts
    return {
        animal: replace(known, initial_positions=np.zeros((known.neurons, 2), np.float32))
        for animal, known in facts.items()
    }


def usable_caps(facts: Mapping[str, AnimalFacts], cap_frames: int | None) -> dict[str, int | None]:
    """Frames of a trial that may be read, by animal: the cap, or fewer where statistics end."""
    caps: dict[str, int | None] = {}
    for animal, known in facts.items():
        limits = [limit for limit in (cap_frames, _inputs(known).frames) if limit is not None]
        caps[animal] = min(limits, default=None)
    return caps


def learned_cap(system: System, cap_frames: int | None) -> int | None:
    """Frames of a trial that may be learned from, where `cap_frames` of it may be scored.

    The same, but for a system that predicts by sliding windows: it learns from and predicts all
    frames that there are (card of DwiseNeuro, sections 1, 4.2 and 5).
    """
    return None if system.inference == "sliding_windows" else cap_frames


def trial_counts(
    recordings: Mapping[str, Recording], trials: Mapping[str, np.ndarray]
) -> dict[str, TrialCounts]:
    """By animal, the numbers of trials by which its loss may be scaled; `trials` are trained on."""
    return {
        animal: TrialCounts(
            recording=len(recordings[animal].trials),
            training=len(rows),
            training_of_all=sum(map(len, trials.values())),
            animals=len(trials),
        )
        for animal, rows in trials.items()
    }


def starting_facts(
    system: System,
    facts: Mapping[str, AnimalFacts],
    *,
    recordings: Mapping[str, Recording],
    trials: Mapping[str, np.ndarray],
    caps: Mapping[str, int | None],
    seed: int,
) -> dict[str, AnimalFacts]:
    """`facts` with initial rates, and initial positions where the readout asks for them.

    Args:
        trials: training trials of each animal.
        seed: of the member, for the clips whose mean rates are taken.
    """
    rates = _start_rates(system, facts, recordings=recordings, trials=trials, caps=caps, seed=seed)
    started = {
        animal: replace(known, initial_rates=rates[animal]) for animal, known in facts.items()
    }
    if not _looks_for_positions(system):
        return started
    # Any network of this architecture tells what its features look at.
    draft = build_encoder(system, facts, seed=0)
    search = system.recipe.start_positions
    for animal, known in started.items():
        inputs = draft.inputs[animal]
        layout = feature_layout(
            draft.core,
            in_channels=sum(CHANNELS_OF[name] for name in inputs.channels),  # type: ignore
            frame_shape=known.frame_shape,
        )
        peaks = response_triggered_peaks(
            recordings[animal],
            trials[animal],
            responses=known.normalisation.responses,
            lag_frames=search.lag_frames,
            pool=search.pool,
            smoothing_pixels=search.smoothing_pixels,
            cap_frames=caps[animal],
        )
        positions = grid_positions(peaks.rows_columns, layout)
        started[animal] = replace(known, initial_positions=positions)
    return started


def _looks_for_positions(system: System) -> bool:
    return system.readout_settings.get("positions") == "response_triggered_average"


def _start_rates(
    system: System,
    facts: Mapping[str, AnimalFacts],
    *,
    recordings: Mapping[str, Recording],
    trials: Mapping[str, np.ndarray],
    caps: Mapping[str, int | None],
    seed: int,
) -> dict[str, np.ndarray | None]:
    """Mean responses in the response unit, (N,) float32 by animal, as the recipe takes them."""
    settings = system.recipe.start_rates
    if isinstance(settings, RatesOfClips):
        streams = random_clips(
            recordings,
            trials,
            recipe=system.recipe,
            caps=caps,
            seed=seed,
            purpose="initial rates",
        )
        return {
            animal: _mean_rates(
                facts[animal], [streams[animal].next_batch() for _ in range(settings.batches)]
            )
            for animal in facts
        }
    if isinstance(settings, RatesOfTrials):
        return {
            animal: _mean_rates(
                facts[animal],
                [
                    whole_trial(recordings[animal], trial, cap_frames=caps[animal], responses=True)
                    for trial in trials[animal][: settings.trials].tolist()
                ],
            )
            for animal in facts
        }
    return dict.fromkeys(facts)


def _mean_rates(facts: AnimalFacts, batches: Sequence[Clip]) -> np.ndarray:
    """Mean over clips and frames of the responses in the response unit, (N,) float32."""
    inputs = _inputs(facts)
    frames = [inputs.responses(batch)[torch.as_tensor(batch.valid)] for batch in batches]
    return torch.cat(frames).mean(dim=0).numpy()


def _inputs(facts: AnimalFacts) -> AnimalInputs:
    return AnimalInputs(animal=facts.animal, normalisation=facts.normalisation, channels=["video"])
