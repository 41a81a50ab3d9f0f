"""Reading batches into memory that is used again: by threads of this process, or by others.

Which of them reads changes no bit: what is read where is decided before, and every batch has a
piece of memory of its own. This module imports little, because other processes start with it.
"""

import ctypes
import math
import multiprocessing
import os
import signal
import threading
from collections.abc import Mapping
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import numpy as np

from sensorium_models.recordings.clips import (
    ALIGNMENT_BYTES,
    Clip,
    Places,
    empty_clip,
    fill_clip,
)
from sensorium_models.recordings.store import Recording

START_METHODS = ("spawn", "fork")

# One thread alone neither fills the memory bus nor keeps a network file system busy.
_THREADS = 2


class Arena:
    """Arrays laid end to end in one piece of memory, from its beginning again for every batch."""

    def __init__(self, memory: Any) -> None:
        """`memory`: anything that exposes writable bytes; the arrays are views of it."""
        whole = np.frombuffer(memory, dtype=np.uint8)
        self.bytes = whole[-whole.ctypes.data % ALIGNMENT_BYTES :]
        self._used = 0

    def clear(self) -> None:
        """Give all memory to the next arrays; those handed out before will be overwritten."""
        self._used = 0

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """The next array of the arena, as from `numpy.empty`.

        Raises:
            ValueError: it does not fit.
        """
        size = math.prod(shape) * dtype.itemsize
        start, stop = self._used, self._used + size
        if stop > len(self.bytes):
            raise ValueError(
                f"A batch needs {stop:,} bytes or more, but its memory has {len(self.bytes):,}."
                " Give the sampler's batch_bytes."
            )
        self._used = -(-stop // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        return self.bytes[start:stop].view(dtype).reshape(shape)


class Readers:
    """Reads batches in the background, each into one of a few arenas.

    Args:
        recordings: stores of all animals that occur.
        arenas: how many batches may be read or used at a time.
        batch_bytes: memory of one batch (`Sampler.batch_bytes`).
        workers: processes that read, a batch each; 0 reads by threads of this one, which is enough
            unless the disk takes many requests at a time (network file systems).
        start_method: of the processes. `spawn` imports the main script anew, which must then keep
            what it does under `if __name__ == "__main__":`.
    """

    def __init__(
        self,
        recordings: Mapping[str, Recording],
        *,
        arenas: int,
        batch_bytes: int,
        workers: int = 0,
        start_method: str = "spawn",
    ) -> None:
        if workers < 0 or start_method not in START_METHODS:
            raise ValueError(
                f"Clips are read by 0 or more processes, started by {' or '.join(START_METHODS)},"
                f" not by {workers} processes and {start_method!r}."
            )
        self._recordings = dict(recordings)
        for recording in self._recordings.values():
            recording.trials  # noqa: B018  read once, here, rather than by every reader
        self._executor: Executor
        size = batch_bytes + ALIGNMENT_BYTES  # wherever the memory begins
        if workers == 0:
            memories: list[Any] = [np.empty(size, np.uint8) for _ in range(arenas)]
            self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="clips")
        else:
            context = multiprocessing.get_context(start_method)
            # Shared with the processes; without a name in the file system that could stay behind.
            memories = [context.RawArray(ctypes.c_ubyte, size) for _ in range(arenas)]
            self._executor = ProcessPoolExecutor(
                workers,
                mp_context=context,
                initializer=_prepare_process,
                initargs=(self._recordings, memories),
            )
        self.arenas = [Arena(memory) for memory in memories]
        self._processes = workers > 0

    def read(self, arena: int, places: Places) -> tuple[Clip, list[Future[None]]]:
        """Begin to read the clips at `places`; the clip is complete when all futures are done."""
        self.arenas[arena].clear()
        clip = empty_clip(self._recordings, places, empty=self.arenas[arena].empty)
        if self._processes:
            return clip, [self._executor.submit(_read_in_process, arena, places)]
        shares = [range(first, len(places.animal), _THREADS) for first in range(_THREADS)]
        return clip, [
            self._executor.submit(fill_clip, self._recordings, places, clip, rows=share)
            for share in shares
            if share
        ]

    def close(self) -> None:
        """Stop reading."""
        self._executor.shutdown(wait=True, cancel_futures=True)


# What a reading process knows: the stores, and the memory that it shares.
_process_recordings: dict[str, Recording] = {}
_process_arenas: list[Arena] = []


def _prepare_process(recordings: dict[str, Recording], memories: list[Any]) -> None:
    # Whoever stops the job tells all its processes; when to stop reading, the training decides.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _process_recordings.update(recordings)
    _process_arenas.extend(Arena(memory) for memory in memories)


def _read_in_process(arena: int, places: Places) -> None:
    _process_arenas[arena].clear()
    clip = empty_clip(_process_recordings, places, empty=_process_arenas[arena].empty)
    fill_clip(_process_recordings, places, clip)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
