"""Prediction of one trial by a published network at full size: ours against a plain transcription.

    python benchmarks/inference.py dwiseneuro [--frames 300] [--neurons 7863] [--quick]

Both sides have the same random weights and trial and run in processes of their own, one after the
other, with the same number of threads and the same settings of the memory allocator: the C
library's (`--allocator default`) or one that keeps freed memory instead of giving it back
(`--allocator keeping`, as the workflow does). Printed: wall and CPU seconds and peak memory of
both, their ratios, and the largest deviation of the rates relative to the largest rate. On a
machine that others use, too, `--rounds` lets the sides take turns; the least of each counts. With
`--device cuda` both compute on a GPU, once before what counts, and the memory is the GPU's.
"""

import argparse
import importlib
import json
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from batches import PLAIN
from memory import peak_on
from sides import ALLOCATORS, measured

FRAME_SHAPE = (36, 64)
# Frames: of two windows, one, none, and of two undivided networks with some history.
QUICK = {
    "dwiseneuro": 32,
    "dynamic_v1fm": 66,
    "viv1t": 56,
    "viv1t_2025": 56,
    "factorized_baseline": 60,
    "gru_baseline": 54,
}


class MemoryRecording:
    """One random trial behind the attributes of a recording store."""

    animal, modalities = "A", ("video", "responses", "behavior", "pupil_center")
    frame_shape, video_dtype = FRAME_SHAPE, np.dtype(np.uint8)

    def __init__(self, *, frames: int, neurons: int) -> None:
        random = np.random.default_rng(0)
        self.neurons = neurons
        self.coordinates = random.normal(size=(neurons, 3))
        self.trials = SimpleNamespace(frames=np.array([frames]))
        self._values = {
            "video": random.integers(0, 256, (frames, *FRAME_SHAPE)).astype(np.uint8),
            "behavior": random.uniform(0, 3, (frames, 2)).astype(np.float32),
            "pupil_center": random.normal(size=(frames, 2)).astype(np.float32),
        }

    def read(
        self, modality: str, trial: int, start: int, stop: int, *, step: int = 1, out: np.ndarray
    ) -> np.ndarray:
        out[:] = self._values[modality][start:stop:step]
        return out


def network(name: str, recording: MemoryRecording) -> Any:
    """The system and its encoder in evaluation mode, batch norms with statistics of some batch."""
    import torch

    from sensorium_models.configuration import Origin
    from sensorium_models.networks.build import build_encoder
    from sensorium_models.networks.encoder import AnimalFacts
    from sensorium_models.recordings.normalisation import Affine, Normalisation
    from sensorium_models.systems import load_system

    system = load_system(name, folders=[], members={}, origin=Origin([], {}))
    raw = Affine(offset=np.zeros((1, 1), np.float32), scale=np.ones((1, 1), np.float32))
    video = Affine(offset=raw.offset + 111, scale=raw.scale / 57)
    facts = AnimalFacts(
        animal="A",
        neurons=recording.neurons,
        coordinates=recording.coordinates,
        has_behavior=True,
        has_pupil_center=True,
        normalisation=Normalisation(
            video=video, behavior=raw, pupil_center=raw, responses=raw, frames=None
        ),
        frame_shape=FRAME_SHAPE,
        initial_rates=None
        if system.recipe.start_rates.kind == "none"
        else np.ones(recording.neurons),
    )
    encoder = build_encoder(system, {"A": facts}, seed=1).eval()
    for key, values in encoder.named_buffers():
        if key.endswith("running_var"):
            torch.nn.init.uniform_(values, 0.5, 2)
    return system, encoder


