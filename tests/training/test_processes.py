"""Two processes on one member: the result of one up to rounding, and one clean end."""

import json
import os
import signal
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.multiprocessing import ProcessExitedException

from sensorium_models.networks.build import build_encoder
from sensorium_models.recordings.store import Recording
from sensorium_models.training.facts import recorded_facts
from sensorium_models.training.feeding import TrainingError, member_trials
from sensorium_models.training.process import PREEMPTED, Preempted, forwarding, reporting
from sensorium_models.training.processes import OwnShare, make_fabric
from sensorium_models.training.sampling import make_feed
from sensorium_models.training.steps import Gradients
from tests import tiny

LINEAR = {"readout_settings": {"history_frames": 2}}
# With dropout and a core that all animals share.
TRANSFORMER = {
    "core_settings": {**tiny.ATTENTION, "patch_frames": 3},
    "recipe": {"precision": "float32"},
}


def interrupt_first(what: str) -> None:
    """As `stop`: the first process is told to stop, the other is not."""
    if what == "step" and os.environ.get("LOCAL_RANK", "0") == "0":
        os.kill(os.getpid(), signal.SIGUSR1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings"), [("linear_nonlinear", LINEAR), ("viv1t", TRANSFORMER)]
)
def test_two_processes_give_the_result_of_one(
    laboratory: Any, shrunk: Any, train: Any, tmp_path: Path, name: str, settings: dict[str, Any]
) -> None:
    system = shrunk(name, **settings)
    one = train(laboratory, tmp_path / "one", system)
    two = train(laboratory, tmp_path / "two", system, processes=2)
    first, second = (json.loads((folder / "run.json").read_text()) for folder in (one, two))
    assert second["processes"] == 2
    for key in ("epochs", "steps", "clips_seen", "frames_seen", "best_epoch", "trials"):
        assert first[key] == second[key], key
    # Two sums of float32 gradients in another order, three epochs of four steps.
    assert second["best_objective"] == pytest.approx(first["best_objective"], abs=1e-4)
    weights = [load_file(folder / "weights.safetensors") for folder in (one, two)]
    for name, values in weights[0].items():
        np.testing.assert_allclose(weights[1][name], values, rtol=1e-3, atol=1e-5, err_msg=name)


def test_a_step_of_one_batch_is_not_divided(of_recipe: Any) -> None:
    for recipe in ("dynamic_v1fm", "dwiseneuro"):
        with pytest.raises(TrainingError, match="is not divided between 2 processes"):
            make_fabric(torch.device("cpu"), of_recipe(recipe).recipe, processes=2)


def test_a_job_of_two_tasks_is_one_training_of_two_processes(
    shrunk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`salloc -n 2` around the workflow: nothing but this process will start the other one."""
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.setenv("SLURM_PROCID", "1")
    recipe = shrunk("linear_nonlinear", **LINEAR).recipe
    fabric = make_fabric(torch.device("cpu"), recipe, processes=2)
    assert fabric.global_rank == 0
    assert fabric.strategy.launcher is not None


def test_batch_statistics_are_not_divided_unasked(laboratory: Any, shrunk: Any) -> None:
    recordings = {animal: Recording(path) for animal, path in laboratory.stores.items()}
    system = shrunk()
    encoder = build_encoder(system, recorded_facts(system, recordings, ["A", "B"]), seed=1)
    two = SimpleNamespace(world_size=2)

    def gradients(recipe: Any) -> Gradients:
        return Gradients(encoder, recipe=recipe, counts={}, fabric=two, seed=1, teacher=None)

    with pytest.raises(TrainingError, match="of which each of 2 processes sees a part"):
        gradients(system.recipe)
    gradients(shrunk(recipe={"allow_inexact_split": True}).recipe)


def test_shares_of_a_cycle_make_the_whole(laboratory: Any, shrunk: Any) -> None:
    recordings = {animal: Recording(path) for animal, path in laboratory.stores.items()}
    trials = member_trials(laboratory.splits, "seed3", ["A", "B"])
    recipe = shrunk().recipe

    def cycle() -> Any:
        caps = dict.fromkeys(("A", "B"))
        return make_feed(recipe, recordings, trials.train, caps=caps, seed=3).sampler

    whole, shares = cycle(), {animal: OwnShare(cycle(), [animal]) for animal in ("A", "B")}
    for _ in range(6):
        for animal, share in shares.items():
            expected, found = whole.next_places(), share.next_places()
            assert found.animal == expected.animal == (animal,) * len(found.animal)
            assert found.start.tolist() == expected.start.tolist()
        assert shares["A"].state() == shares["B"].state() == whole.state()
    other = OwnShare(cycle(), ["B"])
    other.restore(shares["A"].state())
    assert other.next_places().start.tolist() == shares["B"].next_places().start.tolist()


@pytest.mark.slow
def test_two_processes_stop_together_and_go_on_as_one(
    laboratory: Any, shrunk: Any, train: Any, tmp_path: Path
) -> None:
    system = shrunk("linear_nonlinear", **LINEAR)
    with pytest.raises(Preempted) as caught:
        train(laboratory, tmp_path, system, processes=2, stop=interrupt_first)
    assert caught.value.code == PREEMPTED
    assert not (tmp_path / "member").exists()
    # The process that was not told waits until the other has written the checkpoint.
    assert (tmp_path / "running" / "seed3.ckpt").exists()
    train(laboratory, tmp_path, system)
    record = json.loads((tmp_path / "member" / "run.json").read_text())
    assert len(record["machines"]) == 2
    assert record["epochs"] == 3


@pytest.mark.slow
def test_what_goes_wrong_in_one_of_two_processes_arrives_as_its_sentence(
    laboratory: Any, shrunk: Any, train: Any, tmp_path: Path
) -> None:
    far = {"optimizer": {"learning_rate": 1e6}}  # rates overflow after the first step
    system = shrunk("linear_nonlinear", **LINEAR, recipe=far)
    with pytest.raises(TrainingError, match=r"^The loss [^\n]* in epoch 1, step \d, at animal"):
        train(laboratory, tmp_path, system, processes=2)


def test_an_error_travels_as_it_is_or_as_its_sentence() -> None:
    class Odd(ValueError):  # is not found by its name
        pass

    def fails(error: Exception) -> None:
        with forwarding(True) as errors:
            with suppress(type(error)), reporting(errors):
                raise error
            raise ProcessExitedException("another", error_index=0, error_pid=1, exit_code=1)

    for error, expected in (
        (TrainingError("lower it"), TrainingError),
        (OSError(28, "No space left on device"), OSError),
        (Odd("mend it"), ValueError),
    ):
        with pytest.raises(expected) as caught:
            fails(error)
        assert type(caught.value) is expected
        assert str(caught.value) == str(error)
