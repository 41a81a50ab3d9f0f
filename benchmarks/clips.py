"""Clips per second from a recording store, against the way of the published starter kit.

    python benchmarks/clips.py [--trials 60] [--archive ANIMAL.zip] [--quick]

The reference is written from the dataset card, sections 5 and 6: every .npy of a trial loaded
whole, normalised in float64 with statistics per frame index, scanned for NaN, cut to the valid
length, transposed, a random clip taken, transposed back, behaviour tiled into planes, cast, and
eight of these stacked. Ours are raw values (normalising happens on the device): both ways are timed
until the batch lies in memory. One process, page cache warm.
"""

import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import full_scale
import numpy as np

from sensorium_models.recordings.clips import Clip
from sensorium_models.recordings.samplers import RandomClips, Sampler, StackedClips
from sensorium_models.recordings.store import Recording
from sensorium_models.training.feeding import ReadAhead

BATCH, FRAMES = 8, 80
STACK_BATCH, STACK_FRAMES, STACK_STEP = 32, 16, 2
MODALITIES = ("videos", "responses", "behavior", "pupil_center")


class ReferenceLoader:
    """The starter kit's steps, one trial at a time."""

    def __init__(self, folder: Path, trials: np.ndarray) -> None:
        self._folder = folder
        self._trials = trials
        self._random = np.random.default_rng(0)
        statistics = {
            (name, key): np.load(folder / f"meta/statistics/{name}/all/{key}.npy")
            for name in MODALITIES
            for key in ("mean", "std")
        }
        self._mean = {name: statistics[name, "mean"] for name in ("videos", "pupil_center")}
        self._std = {name: statistics[name, "std"] for name in MODALITIES}
        std = statistics["responses", "std"]
        threshold = 0.01 * np.nanmean(std)
        with np.errstate(invalid="ignore"):
            self._precision = 1 / np.where(std > threshold, std, threshold)

    def trial(self) -> dict[str, np.ndarray]:
        """One clip of `FRAMES` frames of a random trial."""
        arrays = self.whole(int(self._random.choice(self._trials)))
        arrays["videos"] = (arrays["videos"] - self._mean["videos"]) / self._std["videos"]
        arrays["pupil_center"] = (arrays["pupil_center"] - self._mean["pupil_center"]) / (
            self._std["pupil_center"]
        )
        arrays["behavior"] = arrays["behavior"] / self._std["behavior"]
        arrays["responses"] = arrays["responses"] * self._precision
        length = min(map(valid_frames, arrays.values()))
        arrays = {name: np.moveaxis(values[..., :length], -1, 0) for name, values in arrays.items()}
        start = self._random.integers(0, length - FRAMES)
        clip = {
            name: np.moveaxis(values[start : start + FRAMES], 0, -1)
            for name, values in arrays.items()
        }
        height, width = clip["videos"].shape[:2]
        video = np.moveaxis(clip["videos"], -1, 0)[np.newaxis]
        planes = np.broadcast_to(
            clip["behavior"][:, :, np.newaxis, np.newaxis], (2, FRAMES, height, width)
        )
        clip["videos"] = np.concatenate([video, planes])
        return {name: values.astype(np.float32) for name, values in clip.items()}

    def batch(self) -> dict[str, np.ndarray]:
        """`BATCH` clips stacked."""
        clips = [self.trial() for _ in range(BATCH)]
        return {name: np.stack([clip[name] for clip in clips]) for name in MODALITIES}

    def stacks(self) -> dict[str, np.ndarray]:
        """`BATCH` stacks of every second frame, from whole files, raw (card of DwiseNeuro)."""
        stacks = []
        for _ in range(BATCH):
            arrays = self.whole(int(self._random.choice(self._trials)))
            length = valid_frames(arrays["responses"][:1])
            span = (STACK_FRAMES - 1) * STACK_STEP
            anchor = int(self._random.integers(span, length))
            kept = np.arange(anchor - span, anchor + 1, STACK_STEP)
            stacks.append({n: values[..., kept].astype(np.float32) for n, values in arrays.items()})
        return {name: np.stack([stack[name] for stack in stacks]) for name in MODALITIES}

    def whole(self, trial: int) -> dict[str, np.ndarray]:
        """All arrays of a trial, time last."""
        return {name: np.load(self._folder / f"data/{name}/{trial}.npy") for name in MODALITIES}


def valid_frames(values: np.ndarray) -> int:
    """Frames before the first with any NaN; time last."""
    missing = np.isnan(values).any(axis=tuple(range(values.ndim - 1)))
    return int(np.argmax(missing)) if missing.any() else values.shape[-1]


def sampler(recording: Recording, kind: str) -> Sampler:
    """The sampler of one animal whose batches are measured."""
    trials = recording.trials_of(["train"])
    if kind == "stacks":
        return StackedClips(
            recording=recording,
            trials=trials,
            clip_frames=STACK_FRAMES,
            step=STACK_STEP,
            clips_per_pass=100 * STACK_BATCH,
            batch_size=STACK_BATCH,
            cap_frames=300,
            seed=0,
        )
    return RandomClips(
        recording=recording,
        trials=trials,
        clip_frames=FRAMES,
        batch_size=BATCH,
        cap_frames=300,
        seed=0,
    )


