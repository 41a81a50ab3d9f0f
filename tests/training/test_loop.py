"""The loop: it learns, does what the card says, leaves a complete record, and can be killed."""

import csv
import hashlib
import json
import os
import shutil
import signal
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from tensorboardX.proto.event_pb2 import Event

from sensorium_models.networks.devices import repeatable
from sensorium_models.networks.encoder import Encoder
from sensorium_models.networks.inputs import to_device
from sensorium_models.networks.members import load_encoder
from sensorium_models.recordings.several_animals import AnimalCycle
from sensorium_models.recordings.splits import read_splits, trial_digests
from sensorium_models.recordings.store import Recording
from sensorium_models.training import steps
from sensorium_models.training.checkpoints import CheckpointError, CheckpointFile
from sensorium_models.training.feeding import (
    TrainingError,
    member_trials,
    random_clips,
    stream_seed,
)
from sensorium_models.training.losses import PoissonLoss, TrialCounts
from sensorium_models.training.process import Preempted
from sensorium_models.training.processes import make_fabric
from sensorium_models.training.state import Training

UNTIMED = ("epoch", "round", "learning_rate", "train_loss", "objective", "best")


class Killed(Exception):
    """Stands for a process that is gone without notice."""


def history(folder: Path) -> list[dict[str, str]]:
    with (folder / "history.csv").open() as file:
        return [{key: row[key] for key in UNTIMED} for row in csv.DictReader(file)]


def tensorboard_scalars(folder: Path) -> list[tuple[str, int, float]]:
    """What TensorBoard would show of a folder: tag, step and value, as they were written."""
    (path,) = folder.glob("events.out.tfevents.*")
    content, found = path.read_bytes(), []
    while content:  # length, its checksum, an event, its checksum
        length = int.from_bytes(content[:8], "little")
        event = Event.FromString(content[12 : 12 + length])
        found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
        content = content[16 + length :]
    return found


def run(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())


def outcome(folder: Path) -> tuple:
    """What must not depend on how often a training was interrupted."""
    weights = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    record = run(folder)
    keys = ("best_epoch", "best_objective", "frames_seen", "epochs", "finished_because", "seed")
    return weights, history(folder), [record[key] for key in keys]


def training_of(laboratory: Any, system: Any, animals: tuple[str, ...] = ("A", "B")) -> Training:
    return Training(
        system=system,
        seed=3,
        recordings={animal: Recording(laboratory.stores[animal]) for animal in animals},
        trials=member_trials(laboratory.splits, "seed3", animals),
        fabric=make_fabric(torch.device("cpu"), system.recipe, processes=1),
        scored=(8, 30, 1),
        fresh=True,
    )


@pytest.fixture(scope="module")
def finished(laboratory: Any, shrunk: Any, train: Any, tmp_path_factory: Any) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stderr", (folder / "log").open("w"))
        return train(laboratory, folder, shrunk())


@pytest.mark.parametrize(
    ("name", "frames"),
    [("factorized_baseline", "clips"), ("linear_nonlinear", "whole_trials")],
)
def test_learns(
    flickering: Any, shrunk: Any, train: Any, tmp_path: Path, name: str, frames: str
) -> None:
    system = shrunk(
        name,
        recipe={
            "optimizer": {"learning_rate": 0.02},
            "schedule": {"max_epochs": 15},
            "validation": {"frames": frames},
        },
        # The penalties of the system's file are meant for recordings of a hundred trials and more.
        readout_settings={
            "history_frames": 2,
            "spatial_smoothness": 100.0,
            "temporal_smoothness": 30.0,
            "weight_penalty": 10.0,
        }
        if frames == "whole_trials"
        else {"sigma_range": 0.1},
    )
    folder = train(flickering, tmp_path, system)
    course = [float(row["objective"]) for row in history(folder)]
    # An untrained network correlates by chance only. Neurons and network share the flicker, so that
    # the mean is no surer than one neuron: 11 trials x 5 frames, a standard error of 0.13.
    assert course[0] < 0.4
    assert max(course) > 0.5
    assert run(folder)["best_objective"] == max(course)


