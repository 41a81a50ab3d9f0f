"""The benchmarks of scoring and submissions run, and both ways give the same, whatever it takes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


def output_of(name: str, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, BENCHMARKS / f"{name}.py", *arguments],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(BENCHMARKS.parent), "OMP_NUM_THREADS": "1"},
    ).stdout


@pytest.mark.slow
def test_scoring_gives_what_the_plain_way_gives() -> None:
    said = output_of("scores", "--neurons", "60", "--repeats", "3", "--runs", "1")
    deviation = re.search(r"largest deviation (\S+)", said)
    assert deviation
    # The plain way sums 4,500 frames in float32: 6e-8 each, at worst all of one sign.
    assert float(deviation.group(1)) < 6e-8 * 4500
    assert "torch imported: no" in said


@pytest.mark.slow
def test_submissions_read_back_the_same() -> None:
    said = output_of("submission", "--neurons", "40", "--trials", "3")
    assert "read back by pandas, plain and ours are the same" in said