def clip_bytes(clip: Clip) -> int:
    """Bytes of recorded values in a batch."""
    arrays = (clip.video, clip.behavior, clip.pupil_center, clip.responses)
    return sum(values.nbytes for values in arrays if values is not None)


def rate(next_batch: Callable[[], int], *, seconds: float) -> np.ndarray:
    """Units per second on the clock and per second of processor time, warm, for `seconds`.

    `next_batch` returns how many units it made. Processor time is that of all threads; it tells
    more than the clock where others use the machine, too.
    """
    next_batch()
    units, started, busy = 0, time.perf_counter(), time.process_time()
    while (passed := time.perf_counter() - started) < seconds:
        units += next_batch()
    return units / np.array([passed, time.process_time() - busy])


def measured(recording: Recording, kind: str, seconds: float) -> np.ndarray:
    """Clips that arrive, see `rate`."""
    ahead = ReadAhead(sampler(recording, kind))
    clips = rate(lambda: len(ahead.next_batch().trial), seconds=seconds)
    ahead.close()
    return clips


def print_speeds(speeds: dict[str, np.ndarray], size: int) -> None:
    """Speeds by name, in units per second (copying: bytes); `size`: bytes of a clip."""
    line = full_scale.report

    def against(ours: str, theirs: str, unit: str, least: int, what: tuple[str, str]) -> None:
        for name, words in zip((theirs, ours), what, strict=True):
            line(words, f"{speeds[name][0]:.{0 if name == ours else 1}f} {unit}/s")
        ratio, by_processor_time = speeds[ours] / speeds[theirs]
        line("ratio", f"{ratio:.0f} x", f"at least {least} x", ratio >= least)
        line("ratio by processor time", f"{by_processor_time:.0f} x")

    against("clips", "kit", "clips", 40, (f"reference, {FRAMES} frames", f"ours, {FRAMES} frames"))
    (copying,) = speeds["copying"]
    delivered = speeds["clips"][0] * size
    line("memory copied into reused buffers", f"{copying / 1e9:.2f} GB/s")
    line("ours, delivered", f"{delivered / 1e9:.2f} GB/s")
    share = delivered / copying
    line("share of copying", f"{share:.2f}", "at least 0.5", share >= 0.5)
    stack = f"{STACK_FRAMES} frames with step {STACK_STEP}"
    against("stacks", "files", "stacks", 20, (f"whole files, {stack}", f"ours, {stack}"))


def memory(store: Path) -> None:
    """In a fresh interpreter: what opening and reading add to it."""
    before = full_scale.unique_bytes()
    recording = Recording(store)
    ahead = ReadAhead(sampler(recording, "clips"))
    for _ in range(60):
        ahead.next_batch()
    print(full_scale.unique_bytes() - before)
    ahead.close()


def main() -> None:
    options = full_scale.arguments(__doc__.splitlines()[0]).parse_args()
    with full_scale.work_folder(options) as folder:
        archive = full_scale.simulated_archive(options, folder)
        store = folder / "animal.h5"
        full_scale.preprocess(archive, store)
        unpacked = unpack(archive, folder)
        recording = Recording(store)
        trials = recording.trials_of(["train"])
        for trial in range(len(recording.trials)):  # into the page cache
            for modality in recording.modalities:
                recording.read(modality, trial)
        batch = sampler(recording, "clips").next_batch()
        size = clip_bytes(batch) // len(batch.trial)
        seconds = 0.1 if options.quick else 2.0
        reference = ReferenceLoader(unpacked, trials)
        for trial in trials:
            reference.whole(int(trial))

        print(f"{recording.neurons} neurons, {len(recording.trials)} trials")
        opening = full_scale.median_seconds(lambda: Recording(store).trials, 20)
        full_scale.report("opening a store with its table of trials", f"{opening * 1e3:.1f} ms")

        # In turn, so that whatever else the machine does hits all of them; medians count.
        rounds = 1 if options.quick else 5
        speeds: dict[str, list[Any]] = {}
        for _ in range(rounds):
            for name, measure in {
                "clips": lambda: measured(recording, "clips", seconds),
                "copying": lambda: [full_scale.copy_bandwidth(size * BATCH)],
                "kit": lambda: rate(lambda: len(reference.batch()["videos"]), seconds=seconds),
                "stacks": lambda: measured(recording, "stacks", seconds),
                "files": lambda: rate(lambda: len(reference.stacks()["videos"]), seconds=seconds),
            }.items():
                speeds.setdefault(name, []).append(measure())
        print_speeds({name: np.median(values, axis=0) for name, values in speeds.items()}, size)

        added = int(full_scale.in_new_process(__file__, "--memory-of", str(store)))
        full_scale.report(
            "unique set size above the interpreter",
            f"{added / 1e6:.0f} MB",
            "under 100 MB",
            added < 100e6,
        )
        print(full_scale.machine())


def unpack(archive: Path, folder: Path) -> Path:
    """The arrays of `archive` as files; a zip that this benchmark made is not needed any more."""
    with zipfile.ZipFile(archive) as opened:
        (top,) = {name.split("/")[0] for name in opened.namelist()} - {"__MACOSX"}
        opened.extractall(
            folder, [name for name in opened.namelist() if name.startswith(f"{top}/")]
        )
    return folder / top


if __name__ == "__main__":
    if sys.argv[1:2] == ["--memory-of"]:
        memory(Path(sys.argv[2]))
    else:
        main()
