"""The test cluster itself: it does what the other tests take for granted."""

import time
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster

pytestmark = pytest.mark.workflow


def submit(cluster: Cluster, log: Path, script: str, *options: str) -> str:
    return cluster.run(
        "sbatch", "--parsable", "-t", "5", "--mem=100", "-o", str(log), *options, "--wrap", script
    )


def wait_until(condition, seconds: float = 60.0) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)


def test_jobs_that_run_at_once_see_different_gpus(cluster: Cluster, tmp_path: Path) -> None:
    waiting = f"echo $CUDA_VISIBLE_DEVICES; while [ ! -e {tmp_path}/go ]; do sleep 0.1; done"
    logs = [tmp_path / "first", tmp_path / "second"]
    for log in logs:
        submit(cluster, log, waiting, "--gpus=1")
    wait_until(lambda: all(log.exists() and log.read_text() for log in logs))
    assert sorted(log.read_text().strip() for log in logs) == ["0", "1"]
    (tmp_path / "go").touch()
    wait_until(lambda: not cluster.jobs())


def test_jobs_survive_a_crash_of_the_controller(cluster: Cluster, tmp_path: Path) -> None:
    log = tmp_path / "log"
    job = submit(
        cluster, log, f"echo on; while [ ! -e {tmp_path}/go ]; do sleep 0.1; done; echo off"
    )
    wait_until(lambda: log.exists() and "on" in log.read_text())
    cluster.kill_controller()
    cluster.start_controller()
    assert cluster.jobs() == {job: "RUNNING"}
    (tmp_path / "go").touch()
    wait_until(lambda: not cluster.jobs())
    assert log.read_text().split() == ["on", "off"]
