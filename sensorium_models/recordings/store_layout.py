"""The datasets of a recording store before they hold anything: shapes, places in the file, room.

Contiguous datasets cannot grow, so all are planned, allocated, and then filled in any order. The
layout itself is that of `store`.
"""

import errno
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path, PurePosixPath
from typing import Any

import h5py
import numpy as np

from sensorium_models.recordings.archives import PUBLISHED_STATISTICS
from sensorium_models.recordings.repeats import QUADRANTS
from sensorium_models.recordings.sources import TrialSource
from sensorium_models.recordings.stimulus_types import STIMULUS_TYPES

DIGEST_BYTES = 32

# HDF5's own tables, names and attributes, generously.
_METADATA_BYTES = 1_000_000
_PAGE_BYTES = 4096

Layout = dict[str, tuple[tuple[int, ...], np.dtype]]


class DiskFullError(OSError):
    """There is not enough room for the store; the message says where and how much is needed."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.errno = errno.ENOSPC


@dataclass(frozen=True)
class Plan:
    """What must be known before the first frame is written."""

    frames: np.ndarray  # (trials,) int64
    video_dtype: np.dtype
    withheld: np.ndarray  # (trials,) bool


def plan_datasets(source: TrialSource, plan: Plan, longest: int) -> Layout:
    """Shape and dtype of every dataset but the published statistics."""
    layout: Layout = {}
    for modality in source.modalities:
        frames = plan.frames if modality != "responses" else plan.frames[~plan.withheld]
        dtype = plan.video_dtype if modality == "video" else np.dtype(np.float32)
        shape = source.leading_shape(modality)
        layout[modality] = ((int(frames.sum()), *shape), dtype)
        for key in PUBLISHED_STATISTICS:
            group = f"statistics/train/{modality}"
            layout[f"{group}/per_frame/{key}"] = ((longest, *shape), np.dtype(np.float64))
            layout[f"{group}/pooled/{key}"] = (shape, np.dtype(np.float64))
    layout["video_means"] = ((int(plan.frames.sum()), QUADRANTS), np.dtype(np.float32))
    layout |= {name: (array.shape, array.dtype) for name, array in neuron_table(source).items()}
    longest_tier = max(len(str(tier).encode()) for tier in source.tiers)
    longest_type = max(map(len, STIMULUS_TYPES))
    for column, kind in {
        "first_frame": "i8",
        "frames": "i8",
        "first_response_frame": "i8",
        "video": "i4",
        "tier": f"S{longest_tier}",
        "video_id": "S32",
        "signature": "S32",
        "perceptual_hash": "S16",
        "stimulus_type": f"S{longest_type}",
        "pixel_type": f"S{longest_type}",
    }.items():
        layout[f"trials/{column}"] = ((len(plan.frames),), np.dtype(kind))
    return layout


def neuron_table(source: TrialSource) -> dict[str, np.ndarray]:
    """Numbers and, where known, coordinates of the neurons, by dataset name."""
    neurons = {"neurons/id": source.neuron_ids}
    if source.coordinates is not None:
        neurons["neurons/coordinates"] = source.coordinates
    return neurons


def create(path: Path, layout: Layout, attributes: Mapping[str, Any]) -> dict[str, int]:
    """Describe all datasets and attributes in a new HDF5 file; return where their bytes belong.

    The bytes are then written as to any file. HDF5 itself would fail on a full disk in ways that
    cannot be caught cleanly; closed before the first frame, it has nothing left to lose.
    """
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    creation.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    # Whole pages, so that readers may also map them into memory.
    with h5py.File(
        path, "w", alignment_threshold=_PAGE_BYTES, alignment_interval=_PAGE_BYTES
    ) as file:
        offsets = {}
        for name, (shape, dtype) in layout.items():
            dataset = h5py.h5d.create(
                file.require_group(str(PurePosixPath(name).parent)).id,
                PurePosixPath(name).name.encode(),
                h5py.h5t.py_create(dtype, logical=True),
                h5py.h5s.create_simple(shape),
                creation,
            )
            offsets[name] = dataset.get_offset()
        # As long as the real one, which is known at the end and replaces it in place.
        file.attrs.update({**attributes, "digest": "00" * DIGEST_BYTES})
    return offsets


def fill(file: FileIO, offset: int, values: np.ndarray) -> None:
    """Write `values` as they are to the bytes from `offset` on."""
    content = np.ascontiguousarray(values).data.cast("B")
    while content:
        written = os.pwrite(file.fileno(), content, offset)
        content, offset = content[written:], offset + written


def bytes_needed(source: TrialSource, plan: Plan) -> int:
    """Upper bound of the size of the store, for one look at the disk before writing."""
    total = _METADATA_BYTES
    for name, (shape, dtype) in plan_datasets(source, plan, int(plan.frames.max())).items():
        # Published statistics are as large as our own.
        copies = 2 if name.startswith("statistics/") else 1
        total += copies * math.prod(shape) * dtype.itemsize
    return total


def check_room(store: Path, needed: int) -> None:
    """Refuse before anything is written if the disk has less than `needed` bytes free.

    Raises:
        DiskFullError: says how much is needed and free.
    """
    free = shutil.disk_usage(store.parent).free
    if free < needed:
        raise _disk_full(store, needed, free)


@contextmanager
def disk_full_said(store: Path, needed: int) -> Iterator[None]:
    """Turn the errors of a disk that fills up meanwhile into a `DiskFullError`."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        # HDF5 reports a full disk only in its text.
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        if isinstance(error, DiskFullError) or not (full or "No space left" in str(error)):
            raise
        raise _disk_full(store, needed, shutil.disk_usage(store.parent).free) from error


def _disk_full(store: Path, needed: int, free: int) -> DiskFullError:
    return DiskFullError(
        f"The recording store {store.name} needs {needed:,} bytes in {store.parent}, where only"
        f" {free:,} are free. Free some space or set `results:` to a folder on a larger disk."
    )
