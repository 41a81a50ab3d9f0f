"""Settings of the C library's allocator for jobs on a processor.

As it comes, glibc hands every large array back to the system when it is freed, and the next one of
the same size is paged in anew: published steps took 1.6 to 2.8 times as long for it. The library
reads these variables when a process starts, so they must be there before; others ignore them.
"""

import os

KEEPING = {
    "MALLOC_MMAP_THRESHOLD_": str(2**32),
    "MALLOC_TRIM_THRESHOLD_": str(2**36),
    "MALLOC_TOP_PAD_": str(2**28),
}


def keep_freed_memory() -> None:
    """Let the processes that this one starts keep what they free; what is set already stays."""
    for name, value in KEEPING.items():
        os.environ.setdefault(name, value)


def allocator_settings() -> dict[str, str]:
    """The allocator's variables as this process was started with them."""
    return {name: value for name, value in sorted(os.environ.items()) if name.startswith("MALLOC_")}
