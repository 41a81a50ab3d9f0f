"""From a released archive to the recording store: one pass over the trials in bounded memory.

Contiguous HDF5 datasets cannot grow, so the lengths of all trials must be known before the first
frame is written. They nearly always can be read off the first row of every array (a few kB each,
because time is the fastest axis on disk and padding is NaN in all rows); where that turns out wrong
(a frame only partly NaN, an array in Fortran order), the pass is repeated with what it found.
"""

import errno
import hashlib
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path, PurePosixPath
from typing import Any

import h5py
import numpy as np

from sensorium_models import files
from sensorium_models.progress import track
from sensorium_models.recordings import stimuli
from sensorium_models.recordings.archives import (
    PUBLISHED_STATISTICS,
    Archive,
    ArchiveError,
    open_archive,
)
from sensorium_models.recordings.statistics import RunningStatistics
from sensorium_models.recordings.store import SCHEMA_VERSION, WITHHELD

# Neurons (or pixels) transposed at a time: a block of all frames then stays in the cache.
_TRANSPOSED_ROWS = 256

# HDF5's own tables, names and attributes, generously.
_METADATA_BYTES = 1_000_000
_PAGE_BYTES = 4096
_DIGEST_BYTES = 32

_Layout = dict[str, tuple[tuple[int, ...], np.dtype]]

_RESAMPLING = "identity: the archive's frames are taken one for one"


