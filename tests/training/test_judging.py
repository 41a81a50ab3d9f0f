"""Windows, means over animals, and what members of all systems are compared by."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sensorium_models.evaluation.correlation import correlation
from sensorium_models.evaluation.streaming import JointMoments
from sensorium_models.inference import predict_trial
from sensorium_models.networks.build import build_encoder
from sensorium_models.recordings.normalisation import score_precision
from sensorium_models.recordings.store import Recording
from sensorium_models.training.facts import recorded_facts, starting_facts
from sensorium_models.training.feeding import member_trials
from sensorium_models.training.judging import compared, make_objective, unlearned_trials
from sensorium_models.training.processes import make_fabric
from sensorium_models.training.state import Training

CPU = torch.device("cpu")
CAPS = {"A": 30, "B": None}


@pytest.fixture
def bench(laboratory: Any, of_recipe: Any) -> Any:
    system = of_recipe("dwiseneuro")
    recordings = {animal: Recording(path) for animal, path in laboratory.stores.items()}
    trials = member_trials(laboratory.splits, "seed3", ["A", "B"])
    facts = recorded_facts(system, recordings, ["A", "B"])
    return system, recordings, trials, build_encoder(system, facts, seed=1)


def test_windows_lie_end_to_end_and_animals_count_alike(bench: Any) -> None:
    system, recordings, trials, encoder = bench
    objective = make_objective(
        encoder,
        system=system,
        seed=3,
        recordings=recordings,
        trials=trials.select,
        caps=CAPS,
        scored=(8, 30, 1),
        device=CPU,
    )
    means = []
    for animal in ("A", "B"):
        recording, rates, recorded = recordings[animal], [], []
        scale = 1 / recording.statistics("train", "responses", per_frame=False).std
        for trial in trials.select[animal]:
            # Eight frames, every second one: a span of 15, twice in 30 frames. History takes two.
            for start in (0, 15):
                frames = start + 2 * np.arange(8)
                responses = recording.read("responses", int(trial), 0, 30)[frames] * scale
                recorded.append(responses[2:])
                rates.append(window(encoder, recording, int(trial), frames))
        moments = JointMoments.of([np.concatenate(rates), np.concatenate(recorded)])
        means.append(correlation(moments).mean())
    # Sums of float32 rates in batches of another size.
    assert objective() == pytest.approx(np.mean(means), abs=1e-5)


def window(encoder: Any, recording: Recording, trial: int, frames: np.ndarray) -> np.ndarray:
    from sensorium_models.recordings.clips import Clip

    def cut(modality: str) -> np.ndarray:
        return recording.read(modality, trial, 0, 30)[frames][np.newaxis]

    clip = Clip(
        video=cut("video")[:, np.newaxis],
        behavior=cut("behavior"),
        pupil_center=cut("pupil_center"),
        responses=None,
        animal=(recording.animal,),
        trial=np.array([trial]),
        frame=frames[np.newaxis],
        valid=np.ones((1, len(frames)), bool),
    )
    with torch.no_grad():
        return encoder.eval()(clip)[0].numpy()


def test_comparison_is_of_whole_trials_in_the_score_unit(bench: Any) -> None:
    system, recordings, trials, encoder = bench
    # Part of the oracle trials was trained on: those do not count.
    trials.train["A"] = np.concatenate([trials.train["A"], trials.select["A"][:2]])
    unlearned = unlearned_trials(recordings, trials, ["oracle"])
    assert unlearned["A"].tolist() == trials.select["A"][2:].tolist()
    result = compared(
        encoder,
        system=system,
        recordings=recordings,
        trials=trials,
        tiers=["oracle"],
        scored=(8, 30, 1),
        unit="per_frame_train",
        device=CPU,
        evaluated=lambda objective: objective(),
    )
    values = []
    for animal in ("A", "B"):
        recording, rates, recorded = recordings[animal], [], []
        model = score_precision(system.response_unit, recording)
        score = score_precision("per_frame_train", recording)[8:29]
        for trial in unlearned[animal]:
            predicted = predict_trial(encoder, recording, int(trial), system=system, cap_frames=30)
            history = encoder.history_frames
            rates.append(predicted[8 - history : 29 - history] / model * score)
            recorded.append(recording.read("responses", int(trial), 8, 29) * score)
        moments = JointMoments.of([np.concatenate(rates), np.concatenate(recorded)])
        values.append(correlation(moments))
    expected = np.concatenate(values).mean()
    assert result["correlation"] == pytest.approx(expected, abs=1e-6)
    assert result["trials"] == {"A": 4, "B": 5}


def test_nothing_to_compare_on_is_no_number(bench: Any) -> None:
    system, recordings, trials, encoder = bench
    result = compared(
        encoder,
        system=system,
        recordings=recordings,
        trials=trials,
        tiers=["train"],
        scored=(8, 30, 1),
        unit="raw",
        device=CPU,
        evaluated=lambda objective: objective(),
    )
    assert result["correlation"] is None
    assert result["trials"] == {}


@pytest.mark.parametrize(
    ("start", "rows"),
    [({"kind": "trials", "trials": 3}, slice(0, 3)), ({"kind": "none"}, None)],
)
def test_starting_rates_as_the_recipe_takes_them(
    laboratory: Any, of_recipe: Any, start: dict[str, Any], rows: slice | None
) -> None:
    system = of_recipe("viv1t", start_rates=start)
    recordings = {animal: Recording(path) for animal, path in laboratory.stores.items()}
    trials = member_trials(laboratory.splits, "seed3", ["A", "B"])
    facts = recorded_facts(system, recordings, ["A", "B"])
    started = starting_facts(
        system, facts, recordings=recordings, trials=trials.train, caps=CAPS, seed=3
    )
    for animal, recording in recordings.items():
        if rows is None:
            assert started[animal].initial_rates is None
            continue
        scale = 1 / recording.statistics("train", "responses", per_frame=False).std
        some = [recording.read("responses", int(t), 0, 30) for t in trials.train[animal][rows]]
        expected = (np.concatenate(some) * scale).mean(0)
        np.testing.assert_allclose(started[animal].initial_rates, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("recipe", "in_full"), [("dwiseneuro", True), ("factorized_baseline", False)]
)
def test_only_dwiseneuro_learns_from_frames_that_are_never_scored(
    make_laboratory: Any, of_recipe: Any, tmp_path: Path, recipe: str, in_full: bool
) -> None:
    """Card of DwiseNeuro, section 1: trials may exceed 300 frames and are used in full."""
    # So many frames have the trials of pink noise.
    laboratory = make_laboratory(tmp_path, frames=324)
    system = of_recipe(recipe)
    recordings = {animal: Recording(path) for animal, path in laboratory.stores.items()}
    trials = member_trials(laboratory.splits, "seed3", ["A", "B"])
    seen = []
    for cap in (300, None):
        training = Training(
            system=system,
            seed=3,
            recordings=recordings,
            trials=trials,
            fabric=make_fabric(CPU, system.recipe, processes=1),
            scored=(8, cap, 1),
            fresh=True,
        )
        before = training.evaluate()
        training.take_step()
        seen.append((before, training.state()["epoch"]["loss"]))
        training.close()
    capped, whole = seen
    assert [a == b for a, b in zip(capped, whole, strict=True)] == [in_full, in_full]