def test_record_is_complete(laboratory: Any, finished: Path, shrunk: Any) -> None:
    record = run(finished)
    assert record["system"] == shrunk().model_dump(mode="json")
    assert (record["member"], record["axes"]) == ("seed3", {"seed": 3})
    assert record["training_set"] == "clean"
    assert record["animals"] == ["A", "B"]
    digests = {animal: Recording(path).digest for animal, path in laboratory.stores.items()}
    assert record["recordings"] == digests
    assert record["fingerprint"] == {"digest": "abc", "content": {"sources": "0f" * 8}}
    assert record["frames_per_second"] > 0
    rows = history(finished)
    assert [row["epoch"] for row in rows] == ["0", "1", "2", "3"]
    assert rows[0]["train_loss"] == ""
    assert record["epochs"] == 3
    assert record["steps"] == 12
    # 4 steps x (4 + 4 + 4 + 2 clips of A in a pass of 14; 4 + 2 + 4 + 2 of B's 6) x 16 frames
    assert record["frames_seen"] == 3 * (14 + 12) * 16
    best = max(rows, key=lambda row: float(row["objective"]))
    assert record["best_epoch"] == int(best["epoch"])
    assert record["best_objective"] == float(best["objective"])
    assert record["finished_because"] == "3 epochs were over"
    encoder = load_encoder(finished, laboratory.stores)
    assert record["parameters"] == sum(p.numel() for p in encoder.parameters())
    assert record["wall_seconds"] > 0
    assert record["peak_memory_mb"]["host"] > 50
    assert record["threads"] == 1
    assert record["device"] == "cpu"
    assert len(record["machines"]) == 1
    assert record["environment"]["python"]
    log = (finished.parent / "log").read_text()
    assert log.count(" epoch ") == 4
    assert "frames/s" in log


