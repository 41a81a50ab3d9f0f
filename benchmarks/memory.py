"""Memory of the process that runs a benchmark."""

from pathlib import Path
from typing import Any


def peak_megabytes() -> float:
    """Peak of this process alone; `getrusage` would start from its parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6


def peak_on(device: Any) -> float:
    """Peak megabytes of tensors on a GPU, of the whole process on a processor."""
    if device.type != "cuda":
        return peak_megabytes()
    import torch

    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) / 1e6
