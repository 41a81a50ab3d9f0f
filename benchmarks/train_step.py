"""The gradient of one training batch of a published network at full size: ours against plainly.

    python benchmarks/train_step.py factorized_baseline [--clips 8] [--neurons 7863] [--quick]

Ours is what a training does with a batch of the system's recipe (one animal), the other side a
plain transcription of the model card. Both have the same weights, clips and noise (dropout is off),
and run in processes of their own, one after the other, with the same threads and the same settings
of the memory allocator. Printed for each: wall and CPU seconds of a batch, forward and backward
(median of `--steps` after one that does not count; `--steps 0` takes that one), frames per second,
peak memory, and the part of the rate at which this process multiplies matrices in the same run;
what counts is the plain side's multiplications. Then the ratios, how far rates, loss and gradient
of the first batch lie apart (norm of the difference relative to the norm: the gradient as one
vector, then the tensors where it is worst), how long ours waited for clips read from a recording
store in the background, and how long a member would take whose ten animals were all like this one,
if no schedule ended it early, beside the paper's Table 2. With `--device cuda` both sides compute
on a GPU.

`--exact` runs the plain side once more, in float64 with the same noise, and prints how far each of
the two float32 sides lies from it: where they disagree by more than rounding should allow, this
tells whose rounding it is.

`--precision bf16` lets ours compute in bfloat16, which not every processor has (see
/proc/cpuinfo); the other side stays in float32. A busy machine takes more wall than CPU seconds:
compare the latter there, with one thread.
"""

import argparse
import json
import math
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import full_scale
import numpy as np
from batches import PLAIN, Batches
from memory import peak_megabytes, peak_on
from sides import ALLOCATORS, measured

QUICK = {
    "factorized_baseline": 20,
    "gru_baseline": 4,
    "viv1t": 28,
    "viv1t_2025": 8,
}  # frames of a clip


