"""Writing a submission: ours against the starter kit's way, in the same run.

    python benchmarks/submission.py [--trials 12] [--neurons 7863] [--frames 249]

The kit's way makes nested Python lists of a network's float32 output and lets pandas write them
with brotli, in doubles; the plain way does so with the very values that we write, which are rounded
to float16 and so compress more easily. Printed: seconds, peak memory and file size, each in a
process of its own, ratios, and whether pandas reads the same values from the plain file and ours.
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
from memory import peak_megabytes
from targets import machine, report

from sensorium_models.predictions import Predictions, PredictionWriter
from sensorium_models.submission import UPLOADS, ExpectedAnimal, write_upload

NAMES = {"kit": "the kit's way", "plain": "the plain way with our values", "ours": "ours"}
# Of the kit's way to ours, for the time that passes and for memory.
LEAST_RATIOS = {"wall": 10, "memory": 10}
TIER, NAME = next(iter(UPLOADS["bonus_live"].items()))


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


def kit(folder: Path) -> None:
    plain(folder, rounded=False)


def plain(folder: Path, *, rounded: bool = True) -> None:
    known = animal(folder)
    with Predictions(folder / "predictions.h5") as source:

        def values(trial: int) -> list[list[float]]:
            read = source.read("F", trial) if rounded else np.load(folder / f"{trial}.npy")
            return read.T.tolist()

        rows = {
            "mouse": [known.folder] * len(known.trials[TIER]),
            "trial_indices": list(known.trials[TIER]),
            "prediction": [values(trial) for trial in known.trials[TIER]],
            "neuron_ids": [known.neuron_ids.astype(np.uint32)] * len(known.trials[TIER]),
        }
    name = NAME if rounded else f"kit-{NAME}"
    pd.DataFrame(rows).to_parquet(folder / name, compression="brotli", index=False)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--neurons", type=int, default=7863)
    parser.add_argument("--frames", type=int, default=249)
    parser.add_argument("--run", choices=NAMES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        before, start, cpu_start = peak_megabytes(), time.perf_counter(), time.process_time()
        {"ours": ours, "plain": plain, "kit": kit}[options.run](options.folder)
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
                rates = random.gamma(0.5, size=(options.frames, options.neurons)).astype(np.float32)
                np.save(folder / f"{trial}.npy", rates)
                writer.add("F", np.arange(1, options.neurons + 1), trial, rates)
        measured = {}
        for run in NAMES:
            command = [sys.executable, __file__, "--run", run, "--folder", name]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            measured[run] = [float(value) for value in output.split()]
        sizes = [
            (folder / file).stat().st_size / 2**20 for file in (f"kit-{NAME}", NAME, "ours.zip")
        ]
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
    for reference in ("kit", "plain"):
        for column, (what, unit) in enumerate((("wall", "s"), ("CPU", "s"), ("memory", "MB"))):
            one, other = measured[reference][column], measured["ours"][column]
            report(f"{what}, {NAMES[reference]}", f"{one:.2f} {unit}")
            report(f"{what}, ours", f"{other:.2f} {unit}")
            least = LEAST_RATIOS.get(what) if reference == "kit" else None
            target = (f"at least {least} x", one / other >= least) if least else ()
            report(f"{what}, ratio", f"{one / other:.1f} x", *target)
    print(f"size: kit {sizes[0]:.1f} MB, plain {sizes[1]:.1f} MB, ours {sizes[2]:.1f} MB")
    print(machine())
    print(f"read back by pandas, plain and ours are {'the same' if same else 'DIFFERENT'}")


if __name__ == "__main__":
    main()