def test_tensorboard_shows_the_history_once(finished: Path) -> None:
    shown = tensorboard_scalars(finished / "events")
    assert len({(tag, epoch) for tag, epoch, _ in shown}) == len(shown)
    with (finished / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    kept = {
        (tag, int(row["epoch"])): float(value)
        for row in rows
        for tag, value in row.items()
        if tag != "epoch" and value
    }
    # TensorBoard keeps single precision.
    assert kept == pytest.approx({(t, e): v for t, e, v in shown}, rel=1e-6)


def test_the_best_epoch_is_what_is_left(laboratory: Any, finished: Path, shrunk: Any) -> None:
    """The stored weights give the recorded best objective on the clips of that evaluation."""
    record = run(finished)
    training = training_of(laboratory, shrunk())
    for _ in range(record["best_epoch"]):
        training.evaluate()
    training.encoder.load_state_dict(load_file(finished / "weights.safetensors"))
    assert training.evaluate() == record["best_objective"]
    training.close()


def test_twice_the_same_and_another_seed_differs(
    laboratory: Any, finished: Path, shrunk: Any, train: Any, tmp_path: Path
) -> None:
    assert outcome(train(laboratory, tmp_path / "again", shrunk())) == outcome(finished)
    other = train(laboratory, tmp_path / "other", shrunk(), axes={"seed": 4})
    assert outcome(other)[1] != outcome(finished)[1]


def test_one_step_sums_the_gradients_of_all_animals(
    laboratory: Any, shrunk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = shrunk()
    training = training_of(laboratory, system)
    reference = training_of(laboratory, system)
    # The same noise and clips, one backward pass for the explicit sum of the losses.
    caps = {"A": 30, "B": 30}
    recordings = {animal: Recording(path) for animal, path in laboratory.stores.items()}
    trials = member_trials(laboratory.splits, "seed3", ["A", "B"])
    cycle = AnimalCycle(
        random_clips(
            recordings, trials.train, recipe=system.recipe, caps=caps, seed=3, purpose="train"
        )
    )
    loss, encoder = PoissonLoss(system.recipe.loss), reference.encoder
    total = torch.zeros(())
    for animal, trials_in_all in (("A", 22), ("B", 13)):  # train, oracle and none
        counts = TrialCounts(trials_in_all, training=0, training_of_all=0, animals=2)
        torch.manual_seed(stream_seed(3, f"noise/0/{animal}"))
        clip = to_device(cycle.next_batch(), "cpu")
        assert clip.animal[0] == animal
        target = encoder.inputs[animal].responses(clip)[:, -14:]  # history of two frames
        total = total + loss(encoder(clip), target, counts=counts)
        total = total + encoder.regularizer(animal)
    total.backward()
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=0.005, eps=1e-8, weight_decay=0.01)
    optimizer.step()

    called = {"backward": 0, "regularizer": 0}
    backward, regularizer = torch.Tensor.backward, Encoder.regularizer

    def counted_backward(self: torch.Tensor, *arguments: Any, **keywords: Any) -> Any:
        called["backward"] += 1
        return backward(self, *arguments, **keywords)

    def counted_regularizer(self: Encoder, animal: str) -> torch.Tensor:
        called["regularizer"] += 1
        return regularizer(self, animal)

    monkeypatch.setattr(torch.Tensor, "backward", counted_backward)
    monkeypatch.setattr(Encoder, "regularizer", counted_regularizer)
    before = {name: values.clone() for name, values in training.encoder.state_dict().items()}
    training.take_step()
    assert called == {"backward": 2, "regularizer": 2}
    found, expected = training.encoder.state_dict(), encoder.state_dict()
    moved = 0
    for name, values in expected.items():
        # Order of summation differs. AdamW's first step is +-lr wherever the gradient is clear of
        # eps, so rounding shows only where the gradient itself is rounding: the biases of
        # convolutions that batch norm follows.
        if name.startswith("core.") and name.endswith(("spatial.bias", "temporal.bias")):
            continue
        torch.testing.assert_close(found[name], values, rtol=1e-3, atol=1e-5)
        moved += not torch.equal(values, before[name])
    assert moved > 15
    training.close()
    reference.close()


def test_starting_rates_are_the_mean_of_one_batch(laboratory: Any, shrunk: Any) -> None:
    system = shrunk()
    training = training_of(laboratory, system)
    recording = Recording(laboratory.stores["A"])
    trials = {"A": np.arange(14)}
    clips = random_clips(
        {"A": recording},
        trials,
        recipe=system.recipe,
        caps={"A": 30},
        seed=3,
        purpose="initial rates",
    )
    batch = clips["A"].next_batch()
    scale = 1 / recording.statistics("train", "responses", per_frame=False).std
    expected = (batch.responses.reshape(-1, 9) * scale).mean(0)
    bias = training.encoder.readouts["A"].bias.detach().numpy()
    np.testing.assert_allclose(bias, expected, rtol=1e-5)
    training.close()


def test_start_positions_reach_the_readout(laboratory: Any, shrunk: Any) -> None:
    training = training_of(laboratory, shrunk())
    # 12 x 14 pixels, kernels 3 and 3: the map's first feature looks at pixel 2, its last at -3.
    expected = (laboratory.pixels["B"][:, ::-1] - [6.5, 5.5]) / [4.5, 3.5]
    found = training.encoder.readouts["B"].mean_positions().detach().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    training.close()


@pytest.mark.slow
@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    kills=st.lists(st.integers(1, 20), min_size=1, max_size=4),
    minutes=st.sampled_from([0.0, 0.0005, 0.002]),
)
def test_killed_anywhere_it_ends_as_if_it_had_not_been(
    laboratory: Any,
    finished: Path,
    shrunk: Any,
    train: Any,
    tmp_path_factory: Any,
    kills: list[int],
    minutes: float,
) -> None:
    """Every entry of `kills` is a process that dies after so many steps, evaluations or epochs."""
    folder = tmp_path_factory.mktemp("killed")
    for survived in kills:
        count = 0

        def stop(what: str, survived: int = survived) -> None:
            nonlocal count
            count += 1
            if count > survived:
                torch.manual_seed(0)  # whatever the dead process did to its generators is gone
                raise Killed(what)

        try:
            train(laboratory, folder, shrunk(), checkpoint_minutes=minutes, stop=stop)
        except Killed:
            assert not (folder / "member").exists()
        else:
            break
    if not (folder / "member").exists():
        train(laboratory, folder, shrunk(), checkpoint_minutes=minutes)
    assert outcome(folder / "member") == outcome(finished)
    assert not list(folder.glob("running/*"))


