"""What a job shows while it works: lines in its log, and a bar where a terminal is free."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from sensorium_models.configuration import REPOSITORY

JOB = """
import sys
from types import SimpleNamespace
from unittest import mock
from sensorium_models import jobs
from sensorium_models.training.records import EpochDisplay

row = dict(train_loss=1.5, objective=0.25, best=0.25, round=0, learning_rate=0.005)
row |= dict(frames_per_second=480.0, seconds=0.0)
with (
    mock.patch.object(jobs, "load_study", lambda config: None),
    jobs.job(SimpleNamespace(log=[sys.argv[1]], config={})),
    EpochDisplay(sys.argv[3], epochs=3) as display,
):
    for epoch in (1, 2, 3):
        display.step(1, 1)
        display.epoch(row | {"epoch": epoch})
    open(sys.argv[2], "w").write("ready")
    sys.stdin.readline()
"""


def start(terminal: int, folder: Path, name: str) -> subprocess.Popen[str]:
    ready = folder / f"{name}.ready"
    os.mkfifo(ready)
    job = subprocess.Popen(
        [sys.executable, "-c", JOB, str(folder / f"{name}.log"), str(ready), name],
        stdin=subprocess.PIPE,
        stderr=terminal,
        text=True,
        cwd=REPOSITORY,
    )
    assert ready.read_text() == "ready"  # waits for it
    return job


@pytest.mark.slow
def test_an_epoch_bar_on_the_terminal_and_lines_in_the_log(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
    jobs = [start(theirs, tmp_path, name) for name in ("first", "second")]
    for job in jobs:
        job.communicate("\n")
        assert job.returncode == 0
    os.set_blocking(ours, False)
    shown = os.read(ours, 100_000).decode()
    last = re.split(r"[\r\n]+", shown.strip())[-1]
    assert "3/3" in last
    assert "loss 1.5, correlation 0.2500" in last
    assert "480 frames/s" in last
    assert re.search(r"\[\d\d:\d\d<\d\d:\d\d", last)  # passed and left
    # One bar at a time: the second job of this terminal has its log only.
    assert "first" in shown
    assert "second" not in shown
    for name in ("first", "second"):
        lines = (tmp_path / f"{name}.log").read_text().splitlines()
        assert [line.split(":")[0] for line in lines] == [f"{name} epoch {n}/3" for n in (1, 2, 3)]
