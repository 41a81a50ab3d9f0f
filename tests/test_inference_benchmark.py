"""The benchmark of inference runs, and both of its sides are the same network."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.mark.slow
@pytest.mark.parametrize("system", ["dwiseneuro", "dynamic_v1fm"])
def test_ours_and_the_plain_transcription_predict_the_same(system: str) -> None:
    done = subprocess.run(
        [
            *(sys.executable, BENCHMARKS / "inference.py", system, "--quick"),
            *("--neurons", "50", "--threads", "1"),
        ],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(BENCHMARKS.parent), "OMP_NUM_THREADS": "1"},
    )
    assert "ratio of seconds" in done.stdout
    assert "ratio of megabytes" in done.stdout
    deviation = float(done.stdout.split("largest deviation: ")[1].split()[0])
    # Float32 sums in another order, some ten layers deep.
    assert deviation < 1e-4