class DiskFullError(OSError):
    """There is not enough room for the store; the message says where and how much is needed."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.errno = errno.ENOSPC


class _NotIntegralError(Exception):
    """A video turned out to hold values that uint8 cannot: write float32 instead."""


@dataclass(frozen=True)
class _Plan:
    """What must be known before the first frame is written."""

    frames: np.ndarray  # (trials,) int64
    video_dtype: np.dtype
    withheld: np.ndarray  # (trials,) bool


def write_store(
    *,
    archive: Path,
    store: Path,
    animal: str,
    neurons: int | None,
    frame_rate_hz: float,
    known_tiers: Sequence[str],
    withheld_tiers: Sequence[str],
    train_tier: str = "train",
    stimulus_types: Mapping[str, Sequence[str]] | None,
) -> None:
    """Write the recording store of one animal from its archive (zip or folder), atomically.

    Args:
        neurons: how many the animal must have according to the study; None takes what there is.
        frame_rate_hz: of the archive's frames, recorded in the store.
        known_tiers: tiers that may occur.
        withheld_tiers: tiers whose responses the publisher withholds (zeros): not stored. They
            never shorten a trial. Responses that are zero throughout any other tier are an error.
        train_tier: the tier of the store's own statistics.
        stimulus_types: per tier the types that this animal shows in it; other tiers show movies.

    Raises:
        ArchiveError: the archive cannot be used as it is; no store is left behind.
        DiskFullError: the store does not fit on its disk; no store is left behind.
    """
    if not frame_rate_hz > 0:
        raise ValueError(f"The frame rate of animal {animal} is {frame_rate_hz} Hz; give its rate.")
    with open_archive(archive) as source:
        _check_tiers(source, known_tiers, train_tier)
        if neurons is not None and neurons != len(source.neuron_ids):
            raise ArchiveError(
                f"{source.path}: holds {len(source.neuron_ids)} neurons, but the study's table says"
                f" {neurons} for animal {animal}. Correct the table, or use that animal's archive."
            )
        plan = _first_plan(source, withheld_tiers)
        needed = _bytes_needed(source, plan)
        store.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(store.parent).free
        if free < needed:
            raise _disk_full(store, needed, free)
        attributes = {
            "schema_version": SCHEMA_VERSION,
            "animal": animal,
            "folder": source.folder,
            "source": source.path.name,
            "source_checksum": source.checksum(),
            "frame_rate_hz": float(frame_rate_hz),
            "resampling": _RESAMPLING,
        }
        types = stimulus_types or {}
        with _disk_full_said(store, needed), files.replacing(store) as temporary:
            try:
                found = _write(source, temporary, plan, train_tier, types, attributes)
            except _NotIntegralError:
                plan = _Plan(plan.frames, np.dtype(np.float32), plan.withheld)
                found = _write(source, temporary, plan, train_tier, types, attributes)
            if not np.array_equal(found, plan.frames):
                plan = _Plan(found, plan.video_dtype, plan.withheld)
                _write(source, temporary, plan, train_tier, types, attributes)


def _check_tiers(source: Archive, known: Sequence[str], train_tier: str) -> None:
    unknown = np.flatnonzero(~np.isin(source.tiers, list(known)))
    if len(unknown):
        raise ArchiveError(
            f"{source.path}: trial {unknown[0]} is of tier {str(source.tiers[unknown[0]])!r}, but"
            f" the study knows only {', '.join(known)}. Add the tier to the study's configuration"
            " or correct meta/trials/tiers.npy."
        )
    if train_tier not in source.tiers:
        raise ArchiveError(
            f"{source.path}: no trial is of tier {train_tier!r}, so there is nothing to learn from"
            " and no statistics. Correct meta/trials/tiers.npy or leave the animal out."
        )


def _first_plan(source: Archive, withheld_tiers: Sequence[str]) -> _Plan:
    """Lengths by the first row of every array; uint8 video if the first pixels are integral."""
    withheld = np.isin(source.tiers, list(withheld_tiers))
    frames = np.zeros(len(source.tiers), dtype=np.int64)
    integral = True
    for trial in track(range(len(frames)), f"check {source.path.name}", unit="trial"):
        lengths: dict[str, int] = {}
        valid: list[int] = []
        for modality in source.modalities:
            header, row = source.first_row(modality, trial)
            if modality == "responses" and withheld[trial]:
                continue
            lengths[modality] = header.shape[-1]
            valid.append(lengths[modality])
            if row is not None:
                nan = np.flatnonzero(np.isnan(row))
                valid.extend(nan[:1].tolist())
                if modality == "video":
                    integral &= _as_uint8(row[: valid[-1]]) is not None
        _check_same_length(source, trial, lengths)
        frames[trial] = min(valid)
    return _Plan(frames, np.dtype(np.uint8 if integral else np.float32), withheld)


def _check_same_length(source: Archive, trial: int, lengths: Mapping[str, int]) -> None:
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{modality} {frames}" for modality, frames in lengths.items())
        raise ArchiveError(
            f"{source.where('video', trial)}: the arrays of one trial must have the same number of"
            f" frames on disk, padding included, but have {said}. Pad the shorter ones with NaN."
        )


def _write(
    source: Archive,
    temporary: Path,
    plan: _Plan,
    train_tier: str,
    types: Mapping[str, Sequence[str]],
    attributes: Mapping[str, Any],
) -> np.ndarray:
    """Write everything as planned; return the lengths found, which may be shorter than planned."""
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)  # about 1.5 times as fast as SHA-256
    training = source.tiers == train_tier
    longest = max(int(plan.frames[training].max()), 1)
    published = _published_statistics(source)
    layout = _layout(source, plan, longest)
    layout |= {name: (array.shape, array.dtype) for name, array in published.items()}
    statistics = {
        modality: RunningStatistics(frames=longest, shape=_frame_shape(source, modality))
        for modality in source.modalities
    }
    found = np.zeros_like(plan.frames)
    signatures: list[str] = []
    hashes: list[str] = []
    responding: dict[str, bool] = {}
    offsets = _create(temporary, layout, attributes)
    with temporary.open("r+b", buffering=0) as file:
        for name, values in (_neurons(source) | published).items():
            _fill(file, offsets[name], values)
            _hash(digest, name, values)
        published.clear()
        row = response_row = 0
        for trial in track(range(len(found)), f"preprocess {attributes['animal']}", unit="trial"):
            withheld = bool(plan.withheld[trial])
            arrays = _read_trial(source, trial, withheld, plan.video_dtype)
            frames = found[trial] = len(arrays["video"])
            for modality, values in arrays.items():
                start = response_row if modality == "responses" else row
                _fill(file, offsets[modality] + start * values[0].nbytes, values)
                _hash(digest, f"{trial} {modality}", values)
                if training[trial]:
                    statistics[modality].add(values)
            row += frames
            if not withheld:
                response_row += frames
                tier = str(source.tiers[trial])
                responding[tier] = responding.get(tier, False) or bool(arrays["responses"].any())
            signatures.append(stimuli.signature(arrays["video"]))
            hashes.append(stimuli.perceptual_hash(arrays["video"]))
        _check_responding(source, responding)
        for name, values in _trials_table(source, plan, found, signatures, hashes, types).items():
            shape, dtype = layout[name]
            _fill(file, offsets[name], values.astype(dtype).reshape(shape))
        for modality, running in statistics.items():
            for kind, result in (("per_frame", running.per_frame()), ("pooled", running.pooled())):
                for key in PUBLISHED_STATISTICS:
                    name = f"statistics/train/{modality}/{kind}/{key}"
                    _fill(file, offsets[name], getattr(result, key))
    _hash(digest, "tiers", np.char.encode(source.tiers, "utf-8"))
    with h5py.File(temporary, "r+") as described:
        described.attrs.modify("digest", digest.hexdigest())
    return found


def _layout(source: Archive, plan: _Plan, longest: int) -> _Layout:
    """Shape and dtype of every dataset but the published statistics."""
    layout: _Layout = {}
    for modality in source.modalities:
        frames = plan.frames if modality != "responses" else plan.frames[~plan.withheld]
        dtype = plan.video_dtype if modality == "video" else np.dtype(np.float32)
        shape = _frame_shape(source, modality)
        layout[modality] = ((int(frames.sum()), *shape), dtype)
        for key in PUBLISHED_STATISTICS:
            group = f"statistics/train/{modality}"
            layout[f"{group}/per_frame/{key}"] = ((longest, *shape), np.dtype(np.float64))
            layout[f"{group}/pooled/{key}"] = (shape, np.dtype(np.float64))
    layout |= {name: (array.shape, array.dtype) for name, array in _neurons(source).items()}
    longest_tier = max(len(str(tier).encode()) for tier in source.tiers)
    longest_type = max(map(len, stimuli.STIMULUS_TYPES))
    for column, kind in {
        "first_frame": "i8",
        "frames": "i8",
        "first_response_frame": "i8",
        "video": "i4",
        "tier": f"S{longest_tier}",
        "signature": "S32",
        "perceptual_hash": "S16",
        "stimulus_type": f"S{longest_type}",
    }.items():
        layout[f"trials/{column}"] = ((len(plan.frames),), np.dtype(kind))
    return layout


def _create(path: Path, layout: _Layout, attributes: Mapping[str, Any]) -> dict[str, int]:
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
        file.attrs.update({**attributes, "digest": "00" * _DIGEST_BYTES})
    return offsets


def _fill(file: FileIO, offset: int, values: np.ndarray) -> None:
    content = np.ascontiguousarray(values).data.cast("B")
    while content:
        written = os.pwrite(file.fileno(), content, offset)
        content, offset = content[written:], offset + written


def _read_trial(
    source: Archive, trial: int, withheld: bool, video_dtype: np.dtype
) -> dict[str, np.ndarray]:
    """The valid frames of all arrays of a trial, time first, in the store's dtypes."""
    raw = {
        modality: source.read(modality, trial)
        for modality in source.modalities
        if not (modality == "responses" and withheld)
    }
    flat = {modality: array.reshape(-1, array.shape[-1]) for modality, array in raw.items()}
    frames = min(_valid_frames(array, source, name, trial) for name, array in flat.items())
    if frames == 0:
        raise ArchiveError(
            f"{source.where('video', trial)}: the trial has no valid frame: an array is NaN from"
            " its first frame on. Correct the recording or remove the trial."
        )
    arrays = {}
    for modality, array in flat.items():
        dtype = video_dtype if modality == "video" else np.dtype(np.float32)
        arrays[modality] = _time_first(array, frames, dtype).reshape(
            frames, *_frame_shape(source, modality)
        )
    return arrays


