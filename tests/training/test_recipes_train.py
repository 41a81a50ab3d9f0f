"""Every published recipe trains, improves, restarts bit for bit and leaves a complete record."""

import csv
import hashlib
import json
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch._dynamo.exc import TorchDynamoException

from sensorium_models.configuration import read_yaml
from sensorium_models.networks.cores.viv1t_causal import CausalViV1TCore
from sensorium_models.systems import SYSTEMS_FOLDER
from sensorium_models.training.checkpoints import CheckpointError
from sensorium_models.training.feeding import TrainingError
from sensorium_models.training.process import Preempted

pytestmark = pytest.mark.slow

RECIPES = ["dwiseneuro", "dynamic_v1fm", "factorized_baseline", "viv1t", "viv1t_2025"]


class Killed(Exception):
    """Stands for a process that is gone without notice."""


def history(folder: Path) -> list[dict[str, str]]:
    timed = ("frames_per_second", "seconds", "waiting_seconds")
    with (folder / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [{key: value for key, value in row.items() if key not in timed} for row in rows]


def outcome(folder: Path) -> tuple:
    """What must not depend on how often a training was interrupted."""
    weights = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    record = json.loads((folder / "run.json").read_text())
    keys = ("best_epoch", "best_objective", "clips_seen", "unlearned_oracle", "finished_because")
    return weights, history(folder), [record[key] for key in keys]


def killed_after(count: int) -> Any:
    """A `stop` that survives so many calls."""
    calls = []

    def stop(what: str) -> None:
        calls.append(what)
        if len(calls) > count:
            raise Killed(what)

    return stop


@pytest.fixture(scope="module")
def whole(laboratory: Any, of_recipe: Any, train: Any, tmp_path_factory: Any) -> Any:
    """The uninterrupted member of a recipe."""
    made: dict[str, Path] = {}

    def member(recipe: str) -> Path:
        if recipe not in made:
            folder = tmp_path_factory.mktemp(recipe)
            made[recipe] = train(laboratory, folder, of_recipe(recipe))
        return made[recipe]

    return member


LONGER = {
    # The laboratory's neurons follow the frame before, which stacks of every other frame leave out.
    "dwiseneuro": {"frame_step": 1, "samples_per_epoch": 96, "schedule": {"max_epochs": 10}},
    "dynamic_v1fm": {"schedule": {"max_epochs": 8, "constant_epochs": 6}},
    "factorized_baseline": {"optimizer": {"learning_rate": 0.02}, "schedule": {"max_epochs": 12}},
    "viv1t": {"schedule": {"max_epochs": 12, "patience_epochs": 4}},
    "viv1t_2025": {"schedule": {"max_epochs": 8}},
}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_improves(flickering: Any, of_recipe: Any, train: Any, tmp_path: Path, recipe: str) -> None:
    folder = train(flickering, tmp_path, of_recipe(recipe, **LONGER[recipe]))
    course = [float(row["objective"]) for row in history(folder)]
    # Neurons and network share the flicker, so the mean is no surer than one neuron: 11 trials x 5
    # frames at least, a standard error of 0.13.
    assert max(course[1:]) > max(course[0], 0) + 0.4


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("survived", [2, 9])
def test_killed_it_ends_as_if_it_had_not_been(
    laboratory: Any,
    of_recipe: Any,
    train: Any,
    whole: Any,
    tmp_path: Path,
    recipe: str,
    survived: int,
) -> None:
    system = of_recipe(recipe)
    with pytest.raises(Killed):
        train(laboratory, tmp_path, system, checkpoint_minutes=0.0, stop=killed_after(survived))
    train(laboratory, tmp_path, system)
    assert outcome(tmp_path / "member") == outcome(whole(recipe))


@pytest.mark.parametrize("recipe", RECIPES)
def test_record_is_complete(whole: Any, of_recipe: Any, recipe: str) -> None:
    folder = whole(recipe)
    record = json.loads((folder / "run.json").read_text())
    assert record["system"] == of_recipe(recipe).model_dump(mode="json")
    assert record["clips_seen"] > 0
    assert record["unlearned_oracle"]["trials"] == {"A": 6, "B": 5}
    assert -1 < record["unlearned_oracle"]["correlation"] < 1
    assert record["processes"] == 1
    assert record["gpu_seconds"] == 0
    assert record["energy_joules"] is None
    # Of the code: the commit with a mark of changes, its digest, and the packages below it.
    assert re.fullmatch("[0-9a-f]{40}", record["environment"]["git"]["commit"])
    assert record["environment"]["git"]["dirty"] in (True, False)
    assert record["sources"] == record["fingerprint"]["content"]["sources"] == "0f" * 8
    packages = record["environment"]["packages"]
    assert packages["torch"] == torch.__version__
    assert {"numpy", "h5py", "lightning-fabric", "schedulefree", "safetensors"} <= set(packages)
    with (folder / "history.csv").open() as file:
        seconds = sum(float(row["seconds"]) for row in list(csv.DictReader(file))[1:])
    assert record["frames_per_second"] == pytest.approx(record["frames_seen"] / seconds)
    assert len(list((folder / "events").glob("events.out.tfevents.*"))) == 1
    assert len(history(folder)) == record["epochs"] + 1


@pytest.mark.parametrize("recipe", ["dwiseneuro", "viv1t_2025"])
def test_told_to_stop_while_other_weights_are_judged(
    laboratory: Any, of_recipe: Any, train: Any, whole: Any, tmp_path: Path, recipe: str
) -> None:
    """The checkpoint has the weights that are trained, not the averages that are judged."""
    seen: list[str] = []

    def stop(what: str) -> None:
        seen.append(what)
        if seen[-2:] == ["validation", "validation"]:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Preempted):
        train(laboratory, tmp_path, of_recipe(recipe), stop=stop)
    train(laboratory, tmp_path, of_recipe(recipe))
    assert outcome(tmp_path / "member") == outcome(whole(recipe))