def predict(
    name: str, side: str, *, frames: int, neurons: int, threads: int, device: str = "cpu"
) -> Any:
    """Wall and CPU seconds, peak megabytes and rates of one side."""
    import torch

    from sensorium_models.inference import predict_trial
    from sensorium_models.networks.inputs import to_device
    from sensorium_models.recordings.clips import whole_trial

    torch.set_num_threads(threads)
    recording: Any = MemoryRecording(frames=frames, neurons=neurons)
    system, encoder = network(name, recording)
    place = torch.device(device)
    encoder = encoder.to(place)
    wanted = slice(0, frames) if name == "dwiseneuro" else slice(50, frames - 1)

    def rates_of_trial() -> Any:
        if side == "ours":
            return predict_trial(
                encoder,
                recording,
                0,
                system=system,
                device=place,
                cap_frames=None,
                wanted=wanted,
            )
        clip = to_device(whole_trial(recording, 0, cap_frames=None, responses=False), place)
        with torch.inference_mode():
            return _plain(name, encoder, clip, system, wanted).cpu().numpy()

    if place.type == "cuda":
        rates_of_trial()  # finds its kernels
    before = peak_on(place)
    begin, used = time.perf_counter(), time.process_time()
    rates = rates_of_trial()
    seconds = time.perf_counter() - begin, time.process_time() - used
    return *seconds, peak_on(place) - (before if place.type == "cpu" else 0), rates


def _plain(name: str, encoder: Any, clip: Any, system: Any, wanted: slice) -> Any:
    side: Any = importlib.import_module(PLAIN[name])
    if name == "dwiseneuro":
        inputs = encoder.inputs["A"](clip)[0]
        recipe = system.recipe
        return side.trial(encoder, inputs, window_frames=recipe.clip_frames, step=recipe.frame_step)
    if name == "dynamic_v1fm":
        return side.trial(encoder, clip, wanted=wanted)
    rates = side.rates(encoder, clip)[0]
    history = clip.frame.shape[1] - len(rates)
    return rates[wanted.start - history : wanted.stop - history]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("system", choices=sorted(QUICK))
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--neurons", type=int, default=7863)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--allocator", choices=sorted(ALLOCATORS), default="default")
    parser.add_argument(
        "--rounds", type=int, choices=range(1, 100), default=1, metavar="N", help="of each side"
    )
    parser.add_argument("--quick", action="store_true", help="a short trial")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    frames = QUICK[options.system] if options.quick else options.frames
    if options.side:
        seconds, cpu_seconds, megabytes, rates = predict(
            options.system,
            options.side,
            frames=frames,
            neurons=options.neurons,
            threads=options.threads,
            device=options.device,
        )
        np.save(options.output, rates)
        times = {"seconds": seconds, "CPU seconds": cpu_seconds}
        print(json.dumps(times | {"megabytes": megabytes}))
        return
    found: dict[str, Any] = {}
    rates = {}
    with tempfile.TemporaryDirectory() as folder:
        for side in ("plain", "ours") * options.rounds:
            output = Path(folder) / f"{side}.npy"
            arguments = ["--side", side, "--output", str(output)]
            values = measured(arguments, allocator=options.allocator)
            earlier = found.get(side, values)
            found[side] = {what: min(value, earlier[what]) for what, value in values.items()}
            rates[side] = np.load(output)
    print(
        f"{options.system}, a trial of {frames} frames, {options.neurons} neurons, "
        f"{options.threads} threads, {options.device}, allocator {options.allocator}, "
        f"rounds: {options.rounds}"
    )
    for side, values in found.items():
        print(
            f"  {side:5}  {values['seconds']:8.2f} s  {values['CPU seconds']:8.2f} CPU s  "
            f"{values['megabytes']:8.0f} MB at the peak"
        )
    for what in ("seconds", "CPU seconds", "megabytes"):
        print(f"  ratio of {what}: {found['plain'][what] / found['ours'][what]:.2f}")
    deviation = np.abs(rates["plain"] - rates["ours"]).max() / np.abs(rates["plain"]).max()
    print(f"  largest deviation: {deviation:.1e} of the largest rate")


if __name__ == "__main__":
    main()
