"""Repeat statistics of recordings: gathered from the stores and kept in one HDF5 file per protocol.

They concern responses alone, so all systems of a protocol share them. Layout, per animal:
`neuron_ids (N,)`; `videos/{tier,stimulus_type,video}` (V,) bytes; `counts (V, 3)` = points, videos
with repeats, videos without; `jackknife/{count (V,), mean (V, 2, N), products (V, 3, N)}`,
`average/{mean,products} (V, 1, N)`; `{noise,noise_biased,noise_of_mean,offsets} (V, N)`.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from sensorium_models import files
from sensorium_models.evaluation.ceiling import RepeatStatistics
from sensorium_models.evaluation.moments import Group
from sensorium_models.evaluation.moments_file import MomentsError
from sensorium_models.evaluation.responses import RecordedResponses, scoring_plan
from sensorium_models.evaluation.streaming import JointMoments
from sensorium_models.predictions import scored_frames
from sensorium_models.progress import track

SCHEMA_VERSION = 1
_SUMS = ("noise", "noise_biased", "noise_of_mean", "offsets")


@dataclass
class AnimalRepeats:
    """Repeat statistics of one animal by (tier, stimulus type, video)."""

    neuron_ids: np.ndarray
    videos: dict[tuple[str, str, str], RepeatStatistics]

    def group(self, group: Group, videos: Collection[str]) -> RepeatStatistics:
        """Statistics of some videos of a tier and stimulus type, joined."""
        result = RepeatStatistics.empty(len(self.neuron_ids))
        for key, statistics in sorted(self.videos.items()):
            if key[:2] == group and key[2] in videos:
                result.add(statistics)
        return result


def gather_repeats(
    responses: RecordedResponses,
    *,
    tiers: Collection[str],
    first_frame: int,
    cap_frames: int | None,
    drop_last_frames: int,
) -> AnimalRepeats:
    """Statistics of the scored frames of all public trials of `tiers`, in the score unit.

    One video at a time is in memory: about 80 MB for ten repeats of 8,000 neurons.
    """
    trials = [trial for trial, tier in enumerate(responses.tiers) if tier in tiers]
    plan = scoring_plan(trials, responses, ())
    videos = [
        ((tier, stimulus_type, video), repeats)
        for (tier, stimulus_type), by_video in plan.scored.items()
        for video, repeats in by_video.items()
    ]
    result = AnimalRepeats(responses.neuron_ids, {})
    for key, repeats in track(videos, f"repeats {responses.animal}", unit="video"):
        read = []
        for trial in repeats:
            frames = scored_frames(
                responses.frames(trial),
                first_frame=first_frame,
                cap_frames=cap_frames,
                drop_last_frames=drop_last_frames,
            )
            read.append(responses.read(trial, frames.start, frames.stop))
        result.videos[key] = RepeatStatistics.of_video(read)
    return result


def write_repeats(path: Path, animals: Mapping[str, AnimalRepeats]) -> None:
    """Write the statistics of all animals, atomically."""
    with files.replacing(path) as temporary, h5py.File(temporary, "w", locking=False) as file:
        file.attrs["schema_version"] = SCHEMA_VERSION
        for animal, content in sorted(animals.items()):
            group = file.create_group(animal)
            group["neuron_ids"] = content.neuron_ids
            keys, parts = list(content.videos), list(content.videos.values())
            for column, name in enumerate(("tier", "stimulus_type", "video")):
                texts = [key[column].encode() for key in keys]
                group[f"videos/{name}"] = np.array(texts or np.zeros(0), dtype=np.bytes_)
            counts = [(p.points, p.videos, p.videos_without_repeats) for p in parts]
            group["counts"] = np.array(counts, dtype=np.int64).reshape(-1, 3)
            group["jackknife/count"] = np.array([p.jackknife.count for p in parts], dtype=np.int64)
            neurons = len(content.neuron_ids)
            for name, rows in (("jackknife", (2, 3)), ("average", (1, 1))):
                for field, height in zip(("mean", "products"), rows, strict=True):
                    values = [getattr(getattr(part, name), field) for part in parts]
                    stacked = np.array(values, dtype=np.float64).reshape(-1, height, neurons)
                    group[f"{name}/{field}"] = stacked
            for name in _SUMS:
                values = [getattr(part, name) for part in parts]
                group[name] = np.array(values, dtype=np.float64).reshape(-1, neurons)


def read_repeats(path: Path) -> dict[str, AnimalRepeats]:
    """Read back what `write_repeats` wrote, by animal.

    Raises:
        MomentsError: the file is missing, is no such file, or of another schema version.
    """
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        raise MomentsError(
            f"{path} cannot be read as repeat statistics ({error}). Make the ceilings again."
        ) from error
    with file:
        if file.attrs.get("schema_version") != SCHEMA_VERSION:
            raise MomentsError(
                f"{path} holds no repeat statistics of schema version {SCHEMA_VERSION} (it says "
                f"{file.attrs.get('schema_version')}). Make the ceilings again."
            )
        return {animal: _read_animal(group) for animal, group in file.items()}


def _read_animal(group: h5py.Group) -> AnimalRepeats:
    columns = [group[f"videos/{name}"][:] for name in ("tier", "stimulus_type", "video")]
    content = AnimalRepeats(group["neuron_ids"][:], {})
    for row, key in enumerate(zip(*columns, strict=True)):
        points, videos, without = map(int, group["counts"][row])
        jackknife, average = (
            JointMoments(count, group[name]["mean"][row], group[name]["products"][row])
            for name, count in (
                ("jackknife", int(group["jackknife/count"][row])),
                ("average", points),
            )
        )
        sums: dict[str, Any] = {name: group[name][row] for name in _SUMS}
        # Of one video, all of whose points have as many repeats.
        repeats = jackknife.count / points if points else 0
        sums["noise_of_repeats"] = sums["noise"] * repeats
        tier, stimulus_type, video = (part.decode() for part in key)
        content.videos[tier, stimulus_type, video] = RepeatStatistics(
            jackknife, average, **sums, videos=videos, videos_without_repeats=without
        )
    return content
