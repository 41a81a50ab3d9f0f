"""Splits: the explicit list of which member trains, selects and is tested on which trial.

Written before any training, read by training, scoring and the leakage audit. A test trial whose
video a member was trained on, in any animal, is never scored for it.
"""

import hashlib
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


def learned_from(
    splits: pd.DataFrame, member: str, teacher: pd.DataFrame | None = None
) -> pd.DataFrame:
    """The rows that made `member`, to be kept with it: what it was trained and selected on.

    Args:
        teacher: the like of its teacher, whatever the present split says of that one.
    """
    rows = _rows_of(splits, member)
    rows = rows[rows["role"] != "test"]
    if teacher is not None:
        seen = teacher[teacher["role"].isin(TRAINED_ROLES)]
        seen = seen.drop_duplicates(["animal", "trial"]).assign(member=member, role="teacher_train")
        rows = pd.concat([rows[rows["role"] != "teacher_train"], seen])
    return rows.reset_index(drop=True)


def read_judged(splits: Iterable[Path], learned: Iterable[Path]) -> pd.DataFrame:
    """Members with the trials that they are tested on now and those that they learned from then.

    A finished member may stand although its training set has changed since (`adopt_members`); what
    it has seen is what it was trained on, not what the present split would train it on.

    Args:
        splits: present tables, of which the tested trials count.
        learned: the tables of `learned_from` that lie with these members.
    """
    tested = [read_splits(Path(path)) for path in splits]
    tested = [table[table["role"] == "test"] for table in tested]
    return pd.concat([*tested, *map(read_splits, map(Path, learned))], ignore_index=True)


def trials_of(splits: pd.DataFrame, member: str, animal: str, role: str) -> np.ndarray:
    """Trial indices of one animal that `member` has in `role`, ascending, int64."""
    if role not in ROLES:
        raise ValueError(f"There is no role {role!r}. Use one of {', '.join(ROLES)}.")
    rows = _rows_of(splits, member)
    rows = rows[(rows["animal"] == animal) & (rows["role"] == role)]
    return np.sort(rows["trial"].to_numpy(dtype=np.int64))


def trial_digests(splits: pd.DataFrame, member: str) -> dict[str, dict[str, str]]:
    """A short hash of the trials that train and of those that select `member`, by role and animal.

    Equal exactly where the trials are; an animal without any is left out.
    """
    rows = _rows_of(splits, member)
    return {
        role: {
            str(animal): _digest(part["trial"].to_numpy())
            for animal, part in rows[rows["role"] == role].groupby("animal", sort=False)
        }
        for role in ("train", "select")
    }


def trained_rows(splits: pd.DataFrame, members: Iterable[str]) -> pd.DataFrame:
    """The rows on which any of `members` or its teacher was trained: what an ensemble has seen."""
    rows = pd.concat([_rows_of(splits, member) for member in members])
    return rows[rows["role"].isin(TRAINED_ROLES)]


def shown_ids(rows: pd.DataFrame) -> set[str]:
    """Ids of the videos in these rows of a split, other versions of the same video included."""
    near = {name for names in rows["near_ids"].unique() for name in names.split()}
    return set(rows["video_id"]) | near


def shows_any_of(rows: pd.DataFrame, trained: pd.DataFrame) -> pd.Series:
    """Which rows of a split show a video of the rows `trained`, or another version of one; bool.

    Either side may be the one that tells of the other: a table knows its own animals only.
    """
    own = set(trained["video_id"])
    told = [not own.isdisjoint(names.split()) for names in rows["near_ids"]]
    return rows["video_id"].isin(shown_ids(trained)) | pd.Series(told, rows.index, dtype=bool)


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
    rows = _rows_of(splits, members[0])
    rows = rows[(rows["role"] == "test") & rows["tier"].isin(list(tiers))]
    rows = rows[shows_any_of(rows, trained_rows(splits, members))]
    return {
        animal: np.sort(rows.loc[rows["animal"] == animal, "trial"].to_numpy(dtype=np.int64))
        for animal in animals
    }


def leaked_by_any(
    judged: Iterable[tuple[Path, Path]], animals: Sequence[str], tiers: Sequence[str]
) -> dict[str, np.ndarray]:
    """`leaked_trials` of members of one or several systems: what any of them was trained on.

    Members of different systems may bear the same name, so each is taken by itself.

    Args:
        judged: of each member its present split and what it learned from (`read_judged`).
    """
    leaked = {animal: np.zeros(0, dtype=np.int64) for animal in animals}
    for present, learned in judged:
        splits = read_judged([present], [learned])
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


def _digest(trials: np.ndarray) -> str:
    return hashlib.sha256(np.sort(trials).astype("<i8").tobytes()).hexdigest()[:16]


def _rows_of(splits: pd.DataFrame, member: str) -> pd.DataFrame:
    rows = splits[splits["member"] == member]
    if not len(rows):
        raise ValueError(
            f"Member {member} is not in the split (it has"
            f" {', '.join(map(str, splits['member'].unique()[:5]))}, ...). Run the split"
            " stage again."
        )
    return rows
