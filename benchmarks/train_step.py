"""The gradient of one training batch of a published network at full size: ours against plainly.

    python benchmarks/train_step.py factorized_baseline [--clips 8] [--neurons 7863] [--quick]

Ours is what a training does with a batch of the system's recipe (one animal), the other side a
plain transcription of the model card; where there is none, ours is measured alone. Both have the
same weights, clips and noise (dropout is off), and run in processes of their own, one after the
other, with the same threads and the same settings of the memory allocator. Printed for each: wall
and CPU seconds of a batch, forward and backward (median of `--steps` after one that does not count;
`--steps 0` takes that one), peak memory, and the part of the rate at which this process multiplies
matrices in the same run; what counts is the plain side's multiplications. Then the ratios, how far
rates, loss and gradients of the first batch lie apart (norm of the difference relative to the
norm), and how long ours waited for clips read from a recording store in the background.

`--exact` runs the plain side once more, in float64 with the same noise, and prints how far each of
the two float32 sides lies from it: where they disagree by more than rounding should allow, this
tells whose rounding it is.

`--precision bf16` lets ours compute in bfloat16, which not every processor has (see
/proc/cpuinfo); the other side stays in float32. A busy machine takes more wall than CPU seconds:
compare the latter there, with one thread.
"""

import argparse
import dataclasses
import importlib
import json
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import full_scale
import numpy as np
from memory import peak_megabytes
from sides import ALLOCATORS, measured

PLAIN = {
    "factorized_baseline": "plain_baselines",
    "gru_baseline": "plain_baselines",
    "dwiseneuro": "plain_dwiseneuro",
    "dynamic_v1fm": "plain_dynamic_v1fm",
    "viv1t": "plain_viv1t",
}
QUICK = {
    "factorized_baseline": 20,
    "gru_baseline": 4,
    "viv1t": 28,
    "viv1t_2025": 8,
}  # frames of a clip
SYSTEMS = [*PLAIN, "viv1t_2025"]


