"""From a recording to its store: one pass over the trials in bounded memory.

Contiguous HDF5 datasets cannot grow, so the lengths of all trials must be known before the first
frame is written. They nearly always can be read off the first row of every array (a few kB each,
because time is the fastest axis on disk and padding is NaN in all rows); where that turns out wrong
(a frame only partly NaN, an array in Fortran order), the pass is repeated with what it found.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from sensorium_models import files
from sensorium_models.progress import track
from sensorium_models.recordings import identity, repeats
from sensorium_models.recordings.archives import (
    PUBLISHED_STATISTICS,
    ArchiveError,
)
from sensorium_models.recordings.native import NativeRecording, Resampling
from sensorium_models.recordings.sources import TrialSource, open_recording
from sensorium_models.recordings.statistics import RunningStatistics
from sensorium_models.recordings.stimulus_lengths import doubtful_lengths, known_durations
from sensorium_models.recordings.stimulus_types import (
    UNUSED_TIER,
    stimulus_type,
    type_from_pixels,
)
from sensorium_models.recordings.store import SCHEMA_VERSION, WITHHELD
from sensorium_models.recordings.store_layout import (
    DIGEST_BYTES,
    Plan,
    bytes_needed,
    check_room,
    create,
    disk_full_said,
    fill,
    neuron_table,
    plan_datasets,
)
from sensorium_models.recordings.trial_arrays import NotIntegralError, first_plan, read_trial


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
    unused_tiers: Collection[str] = (UNUSED_TIER,),
    stimulus_types: Mapping[str, Sequence[str]] | None,
    fingerprint: str = "",
    resampling: Resampling | None = None,
    checksum: str | None = None,
) -> None:
    """Write the recording store of one animal, atomically.

    Args:
        archive: a released archive (zip or folder), or the folder of a recording at native rates.
        neurons: how many the animal must have according to the study; None takes what there is.
        frame_rate_hz: of the store; a released archive has it already, which is checked.
        known_tiers: tiers that may occur.
        withheld_tiers: tiers whose responses the publisher withholds (zeros): not stored. They
            never shorten a trial. Responses that are zero throughout any other tier are an error.
        train_tier: the tier of the store's own statistics.
        unused_tiers: tiers that serve nothing: kept, but without video id, and may be silent.
        fingerprint: of the configuration, kept in the store.
        resampling: of a recording at native rates; its trials with gaps go into the first of
            `unused_tiers`.
        stimulus_types: per tier the types that this animal shows in it; other tiers show movies.
        checksum: that the archive must have, as its receipt says.

    Raises:
        ArchiveError: the archive cannot be used as it is; no store is left behind.
        DiskFullError: the store does not fit on its disk; no store is left behind.
    """
    if not frame_rate_hz > 0:
        raise ValueError(f"The frame rate of animal {animal} is {frame_rate_hz} Hz; give its rate.")
    with open_recording(
        archive,
        frame_rate_hz=frame_rate_hz,
        resampling=resampling,
        masked_tier=next(iter(unused_tiers), None),
        withheld_tiers=withheld_tiers,
    ) as source:
        _check_tiers(source, known_tiers, train_tier)
        if neurons is not None and neurons != len(source.neuron_ids):
            raise ArchiveError(
                f"{source.path}: holds {len(source.neuron_ids)} neurons, but the study's table says"
                f" {neurons} for animal {animal}. Correct the table, or use that animal's archive."
            )
        plan = first_plan(source, withheld_tiers)
        needed = bytes_needed(source, plan)
        store.parent.mkdir(parents=True, exist_ok=True)
        check_room(store, needed)
        found_checksum = source.checksum()
        if checksum not in (None, found_checksum):
            raise ArchiveError(
                f"{source.path}: has changed since its receipt was written (checksum"
                f" {found_checksum[:12]}, then {checksum[:12]}). Bring the archive of animal"
                f" {animal} back, or remove the receipt if the change is meant."
            )
        attributes = {
            "schema_version": SCHEMA_VERSION,
            "animal": animal,
            "folder": source.folder,
            "source": source.path.name,
            "source_checksum": found_checksum,
            "frame_rate_hz": float(frame_rate_hz),
            "fingerprint": fingerprint,
        }
        types = stimulus_types or {}

        def write(plan: Plan) -> np.ndarray:
            how = _resampling(source, plan, frame_rate_hz, types, unused_tiers)
            said = {**attributes, **how}
            return _write(source, temporary, plan, train_tier, unused_tiers, types, said)

        with disk_full_said(store, needed), files.replacing(store) as temporary:
            try:
                found = write(plan)
            except NotIntegralError:
                plan = Plan(plan.frames, np.dtype(np.float32), plan.withheld)
                found = write(plan)
            if not np.array_equal(found, plan.frames):
                write(Plan(found, plan.video_dtype, plan.withheld))


def _resampling(
    source: TrialSource,
    plan: Plan,
    frame_rate_hz: float,
    types: Mapping[str, Sequence[str]],
    unused: Collection[str],
) -> dict[str, str]:
    """How the frames came to the store's rate; of an archive, what `first_plan` has proved, and
    whether trials last as long as their types do."""
    if isinstance(source, NativeRecording):
        return source.resampling
    seconds = float(np.median(plan.frames)) / frame_rate_hz
    tiers, frames = [str(tier) for tier in source.tiers], plan.frames.tolist()
    doubts = doubtful_lengths(
        tiers, frames, types=types, unused=unused, frame_rate_hz=frame_rate_hz
    )
    released = f"released at {frame_rate_hz:g} Hz"
    doubted = f"taken to be at {frame_rate_hz:g} Hz, which the lengths of trials do not bear out"
    lengths = (
        " ".join(doubts).rstrip(".")
        if doubts
        else (f"trials last what their types do ({known_durations()})")
    )
    return {
        "resampling": f"none: {doubted if doubts else released}",
        "resampling_proof": f"in all {len(plan.frames)} trials {', '.join(source.modalities)} have"
        " one number of frames and none has a rate of its own; half of the trials last"
        f" {seconds:.2f} s or longer; {lengths}; frames are stored one for one",
    }


def _check_tiers(source: TrialSource, known: Sequence[str], train_tier: str) -> None:
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


def _write(
    source: TrialSource,
    temporary: Path,
    plan: Plan,
    train_tier: str,
    unused: Collection[str],
    types: Mapping[str, Sequence[str]],
    attributes: Mapping[str, Any],
) -> np.ndarray:
    """Write everything as planned; return the lengths found, which may be shorter than planned."""
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)  # about 1.5 times as fast as SHA-256
    training = source.tiers == train_tier
    longest = max(int(plan.frames[training].max()), 1)
    published = _published_statistics(source)
    layout = plan_datasets(source, plan, longest)
    layout |= {name: (array.shape, array.dtype) for name, array in published.items()}
    statistics = {
        modality: RunningStatistics(frames=longest, shape=source.leading_shape(modality))
        for modality in source.modalities
    }
    found = np.zeros_like(plan.frames)
    seen: dict[str, list[Any]] = {name: [] for name in ("signature", "content", "hash", "type")}
    means: list[np.ndarray] = []
    responding: dict[str, bool] = {}
    offsets = create(temporary, layout, attributes)
    with temporary.open("r+b", buffering=0) as file:
        for name, values in (neuron_table(source) | published).items():
            fill(file, offsets[name], values)
            _hash(digest, name, values)
        published.clear()
        row = response_row = 0
        for trial in track(range(len(found)), f"preprocess {attributes['animal']}", unit="trial"):
            withheld = bool(plan.withheld[trial])
            arrays, shown_video = read_trial(source, trial, withheld, plan.video_dtype)
            frames = found[trial] = len(arrays["video"])
            for modality, values in arrays.items():
                start = response_row if modality == "responses" else row
                fill(file, offsets[modality] + start * values[0].nbytes, values)
                _hash(digest, f"{trial} {modality}", values)
                if training[trial]:
                    statistics[modality].add(values)
            means.append(repeats.quadrant_means(shown_video))
            fill(file, offsets["video_means"] + row * means[-1][0].nbytes, means[-1][:frames])
            row += frames
            if not withheld:
                response_row += frames
                tier = str(source.tiers[trial])
                responding[tier] = responding.get(tier, False) or bool(arrays["responses"].any())
            # A video is what was shown, also where behaviour or responses end before it.
            seen["signature"].append(identity.signature(shown_video))
            seen["content"].append(identity.content_id(shown_video))
            seen["hash"].append(identity.perceptual_hash(shown_video))
            seen["type"].append(type_from_pixels(shown_video))
        _check_responding(source, responding, unused)
        table = _trials_table(source, plan, found, seen, means, types, unused)
        for name, values in table.items():
            shape, dtype = layout[name]
            fill(file, offsets[name], values.astype(dtype).reshape(shape))
        for modality, running in statistics.items():
            for kind, result in (("per_frame", running.per_frame()), ("pooled", running.pooled())):
                for key in PUBLISHED_STATISTICS:
                    name = f"statistics/train/{modality}/{kind}/{key}"
                    fill(file, offsets[name], getattr(result, key))
    _hash(digest, "tiers", np.char.encode(source.tiers, "utf-8"))
    with h5py.File(temporary, "r+") as described:
        described.attrs.modify("digest", digest.hexdigest())
    return found


def _check_responding(
    source: TrialSource, responding: Mapping[str, bool], unused: Collection[str]
) -> None:
    silent = [tier for tier, any_response in responding.items() if not any_response]
    silent = [tier for tier in silent if tier not in unused]
    if silent:
        trial = int(np.flatnonzero(source.tiers == silent[0])[0])
        raise ArchiveError(
            f"{source.where('responses', trial)}: the responses of all trials of tier {silent[0]}"
            " are zero, although the study says that they are public. Use the release that has"
            " them, or list the tier among the animal's withheld tiers."
        )


def _trials_table(
    source: TrialSource,
    plan: Plan,
    frames: np.ndarray,
    seen: Mapping[str, Sequence[str]],
    means: Sequence[np.ndarray],
    types: Mapping[str, Sequence[str]],
    unused: Collection[str],
) -> dict[str, np.ndarray]:
    stored = np.where(plan.withheld, 0, frames)
    tiers = [str(tier) for tier in source.tiers]
    names = [
        "unknown"
        if tier in unused
        else stimulus_type(by_pixels, int(length), tier, types.get(tier, ()))
        for by_pixels, length, tier in zip(seen["type"], frames, tiers, strict=True)
    ]

    def shown(trial: int) -> np.ndarray:
        return read_trial(source, trial, bool(plan.withheld[trial]), plan.video_dtype)[1]

    numbers = repeats.within_animal_ids(
        seen["signature"], tiers, unused, repeats.first_match(means, shown)
    )
    ids = identity.video_ids(numbers, seen["content"], seen["signature"])
    return {
        "trials/first_frame": np.cumsum(frames) - frames,
        "trials/frames": frames,
        "trials/first_response_frame": np.where(
            plan.withheld, WITHHELD, np.cumsum(stored) - stored
        ),
        "trials/video": numbers,
        "trials/tier": np.char.encode(tiers, "utf-8"),
        "trials/video_id": np.char.encode(ids, "ascii"),
        "trials/signature": np.char.encode(seen["signature"], "ascii"),
        "trials/perceptual_hash": np.char.encode(seen["hash"], "ascii"),
        "trials/stimulus_type": np.char.encode(names, "ascii"),
        "trials/pixel_type": np.char.encode(seen["type"], "ascii"),
    }


def _published_statistics(source: TrialSource) -> dict[str, np.ndarray]:
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
