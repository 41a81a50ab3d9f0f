"""Scoring of one animal: ours against the plain way, in the same run.

    python benchmarks/scores.py [--neurons 8000] [--repeats 10] [--videos 6] [--frames 250]

Both read the same prediction file and the same responses. The plain way is that of the released
evaluation (specs: concatenate all trials, z-score, mean product; average repeats, correlate again).
Ours again with a further unit in which the same trials are scored too, as the study's open protocol
does. Printed beside their targets: seconds of all and their ratios, the largest deviation of the
scores, and our memory above the interpreter after imports.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from memory import peak_megabytes
from targets import machine, report

from sensorium_models.evaluation.correlation import correlation
from sensorium_models.evaluation.responses import RecordedResponses
from sensorium_models.evaluation.scores import score_member
from sensorium_models.predictions import Predictions, PredictionWriter

FIRST_FRAME = 50
UNIT, FURTHER = "per_frame_published", "per_neuron_train"
LEAST_RATIO, MOST_MEGABYTES = 5, 300


class Responses:
    """Raw responses (trials, frames, N) in a file, behind the attributes of a recording store."""

    def __init__(self, path: Path, videos: int, repeats: int) -> None:
        values = np.load(path, mmap_mode="r")
        trials, self._frames, self._neurons = values.shape
        neurons, self._path, self._offset = self._neurons, path, values.offset
        self.animal, self.digest = "A", "0" * 64
        self.neuron_ids = np.arange(neurons)
        number = np.repeat(np.arange(videos), repeats)
        self.trials = SimpleNamespace(
            tier=["final_test_main"] * trials,
            stimulus_type=["movie"] * trials,
            first_response_frame=np.zeros(trials, dtype=int),
            video=number,
            video_id=[f"v{n}" for n in number],
        )

    def read(self, modality: str, trial: int, start: int, stop: int) -> np.ndarray:
        assert modality == "responses"
        # Read, not mapped: mapped pages would count as our memory.
        first = self._offset + (trial * self._frames + start) * self._neurons * 4
        count = (stop - start) * self._neurons
        values = np.fromfile(self._path, np.float32, count, offset=first)
        return values.reshape(-1, self._neurons)


def write(folder: Path, *, videos: int, repeats: int, frames: int, neurons: int) -> None:
    """Correlated gamma responses and predictions, about as sparse as deconvolved calcium."""
    random = np.random.default_rng(0)
    length = FIRST_FRAME + frames
    values = np.lib.format.open_memmap(
        folder / "responses.npy", "w+", np.float32, (videos * repeats, length, neurons)
    )
    labels: dict[str, Any] = dict.fromkeys(
        ("protocol", "training_set", "system", "member", "frame_convention", "fingerprint"), "-"
    )
    with PredictionWriter(
        folder / "predictions.h5",
        **labels,
        score_unit=UNIT,
        first_scored_frame=FIRST_FRAME,
        recording_digests={"A": "0" * 64},
    ) as writer:
        for video in range(videos):
            rates = random.gamma(0.5, size=(length, neurons)).astype(np.float32)
            for repeat in range(repeats):
                trial = video * repeats + repeat
                values[trial] = random.poisson(rates)
                writer.add("A", np.arange(neurons), trial, rates[FIRST_FRAME:])
    np.save(folder / "precision.npy", random.uniform(0.5, 2, (length, neurons)).astype(np.float32))
    values.flush()


def ours(
    folder: Path, videos: int, repeats: int, *, units: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    recording = Responses(folder / "responses.npy", videos, repeats)
    precision = np.load(folder / "precision.npy")
    responses = RecordedResponses(recording, unit=UNIT, precision=precision)
    further = {
        FURTHER: {"A": RecordedResponses(recording, unit=FURTHER, precision=precision[:1] ** 0.5)}
    }
    moments = score_member(
        predictions=folder / "predictions.h5",
        responses={"A": responses},
        further=further if units > 1 else None,
    )
    group = moments.animals["A"].groups()["final_test_main", "movie"]
    return correlation(group.single_trial), correlation(group.repeat_average)


def plain(folder: Path, videos: int, repeats: int) -> tuple[np.ndarray, np.ndarray]:
    """Everything in memory, float32, as the released evaluation does it."""
    recording = Responses(folder / "responses.npy", videos, repeats)
    precision = np.load(folder / "precision.npy")
    responses, predictions = [], []
    with Predictions(folder / "predictions.h5") as file:
        for trial in range(videos * repeats):
            prediction = file.read("A", trial)
            stop = FIRST_FRAME + len(prediction)
            raw = recording.read("responses", trial, FIRST_FRAME, stop)
            responses.append(raw * precision[FIRST_FRAME:stop])
            predictions.append(prediction)

    def score(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        first = (first - first.mean(axis=0)) / (first.std(axis=0) + 1e-8)
        second = (second - second.mean(axis=0)) / (second.std(axis=0) + 1e-8)
        return (first * second).mean(axis=0)

    single = score(np.concatenate(responses), np.concatenate(predictions))
    averaged = [
        np.concatenate(
            [np.mean(values[v * repeats : (v + 1) * repeats], axis=0) for v in range(videos)]
        )
        for values in (responses, predictions)
    ]
    return single, score(*averaged)


def ours_in_two_units(folder: Path, videos: int, repeats: int) -> tuple[np.ndarray, np.ndarray]:
    return ours(folder, videos, repeats, units=2)


WAYS = {"plain": plain, "ours": ours, "ours in two units": ours_in_two_units}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    for name, value in (("videos", 6), ("repeats", 10), ("frames", 250), ("neurons", 8000)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    sizes = {"videos": options.videos, "repeats": options.repeats}
    if options.folder:  # the part of which the memory is measured, in a process of its own
        before = peak_megabytes()
        WAYS[options.way](options.folder, **sizes)
        print(peak_megabytes() - before)
        print(int("torch" in sys.modules))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, **sizes, frames=options.frames, neurons=options.neurons)
        wall: dict[str, list[float]] = {way: [] for way in WAYS}
        cpu: dict[str, list[float]] = {way: [] for way in WAYS}
        found = {}
        for _ in range(options.runs):
            for way, function in WAYS.items():
                start, cpu_start = time.perf_counter(), time.process_time()
                found[way] = function(folder, **sizes)
                wall[way].append(time.perf_counter() - start)
                cpu[way].append(time.process_time() - cpu_start)
        deviation = max(
            float(np.abs(a - b).max()) for a, b in zip(found["ours"], found["plain"], strict=True)
        )
        memory = {}
        for way in ("ours", "ours in two units"):
            measured = [sys.executable, __file__, "--folder", name, "--way", way]
            measured += [f"--{key}={value}" for key, value in sizes.items()]
            said = subprocess.run(measured, check=True, capture_output=True, text=True).stdout
            memory[way], torch = said.split()
    trials = options.videos * options.repeats
    print(f"{trials} trials x {options.frames} frames x {options.neurons} neurons")
    for what, values in (("wall", wall), ("CPU", cpu)):
        medians = {way: statistics.median(spent) for way, spent in values.items()}
        for way, spent in medians.items():
            report(f"{what} time, {way}", f"{spent:.2f} s")
        ratio = medians["plain"] / medians["ours"]
        target = (f"at least {LEAST_RATIO} x", ratio >= LEAST_RATIO) if what == "wall" else ()
        report(f"{what} time, ratio", f"{ratio:.2f} x", *target)
    for way, megabytes in memory.items():
        report(
            f"memory above the imports, {way}",
            f"{float(megabytes):.0f} MB",
            f"under {MOST_MEGABYTES} MB",
            float(megabytes) < MOST_MEGABYTES,
        )
    print(f"largest deviation {deviation:.1e} (the plain way is in float32)")
    print(f"torch imported: {'yes' if torch == '1' else 'no'}")
    print(machine())


if __name__ == "__main__":
    main()
