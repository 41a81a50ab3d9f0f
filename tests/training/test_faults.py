"""A training may be killed anywhere, also while its checkpoint is written: it ends as if not.

Processes are forked and really killed (SIGKILL, or SIGXFSZ in the middle of a write). A few kills
of every recipe run always, hundreds with `make test-faults`.
"""

import csv
import hashlib
import json
import multiprocessing
import os
import resource
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from sensorium_models.recordings.store import Recording
from sensorium_models.training.checkpoints import CheckpointFile
from sensorium_models.training.feeding import member_trials
from sensorium_models.training.processes import make_fabric
from sensorium_models.training.state import Training

RECIPES = ["dwiseneuro", "dynamic_v1fm", "factorized_baseline", "viv1t", "viv1t_2025"]
FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Fault:
    """Where a process dies: at the so many-th step, validation, epoch, sync or rename, or when a
    file of a checkpoint grows beyond so many KiB."""

    kind: str
    count: int


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def live_until(fault: Fault | None, train: Callable[..., Any]) -> None:
    """Body of a process: train, and die of the fault on the way."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    left = -1 if fault is None else fault.count

    def counted() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            die()

    def stop(what: str) -> None:
        if fault is not None and what == fault.kind:
            counted()

    if fault is not None and fault.kind == "size":
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024 * fault.count,) * 2)
    for kind, place, name in (("sync", os, "fsync"), ("rename", Path, "replace")):
        if fault is not None and fault.kind == kind:
            original = getattr(place, name)

            def dying(*arguments: Any, original: Any = original) -> Any:
                counted()
                return original(*arguments)

            setattr(place, name, dying)
    train(stop=stop)


def survive(folder: Path, faults: list[Fault], train: Callable[..., Any]) -> int:
    """Start processes until the member is there, one for every fault; how many were killed."""
    killed = 0
    for fault in [*faults, None]:
        process = FORK.Process(target=live_until, args=(fault, train))
        process.start()
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode in (-signal.SIGKILL, -signal.SIGXFSZ), (fault, process.exitcode)
        killed += 1
    assert (folder / "member" / "run.json").exists()
    assert not list(folder.glob("running/*"))
    return killed


def outcome(folder: Path) -> tuple:
    """What must not depend on how often a training was interrupted."""
    weights = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    record = json.loads((folder / "run.json").read_text())
    keys = ("best_epoch", "best_objective", "clips_seen", "unlearned_oracle", "finished_because")
    timed = ("frames_per_second", "seconds", "waiting_seconds")
    with (folder / "history.csv").open() as file:
        rows = [{k: v for k, v in row.items() if k not in timed} for row in csv.DictReader(file)]
    return weights, rows, [record[key] for key in keys]


@pytest.fixture(scope="module")
def arena(laboratory: Any, of_recipe: Any, train: Any, tmp_path_factory: Any) -> Any:
    """Run a recipe through faults and compare with the run without any."""
    expected: dict[str, tuple] = {}

    def fight(recipe: str, faults: list[Fault]) -> int:
        system = of_recipe(recipe)
        if recipe not in expected:
            whole = tmp_path_factory.mktemp("whole")
            train(laboratory, whole, system)
            expected[recipe] = outcome(whole / "member")
        folder = tmp_path_factory.mktemp("cut")

        def here(**more: Any) -> Any:
            return train(laboratory, folder, system, checkpoint_minutes=0.0, **more)

        killed = survive(folder, faults, here)
        assert outcome(folder / "member") == expected[recipe]
        return killed

    return fight


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_killed_while_the_checkpoint_is_written(arena: Any, recipe: str) -> None:
    # Half a file; a whole file not yet in place, and the older one already aside; while judging.
    faults = [Fault("size", 20), Fault("sync", 3), Fault("rename", 4), Fault("validation", 5)]
    assert arena(recipe, faults) == len(faults)


KINDS = st.sampled_from(["step", "validation", "epoch", "sync", "rename", "size"])
FAULTS = st.lists(st.builds(Fault, KINDS, st.integers(1, 60)), min_size=1, max_size=5)


@pytest.mark.faults
@pytest.mark.parametrize("part", range(8))
@pytest.mark.parametrize("recipe", RECIPES)
def test_killed_hundreds_of_times(arena: Any, recipe: str, part: int) -> None:
    @seed(part)
    @settings(
        max_examples=6,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(FAULTS)
    def fight(faults: list[Fault]) -> None:
        arena(recipe, faults)

    fight()


def training_of(laboratory: Any, system: Any) -> Training:
    return Training(
        system=system,
        seed=3,
        recordings={animal: Recording(path) for animal, path in laboratory.stores.items()},
        trials=member_trials(laboratory.splits, "seed3", ["A", "B"]),
        fabric=make_fabric(torch.device("cpu"), system.recipe, processes=1),
        scored=(8, 30, 1),
        fresh=True,
    )


def advance(training: Training, steps: int) -> None:
    """So many steps, ending epochs on the way."""
    for _ in range(steps):
        if training.step == training.steps_per_epoch:
            training.end_epoch(objective=training.evaluate())
        training.take_step()


def equal(first: Any, second: Any) -> bool:
    """Equal to the last bit, whatever they are made of."""
    if isinstance(first, torch.Tensor):
        return first.dtype == second.dtype and torch.equal(first.cpu(), second.cpu())
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(equal(first[k], second[k]) for k in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(equal, first, second))
    return bool(first == second)


def untimed(state: dict[str, Any]) -> dict[str, Any]:
    timed = ("seconds", "waiting", "waiting_seconds", "frames_per_second")
    state = {key: value for key, value in state.items() if key != "usage"}
    state["epoch"] = {k: v for k, v in state["epoch"].items() if k not in timed}
    state["history"] = [
        {key: value for key, value in row.items() if key not in timed} for row in state["history"]
    ]
    return state


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_everything_comes_back_to_the_last_bit(
    laboratory: Any, of_recipe: Any, tmp_path: Path, recipe: str
) -> None:
    """Weights, averages, optimiser, scaler, norms, schedule, position: the whole state."""
    system = of_recipe(recipe)
    saved = CheckpointFile(tmp_path / "state", configuration={})
    whole = training_of(laboratory, system)
    whole.begin()
    first = training_of(laboratory, system)
    first.begin()
    done = 0
    for steps in (3, 4, 2):
        advance(first, steps)
        done += steps
        saved.save(first.state())
        first.close()
        first = training_of(laboratory, system)
        torch.manual_seed(done)
        state = saved.load()
        assert state is not None
        first.restore(state)
    advance(whole, done)
    assert equal(untimed(first.state()), untimed(whole.state()))
    for training in (first, whole):
        training.close()