def test_rounds_with_reloads_survive_kills(
    laboratory: Any, shrunk: Any, train: Any, tmp_path: Path
) -> None:
    schedule = {
        "max_epochs": 12,
        "rounds": 3,
        "patience_epochs": 1,
        "learning_rate_patience_epochs": 0,
        "tolerance": 0.05,
    }
    system = shrunk(recipe={"schedule": schedule})
    whole = train(laboratory, tmp_path / "whole", system)
    assert {row["round"] for row in history(whole)} == {"1", "2", "3"}
    interrupted = False
    while not (tmp_path / "cut" / "member").exists():
        count = 0

        def stop(what: str) -> None:
            nonlocal count
            count += 1
            # No place to go on from: an evaluation of six batches, or of eleven trials at the end.
            if count == 13:
                raise Killed(what)

        try:
            train(laboratory, tmp_path / "cut", system, checkpoint_minutes=0.0, stop=stop)
        except Killed:
            interrupted = True
    assert interrupted
    assert outcome(tmp_path / "cut" / "member") == outcome(whole)
    assert len(run(tmp_path / "cut" / "member")["machines"]) > 2


@pytest.mark.parametrize("moment", ["step", "validation", "epoch"])
def test_a_signal_ends_with_a_checkpoint_and_status_75(
    laboratory: Any, finished: Path, shrunk: Any, train: Any, tmp_path: Path, moment: str
) -> None:
    seen: list[str] = []

    def stop(what: str) -> None:
        # Not the evaluation before training: there is nothing to keep yet.
        if what == moment and seen:
            os.kill(os.getpid(), signal.SIGUSR1)
        seen.append(what)

    handler = signal.getsignal(signal.SIGUSR1)
    with pytest.raises(Preempted) as caught:
        train(laboratory, tmp_path, shrunk(), stop=stop)
    assert caught.value.code == 75
    assert signal.getsignal(signal.SIGUSR1) == handler
    assert (tmp_path / "running" / "seed3.ckpt").exists()
    more: list[str] = []
    train(laboratory, tmp_path, shrunk(), stop=more.append)
    assert more.count("step") == 12 - seen.count("step")  # nothing is done twice
    assert outcome(tmp_path / "member") == outcome(finished)


def test_a_torn_checkpoint_costs_only_time(
    laboratory: Any, finished: Path, shrunk: Any, train: Any, tmp_path: Path
) -> None:
    steps = 0

    def stop(what: str) -> None:
        nonlocal steps
        steps += what == "step"
        if steps == 6:
            raise Killed

    with pytest.raises(Killed):
        train(laboratory, tmp_path, shrunk(), checkpoint_minutes=0.0, stop=stop)
    checkpoint = tmp_path / "running" / "seed3.ckpt"
    os.truncate(checkpoint, checkpoint.stat().st_size // 2)
    train(laboratory, tmp_path, shrunk())
    assert outcome(tmp_path / "member") == outcome(finished)


def test_a_checkpoint_is_let_go_once_it_is_restored(
    laboratory: Any, shrunk: Any, train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(what: str) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Preempted):
        train(laboratory, tmp_path, shrunk(), stop=stop)
    read = CheckpointFile.load
    weights: list[weakref.ref] = []

    def load(self: CheckpointFile) -> Any:
        state = read(self)
        assert state is not None
        weights.extend(map(weakref.ref, state["encoder"].values()))
        return state

    def held(what: str) -> None:
        assert weights
        assert not any(tensor() is not None for tensor in weights)
        raise Killed

    monkeypatch.setattr(CheckpointFile, "load", load)
    with pytest.raises(Killed):
        train(laboratory, tmp_path, shrunk(), stop=held)


def test_a_checkpoint_of_another_recipe_is_refused(
    laboratory: Any, shrunk: Any, train: Any, tmp_path: Path
) -> None:
    def stop(what: str) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Preempted):
        train(laboratory, tmp_path, shrunk(), stop=stop)
    changed = shrunk(recipe={"optimizer": {"learning_rate": 0.001}})
    with pytest.raises(
        CheckpointError, match=r"system.recipe.optimizer.learning_rate: 0.005 there"
    ):
        train(laboratory, tmp_path, changed)
    fewer = laboratory.splits.drop(index=0)
    with pytest.raises(CheckpointError, match=r"\(trials.train.A: .* there, .* now\)"):
        train(laboratory, tmp_path, shrunk(), splits=fewer)
    assert not (tmp_path / "member").exists()


Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@pytest.fixture
def break_loss(monkeypatch: pytest.MonkeyPatch) -> Callable[[Loss], None]:
    """Have the loss of B in the second step of epoch 2 made of its value and the rates."""

    def install(broken: Loss) -> None:
        calls = 0

        class Breaking(PoissonLoss):
            def __call__(self, rates: torch.Tensor, *more: Any, **keywords: Any) -> torch.Tensor:
                nonlocal calls
                calls += 1
                value = super().__call__(rates, *more, **keywords)
                return broken(value, rates) if calls == 12 else value

        monkeypatch.setattr(steps, "PoissonLoss", Breaking)

    return install


