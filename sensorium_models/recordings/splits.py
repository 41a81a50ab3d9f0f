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
from sensorium_models.recordings.store import Recording

ROLES = ("train", "select", "test", "teacher_train")
# A distilled member has also seen, through its teacher, what that one was trained on.
TRAINED_ROLES = ("train", "teacher_train")
SPLIT_COLUMNS = (
    "member",
    "animal",
    "trial",
    "tier",
    "video_id",
    "near_ids",
    "stimulus_type",
    "role",
)

# Animal -> its tiers: every trial of these tiers.
Tiers = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Fold:
    """The fold `index` of `count`: trials whose perceptual hash leaves this remainder.

    DwiseNeuro's folds: a video's hash as an integer, modulo 7 (lRomul/sensorium).
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ValueError(f"Folds of {self.count} are 0 to {self.count - 1}, not {self.index}.")

    def holds(self, hashes: pd.Series) -> np.ndarray:
        """Which trials are in this fold, bool, from their hashes (hexadecimal digits)."""
        return np.array([int(text, 16) % self.count == self.index for text in hashes], dtype=bool)


def split_table(
    *,
    members: Sequence[str],
    videos: pd.DataFrame,
    train: Tiers,
    select: Tiers | None,
    test_tiers: Tiers,
    fold: Fold | None = None,
    distilled: bool = False,
) -> pd.DataFrame:
    """One row per (member, animal, trial, role), columns `SPLIT_COLUMNS`.

    Args:
        videos: the table of `stimuli.videos_table`, of all animals that are named; with `fold` also
            a column `perceptual_hash`. `near_ids` (ids of other versions of the same video,
            separated by blanks) may be left out.
        train, select: what members learn from, and what decides when they stop. `select=None`: the
            trials of `fold`.
        test_tiers: what members are tested on.
        fold: taken out of the training trials of these members.
        distilled: whether the members have a teacher; it learned from the same training set and
            left out the same fold, so its trials are theirs.

    Raises:
        ValueError: no member, an animal without a recording or without training trials, an empty
            fold, or nothing to select on.
    """
    if not members or len(set(members)) != len(members):
        raise ValueError(f"A split needs distinct members, got {', '.join(members) or 'none'}.")
    if select is None and fold is None:
        raise ValueError("Nothing selects in this split: name tiers to select on, or a fold.")
    if not train:
        raise ValueError("A split needs animals to train on. Name them in the training set.")
    if "near_ids" not in videos:
        videos = videos.assign(near_ids="")
    known = set(videos["animal"])
    named = [*train, *(select or {}), *test_tiers]
    if missing := [animal for animal in named if animal not in known]:
        raise ValueError(
            f"Animal {missing[0]} is in the split but has no recording. Preprocess it or take it"
            " out of the training set and the protocol."
        )
    for animal, tiers in train.items():
        if not len(_trials(videos, {animal: tiers})):
            raise ValueError(
                f"Animal {animal} has no training trial: none of its trials is of tier"
                f" {', '.join(tiers)}. Take it out of the training set or correct its tiers."
            )
    training = _trials(videos, train)
    selecting = _trials(videos, select or {})
    if fold:
        training, left_out = _without(fold, training)
        selecting = left_out if select is None else selecting
    if select and not len(selecting):
        tiers = list(dict.fromkeys(tier for tiers in select.values() for tier in tiers))
        raise ValueError(
            f"No trial of animals {', '.join(select)} is of tier {', '.join(tiers)},"
            " so nothing can decide when training stops. Name another tier to select on."
        )
    roles = {"train": training, "select": selecting, "test": _trials(videos, test_tiers)}
    if distilled:
        roles["teacher_train"] = training
    rows = pd.concat([part.assign(role=role) for role, part in roles.items()], ignore_index=True)
    table = pd.concat([rows.assign(member=member) for member in members], ignore_index=True)
    return table[list(SPLIT_COLUMNS)]


def with_hashes(videos: pd.DataFrame, recordings: Iterable[Recording]) -> pd.DataFrame:
    """The table of videos with a column `perceptual_hash`, which decides folds."""
    hashes = [
        pd.DataFrame(
            {
                "animal": recording.animal,
                "trial": np.arange(len(recording.trials)),
                "perceptual_hash": recording.trials.perceptual_hash,
            }
        )
        for recording in recordings
    ]
    return videos.merge(pd.concat(hashes), on=["animal", "trial"], how="left", validate="1:1")


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
    """Ids of the videos that `member` or its teacher was trained on, in any animal."""
    rows = _rows_of(splits, member)
    return shown_ids(rows[rows["role"].isin(TRAINED_ROLES)])


def shown_ids(rows: pd.DataFrame) -> set[str]:
    """Ids of the videos in these rows of a split, other versions of the same video included."""
    near = {name for names in rows["near_ids"].unique() for name in names.split()}
    return set(rows["video_id"]) | near


def members_trained_on(splits: pd.DataFrame, members: Iterable[str]) -> set[str]:
    """Ids of the videos that any of `members` was trained on: what an ensemble has seen."""
    return set().union(*(trained_on(splits, member) for member in members))


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


def leaked_by_any(
    paths: Iterable[Path], animals: Sequence[str], tiers: Sequence[str]
) -> dict[str, np.ndarray]:
    """`leaked_trials` of members of one or several systems, from their files: what any trained on.

    Members of different systems may bear the same name, so each file is taken by itself.
    """
    leaked = {animal: np.zeros(0, dtype=np.int64) for animal in animals}
    for path in paths:
        splits = read_splits(Path(path))
        members = list(dict.fromkeys(splits["member"]))
        for animal, trials in leaked_trials(splits, members, animals, tiers).items():
            leaked[animal] = np.union1d(leaked[animal], trials)
    return leaked


def _trials(videos: pd.DataFrame, tiers: Tiers) -> pd.DataFrame:
    parts = [
        videos[(videos["animal"] == animal) & videos["tier"].isin(list(names))]
        for animal, names in tiers.items()
    ]
    return pd.concat(parts, ignore_index=True) if parts else videos.iloc[:0]


def _without(fold: Fold, training: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Training trials outside of `fold`, and those in it."""
    held = fold.holds(training["perceptual_hash"])
    place = f"Fold {fold.index} of {fold.count}"
    if not held.any():
        raise ValueError(
            f"{place} is empty: of the {len(training)} training trials of animals"
            f" {', '.join(training['animal'].unique())} none has a perceptual hash of that"
            " remainder. Use fewer folds, or more animals or trials."
        )
    kept, left_out = training[~held], training[held]
    if emptied := sorted(set(training["animal"]) - set(kept["animal"])):
        raise ValueError(
            f"{place} holds every training trial of animal {emptied[0]}, so a member that leaves it"
            " out learns nothing of that animal. Use more folds, or leave the animal out."
        )
    return kept, left_out


def _rows_of(splits: pd.DataFrame, member: str) -> pd.DataFrame:
    rows = splits[splits["member"] == member]
    if not len(rows):
        raise ValueError(
            f"Member {member} is not in the split (it has"
            f" {', '.join(map(str, splits['member'].unique()[:5]))}, ...). Run the split"
            " stage again."
        )
    return rows