@pytest.mark.slow
def test_processes_that_read_change_no_result(
    laboratory: Any, of_recipe: Any, train: Any, whole: Any, tmp_path: Path
) -> None:
    member = train(laboratory, tmp_path, of_recipe("dwiseneuro"), data_workers=2)
    assert outcome(member) == outcome(whole("dwiseneuro"))


def test_a_student_learns_from_its_teacher(
    laboratory: Any, of_recipe: Any, train: Any, whole: Any, tmp_path: Path
) -> None:
    teacher = whole("dwiseneuro")
    distillation = {"teacher": {"stage": "basic"}, "ratio": 0.36}
    student = of_recipe("dwiseneuro", distillation=distillation)
    with pytest.raises(TrainingError, match="needs its teacher"):
        train(laboratory, tmp_path, student)
    with pytest.raises(TrainingError, match="learns from no teacher"):
        train(laboratory, tmp_path, of_recipe("dwiseneuro"), teacher=teacher)
    with pytest.raises(Killed):
        train(
            laboratory,
            tmp_path,
            student,
            teacher=teacher,
            checkpoint_minutes=0.0,
            stop=killed_after(4),
        )
    other = tmp_path / "other"
    shutil.copytree(teacher, other)
    weights = load_file(other / "weights.safetensors")
    save_file({name: 2 * values for name, values in weights.items()}, other / "weights.safetensors")
    with pytest.raises(CheckpointError, match=r"teacher\.weights"):
        train(laboratory, tmp_path, student, teacher=other)
    member = train(laboratory, tmp_path, student, teacher=teacher)
    record = json.loads((member / "run.json").read_text())
    digest = hashlib.sha256((teacher / "weights.safetensors").read_bytes()).hexdigest()
    assert record["teacher"] == {"member": "member", "weights": digest}
    assert outcome(member) != outcome(teacher)


def test_compiling_is_asked_for_the_core(
    laboratory: Any, of_recipe: Any, train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[str] = []
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self: compiled.append(type(self).__name__)
    )
    with pytest.raises(Killed):
        train(laboratory, tmp_path, of_recipe("viv1t_2025", compile=True), stop=killed_after(1))
    assert compiled == ["FactorizedCore"]


def test_without_a_compiler_a_recipe_that_compiles_says_so(
    laboratory: Any, of_recipe: Any, train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compile_later(self: torch.nn.Module) -> None:
        def fail(*inputs: Any) -> Any:  # as inductor does at the first use
            raise TorchDynamoException("InvalidCxxCompiler: No working C++ compiler found\n\nSet")

        monkeypatch.setattr(self, "forward", fail)

    monkeypatch.setattr(torch.nn.Module, "compile", compile_later)
    message = r"recipe\.compile: .* \(InvalidCxxCompiler: [^\n]*set recipe: \{compile: false\}"
    with pytest.raises(TrainingError, match=message):
        train(laboratory, tmp_path, of_recipe("viv1t_2025", compile=True))


@pytest.mark.faults  # a minute of compiling on one core
@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="needs a C++ compiler")
def test_a_compiled_transformer_learns_the_same() -> None:
    """Of viv1t_2025 the core that ships with `compile: true`: tiny, loss and gradient."""
    shipped = read_yaml(SYSTEMS_FOLDER / "viv1t_2025.yaml")
    tiny = {
        "channels": 6,
        "patch_frames": 3,
        "patch_pixels": 4,
        "heads": 2,
        "head_channels": 4,
        "feedforward_channels": 5,
        "spatial_blocks": 0,  # of the same blocks, to compile in half the time
        "temporal_blocks": 1,
        "registers": 2,
        "nominal_clip_frames": 6,
        # Compiled code draws other random numbers.
        **dict.fromkeys(("patch_dropout", "attention_dropout"), 0.0),
        **dict.fromkeys(("feedforward_dropout", "drop_path"), 0.0),
    }
    torch.manual_seed(1)
    settings = {**shipped["core_settings"], **tiny}
    core = CausalViV1TCore(in_channels=2, frame_shape=(8, 9), **settings)
    x, aim = torch.randn(1, 2, 6, 8, 9), torch.randn(1)

    def loss_and_gradient() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        core.zero_grad()
        loss = (core(x) - aim).square().mean()
        loss.backward()
        learned = {n: p.grad.clone() for n, p in core.named_parameters() if p.grad is not None}
        return loss.detach(), learned

    loss, gradient = loss_and_gradient()
    core.compile()
    again, compiled = loss_and_gradient()
    torch.testing.assert_close(again, loss, rtol=1e-5, atol=0)
    assert compiled.keys() == gradient.keys()
    for name, values in gradient.items():
        # Float32 sums in another order; of gradients that cancel, a part of the largest remains.
        torch.testing.assert_close(compiled[name], values, rtol=1e-4, atol=1e-5)
