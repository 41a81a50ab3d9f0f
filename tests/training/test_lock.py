"""No member is trained twice at once, and what the dead leave behind stops nobody."""

import hashlib
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sensorium_models import slurm
from sensorium_models.training import lock as lock_module
from sensorium_models.training import process as process_module
from sensorium_models.training import state as state_module
from sensorium_models.training.feeding import TrainingError
from sensorium_models.training.lock import holding
from sensorium_models.training.process import PREEMPTED, Preempted, listening

FORK = multiprocessing.get_context("fork")


def never() -> bool:
    return False


def hold_until(path: Path, gate: Path) -> None:
    """In a process of its own: hold the lock until `gate` is there."""
    with holding(path, finished=never):
        while not gate.exists():
            time.sleep(0.01)


def start_holder(path: Path, gate: Path) -> Any:
    process = FORK.Process(target=hold_until, args=(path, gate))
    process.start()
    while not (path.exists() and path.read_text().endswith("}")):
        time.sleep(0.01)
    return process


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(lock_module, "_LOOK_SECONDS", 0.02)
    for name in ("SLURM_JOB_ID", "SLURM_CLUSTER_NAME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "seed1.checkpoint.lock"


def holder(**changes: Any) -> str:
    """A lock of a job on another machine."""
    there = {
        "host": "gpu17",
        "machine": "gpu17 boot pid",
        "process": 1,
        "started": "1",
        "job": None,
        "cluster": None,
    }
    return json.dumps({**there, **changes})


def test_a_second_training_waits_for_the_first(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    gate = tmp_path / "gate"
    first = start_holder(path, gate)
    seen = []

    def finished() -> bool:
        seen.append(first.is_alive() and not gate.exists())
        return True

    opener = FORK.Process(target=lambda: (time.sleep(0.3), gate.touch()))
    opener.start()
    with holding(path, finished=finished) as lock:
        assert gate.exists()
        assert lock is None  # the first one has finished the member
    first.join()
    opener.join()
    assert seen == [False]
    said = capsys.readouterr().err
    assert f"process {first.pid} on" in said
    assert said.count("is training this member") == 1
    assert not path.exists()


def test_a_killed_training_leaves_a_stale_lock(path: Path, tmp_path: Path) -> None:
    first = start_holder(path, tmp_path / "never")
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    assert path.exists()
    with holding(path, finished=never) as lock:
        assert lock is not None
        assert json.loads(path.read_text())["process"] == os.getpid()
    assert not path.exists()


def wait_for(*files: Path, looks: int = 1000) -> bool:
    for _ in range(looks):
        if all(file.exists() for file in files):
            return True
        time.sleep(0.01)
    return False


def take_slowly(path: Path) -> None:
    """In a process of its own: stop short of removing the stale lock, until another one holds it.

    Or, if that one is kept from it, for a while.
    """
    read, reads = lock_module._content, []

    def content(file: Path) -> str | None:
        found = read(file)
        reads.append(file == path)
        if sum(reads) == 2 and reads[-1]:
            path.with_name("slow is here").touch()
            wait_for(path.with_name("quick holds"), looks=50)
        return found

    lock_module._content = content
    with holding(path, finished=never):
        note(path, "slow in")
        note(path, "slow out")


def take_quickly(path: Path) -> None:
    wait_for(path.with_name("slow is here"))
    with holding(path, finished=never):
        note(path, "quick in")
        path.with_name("quick holds").touch()
        time.sleep(0.3)  # for the other one to break in
        note(path, "quick out")


def note(path: Path, what: str) -> None:
    with path.with_name("notes").open("a") as file:
        file.write(f"{what}\n")


def test_only_one_takes_over_a_stale_lock(path: Path) -> None:
    path.write_text(
        holder(machine=lock_module._machine(), process=os.getpid(), started="7")  # dead
    )
    takers = [FORK.Process(target=take, args=(path,)) for take in (take_slowly, take_quickly)]
    for taker in takers:
        taker.start()
    for taker in takers:
        taker.join()
    notes = path.with_name("notes").read_text().splitlines()
    assert sorted(notes) == ["quick in", "quick out", "slow in", "slow out"]
    # One after the other, whoever is first.
    assert [name.split()[1] for name in notes] == ["in", "out", "in", "out"]
    assert not list(path.parent.glob(f"{path.name}*"))


def test_who_dies_while_taking_over_stops_nobody(path: Path) -> None:
    dead = holder(machine=lock_module._machine(), process=os.getpid(), started="7")
    path.write_text(dead)
    right = path.with_name(f"{path.name}.{hashlib.sha256(dead.encode()).hexdigest()[:8]}")
    right.write_text(holder(machine=lock_module._machine(), process=os.getpid(), started="8"))
    with holding(path, finished=never) as lock:
        assert lock is not None
    assert not list(path.parent.glob(f"{path.name}*"))


def test_only_the_own_lock_gives_signs_of_life(path: Path) -> None:
    over = SimpleNamespace(wait=lambda seconds: next(beats))
    for content, touched in (("mine", True), ("another's", False)):
        beats = iter([False, True])
        path.write_text(content)
        os.utime(path, (7, 7))
        lock_module._beat(path, "mine", over)
        assert (path.stat().st_mtime != 7) == touched


def test_a_number_given_again_is_another_process(path: Path) -> None:
    own = json.loads(holder(machine=lock_module._machine(), process=os.getpid(), started="7"))
    path.write_text(json.dumps(own))
    with holding(path, finished=never) as lock:
        assert lock is not None


@pytest.mark.parametrize("said", [False, None])
def test_a_job_that_is_gone_holds_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch, said: bool | None
) -> None:
    """Where SLURM cannot tell (None), a holder that shows no sign of life is dead."""
    path.write_text(holder(job="12"))
    old = time.time() - 2 * lock_module.SILENCE_SECONDS
    os.utime(path, (old, old) if said is None else None)
    asked = []
    monkeypatch.setattr(slurm, "is_at_work", lambda job: (asked.append(job), said)[1])
    with holding(path, finished=never) as lock:
        assert lock is not None
    assert asked == ["12"]


def test_an_earlier_life_of_the_own_job_holds_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setattr(slurm, "is_at_work", lambda job: True)
    path.write_text(holder(job="12"))
    with holding(path, finished=never) as lock:
        assert lock is not None


@pytest.mark.parametrize("content", [holder(job="12"), holder(), ""], ids=["job", "host", "torn"])
def test_one_that_may_live_is_waited_for(
    path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    """A job at work, a machine that was heard of, a lock that is just being written."""
    path.write_text(content)
    monkeypatch.setattr(slurm, "is_at_work", lambda job: True)
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            path.unlink()

    monkeypatch.setattr(lock_module.time, "sleep", sleep)
    with holding(path, finished=never) as lock:
        assert lock is not None
    assert len(waits) == 3


def test_one_that_waits_can_be_told_to_stop(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text(holder(job="12"))
    monkeypatch.setattr(slurm, "is_at_work", lambda job: True)
    monkeypatch.setattr(
        lock_module.time, "sleep", lambda seconds: signal.raise_signal(signal.SIGURG)
    )
    with (
        listening() as told,
        pytest.raises(Preempted) as caught,
        holding(path, finished=never, told=told),
    ):
        raise AssertionError("the lock is another's")
    assert caught.value.warned
    assert path.read_text() == holder(job="12")


def test_one_that_was_taken_for_dead_stops_before_it_writes(path: Path) -> None:
    with holding(path, finished=never) as lock:
        assert lock is not None
        lock.check()
        path.write_text(holder())
        with pytest.raises(TrainingError, match="is another training's now"):
            lock.check()
    assert path.read_text() == holder()  # not ours to remove


def test_the_first_signal_tells_why_and_a_second_one_kills_unless_it_is_shared() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with listening() as told:
        signal.raise_signal(signal.SIGURG)
        assert told.received
        assert told.warned
        assert signal.getsignal(signal.SIGTERM) is before
    with listening(shared=True) as told:
        # To every process of a job, and handed on by the one that started this one.
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGURG)
        assert told.received
        assert not told.warned
    assert signal.getsignal(signal.SIGTERM) is before


def stop_with(number: int) -> Callable[[str], None]:
    def stop(what: str) -> None:
        if what == "step":
            os.kill(os.getpid(), number)

    return stop


@pytest.mark.parametrize("number", [signal.SIGURG, signal.SIGTERM], ids=["warned", "ended"])
def test_only_a_warning_puts_the_job_back_into_the_queue(
    laboratory: Any,
    shrunk: Any,
    train: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    """A job that somebody ended must not come back."""
    running = tmp_path / "running"
    found = []

    def requeue() -> bool:
        found.append(sorted(file.name for file in running.iterdir()))
        return False  # SLURM refuses: the process ends with the status that means "again"

    monkeypatch.setattr(process_module.slurm, "requeue_own_job", requeue)
    system = shrunk("linear_nonlinear", readout_settings={"history_frames": 2})
    with pytest.raises(Preempted) as caught:
        train(laboratory, tmp_path, system, stop=stop_with(number))
    assert caught.value.code == PREEMPTED
    warned = number == signal.SIGURG
    # The checkpoint is there before, and the lock no more.
    assert found == ([["seed3.ckpt", "seed3.ckpt.events"]] if warned else [])


@pytest.mark.parametrize("moment", ["starting_facts", "evaluate"])
def test_a_warning_is_heard_before_the_first_step(
    laboratory: Any,
    shrunk: Any,
    train: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
) -> None:
    """While starting positions are looked for, and while the untrained network is judged."""
    place = state_module if moment == "starting_facts" else state_module.Training
    own = getattr(place, moment)

    def warned(*arguments: Any, **keywords: Any) -> Any:
        signal.raise_signal(signal.SIGURG)
        return own(*arguments, **keywords)

    monkeypatch.setattr(place, moment, warned)
    monkeypatch.setattr(process_module.slurm, "requeue_own_job", lambda: False)
    steps: list[str] = []
    with pytest.raises(Preempted) as caught:
        train(laboratory, tmp_path, shrunk(), stop=steps.append)
    assert caught.value.warned
    assert steps == []
    assert not (tmp_path / "running" / "seed3.ckpt.lock").exists()
