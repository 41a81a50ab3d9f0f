"""Frames read past HDF5, straight from where it says that a dataset of a store lies.

One copy, from the page cache to where the caller wants them, without HDF5's global lock. They are
read, not mapped: a network file system that fails then ends in a sentence, not in a bus error, and
what is read does not count as the process's memory.
"""

import math
import os
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

# Frames at least this long are read one by one where not all are wanted.
_PAGE_BYTES = 4096


class StoreError(ValueError):
    """A recording store is missing, damaged, or lacks what was asked of it."""


@dataclass(frozen=True)
class Extent:
    """Where a dataset lies in its file; its frames follow one another without gaps."""

    path: Path  # for messages
    offset: int
    frame_shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def frame_bytes(self) -> int:
        return math.prod(self.frame_shape) * self.dtype.itemsize

    def read(self, descriptor: int, first: int, step: int, out: np.ndarray) -> None:
        """Every `step`-th frame from `first` on until `out` (T, *frame_shape), contiguous, is full.

        Args:
            descriptor: of the open file; no position in it is used or changed, so threads and
                processes may share it.

        Raises:
            StoreError: the file cannot be read.
        """
        size = self.frame_bytes
        offset = self.offset + first * size
        span = (len(out) - 1) * step + 1
        if step == 1:
            self._read_bytes(descriptor, offset, out.reshape(-1).view(np.uint8))
        elif size < _PAGE_BYTES:
            frames = np.empty((span, *self.frame_shape), self.dtype)
            self._read_bytes(descriptor, offset, frames.reshape(-1).view(np.uint8))
            out[:] = frames[::step]
        else:
            # One request to the disk for all of it; copied from the page cache is what is wanted.
            if hasattr(os, "posix_fadvise"):  # not on a Mac
                os.posix_fadvise(descriptor, offset, span * size, os.POSIX_FADV_WILLNEED)
            for row, frame in enumerate(out.reshape(len(out), -1).view(np.uint8)):
                self._read_bytes(descriptor, offset + row * step * size, frame)

    def _read_bytes(self, descriptor: int, offset: int, out: np.ndarray) -> None:
        """Fill `out` (bytes) from `offset` of the file on."""
        try:
            while count := os.preadv(descriptor, [out], offset):  # type: ignore[list-item]
                if count == len(out):
                    return
                out, offset = out[count:], offset + count
            raise OSError("the file ends before its data")
        except OSError as error:
            raise StoreError(
                f"{self.path} cannot be read any more ({error}). See whether its disk is reachable"
                " and whether the file was replaced meanwhile, then start again."
            ) from error


def extent_of(dataset: h5py.Dataset) -> Extent:
    """Where the frames (first axis) of an HDF5 dataset lie.

    Raises:
        StoreError: not in one piece, or not as numbers of this machine.
    """
    path = Path(dataset.file.filename)
    # None where nothing is stored, or not in one piece.
    offset = dataset.id.get_offset() if dataset.size else 0
    if offset is None or not dataset.dtype.isnative:
        raise StoreError(
            f"{path}: {dataset.name.strip('/')} is not stored as one piece of this machine's"
            " numbers, so it was not written by this program. Remove the file and preprocess again."
        )
    return Extent(path, offset, dataset.shape[1:], dataset.dtype)
