"""What benchmarks with two sides share: the allocator's settings, and a process for each side."""

import json
import os
import signal
import subprocess
import sys
from typing import Any

from sensorium_models.allocator import KEEPING

# The C library's allocator as it comes, or as the workflow sets it for its jobs.
ALLOCATORS: dict[str, dict[str, str]] = {"default": {}, "keeping": KEEPING}


def measured(arguments: list[str], *, allocator: str) -> Any:
    """What a new process of the running program, given `arguments`, prints as its last line."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    command = [sys.executable, sys.argv[0], *sys.argv[1:], *arguments]
    done = subprocess.run(command, env=environment | ALLOCATORS[allocator], stdout=subprocess.PIPE)
    if done.returncode == -signal.SIGKILL:
        sys.exit(f"{' '.join(command[1:])} was killed, most likely for memory: ask for less.")
    done.check_returncode()
    return json.loads(done.stdout.splitlines()[-1])
