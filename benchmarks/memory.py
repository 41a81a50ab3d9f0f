"""Memory of the process that runs a benchmark."""

from pathlib import Path


def peak_megabytes() -> float:
    """Peak of this process alone; `getrusage` would start from its parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024