def run(options: argparse.Namespace) -> dict[str, Any]:
    """One side: times, memory and, in a file, the first batch's rates and gradients."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    torch.set_num_threads(options.threads)
    low = options.precision == "bf16" and options.side == "ours"
    place = torch.device(options.device)
    rate = matrix_rate(torch, torch.bfloat16 if low else torch.float32, place)
    batches = Batches(options)
    add = getattr(batches, options.side)
    found: dict[str, Any] = {"matrix_rate": rate}
    before = peak_on(place) if place.type == "cpu" else 0.0
    clip = batches.batches.next_batch()
    begin, used = time.perf_counter(), time.process_time()
    # Counting takes fused kernels apart, whose memory would count, too: on the plain side only.
    mapping = {torch.ops.aten.convolution_backward: _multiplied_backwards}
    counter = FlopCounterMode(display=False, custom_mapping=mapping)
    with nullcontext() if options.side == "ours" else counter:
        found["loss"] = add(clip)
    first = time.perf_counter() - begin, time.process_time() - used
    found["multiplications"] = counter.get_total_flops()
    kept = {f"gradient of {n}": p.grad for n, p in batches.encoder.named_parameters()}
    kept["rates"] = torch.cat([rates.cpu().double() for rates in batches.rates])
    # Not wanted: gradients that are rounding alone, by the system's own list.
    patterns = batches.system.no_gradient
    np.savez(
        options.output,
        **{
            n: v.cpu().numpy()
            for n, v in kept.items()
            if v is not None and not _listed(n, patterns)
        },
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
        "megabytes": peak_on(place) - before,
        "hardware": torch.cuda.get_device_name(place) if place.type == "cuda" else "processor",
        "batches_at_most": batches.batches_at_most,
        "process": peak_megabytes(),
        "clips": len(clip.animal),
        "frames": clip.frame.shape[1],
        "neurons": int(batches.encoder.readouts[clip.animal[0]].bias.numel())
        if hasattr(batches.encoder.readouts[clip.animal[0]], "bias")
        else options.neurons,
    }


def _multiplied_backwards(
    grad_out: Any, _x: Any, weight: Any, *rest: Any, out_shape: Any = None
) -> int:
    """Operations of a convolution's gradients; PyTorch's own count takes no notice of groups."""
    output_mask = rest[-1]
    forwards = 2 * math.prod(weight) * grad_out[0] * math.prod(grad_out[2:])
    return int(forwards * sum(output_mask[:2]))


def matrix_rate(torch: Any, dtype: Any, device: Any) -> float:
    """Floating-point operations per second of a large matrix product in this process."""
    size = 2048 if device.type == "cpu" else 8192
    factor = torch.rand(size, size).to(device, dtype)

    def multiply() -> None:
        float((factor @ factor)[0, 0])  # waits for it

    return 2 * size**3 / full_scale.median_seconds(multiply, 5)


def apart(ours: Any, other: Any) -> dict[str, float]:
    """Norm of the difference relative to the other side's, by name, largest first.

    `gradient` is all gradients as one vector. Parts of it that are small beside the whole (a bias
    that batch norms take off again has none but rounding) are measured against a thousandth of it.
    """
    norms = {name: np.linalg.norm(other[name].astype(np.float64)) for name in other.files}
    missed = {n: np.linalg.norm(ours[n].reshape(other[n].shape) - other[n]) for n in norms}
    whole, off = (
        np.sqrt(sum(v**2 for name, v in values.items() if name != "rates"))
        for values in (norms, missed)
    )
    found = {name: float(v / max(norms[name], 1e-3 * whole)) for name, v in missed.items()}
    found = dict(sorted(found.items(), key=lambda item: -item[1]))
    return {"gradient": float(off / whole), **found}


def _listed(name: str, patterns: Any) -> bool:
    from fnmatch import fnmatchcase

    return any(fnmatchcase(name, f"gradient of {pattern}") for pattern in patterns)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("system", choices=list(PLAIN))
    parser.add_argument("--clips", type=int, help="per batch; the recipe's by default")
    parser.add_argument("--frames", type=int, help="of a clip; the recipe's by default")
    parser.add_argument("--neurons", type=int, default=full_scale.NEURONS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--allocator", choices=sorted(ALLOCATORS), default="keeping")
    parser.add_argument("--precision", choices=["float32", "bf16"], default="float32")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=JSON", help="of recipe")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
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
    loss = abs(losses[side] / losses[other] - 1)
    rates, gradient = far.pop("rates"), far.pop("gradient")
    print(
        f"  {side} from {other}: loss {loss:.1e}, rates {rates:.1e}, gradient {gradient:.1e}, "
        "of which"
    )
    for what, distance in list(far.items())[:3]:
        print(f"    {distance:.1e}  {what}")


def _published_hours(system: str) -> str:
    from sensorium_models.reporting.published import published

    rows = published().query("source_table == '2' and system == @system")
    values = dict(zip(rows["quantity"], rows["value"], strict=True))
    return f"{values['wall_time']} h on {values['gpu']}" if "wall_time" in values else "none"


def _simulated(options: argparse.Namespace, folder: Path) -> Path:
    options.archive, options.trials = None, max(4, options.clips or 32)
    full_scale.preprocess(full_scale.simulated_archive(options, folder), folder / "F.h5")
    return folder / "F.h5"


def _print(options: argparse.Namespace, found: dict[str, Any]) -> None:
    one = next(iter(found.values()))
    print(
        f"{options.system}: {one['clips']} clips of {one['frames']} frames, {one['neurons']} "
        f"neurons, {options.threads} threads, {options.precision}, {one['hardware']}, "
        f"{full_scale.machine()}\n"
        f"  allocator of all: {options.allocator} {ALLOCATORS[options.allocator]}"
    )
    work = found["plain"]["multiplications"] if "plain" in found else None
    for side, values in found.items():
        rate = f"{values['matrix_rate'] / 1e9:.0f} GFLOP/s"
        if work:
            rate = f"{work / values['wall'] / values['matrix_rate']:6.1%} of {rate}"
        print(
            f"  {side:5}  {values['wall']:8.2f} s  {values['cpu']:8.2f} CPU s  "
            f"{values['clips'] * values['frames'] / values['wall']:8.1f} frames/s  "
            f"{values['megabytes']:8.0f} MB at the peak ({values['process']:.0f} MB of the "
            f"process)  {rate}"
        )
    if len(found) == 2:
        for what in ("wall", "cpu", "megabytes"):
            ratio = found["plain"][what] / found["ours"][what]
            print(f"  ratio of {what}: {ratio:.2f}")
    if "ours" in found:
        print(f"  ours waited for clips {found['ours']['waiting']:.2%} of the time")
        hours = found["ours"]["batches_at_most"] * found["ours"]["wall"] / 3600
        print(
            f"  a member: at most {hours:,.0f} h at this rate and with so many batches; "
            f"Table 2: {_published_hours(options.system)}"
        )


if __name__ == "__main__":
    main()
