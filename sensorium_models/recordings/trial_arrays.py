"""The arrays of one trial as the store holds them: valid frames only, time first, one dtype each.

A trial ends where padding begins. Where that is can nearly always be read off the first row of
every array (`first_plan`); `read_trial` looks at every value and so has the last word.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from sensorium_models.progress import track
from sensorium_models.recordings.archives import ArchiveError
from sensorium_models.recordings.sources import TrialSource
from sensorium_models.recordings.store_layout import Plan

# Neurons (or pixels) transposed at a time: a block of all frames then stays in the cache.
_TRANSPOSED_ROWS = 256
# A modality that ends before the others is cut, as the published loader cuts; one that usually has
# less than this share of their frames has another rate (the pupil's 20 Hz are 0.67 of 30 Hz).
_LEAST_SHARE = 0.75


class NotIntegralError(Exception):
    """A video turned out to hold values that uint8 cannot: write float32 instead."""


def first_plan(source: TrialSource, withheld_tiers: Sequence[str]) -> Plan:
    """Lengths by the first row of every array; uint8 video if the first pixels are integral.

    Raises:
        ArchiveError: the arrays of a trial have different lengths, or one modality has a frame rate
            of its own.
    """
    withheld = np.isin(source.tiers, list(withheld_tiers))
    frames = np.zeros(len(source.tiers), dtype=np.int64)
    integral = True
    share: dict[str, list[float]] = {modality: [] for modality in source.modalities}
    for trial in track(range(len(frames)), f"check {source.path.name}", unit="trial"):
        lengths: dict[str, int] = {}
        valid: list[int] = []
        signals: dict[str, int] = {}
        for modality in source.modalities:
            header, row = source.first_row(modality, trial)
            if modality == "responses" and withheld[trial]:
                continue
            lengths[modality] = header.shape[-1]
            valid.append(lengths[modality])
            if row is not None:
                nan = np.flatnonzero(np.isnan(row))
                valid.extend(nan[:1].tolist())
                if header.dtype.kind == "f":  # integers cannot say where padding begins
                    signals[modality] = int(nan[0]) if len(nan) else header.shape[-1]
                if modality == "video":
                    integral &= _as_uint8(row[: valid[-1]]) is not None
        _check_same_length(source, trial, lengths)
        frames[trial] = min(valid)
        for modality, count in signals.items():
            share[modality].append(count / max(*signals.values(), 1))
    _check_one_rate(source, share)
    return Plan(frames, np.dtype(np.uint8 if integral else np.float32), withheld)


def read_trial(
    source: TrialSource, trial: int, withheld: bool, video_dtype: np.dtype
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The valid frames of all arrays of a trial, time first, in the store's dtypes.

    Also the video (frames, H, W) as far as it is valid by itself: what was shown, even where
    another array ends before it.

    Raises:
        ArchiveError: no frame is valid, a value is infinite or too large for float32, or NaN lies
            inside the trial.
        NotIntegralError: `video_dtype` is uint8, which cannot hold the video.
    """
    raw = {
        modality: source.read(modality, trial)
        for modality in source.modalities
        if not (modality == "responses" and withheld)
    }
    flat = {modality: array.reshape(-1, array.shape[-1]) for modality, array in raw.items()}
    valid = {name: _valid_frames(array, source, name, trial) for name, array in flat.items()}
    frames = min(valid.values())
    if frames == 0:
        raise ArchiveError(
            f"{source.where('video', trial)}: the trial has no valid frame: an array is NaN from"
            " its first frame on. Correct the recording or remove the trial."
        )
    arrays = {}
    for modality, array in flat.items():
        dtype = video_dtype if modality == "video" else np.dtype(np.float32)
        # Integers cannot say where padding begins, so there the other arrays tell what was shown.
        shown = valid["video"] if modality == "video" and array.dtype.kind == "f" else frames
        try:
            values = _time_first(array, shown, dtype)
        except FloatingPointError as error:
            raise ArchiveError(
                f"{source.where(modality, trial)}: holds a value of more than 3e38, which float32"
                " cannot hold. Correct the recording or remove the trial."
            ) from error
        arrays[modality] = values.reshape(shown, *source.leading_shape(modality))
    shown_video = arrays["video"]
    arrays["video"] = shown_video[:frames]
    return arrays, shown_video


def _check_same_length(source: TrialSource, trial: int, lengths: Mapping[str, int]) -> None:
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{modality} {frames}" for modality, frames in lengths.items())
        raise ArchiveError(
            f"{source.where('video', trial)}: the arrays of one trial must have the same number of"
            f" frames on disk, padding included, but have {said}. Pad the shorter ones with NaN."
        )


def _check_one_rate(source: TrialSource, share: Mapping[str, Sequence[float]]) -> None:
    """Padding could hide that one modality has fewer frames a second: most of its trials would be
    cut to a part of their length."""
    for modality, shares in share.items():
        if shares and (typical := float(np.median(shares))) < _LEAST_SHARE:
            raise ArchiveError(
                f"{source.where(modality, 0)}: {modality} has {100 * typical:.0f} % of the frames"
                " of the longest modality in half of the trials or more: they have different frame"
                " rates. Bring all to the video's, or give the recording at native rates (source:"
                " {kind: native, ...})."
            )


def _valid_frames(array: np.ndarray, source: TrialSource, modality: str, trial: int) -> int:
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
                raise NotIntegralError
            block = integral
        with np.errstate(over="raise"):
            result[:, rows] = block.T
    return result


def _as_uint8(values: np.ndarray) -> np.ndarray | None:
    """`values` as uint8, or None if that changes any of them."""
    with np.errstate(invalid="ignore"):
        converted = values.astype(np.uint8)
    return converted if np.array_equal(converted, values) else None