def _valid_frames(array: np.ndarray, source: Archive, modality: str, trial: int) -> int:
    """Frames of (elements, T) before the first one with ANY NaN, which must be followed by none
    without: the kit would cut the trial there and silently drop what follows."""
    length = array.shape[1]
    if array.dtype.kind != "f":
        return length
    # A sum is finite only if every value is: one cheap reduction instead of a mask of everything.
    with np.errstate(invalid="ignore", over="ignore"):
        suspects = np.flatnonzero(~np.isfinite(array.sum(axis=0)))
    values = array[:, suspects]
    if np.isinf(values).any():
        frame = suspects[np.isinf(values).any(axis=0)][0]
        raise ArchiveError(
            f"{source.where(modality, trial)}: frame {frame} holds an infinite value. Correct the"
            " recording or remove the trial."
        )
    missing = suspects[np.isnan(values).any(axis=0)]
    if len(missing) == 0:
        return length
    first = int(missing[0])
    if len(missing) != length - first:
        valid_again = next(
            index
            for index in range(first, length)
            if index - first >= len(missing) or missing[index - first] != index
        )
        raise ArchiveError(
            f"{source.where(modality, trial)}: NaN inside the trial: frame {first} holds NaN, but"
            f" frame {valid_again} is valid again. NaN may only pad the end: interpolate the gap or"
            " remove the trial."
        )
    return first


