"""The processes that train one member together, through Lightning Fabric: device, precision, sums.

One process per GPU, always started here: a job is one task, whatever number of tasks its allocation
has. On the CPU they speak through gloo. The animals are divided between them and gradients are
summed, so that the result is that of one process up to rounding.
"""

from collections.abc import Sequence
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision, Precision
from lightning_fabric.plugins.environments import LightningEnvironment
from torch import nn

from sensorium_models.recipes import Recipe
from sensorium_models.recordings.clips import Places
from sensorium_models.recordings.samplers import Sampler
from sensorium_models.recordings.several_animals import AnimalCycle
from sensorium_models.training.feeding import TrainingError


def make_fabric(device: torch.device, recipe: Recipe, *, processes: int) -> Fabric:
    """Fabric for so many processes of this kind of device.

    Raises:
        TrainingError: the recipe's batches cannot be divided between processes.
    """
    if processes > 1 and recipe.batches != "all_animals_summed":
        raise TrainingError(
            f"recipe.batches: {recipe.batches} makes a step of one batch, which is not divided "
            f"between {processes} processes. Set resources.gpus: 1."
        )
    plugins: list[Any] = [precision_plugin(recipe, device), LightningEnvironment()]
    index = [device.index] if device.index is not None and processes == 1 else processes
    strategy: Any = "auto"
    if processes > 1:
        # A batch of every animal has its own readout, so no process ever uses all parameters:
        # gradients are summed here, not by DistributedDataParallel.
        strategy = "ddp_spawn"
    return Fabric(
        accelerator=device.type, devices=index, strategy=strategy, plugins=plugins, num_nodes=1
    )


def precision_plugin(recipe: Recipe, device: torch.device) -> Precision:
    """How the recipe computes; it holds the scaler of gradients in fp16."""
    if recipe.precision == "bf16":
        return MixedPrecision("bf16-mixed", device.type)
    if recipe.precision == "fp16":
        return MixedPrecision("16-mixed", device.type)
    return Precision()


def sum_gradients(fabric: Fabric, parameters: Sequence[nn.Parameter]) -> None:
    """Sum the gradients of all processes; a parameter that none has used keeps none."""
    if fabric.world_size == 1:
        return
    has = torch.tensor([float(p.grad is not None) for p in parameters], device=fabric.device)
    fabric.all_reduce(has, reduce_op="sum")
    used = [p for p, count in zip(parameters, has.tolist(), strict=True) if count]
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in used]
    flat = torch.cat([part.flatten() for part in parts])
    fabric.all_reduce(flat, reduce_op="sum")
    for parameter, part in zip(used, flat.split([p.numel() for p in used]), strict=True):
        parameter.grad = part.view_as(parameter).clone()


def any_process(fabric: Fabric, condition: bool) -> bool:
    """Whether it holds in any process; all of them must ask."""
    if fabric.world_size == 1:
        return condition
    flag = torch.tensor(float(condition), device=fabric.device)
    fabric.all_reduce(flag, reduce_op="sum")
    return bool(flag.item())


def summed(fabric: Fabric, values: Sequence[float]) -> list[float]:
    """Each value summed over all processes."""
    if fabric.world_size == 1:
        return list(values)
    total = torch.tensor(values, dtype=torch.float64, device=fabric.device)
    fabric.all_reduce(total, reduce_op="sum")
    return total.tolist()


def gathered(fabric: Fabric, parts: dict[str, Any]) -> dict[str, Any]:
    """The entries of all processes together."""
    all_parts: list[Any] = [None] * fabric.world_size
    torch.distributed.all_gather_object(all_parts, parts)
    return {key: value for part in all_parts for key, value in part.items()}


def share_statistics(fabric: Fabric, network: nn.Module, *, animals: int) -> None:
    """Batch statistics that saw the last animal's batch reach all processes."""
    if fabric.world_size == 1:
        return
    for buffer in network.buffers():
        torch.distributed.broadcast(buffer, src=(animals - 1) % fabric.world_size)


def own_animals(fabric: Fabric, animals: Sequence[str]) -> list[str]:
    """The animals of this process: every so many-th."""
    return list(animals[fabric.global_rank :: fabric.world_size])


class OwnShare(Sampler):
    """Of a cycle of all animals, the batches of some: what one of several processes is fed.

    The position is that of the whole cycle, between two rounds, and so the same in all processes.
    """

    def __init__(self, cycle: AnimalCycle, animals: Sequence[str]) -> None:
        self.recordings = cycle.recordings
        self._cycle = cycle
        self._animals = list(animals)
        self._waiting: list[Places] = []

    @property
    def batches_per_epoch(self) -> int:
        return self._cycle.rounds_per_epoch * len(self._animals)

    @property
    def batch_bytes(self) -> int:
        return self._cycle.batch_bytes

    def next_places(self) -> Places:
        if not self._waiting:
            a_round = [self._cycle.next_places() for _ in self._cycle.animals]
            self._waiting = [places for places in a_round if places.animal[0] in self._animals]
        return self._waiting.pop(0)

    def state(self) -> dict[str, Any]:
        return self._cycle.state()

    def restore(self, state: Any) -> None:
        self._waiting = []
        self._cycle.restore(state)
