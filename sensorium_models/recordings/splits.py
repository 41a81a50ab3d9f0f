"""Splits: the explicit list of which member trains, selects and is tested on which trial.

Written before any training, read by training, scoring and the leakage audit. A test trial whose
video a member was trained on, in any animal, is never scored for it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from sensorium_models import files

ROLES = ("train", "select", "test")
SPLIT_COLUMNS = ("member", "animal", "trial", "tier", "video_id", "stimulus_type", "role")


@dataclass(frozen=True)
class Selection:
    """Trials named by animals and tiers: every trial of these tiers in these animals."""

    animals: tuple[str, ...]
    tiers: tuple[str, ...]


def split_table(
    *,
    members: Sequence[str],
    videos: pd.DataFrame,
    train: Selection,
    select: Selection,
    test_tiers: Mapping[str, Sequence[str]],
) -> pd.DataFrame:
    """One row per (member, animal, trial, role), columns `SPLIT_COLUMNS`.

    Args:
        videos: the table of `stimuli.videos_table`, of all animals that are named.
        train, select: what members learn from, and what decides when they stop.
        test_tiers: per animal the tiers on which members are tested.

    Raises:
        ValueError: no member, an animal without a recording or without training trials, or nothing
            to select on.
    """
    if not members or len(set(members)) != len(members):
        raise ValueError(f"A split needs distinct members, got {', '.join(members) or 'none'}.")
    known = set(videos["animal"])
    named = [*train.animals, *select.animals, *test_tiers]
    if missing := [animal for animal in named if animal not in known]:
        raise ValueError(
            f"Animal {missing[0]} is in the split but has no recording. Preprocess it or take it"
            " out of the training set and the protocol."
        )
    for animal in train.animals:
        if not len(_trials(videos, animal, train.tiers)):
            raise ValueError(
                f"Animal {animal} has no training trial: none of its trials is of tier"
                f" {', '.join(train.tiers)}. Take it out of the training set or correct its tiers."
            )
    if not train.animals:
        raise ValueError("A split needs animals to train on. Name them in the training set.")
    parts = [
        _trials(videos, animal, tiers).assign(role=role)
        for role, animals in (
            ("train", dict.fromkeys(train.animals, train.tiers)),
            ("select", dict.fromkeys(select.animals, select.tiers)),
            ("test", dict(test_tiers)),
        )
        for animal, tiers in animals.items()
    ]
    if select.animals and not any((part["role"] == "select").any() for part in parts):
        raise ValueError(
            f"No trial of animals {', '.join(select.animals)} is of tier {', '.join(select.tiers)},"
            " so nothing can decide when training stops. Name another tier to select on."
        )
    rows = pd.concat(parts, ignore_index=True)
    table = pd.concat([rows.assign(member=member) for member in members], ignore_index=True)
    return table[list(SPLIT_COLUMNS)]


def write_splits(splits: pd.DataFrame, path: Path) -> None:
    """Write the table as Parquet, atomically."""
    with files.replacing(path) as temporary:
        splits.to_parquet(temporary, index=False)


def read_splits(path: Path) -> pd.DataFrame:
    """Read a table of `write_splits`.

    Raises:
        ValueError: the file is missing or lacks a column.
    """
    if not Path(path).exists():
        raise ValueError(f"There is no split at {path}. Run the split stage first.")
    splits = pd.read_parquet(path)
    if absent := set(SPLIT_COLUMNS) - set(splits.columns):
        raise ValueError(
            f"{path} lacks the column {', '.join(sorted(absent))}, so it is no split. Remove it and"
            " run the split stage again."
        )
    return splits


def read_all_splits(paths: Iterable[Path]) -> pd.DataFrame:
    """The tables of several members as one."""
    return pd.concat([read_splits(Path(path)) for path in paths], ignore_index=True)


def trials_of(splits: pd.DataFrame, member: str, animal: str, role: str) -> np.ndarray:
    """Trial indices of one animal that `member` has in `role`, ascending, int64."""
    if role not in ROLES:
        raise ValueError(f"There is no role {role!r}. Use one of {', '.join(ROLES)}.")
    rows = _rows_of(splits, member)
    rows = rows[(rows["animal"] == animal) & (rows["role"] == role)]
    return np.sort(rows["trial"].to_numpy(dtype=np.int64))


def trained_on(splits: pd.DataFrame, member: str) -> set[str]:
    """Ids of the videos that `member` was trained on, in any animal."""
    rows = _rows_of(splits, member)
    return set(rows.loc[rows["role"] == "train", "video_id"])


def members_trained_on(splits: pd.DataFrame, members: Iterable[str]) -> set[str]:
    """Ids of the videos that any of `members` was trained on: what an ensemble has seen."""
    return set().union(*(trained_on(splits, member) for member in members))


def scored_trials(
    splits: pd.DataFrame, videos: pd.DataFrame, member: str, animal: str, tier: str
) -> tuple[np.ndarray, np.ndarray]:
    """Test trials of one animal and tier: (those scored, those left out), ascending int64.

    Left out is a trial whose video `member` was trained on, in any animal.
    """
    return without_trained(splits, videos, [member], animal, tier)


def without_trained(
    splits: pd.DataFrame, videos: pd.DataFrame, members: Sequence[str], animal: str, tier: str
) -> tuple[np.ndarray, np.ndarray]:
    """As `scored_trials`, for an ensemble: left out is what ANY of its members was trained on."""
    seen = members_trained_on(splits, members)
    tested = set.intersection(
        *(set(trials_of(splits, member, animal, "test").tolist()) for member in members)
    )
    rows = _trials(videos, animal, (tier,))
    rows = rows[rows["trial"].isin(tested)].sort_values("trial")
    trials = rows["trial"].to_numpy(dtype=np.int64)
    leaked = rows["video_id"].isin(seen).to_numpy(dtype=bool)
    return trials[~leaked], trials[leaked]


def predicted_trials(
    splits: pd.DataFrame, member: str, animals: Sequence[str], tiers: Sequence[str]
) -> dict[str, np.ndarray]:
    """Trials of each animal that `member` is tested on in `tiers`, ascending int64."""
    rows = _rows_of(splits, member)
    rows = rows[(rows["role"] == "test") & rows["tier"].isin(list(tiers))]
    return {
        animal: np.sort(rows.loc[rows["animal"] == animal, "trial"].to_numpy(dtype=np.int64))
        for animal in animals
    }


def leaked_trials(
    splits: pd.DataFrame, members: Sequence[str], animals: Sequence[str], tiers: Sequence[str]
) -> dict[str, np.ndarray]:
    """Test trials of each animal whose video ANY of `members` was trained on: never scored."""
    seen = members_trained_on(splits, members)
    rows = _rows_of(splits, members[0])
    rows = rows[(rows["role"] == "test") & rows["tier"].isin(list(tiers))]
    rows = rows[rows["video_id"].isin(seen)]
    return {
        animal: np.sort(rows.loc[rows["animal"] == animal, "trial"].to_numpy(dtype=np.int64))
        for animal in animals
    }


def _trials(videos: pd.DataFrame, animal: str, tiers: Sequence[str]) -> pd.DataFrame:
    rows = videos[(videos["animal"] == animal) & videos["tier"].isin(list(tiers))]
    return rows[["animal", "trial", "tier", "video_id", "stimulus_type"]]


def _rows_of(splits: pd.DataFrame, member: str) -> pd.DataFrame:
    rows = splits[splits["member"] == member]
    if not len(rows):
        raise ValueError(
            f"Member {member} is not in the split (it has"
            f" {', '.join(map(str, splits['member'].unique()[:5]))}, ...). Run the split"
            " stage again."
        )
    return rows