def _time_first(array: np.ndarray, frames: int, dtype: np.dtype) -> np.ndarray:
    """(elements, T) to contiguous (frames, elements) of `dtype`, in blocks that fit the cache."""
    result = np.empty((frames, len(array)), dtype=dtype)
    for start in range(0, len(array), _TRANSPOSED_ROWS):
        rows = slice(start, start + _TRANSPOSED_ROWS)
        block = array[rows, :frames]
        if dtype == np.uint8 and array.dtype != np.uint8:
            integral = _as_uint8(block)
            if integral is None:
                raise _NotIntegralError
            block = integral
        result[:, rows] = block.T
    return result


def _as_uint8(values: np.ndarray) -> np.ndarray | None:
    """`values` as uint8, or None if that changes any of them."""
    with np.errstate(invalid="ignore"):
        converted = values.astype(np.uint8)
    return converted if np.array_equal(converted, values) else None


def _check_responding(source: Archive, responding: Mapping[str, bool]) -> None:
    silent = [tier for tier, any_response in responding.items() if not any_response]
    silent = [tier for tier in silent if tier != stimuli.UNUSED_TIER]
    if silent:
        trial = int(np.flatnonzero(source.tiers == silent[0])[0])
        raise ArchiveError(
            f"{source.where('responses', trial)}: the responses of all trials of tier {silent[0]}"
            " are zero, although the study says that they are public. Use the release that has"
            " them, or list the tier among the animal's withheld tiers."
        )


def _trials_table(
    source: Archive,
    plan: _Plan,
    frames: np.ndarray,
    signatures: Sequence[str],
    hashes: Sequence[str],
    types: Mapping[str, Sequence[str]],
) -> dict[str, np.ndarray]:
    stored = np.where(plan.withheld, 0, frames)
    tiers = [str(tier) for tier in source.tiers]
    names = [
        stimuli.stimulus_type(int(length), tier, types.get(tier, ()))
        for length, tier in zip(frames, tiers, strict=True)
    ]
    return {
        "trials/first_frame": np.cumsum(frames) - frames,
        "trials/frames": frames,
        "trials/first_response_frame": np.where(
            plan.withheld, WITHHELD, np.cumsum(stored) - stored
        ),
        "trials/video": stimuli.within_animal_ids(signatures, tiers),
        "trials/tier": np.char.encode(tiers, "utf-8"),
        "trials/signature": np.char.encode(signatures, "ascii"),
        "trials/perceptual_hash": np.char.encode(hashes, "ascii"),
        "trials/stimulus_type": np.char.encode(names, "ascii"),
    }


def _neurons(source: Archive) -> dict[str, np.ndarray]:
    neurons = {"neurons/id": source.neuron_ids}
    if source.coordinates is not None:
        neurons["neurons/coordinates"] = source.coordinates
    return neurons


def _published_statistics(source: Archive) -> dict[str, np.ndarray]:
    """By dataset name, time first, float64."""
    return {
        f"statistics/published/{modality}/per_frame/{key}": np.ascontiguousarray(
            np.moveaxis(values, -1, 0), dtype=np.float64
        )
        for modality in source.modalities
        for key, values in (source.published_statistics(modality) or {}).items()
    }


def _hash(digest: "hashlib.blake2b", name: str, values: np.ndarray) -> None:
    # Own statistics and labels are left out: they follow from what is hashed, and a better stimulus
    # classifier must not make every trained member look as if its data had changed.
    digest.update(f"{name} {values.dtype.str} {values.shape}\n".encode())
    digest.update(np.ascontiguousarray(values).data)


def _frame_shape(source: Archive, modality: str) -> tuple[int, ...]:
    if modality == "video":
        return source.frame_shape
    return (len(source.neuron_ids),) if modality == "responses" else (2,)


def _bytes_needed(source: Archive, plan: _Plan) -> int:
    total = _METADATA_BYTES
    for name, (shape, dtype) in _layout(source, plan, int(plan.frames.max())).items():
        # Published statistics are as large as our own.
        copies = 2 if name.startswith("statistics/") else 1
        total += copies * math.prod(shape) * dtype.itemsize
    return total


def _disk_full(store: Path, needed: int, free: int) -> DiskFullError:
    return DiskFullError(
        f"The recording store {store.name} needs {needed:,} bytes in {store.parent}, where only"
        f" {free:,} are free. Free some space or set `results:` to a folder on a larger disk."
    )


@contextmanager
def _disk_full_said(store: Path, needed: int) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:
        # HDF5 reports a full disk only in its text.
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        if isinstance(error, DiskFullError) or not (full or "No space left" in str(error)):
            raise
        raise _disk_full(store, needed, shutil.disk_usage(store.parent).free) from error
