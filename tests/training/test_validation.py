"""Both objectives against a direct computation of the kit's correlation."""

from typing import Any

import numpy as np
import pytest
import torch

from sensorium_models.inference import predict_trial
from sensorium_models.networks.build import animal_facts, build_encoder
from sensorium_models.networks.inputs import to_device
from sensorium_models.recordings.clips import whole_trial
from sensorium_models.recordings.store import Recording
from sensorium_models.training.feeding import member_trials, random_clips
from sensorium_models.training.validation import ClipObjective, WholeTrialObjective

CPU = torch.device("cpu")


def kit_correlation(response: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """get_correlations of the released kit, for one animal: (frames, N) each."""
    y = (response - response.mean(0)) / (response.std(0) + 1e-8)
    o = (prediction - prediction.mean(0)) / (prediction.std(0) + 1e-8)
    return (y * o).mean(0)


@pytest.fixture
def bench(laboratory: Any, shrunk: Any) -> Any:
    system = shrunk(readout_settings={"positions": "random"})
    recordings = {animal: Recording(path) for animal, path in laboratory.stores.items()}
    facts = {animal: animal_facts(r, system) for animal, r in recordings.items()}
    trials = member_trials(laboratory.splits, "seed3", ["A", "B"])
    return system, recordings, build_encoder(system, facts, seed=1).train(), trials.select


def clips_of(bench: Any, seed: int = 3) -> Any:
    system, recordings, _, select = bench
    return random_clips(
        recordings,
        select,
        recipe=system.recipe,
        caps={"A": None, "B": None},
        seed=seed,
        purpose="select",
        sequential=True,
    )


def test_clips_count_by_their_last_frames_pooled_over_neurons(bench: Any) -> None:
    _, _, encoder, select = bench
    values = []
    for animal, clips in clips_of(bench).items():
        batches = [clips.next_batch() for _ in range(clips.batches_per_epoch)]
        assert [t for b in batches for t in b.trial.tolist()] == select[animal].tolist()
        with torch.no_grad():
            pairs = [
                (
                    encoder.inputs[animal].responses(to_device(batch, CPU))[:, -5:].flatten(0, 1),
                    encoder.eval()(to_device(batch, CPU))[:, -5:].flatten(0, 1),
                )
                for batch in batches
            ]
        response, rates = (
            np.concatenate(part).astype(np.float64) for part in zip(*pairs, strict=True)
        )
        values.append(kit_correlation(response, rates))
    encoder.train()
    objective = ClipObjective(encoder, device=CPU, clips=clips_of(bench), frames=5)
    before = torch.get_rng_state()
    # The reference and the sums differ by float64 rounding only.
    assert objective() == pytest.approx(np.concatenate(values).mean(), abs=1e-12)
    assert encoder.training
    assert torch.equal(torch.get_rng_state(), before)


def test_clips_are_new_ones_every_time_and_can_be_restored(bench: Any) -> None:
    encoder = bench[2]
    objective = ClipObjective(encoder, device=CPU, clips=clips_of(bench), frames=5)
    first, state = objective(), objective.state()
    second, third = objective(), objective()
    assert len({first, second, third}) == 3
    other = ClipObjective(encoder, device=CPU, clips=clips_of(bench), frames=5)
    other.restore(state)
    assert (other(), other()) == (second, third)


def test_whole_trials_count_by_their_scored_frames(bench: Any) -> None:
    system, recordings, encoder, select = bench
    objective = WholeTrialObjective(
        encoder,
        device=CPU,
        system=system,
        recordings=recordings,
        trials=select,
        caps={"A": 28, "B": None},
        first_frame=8,
        drop_last_frames=1,
    )
    values = []
    for animal, cap, frames in (("A", 28, 27), ("B", None, 29)):
        response, rates = [], []
        for trial in select[animal]:
            clip = to_device(
                whole_trial(recordings[animal], trial, cap_frames=cap, responses=True), CPU
            )
            response.append(encoder.inputs[animal].responses(clip)[0, 8:frames].numpy())
            predicted = predict_trial(
                encoder, recordings[animal], trial, system=system, cap_frames=cap
            )
            rates.append(predicted[8 - encoder.history_frames : frames - encoder.history_frames])
            assert len(rates[-1]) == len(response[-1]) == frames - 8
        values.append(
            kit_correlation(
                np.concatenate(response).astype(np.float64),
                np.concatenate(rates).astype(np.float64),
            )
        )
    assert objective() == objective() == pytest.approx(np.concatenate(values).mean(), abs=1e-12)
    assert encoder.training
    assert objective.state() == {}


def test_an_interruption_leaves_the_network_in_training(bench: Any) -> None:
    encoder = bench[2]
    objective = ClipObjective(encoder, device=CPU, clips=clips_of(bench), frames=5)

    def interrupt() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        objective(interrupt=interrupt)
    assert encoder.training
