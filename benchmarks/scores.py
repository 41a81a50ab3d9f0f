"""Scoring of one animal: ours against the plain way, in the same run.

    python benchmarks/scores.py [--neurons 8000] [--repeats 10] [--videos 6] [--frames 250]

Both read the same prediction file and the same responses. The plain way is that of the released
evaluation (specs: concatenate all trials, z-score, mean product; average repeats, correlate again).
Printed: seconds of both and their ratio, the largest deviation of the scores, and our memory above
the interpreter after imports.
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

from sensorium_models.evaluation.correlation import correlation
from sensorium_models.evaluation.responses import RecordedResponses
from sensorium_models.evaluation.scores import score_member
from sensorium_models.predictions import Predictions, PredictionWriter

FIRST_FRAME = 50
UNIT = "per_frame_published"


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


def ours(folder: Path, videos: int, repeats: int) -> tuple[np.ndarray, np.ndarray]:
    recording = Responses(folder / "responses.npy", videos, repeats)
    precision = np.load(folder / "precision.npy")
    responses = RecordedResponses(recording, unit=UNIT, precision=precision)
    moments = score_member(predictions=folder / "predictions.h5", responses={"A": responses})
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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    for name, value in (("videos", 6), ("repeats", 10), ("frames", 250), ("neurons", 8000)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    sizes = {"videos": options.videos, "repeats": options.repeats}
    if options.folder:  # the part of which the memory is measured, in a process of its own
        before = peak_megabytes()
        ours(options.folder, **sizes)
        print(peak_megabytes() - before)
        print(int("torch" in sys.modules))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, **sizes, frames=options.frames, neurons=options.neurons)
        seconds: dict[str, list[float]] = {"ours": [], "plain": []}
        cpu: dict[str, list[float]] = {"ours": [], "plain": []}
        for _ in range(options.runs):
            for label, function in (("plain", plain), ("ours", ours)):
                start, cpu_start = time.perf_counter(), time.process_time()
                found = function(folder, **sizes)
                seconds[label].append(time.perf_counter() - start)
                cpu[label].append(time.process_time() - cpu_start)
                if label == "plain":
                    expected = found
        deviation = max(float(np.abs(a - b).max()) for a, b in zip(found, expected, strict=True))
        measured = [sys.executable, __file__, "--folder", name]
        measured += [f"--{key}={value}" for key, value in sizes.items()]
        lines = subprocess.run(measured, check=True, capture_output=True, text=True).stdout.split()
    trials = options.videos * options.repeats
    print(f"{trials} trials x {options.frames} frames x {options.neurons} neurons")
    for what, values in (("wall", seconds), ("CPU", cpu)):
        plainly, our = (statistics.median(values[label]) for label in ("plain", "ours"))
        print(f"{what:4} plain {plainly:6.2f} s, ours {our:6.2f} s, ratio {plainly / our:5.2f}")
    print(f"largest deviation {deviation:.1e} (the plain way is in float32)")
    print(f"memory above the interpreter after imports {float(lines[0]):.0f} MB")
    print(f"torch imported: {'yes' if lines[1] == '1' else 'no'}")


if __name__ == "__main__":
    main()
