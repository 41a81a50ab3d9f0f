"""What the benchmarks of recordings share: a full-scale simulated animal, and measuring.

The animal has 7,863 neurons, as the one of the model cards' examples, float64 arrays as the
published starter kit works with, and as many training trials as asked for.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from targets import machine as machine
from targets import report as report

from sensorium_models.recordings.preprocess import write_store
from sensorium_models.simulation.recording import SimulationSettings, write_recording

NEURONS = 7863
TIERS = (
    "train",
    "oracle",
    "live_test_main",
    "live_test_bonus",
    "final_test_main",
    "final_test_bonus",
    "none",
)
_FOLDER = "dynamic29515-10-12-Video-9b4f6a1a067fe51e15306b9628efea20"
_BONUS_TYPES = {"live_test_bonus": ["pink_noise"], "final_test_bonus": ["gaussian_dots"]}
_COPY_BYTES = 256_000_000


def arguments(description: str) -> argparse.ArgumentParser:
    """The options of every benchmark of recordings."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--trials", type=int, default=60, help="training trials to simulate")
    parser.add_argument("--neurons", type=int, default=NEURONS)
    parser.add_argument("--archive", type=Path, help="use this zip instead of simulating one")
    parser.add_argument("--folder", type=Path, help="work here instead of a temporary folder")
    parser.add_argument("--quick", action="store_true", help="tiny: only to see that it works")
    return parser


@contextmanager
def work_folder(options: argparse.Namespace) -> Iterator[Path]:
    """A folder with room, emptied at the end unless it was named."""
    if options.quick:
        options.trials, options.neurons = min(options.trials, 8), min(options.neurons, 100)
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
        yield options.folder
        return
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        yield Path(folder)


def simulated_archive(options: argparse.Namespace, folder: Path) -> Path:
    """The archive to work on: the one named, one left in the folder, or a new one."""
    if options.archive is not None:
        return options.archive
    archive = folder / f"animal-{options.neurons}-{options.trials}.zip"
    if not archive.exists():
        settings = SimulationSettings(
            neurons=options.neurons,
            training_trials=options.trials,
            none_trials=0,
            test_videos=1,
            repeats=1,
            video_dtype="float64",
            response_dtype="float64",
            truth_rates="none",
            compression_level=0,
        )
        write_recording(
            archive=archive,
            folder=_FOLDER,
            animal="F",
            seed=1,
            pair="one",
            role="public",
            settings=settings,
            bonus_types=_BONUS_TYPES,
        )
    return archive


def preprocess(archive: Path, store: Path) -> None:
    """The recording store of `archive`."""
    write_store(
        archive=archive,
        store=store,
        animal="F",
        neurons=None,
        frame_rate_hz=30.0,
        known_tiers=TIERS,
        withheld_tiers=(),
        stimulus_types=_BONUS_TYPES,
    )


def median_seconds(run: Callable[[], object], repeats: int) -> float:
    """Median duration of `run` over `repeats` calls, after one that does not count."""
    run()
    durations = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        durations.append(time.perf_counter() - started)
    return float(np.median(durations))


def copy_bandwidth(piece_bytes: int, repeats: int = 5) -> float:
    """Bytes per second that this process copies in pieces into two buffers that it uses again.

    The source is larger than any cache, as the page cache is.
    """
    pieces = max(2, _COPY_BYTES // piece_bytes)
    source = np.ones((pieces, piece_bytes), np.uint8)
    buffers = np.ones((2, piece_bytes), np.uint8)

    def copy() -> None:
        for piece in range(pieces):
            np.copyto(buffers[piece % 2], source[piece])

    return pieces * piece_bytes / median_seconds(copy, repeats)


def unique_bytes() -> int:
    """Unique set size of this process: memory that would come free if it ended (Linux)."""
    fields = dict(
        line.split(":", 1) for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    )
    return sum(int(fields[name].split()[0]) * 1024 for name in ("Private_Clean", "Private_Dirty"))


def in_new_process(*command: str) -> str:
    """What a fresh interpreter prints that runs this program with other arguments."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command], check=True, capture_output=True, text=True, env=environment
    )
    return done.stdout
