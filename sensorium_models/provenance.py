"""Where a result comes from: git commit, package versions, hardware, wall time, peak memory."""

import os
import platform
import resource
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import sensorium_models
from sensorium_models.allocator import allocator_settings

_PACKAGES = (
    *("torch", "lightning-fabric", "schedulefree", "safetensors"),
    *("numpy", "h5py", "pandas", "scipy", "matplotlib", "snakemake"),
)


def environment() -> dict[str, Any]:
    """Software and machine of this process; safe to store beside a result."""
    return {
        "sensorium_models": sensorium_models.__version__,
        "git": git_state(Path(__file__).resolve().parent),
        "python": platform.python_version(),
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
        "machine": {
            "system": platform.platform(),
            "processor": _processor(),
            "cpus": len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else os.cpu_count(),
            "gpu": _gpu(),
        },
        "allocator": allocator_settings(),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
    }


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit of the checkout around `folder` and whether it has uncommitted changes."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git(folder, "status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


class Usage:
    """Wall time and peak memory of this process since the object was made."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def report(self) -> dict[str, float]:
        """`wall_seconds` and `peak_memory_mb` (resident, of the whole process) so far."""
        seconds = time.monotonic() - self._start
        return {"wall_seconds": seconds, "peak_memory_mb": peak_memory_mb()}


def peak_memory_mb() -> float:
    """Largest resident memory of this program so far."""
    # Linux tells it of this program alone; getrusage begins with what its parent had in memory.
    status = Path("/proc/self/status")
    if status.exists() and "VmHWM:" in (text := status.read_text()):
        return int(text.split("VmHWM:")[1].split()[0]) / 1024
    unit = 1024**2 if sys.platform == "darwin" else 1024  # macOS counts bytes, others KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=30
    ).stdout.strip()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _gpu() -> str | None:
    # Asking torch only where it is loaded already keeps scoring free of its import.
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    return str(torch.cuda.get_device_name())