def test_a_loss_that_is_not_finite_says_where(
    laboratory: Any, shrunk: Any, train: Any, tmp_path: Path, break_loss: Callable[[Loss], None]
) -> None:
    break_loss(lambda value, rates: value * float("nan"))
    pattern = (
        r"The loss became nan in epoch 2, step 2, at animal B, trials \d, \d, "
        r"with learning rate 0\.005\. The last checkpoint is kept"
    )
    with pytest.raises(TrainingError, match=pattern):
        train(laboratory, tmp_path, shrunk(), checkpoint_minutes=0.0)
    assert (tmp_path / "running" / "seed3.ckpt").exists()
    assert not (tmp_path / "member").exists()


@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
def test_no_step_is_taken_along_a_gradient_that_is_not_finite(
    laboratory: Any,
    shrunk: Any,
    train: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    break_loss: Callable[[Loss], None],
    precision: str,
) -> None:
    break_loss(lambda value, rates: value + (0 * rates.sum()).sqrt())  # of infinite slope
    system = shrunk(recipe={"precision": precision})
    if precision == "fp16":  # its scaler leaves out the step
        train(laboratory, tmp_path, system)
    else:
        pattern = (
            r"The loss is finite, but the norm of its gradient became nan in epoch 2, step 2, at "
            r"animal A, trials \d.*; animal B, trials \d.* with learning rate 0\.005\. The last "
            r"checkpoint is kept"
        )
        with pytest.raises(TrainingError, match=pattern):
            train(laboratory, tmp_path, system, checkpoint_minutes=0.0)
        monkeypatch.undo()
        train(laboratory, tmp_path, system)  # the checkpoint is a good one
    weights = load_file(tmp_path / "member" / "weights.safetensors")
    assert all(values.isfinite().all() for values in weights.values())
    assert history(tmp_path / "member")[-1]["objective"] != "nan"


def test_a_disk_without_room_for_checkpoints_is_refused_at_once(
    laboratory: Any, shrunk: Any, train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=1000))
    with pytest.raises(OSError, match=r"seed3.ckpt needs up to .* Free some space"):
        train(laboratory, tmp_path, shrunk())
    assert not list(tmp_path.rglob("*.part*"))


def test_what_a_member_learned_from_stays_with_it(laboratory: Any, finished: Path) -> None:
    kept = read_splits(finished / "split.parquet")
    wanted = laboratory.splits[laboratory.splits["role"] != "test"]
    assert trial_digests(kept, "seed3") == trial_digests(laboratory.splits, "seed3")
    assert len(kept) == len(wanted[wanted["member"] == "seed3"])
    assert "test" not in set(kept["role"])


def test_settings_of_the_process_come_back(
    laboratory: Any, shrunk: Any, train: Any, tmp_path: Path
) -> None:
    def stop(what: str) -> None:
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.get_num_threads() == 2
        raise Killed

    torch.set_num_threads(1)
    with pytest.raises(Killed):
        train(laboratory, tmp_path, shrunk(), threads=2, stop=stop)
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.get_num_threads() == 1


def test_exact_kernels_on_a_gpu_only_where_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    gpu = torch.device("cuda")
    with repeatable(gpu, threads=1):
        assert not torch.are_deterministic_algorithms_enabled()
    with repeatable(gpu, threads=1, deterministic=True):
        # Some kernels have no exact form: PyTorch warns of them instead of failing.
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert not torch.are_deterministic_algorithms_enabled()
    with repeatable(torch.device("cpu"), threads=1):
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
