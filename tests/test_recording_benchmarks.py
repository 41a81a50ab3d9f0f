"""The benchmarks of recordings run and say what they measured, whatever that is."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("clips", ["share of copying", "16 frames with step 2", "unique set size", "a store"]),
        ("preprocess", ["per second of one core", "peak memory"]),
    ],
)
def test_benchmarks_run(name: str, said: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, BENCHMARKS / f"{name}.py", "--quick", "--folder", str(tmp_path)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(BENCHMARKS.parent), "OMP_NUM_THREADS": "1"},
    )
    for words in said:
        assert words in done.stdout
    assert "100 neurons" in done.stdout
