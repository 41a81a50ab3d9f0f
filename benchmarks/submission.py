"""Writing a submission: ours against the starter kit's way, in the same run.

    python benchmarks/submission.py [--trials 12] [--neurons 7863] [--frames 249]

The plain way makes nested Python lists and lets pandas write them with brotli, in doubles, as the
released kit does. Printed: seconds, peak memory and file size of both, each in a process of its
own, their ratios, and whether pandas reads the same values from both files.
"""

import argparse
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd

from sensorium_models.predictions import Predictions, PredictionWriter
from sensorium_models.submission import UPLOADS, ExpectedAnimal, write_upload

TIER, NAME = next(iter(UPLOADS["bonus_live"].items()))


def peak_megabytes() -> float:
    """Peak of this process alone; `getrusage` would start from its parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def animal(folder: Path) -> ExpectedAnimal:
    with Predictions(folder / "predictions.h5") as source:
        trials = {int(t): source.frames("F", int(t)) for t in source.trials("F")}
        return ExpectedAnimal("dynamic", source.neuron_ids("F"), {TIER: trials})


def ours(folder: Path) -> None:
    write_upload(
        "bonus_live",
        predictions=folder / "predictions.h5",
        animals={"F": animal(folder)},
        output=folder / "ours.zip",
    )


def plain(folder: Path) -> None:
    known = animal(folder)
    with Predictions(folder / "predictions.h5") as source:
        rows = {
            "mouse": [known.folder] * len(known.trials[TIER]),
            "trial_indices": list(known.trials[TIER]),
            "prediction": [source.read("F", t).T.tolist() for t in known.trials[TIER]],
            "neuron_ids": [known.neuron_ids.astype(np.uint32)] * len(known.trials[TIER]),
        }
    pd.DataFrame(rows).to_parquet(folder / NAME, compression="brotli", index=False)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--neurons", type=int, default=7863)
    parser.add_argument("--frames", type=int, default=249)
    parser.add_argument("--run", choices=("ours", "plain"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        before, start, cpu_start = peak_megabytes(), time.perf_counter(), time.process_time()
        {"ours": ours, "plain": plain}[options.run](options.folder)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu_start
        print(seconds, cpu, peak_megabytes() - before)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        random = np.random.default_rng(0)
        labels = dict.fromkeys(
            ("protocol", "training_set", "system", "member", "frame_convention", "fingerprint"), "-"
        )
        with PredictionWriter(
            folder / "predictions.h5",
            **labels,
            score_unit="per_frame_published",
            first_scored_frame=50,
            recording_digests={},
        ) as writer:
            for trial in range(options.trials):
                rates = random.gamma(0.5, size=(options.frames, options.neurons))
                writer.add("F", np.arange(1, options.neurons + 1), trial, rates)
        measured = {}
        for run in ("plain", "ours"):
            command = [sys.executable, __file__, "--run", run, "--folder", name]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            measured[run] = [float(value) for value in output.split()]
        sizes = [(folder / file).stat().st_size / 2**20 for file in (NAME, "ours.zip")]
        theirs = pd.read_parquet(folder / NAME)
        (folder / "read").mkdir()
        with zipfile.ZipFile(folder / "ours.zip") as archive:
            archive.extract(NAME, folder / "read")
        found = pd.read_parquet(folder / "read" / NAME)
        same = all(
            np.array_equal(np.stack(list(a)), np.stack(list(b)))
            for a, b in zip(theirs["prediction"], found["prediction"], strict=True)
        )
    print(f"{options.trials} trials x {options.neurons} neurons x {options.frames} frames")
    for what, unit, column in (("time", "s", 0), ("memory", "MB", 1)):
        one, other = measured["plain"][column], measured["ours"][column]
        print(
            f"{what:7} plain {one:8.1f} {unit}, ours {other:8.1f} {unit}, ratio {one / other:.1f}"
        )
    print(f"{'size':7} plain {sizes[0]:8.1f} MB, ours {sizes[1]:8.1f} MB")
    print(f"values read back by pandas are {'the same' if same else 'DIFFERENT'}")


if __name__ == "__main__":
    main()
