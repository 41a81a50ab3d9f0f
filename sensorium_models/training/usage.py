"""What a training takes: time, memory, energy; summed over the processes that it was restarted in.

Energy is that of the whole GPU, where NVIDIA's driver tells (Volta and later).
"""

import time
from collections.abc import Mapping
from typing import Any

import torch

from sensorium_models.provenance import environment, peak_memory_mb


class Usage:
    """Measured from its making on, on top of what earlier processes took."""

    def __init__(self, device: torch.device, *, processes: int) -> None:
        self._device = device
        self._processes = processes
        self._started = time.monotonic()
        self._energy_at_start = _energy_joules(device)
        self._earlier: Mapping[str, Any] = {}
        self._machines = [machine()]

    def report(self) -> dict[str, Any]:
        """For the record, and to be restored from: plain numbers.

        `gpu_seconds` count every GPU; `energy_joules` (of this machine's first GPU of the training)
        is None where the driver does not tell. `machines`: one for every time the training began.
        """
        seconds = time.monotonic() - self._started
        gpu = seconds * self._processes if self._device.type == "cuda" else 0.0
        now, before = _energy_joules(self._device), self._energy_at_start
        energy = None if now is None or before is None else now - before
        earlier = self._earlier.get("energy_joules")
        if energy is not None and earlier is not None:
            energy += earlier
        memory = dict(self._earlier.get("peak_memory_mb", {}))
        for kind, mb in peak_memory(self._device).items():
            memory[kind] = max(mb, memory.get(kind, 0.0))
        return {
            "wall_seconds": self._earlier.get("wall_seconds", 0.0) + seconds,
            "gpu_seconds": self._earlier.get("gpu_seconds", 0.0) + gpu,
            "energy_joules": earlier if energy is None else energy,
            "peak_memory_mb": memory,
            "machines": list(self._machines),
        }

    def restore(self, report: Mapping[str, Any]) -> None:
        """Count on top of what an earlier process reported."""
        self._earlier = dict(report)
        self._machines = [*report["machines"], machine()]


def peak_memory(device: torch.device) -> dict[str, float]:
    """Largest memory so far in MB: of the process, and on the GPU where one is used."""
    peaks = {"host": peak_memory_mb()}
    if device.type == "cuda":
        peaks["gpu"] = torch.cuda.max_memory_allocated(device) / 1024**2
    return peaks


def machine() -> str:
    """Processor, and GPU where there is one; a training may go on elsewhere."""
    parts = environment()["machine"]
    return " + ".join(str(part) for part in (parts["processor"], parts["gpu"]) if part)


def _energy_joules(device: torch.device) -> float | None:
    """What the GPU has used since its driver was loaded; None where nobody tells."""
    if device.type != "cuda":
        return None
    try:
        import pynvml

        pynvml.nvmlInit()
        try:
            uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
            handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
            return pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000
        finally:
            pynvml.nvmlShutdown()
    except Exception:
        # An optional measurement, of drivers and virtual machines of every kind.
        return None
