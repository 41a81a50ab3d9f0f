"""Moments on disk: one HDF5 file per member, all animals, written atomically.

Layout, per animal: `neuron_ids (N,)`; `videos/{tier,stimulus_type,video}` (V,) bytes and
`videos/finished`; `{single_trial,repeat_average}/{count (V,), mean (V, 2, N), products (V, 3, N)}`
with signals (prediction, response) and pairs (pp, pr, rr); `trials/{row,trial,start,stop}` the
spans; `excluded/{trial,tier,stimulus_type,reason}`; `open/{row}/{sums,covered}` for unfinished
videos. Moments in further units lie, in the same layout, under `in other units/{unit}`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from sensorium_models import files
from sensorium_models.evaluation.moments import (
    REASONS,
    SIGNALS,
    AnimalMoments,
    Moments,
    VideoMoments,
)
from sensorium_models.evaluation.streaming import JointMoments, RepeatAverage

SCHEMA_VERSION = 1
_OTHER_UNITS = "in other units"  # no animal's name has a blank
# Names, spans and reasons of one video, and HDF5's own tables for one animal, generously.
_ROW_BYTES, _TABLE_BYTES = 4_000, 40_000


class MomentsError(ValueError):
    """A moments file that cannot be used."""


def write_moments(path: Path, moments: Moments) -> None:
    """Write all moments; unfinished videos keep their frame sums, so that files can be merged."""
    with files.replacing(path) as temporary, h5py.File(temporary, "w", locking=False) as file:
        file.attrs["schema_version"] = SCHEMA_VERSION
        _write_unit(file, moments)
        for unit, further in sorted(moments.further.items()):
            _write_unit(file.create_group(f"{_OTHER_UNITS}/{unit}"), further)


def numbers_per_neuron(signals: int) -> int:
    """How many the joint moments of a group are, of single trials and of repeat averages."""
    return 2 * (signals + signals * (signals + 1) // 2)  # means and products


def crossed_bytes(*, neurons: int, groups: int, members: int) -> int:
    """What the joint moments of all members and the response take in a file, by group."""
    return 8 * neurons * groups * numbers_per_neuron(members + 1)


def largest_bytes(*, neurons: int, videos: int, units: int) -> int:
    """Upper bound of what the moments of one animal take in a file, all videos finished."""
    numbers = numbers_per_neuron(len(SIGNALS))
    return units * (neurons * (videos * numbers + 1) * 8 + videos * _ROW_BYTES + _TABLE_BYTES)


def read_moments(path: Path) -> Moments:
    """Read back what `write_moments` wrote, bit for bit.

    Raises:
        MomentsError: the file is missing, is no moments file, or of another schema version.
    """
    with _opened(path) as file:
        moments = _read_unit(file)
        for unit, group in file.get(_OTHER_UNITS, {}).items():
            moments.further[unit] = _read_unit(group)
        return moments


@dataclass(frozen=True)
class MomentsIndex:
    """What a moments file holds, without the moments.

    Attributes:
        attributes: those of the prediction file.
        neurons: by animal, their number.
        tiers: every tier of a trial that was scored or left out.
        videos: scored ones, as (animal, tier, stimulus type, video), sorted.
    """

    attributes: Mapping[str, Any]
    neurons: Mapping[str, int]
    tiers: tuple[str, ...]
    videos: tuple[tuple[str, str, str, str], ...]


def read_index(path: Path) -> MomentsIndex:
    """What is in a moments file; quick, whatever its size. Raises as `read_moments`."""
    neurons: dict[str, int] = {}
    videos: list[tuple[str, str, str, str]] = []
    tiers: dict[str, None] = {}
    with _opened(path) as file:
        for animal, group in _animals(file):
            neurons[animal] = int(group["neuron_ids"].shape[0])
            videos += [(animal, *key) for key in _video_keys(group)]
            named = [tier for tier, _, _ in _video_keys(group)]
            tiers |= dict.fromkeys(named + _decoded(group["excluded/tier"]))
        attributes = json.loads(file.attrs["attributes"])
    return MomentsIndex(attributes, neurons, tuple(tiers), tuple(sorted(videos)))


def read_tier(
    path: Path, animal: str, tier: str
) -> dict[tuple[str, str], tuple[JointMoments, JointMoments]]:
    """Moments of one animal and tier, by (stimulus type, video): single trials, repeat averages.

    Raises:
        MomentsError: as `read_moments`, or a video may still get repeats.
    """
    with _opened(path) as file:
        group = file[animal]
        found = {}
        for row, (its_tier, stimulus_type, video) in enumerate(_video_keys(group)):
            if its_tier != tier:
                continue
            if not group["videos/finished"][row]:
                raise MomentsError(f"{path}: video {video} of {animal} is not finished.")
            found[stimulus_type, video] = (
                _joint_of(group["single_trial"], row),
                _joint_of(group["repeat_average"], row),
            )
        return found


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        raise MomentsError(f"{path} cannot be read as moments ({error}). Predict again.") from error
    with file:
        version = file.attrs.get("schema_version")
        if version != SCHEMA_VERSION or "attributes" not in file.attrs:
            raise MomentsError(
                f"{path} is no moments file of schema version {SCHEMA_VERSION} (it says "
                f"{version}). Predict again."
            )
        yield file


def write_joint(group: h5py.Group, name: str, moments: JointMoments) -> None:
    """Store joint moments as `{name}/{mean,products}` and the attribute `count`."""
    target = group.create_group(name)
    target.attrs["count"] = moments.count
    target["mean"], target["products"] = moments.mean, moments.products


def read_joint(group: h5py.Group, name: str) -> JointMoments:
    """Read back what `write_joint` wrote."""
    source = group[name]
    return JointMoments(int(source.attrs["count"]), source["mean"][:], source["products"][:])


def _animals(unit: h5py.Group) -> list[tuple[str, h5py.Group]]:
    return [(animal, group) for animal, group in unit.items() if animal != _OTHER_UNITS]


def _write_unit(group: h5py.Group, moments: Moments) -> None:
    group.attrs["attributes"] = json.dumps(dict(moments.attributes), sort_keys=True)
    for animal, content in sorted(moments.animals.items()):
        _write_animal(group.create_group(animal), content)


def _read_unit(group: h5py.Group) -> Moments:
    animals = {animal: _read_animal(content) for animal, content in _animals(group)}
    return Moments(json.loads(group.attrs["attributes"]), animals)


def _write_animal(group: h5py.Group, content: AnimalMoments) -> None:
    group["neuron_ids"] = content.neuron_ids
    videos = sorted(content.videos.items())
    for column, name in enumerate(("tier", "stimulus_type", "video")):
        group[f"videos/{name}"] = _encoded([key[column] for key, _ in videos])
    group["videos/finished"] = np.array([entry.repeats is None for _, entry in videos], dtype=bool)
    empty = JointMoments.empty(len(SIGNALS), content.neurons)
    for name, parts in (
        ("single_trial", [entry.single_trial for _, entry in videos]),
        ("repeat_average", [entry.repeat_average or empty for _, entry in videos]),
    ):
        group[f"{name}/count"] = np.array([part.count for part in parts], dtype=np.int64)
        # One row per video, written one by one: all rows together would double the memory.
        for field, rows in (("mean", len(empty.mean)), ("products", len(empty.products))):
            shape = (len(parts), rows, content.neurons)
            dataset = group.create_dataset(f"{name}/{field}", shape=shape, dtype=np.float64)
            for row, part in enumerate(parts):
                dataset[row] = getattr(part, field)
    spans = np.array(
        [
            (row, trial, start, stop)
            for row, (_, entry) in enumerate(videos)
            for trial, parts in sorted(entry.trials.items())
            for start, stop in parts
        ],
        dtype=np.int64,
    ).reshape(-1, 4)
    for column, name in enumerate(("row", "trial", "start", "stop")):
        group[f"trials/{name}"] = spans[:, column]
    excluded = sorted(content.excluded.items())
    group["excluded/trial"] = np.array([trial for trial, _ in excluded], dtype=np.int64)
    for column, name in enumerate(("tier", "stimulus_type", "reason")):
        group[f"excluded/{name}"] = _encoded([entry[column] for _, entry in excluded])
    for row, (_, entry) in enumerate(videos):
        if entry.repeats is not None:
            group[f"open/{row}/sums"] = entry.repeats.sums
            group[f"open/{row}/covered"] = entry.repeats.covered


def _read_animal(group: h5py.Group) -> AnimalMoments:
    content = AnimalMoments(group["neuron_ids"][:])
    keys = _video_keys(group)
    entries = []
    for row, (key, finished) in enumerate(zip(keys, group["videos/finished"][:], strict=True)):
        single, averaged = (_joint_of(group[n], row) for n in ("single_trial", "repeat_average"))
        entry = VideoMoments(single, None, averaged)
        if not finished:
            entry.repeat_average = None
            entry.repeats = RepeatAverage(len(SIGNALS), content.neurons)
            entry.repeats.sums = group[f"open/{row}/sums"][:]
            entry.repeats.covered = group[f"open/{row}/covered"][:]
        content.videos[key] = entry
        entries.append(entry)
    table = group["trials"]
    for row, trial, start, stop in zip(
        *(table[name][:].tolist() for name in ("row", "trial", "start", "stop")), strict=True
    ):
        entries[row].trials.setdefault(trial, []).append((start, stop))
    reasons = {str(reason): reason for reason in REASONS}
    table = group["excluded"]
    for trial, tier, stimulus_type, reason in zip(
        table["trial"][:].tolist(),
        *(_decoded(table[name]) for name in ("tier", "stimulus_type", "reason")),
        strict=True,
    ):
        content.excluded[trial] = (tier, stimulus_type, reasons[reason])
    return content


def _video_keys(group: h5py.Group) -> list[tuple[str, str, str]]:
    columns = (_decoded(group[f"videos/{name}"]) for name in ("tier", "stimulus_type", "video"))
    return list(zip(*columns, strict=True))


def _joint_of(source: h5py.Group, row: int) -> JointMoments:
    """Joint moments of one video."""
    return JointMoments(int(source["count"][row]), source["mean"][row], source["products"][row])


def _encoded(texts: Sequence[str]) -> np.ndarray:
    # Fixed width: the same content gives the same file, which variable-length strings do not.
    return np.array([text.encode() for text in texts] or np.zeros(0), dtype=np.bytes_)


def _decoded(dataset: h5py.Dataset) -> list[str]:
    return [text.decode() for text in dataset[:].tolist()]