class Batches:
    """Batches of a system, its untrained network, and the loss and gradient of a batch."""

    def __init__(self, options: argparse.Namespace) -> None:
        import torch

        from sensorium_models.configuration import Origin
        from sensorium_models.networks.build import animal_facts, build_encoder
        from sensorium_models.recordings.store import Recording
        from sensorium_models.systems import System, load_system, with_changes
        from sensorium_models.training.facts import trial_counts, usable_caps
        from sensorium_models.training.feeding import ReadAhead
        from sensorium_models.training.processes import make_fabric
        from sensorium_models.training.sampling import make_feed
        from sensorium_models.training.steps import Gradients

        shipped = load_system(options.system, folders=[], members={}, origin=Origin([], {}))
        recipe: dict[str, Any] = {"precision": options.precision}
        if options.clips:
            recipe["clips_per_batch"] = options.clips
        if options.frames:
            recipe["clip_frames"] = options.frames
        for change in options.set:
            key, value = change.split("=")
            recipe[key] = json.loads(value)
        # As the file stands, without what an axis of the members changes.
        own = shipped.model_dump()
        self.system = System.model_validate(with_changes(own, {"recipe": recipe}))
        recording = Recording(options.store)
        animal = recording.animal
        trials = {animal: recording.trials_of(["train"])}
        facts = {animal: animal_facts(recording, self.system)}
        self.encoder = build_encoder(self.system, facts, seed=1).train()
        self._without_noise(torch)
        caps = usable_caps(facts, 300)
        settings = self.system.recipe
        feed = make_feed(settings, {animal: recording}, trials, caps=caps, seed=1)
        self.batches = ReadAhead(feed.sampler)
        self.counts = trial_counts({animal: recording}, trials)
        self.gradients = Gradients(
            self.encoder,
            recipe=settings,
            counts=self.counts,
            fabric=make_fabric(torch.device("cpu"), settings, processes=1),
            seed=1,
            teacher=None,
        )
        self.rates: list[Any] = []

    def ours(self, clip: Any) -> float:
        """Add the gradient of a batch as a training does, but for CutMix."""
        return float(self.gradients.add(dataclasses.replace(clip, partner=None), step=0))

    def exact(self, clip: Any) -> float:
        """Add the gradient of a batch by the plain transcription, in float64."""
        import torch

        drawn: Any = torch.randn

        def same_noise(*size: Any, dtype: Any = None, **keywords: Any) -> Any:
            return drawn(*size, dtype=torch.float32, **keywords).to(dtype)

        self.encoder.double()
        # The loss and the noise are float32 by their own code, which is the same in both sides.
        with (
            mock.patch.object(torch, "randn", same_noise),
            mock.patch.object(torch.Tensor, "float", torch.Tensor.double),
        ):
            return self.plain(clip)

    def plain(self, clip: Any) -> float:
        """Add the gradient of a batch by the plain transcription."""
        import torch

        from sensorium_models.networks.inputs import to_device
        from sensorium_models.training.feeding import stream_seed
        from sensorium_models.training.losses import PoissonLoss

        animal = clip.animal[0]
        torch.manual_seed(stream_seed(1, f"noise/0/{animal}"))
        clip = to_device(dataclasses.replace(clip, partner=None), "cpu")
        side: Any = importlib.import_module(PLAIN[self.system.name])
        rates = side.rates(self.encoder, clip)
        self.rates = [rates.detach()]
        recorded = self.encoder.inputs[animal].responses(clip)[:, -rates.shape[1] :]
        if self.system.recipe.negative_responses == "zero":
            recorded = recorded.clamp(min=0)
        loss_of = PoissonLoss(self.system.recipe.loss)
        if self.system.recipe.batches == "mixed_animals":
            loss = loss_of.by_clip(rates, recorded).mean()
        else:
            loss = loss_of(rates, recorded, counts=self.counts[animal])
        loss = loss + self.encoder.regularizer(animal)
        loss.backward()
        return float(loss.detach())

    def _without_noise(self, torch: Any) -> None:
        """What is the same in both sides: no dropout, and weights that no longer are all alike."""
        from sensorium_models.networks.cores.attention import BlockSettings

        for part in self.encoder.modules():
            for name in ("probability", "patch_dropout"):
                if isinstance(getattr(part, name, None), float):
                    setattr(part, name, 0.0)
            if isinstance(settings := getattr(part, "settings", None), BlockSettings):
                rates = ("attention_dropout", "feedforward_dropout", "drop_path")
                part.settings = dataclasses.replace(settings, **dict.fromkeys(rates, 0.0))
            if isinstance(part, torch.nn.modules.dropout._DropoutNd):
                part.p = 0.0
        for name, values in self.encoder.named_parameters():
            if name.startswith("readouts.") and name.endswith(".features"):
                torch.nn.init.normal_(values, std=1 / len(values))

        def kept(module: Any, given: Any, rates: Any) -> None:
            self.rates.append(rates.detach())

        self.encoder.output.register_forward_hook(kept)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """One side: times, memory and, in a file, the first batch's rates and gradients."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    torch.set_num_threads(options.threads)
    low = options.precision == "bf16" and options.side == "ours"
    rate = matrix_rate(torch, torch.bfloat16 if low else torch.float32)
    batches = Batches(options)
    add = getattr(batches, options.side)
    found: dict[str, Any] = {"matrix_rate": rate}
    before = peak_megabytes()
    clip = batches.batches.next_batch()
    begin, used = time.perf_counter(), time.process_time()
    # Counting takes fused kernels apart, whose memory would count, too: on the plain side only.
    counter = FlopCounterMode(display=False)
    with nullcontext() if options.side == "ours" else counter:
        found["loss"] = add(clip)
    first = time.perf_counter() - begin, time.process_time() - used
    found["multiplications"] = counter.get_total_flops()
    kept = {f"gradient of {n}": p.grad for n, p in batches.encoder.named_parameters()}
    kept["rates"] = torch.cat([rates.double() for rates in batches.rates])
    # Not wanted: gradients that are rounding alone, by the system's own list.
    patterns = batches.system.no_gradient
    np.savez(
        options.output,
        **{n: v.numpy() for n, v in kept.items() if v is not None and not _listed(n, patterns)},
    )
    del kept
    wall, cpu, waiting = [], [], []
    for _ in range(0 if options.side == "exact" else options.steps):
        batches.rates.clear()
        batches.encoder.zero_grad(set_to_none=True)
        begin, used = time.perf_counter(), time.process_time()
        clip = batches.batches.next_batch()
        waiting.append(time.perf_counter() - begin)
        add(clip)
        wall.append(time.perf_counter() - begin)
        cpu.append(time.process_time() - used)
    if not wall:
        wall, cpu, waiting = [first[0]], [first[1]], [0.0]
    batches.batches.close()
    return found | {
        "wall": float(np.median(wall)),
        "cpu": float(np.median(cpu)),
        "waiting": sum(waiting) / sum(wall),
        "megabytes": peak_megabytes() - before,
        "process": peak_megabytes(),
        "clips": len(clip.animal),
        "frames": clip.frame.shape[1],
        "neurons": int(batches.encoder.readouts[clip.animal[0]].bias.numel())
        if hasattr(batches.encoder.readouts[clip.animal[0]], "bias")
        else options.neurons,
    }


def matrix_rate(torch: Any, dtype: Any) -> float:
    """Floating-point operations per second of a large matrix product in this process."""
    size = 2048
    factor = torch.rand(size, size).to(dtype)
    return 2 * size**3 / full_scale.median_seconds(lambda: factor @ factor, 5)


def apart(ours: Any, plain: Any) -> dict[str, float]:
    """Norm of the difference relative to the plain side's, by name, largest first."""
    found = {}
    for name in plain.files:
        expected = plain[name].astype(np.float64)
        if np.linalg.norm(expected):
            missed = ours[name].reshape(expected.shape) - expected
            found[name] = float(np.linalg.norm(missed) / np.linalg.norm(expected))
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _listed(name: str, patterns: Any) -> bool:
    from fnmatch import fnmatchcase

    return any(fnmatchcase(name, f"gradient of {pattern}") for pattern in patterns)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("system", choices=SYSTEMS)
    parser.add_argument("--clips", type=int, help="per batch; the recipe's by default")
    parser.add_argument("--frames", type=int, help="of a clip; the recipe's by default")
    parser.add_argument("--neurons", type=int, default=full_scale.NEURONS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--allocator", choices=sorted(ALLOCATORS), default="keeping")
    parser.add_argument("--precision", choices=["float32", "bf16"], default="float32")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=JSON", help="of recipe")
    parser.add_argument("--only", choices=["ours", "plain"], help="one side alone")
    parser.add_argument("--exact", action="store_true", help="compare with float64, too")
    parser.add_argument("--store", type=Path, help="recording store; simulated by default")
    parser.add_argument("--quick", action="store_true", help="one short clip, 50 neurons")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.clips, options.neurons, options.steps = 1, min(options.neurons, 50), 1
        options.frames = QUICK.get(options.system)
    if options.side:
        print(json.dumps(run(options)))
        return
    sides = [options.only] if options.only else ["plain", "ours"]
    if options.exact:
        sides.append("exact")
    sides = [side for side in sides if side == "ours" or options.system in PLAIN]
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        folder = Path(name)
        store = options.store or _simulated(options, folder)
        for side in sides:
            arguments = ["--side", side, "--store", str(store), "--output", str(folder / side)]
            found[side] = measured(arguments, allocator=options.allocator)
        exact = found.pop("exact", None)
        _print(options, found)
        losses = {side: values["loss"] for side, values in found.items()}
        if len(found) == 2:
            _print_distance(folder, "ours", "plain", losses)
        if exact:
            for side in found:
                _print_distance(folder, side, "exact", losses | {"exact": exact["loss"]})


def _print_distance(folder: Path, side: str, other: str, losses: dict[str, float]) -> None:
    far = apart(np.load(folder / f"{side}.npz"), np.load(folder / f"{other}.npz"))
    rates, loss = far.pop("rates"), abs(losses[side] / losses[other] - 1)
    print(f"  {side} from {other}: loss {loss:.1e}, rates {rates:.1e}, gradients")
    for what, distance in list(far.items())[:3]:
        print(f"    {distance:.1e}  {what}")


def _simulated(options: argparse.Namespace, folder: Path) -> Path:
    options.archive, options.trials = None, max(4, options.clips or 32)
    full_scale.preprocess(full_scale.simulated_archive(options, folder), folder / "F.h5")
    return folder / "F.h5"


def _print(options: argparse.Namespace, found: dict[str, Any]) -> None:
    one = next(iter(found.values()))
    print(
        f"{options.system}: {one['clips']} clips of {one['frames']} frames, {one['neurons']} "
        f"neurons, {options.threads} threads, {options.precision}, {full_scale.machine()}\n"
        f"  allocator of all: {options.allocator} {ALLOCATORS[options.allocator]}"
    )
    work = found["plain"]["multiplications"] if "plain" in found else None
    for side, values in found.items():
        rate = f"{values['matrix_rate'] / 1e9:.0f} GFLOP/s"
        if work:
            rate = f"{work / values['wall'] / values['matrix_rate']:6.1%} of {rate}"
        print(
            f"  {side:5}  {values['wall']:8.2f} s  {values['cpu']:8.2f} CPU s  "
            f"{values['megabytes']:8.0f} MB at the peak ({values['process']:.0f} MB of the "
            f"process)  {rate}"
        )
    if len(found) == 2:
        for what in ("wall", "cpu", "megabytes"):
            ratio = found["plain"][what] / found["ours"][what]
            print(f"  ratio of {what}: {ratio:.2f}")
    if "ours" in found:
        print(f"  ours waited for clips {found['ours']['waiting']:.2%} of the time")


if __name__ == "__main__":
    main()
