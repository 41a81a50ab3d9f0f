"""Splits: who trains, selects and is tested on what; planted leaks are left out of the scores."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensorium_models.recordings import splits
from sensorium_models.recordings.splits import Fold
from sensorium_models.recordings.store import Recording

TIERS = ("train", "oracle", "live_test_main")


def videos(shared: dict[tuple[str, int], str] | None = None) -> pd.DataFrame:
    """A and F with 4 training, 3 oracle and 3 test trials; every video its own but `shared`."""
    rows = []
    for animal in ("A", "F"):
        for trial in range(10):
            tier = TIERS[0] if trial < 4 else TIERS[1] if trial < 7 else TIERS[2]
            video = (shared or {}).get((animal, trial), f"{animal}{trial}")
            rows.append((animal, trial, video, tier, "movie", 300))
    columns = ["animal", "trial", "video_id", "tier", "stimulus_type", "frames"]
    return pd.DataFrame(rows, columns=columns)


def table(seen: pd.DataFrame, members: tuple[str, ...] = ("seed1", "seed2")) -> pd.DataFrame:
    return splits.split_table(
        members=members,
        videos=seen,
        train={"A": ("train",), "F": ("train",)},
        select={"A": ("oracle",)},
        test_tiers={"A": ("live_test_main",), "F": ("live_test_main", "oracle")},
    )


def scored(
    split: pd.DataFrame, members: list[str], animal: str, tier: str
) -> tuple[list[int], list[int]]:
    """Trials of one animal and tier that `members` are scored on, and those left out."""
    tested = splits.predicted_trials(split, members[0], [animal], [tier])[animal].tolist()
    left_out = splits.leaked_trials(split, members, [animal], [tier])[animal].tolist()
    return [trial for trial in tested if trial not in left_out], left_out


def test_roles() -> None:
    split = table(videos())
    assert tuple(split.columns) == splits.SPLIT_COLUMNS
    assert splits.trials_of(split, "seed2", "F", "train").tolist() == [0, 1, 2, 3]
    assert splits.trials_of(split, "seed2", "A", "select").tolist() == [4, 5, 6]
    assert splits.trials_of(split, "seed2", "F", "select").tolist() == []
    assert splits.trials_of(split, "seed1", "F", "test").tolist() == [4, 5, 6, 7, 8, 9]
    assert set(splits.trained_rows(split, ["seed1"])["video_id"]) == {
        f"{a}{t}" for a in "AF" for t in range(4)
    }
    assert not split.duplicated(["member", "animal", "trial", "role"]).any()


def test_planted_leak_is_left_out_in_any_animal() -> None:
    """F was trained on the video of A's test trial 8."""
    seen = videos({("A", 8): "F2"})
    split = table(seen)
    assert scored(split, ["seed1"], "A", "live_test_main") == ([7, 9], [8])
    assert scored(split, ["seed1"], "F", "live_test_main") == ([7, 8, 9], [])


def test_ensemble_leaves_out_what_any_member_saw() -> None:
    seen = videos({("A", 8): "F2"})
    clean = splits.split_table(
        members=["clean"],
        videos=seen,
        train={"A": ("train",)},
        select={},
        test_tiers={"A": ("live_test_main",)},
    )
    both = pd.concat([clean, table(seen, ("leaky",))], ignore_index=True)
    assert scored(both, ["clean"], "A", "live_test_main") == ([7, 8, 9], [])
    together = splits.trained_rows(both, ["clean", "leaky"])
    assert set(together["video_id"]) == {f"{a}{t}" for a in "AF" for t in range(4)}
    assert scored(both, ["clean", "leaky"], "A", "live_test_main") == ([7, 9], [8])


def hashed(remainders: dict[str, list[int]], shared: dict | None = None) -> pd.DataFrame:
    """The table of `videos` with hashes that leave these remainders modulo 7, by training trial."""
    seen = videos(shared)
    hashes = [
        remainders.get(animal, [])[trial] if trial < len(remainders.get(animal, [])) else 0
        for animal, trial in zip(seen["animal"], seen["trial"], strict=True)
    ]
    # Beyond 53 bits, where a floating-point number would lose the remainder.
    return seen.assign(perceptual_hash=[f"{7 * 2**60 + value:016x}" for value in hashes])


def folded(seen: pd.DataFrame, index: int, **changes: object) -> pd.DataFrame:
    arguments: dict[str, object] = {
        "members": ["one"],
        "videos": seen,
        "train": {"A": ["train"], "F": ["train"]},
        "select": None,
        "test_tiers": {"A": ["live_test_main"]},
        "fold": Fold(index, 7),
    }
    return splits.split_table(**{**arguments, **changes})  # type: ignore[arg-type]


def test_a_fold_is_the_remainder_of_the_published_hash() -> None:
    seen = hashed({"A": [3, 0, 3, 6], "F": [1, 3, 2, 4]})
    split = folded(seen, 3)
    assert splits.trials_of(split, "one", "A", "train").tolist() == [1, 3]
    assert splits.trials_of(split, "one", "F", "train").tolist() == [0, 2, 3]
    assert splits.trials_of(split, "one", "A", "select").tolist() == [0, 2]
    assert splits.trials_of(split, "one", "F", "select").tolist() == [1]
    # A fold that does not select has no part at all.
    clean = folded(seen, 3, select={"A": ["oracle"]})
    assert splits.trials_of(clean, "one", "A", "select").tolist() == [4, 5, 6]
    left_out = {("A", 0), ("A", 2), ("F", 1)}
    rows = set(zip(clean["animal"], clean["trial"], strict=True))
    assert not rows & left_out


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 2**64 - 1), min_size=8, max_size=8))
def test_folds_part_the_training_trials(numbers: list[int]) -> None:
    seen = videos()
    training = seen["tier"] == "train"
    seen.loc[training, "perceptual_hash"] = [f"{number:016x}" for number in numbers]
    parts = []
    for index in range(3):
        try:
            split = folded(seen, index, fold=Fold(index, 3))
        except ValueError:  # an empty fold, or one that empties an animal
            continue
        rows = split[split["role"] != "test"]
        assert len(rows) == 8
        assert not rows.duplicated(["animal", "trial"]).any()
        parts.append(split[split["role"] == "select"])
    together = pd.concat(parts) if parts else pd.DataFrame(columns=["animal", "trial"])
    assert not together.duplicated(["animal", "trial"]).any()


def test_an_empty_fold_and_an_emptied_animal_are_sentences() -> None:
    seen = hashed({"A": [3, 3, 3, 3], "F": [1, 3, 2, 4]})
    with pytest.raises(ValueError, match=r"Fold 5 of 7 is empty: of the 8 .* of animals A, F none"):
        folded(seen, 5)
    with pytest.raises(ValueError, match="Fold 3 of 7 holds every training trial of animal A"):
        folded(seen, 3)


def test_hash_decides_the_fold_but_identity_decides_leakage() -> None:
    """A's test trial 7 shows the video of F's training trial 2, a few frames of which differ."""
    seen = hashed({"A": [3, 0, 3, 6], "F": [1, 3, 2, 4]}, {("A", 7): "F2"})
    assert scored(folded(seen, 3), ["one"], "A", "live_test_main") == ([8, 9], [7])
    # In fold 2 the training trial is left out: nothing was seen.
    assert scored(folded(seen, 2), ["one"], "A", "live_test_main") == ([7, 8, 9], [])


def test_a_student_has_seen_what_its_teacher_was_trained_on() -> None:
    seen = hashed({"A": [3, 0, 3, 6], "F": [1, 3, 2, 4]}, {("A", 7): "F2"})
    student = folded(seen, 3, distilled=True)
    taught = splits.trials_of(student, "one", "F", "teacher_train").tolist()
    assert taught == splits.trials_of(student, "one", "F", "train").tolist()
    # A teacher that saw more than its student, as an imported one may have.
    own = student[~((student["role"] == "train") & (student["video_id"] == "F2"))]
    assert "F2" in set(splits.trained_rows(own, ["one"])["video_id"])
    assert scored(own, ["one"], "A", "live_test_main") == ([8, 9], [7])


def test_a_member_is_judged_by_what_it_learned_from_then(tmp_path: Path) -> None:
    """F's tier live_test_main is no training tier any more, but the member had learned from it."""
    seen = videos({("A", 8): "F7"})
    then = splits.split_table(
        members=["one"],
        videos=seen,
        train={"A": ("train",), "F": ("train", "live_test_main")},
        select={"A": ("oracle",)},
        test_tiers={"A": ("live_test_main",)},
    )
    kept, now = tmp_path / "member.parquet", tmp_path / "split.parquet"
    splits.write_splits(splits.learned_from(then, "one"), kept)
    splits.write_splits(table(seen, ("one",)), now)
    assert scored(table(seen, ("one",)), ["one"], "A", "live_test_main") == ([7, 8, 9], [])
    judged = splits.read_judged([now], [kept])
    assert scored(judged, ["one"], "A", "live_test_main") == ([7, 9], [8])
    assert scored(judged, ["one"], "F", "live_test_main") == ([], [7, 8, 9])
    # Where nothing has changed, it is the split itself.
    splits.write_splits(splits.learned_from(table(seen, ("one",)), "one"), kept)
    rows = splits.read_judged([now], [kept]).sort_values(["role", "animal", "trial"])
    unchanged = table(seen, ("one",)).sort_values(["role", "animal", "trial"])
    pd.testing.assert_frame_equal(
        rows.reset_index(drop=True), unchanged.reset_index(drop=True), check_like=True
    )


def test_a_student_keeps_what_its_teacher_learned_from() -> None:
    seen = hashed({"A": [3, 0, 3, 6], "F": [1, 3, 2, 4]}, {("A", 7): "F2"})
    teacher = splits.learned_from(folded(seen, 3), "one")
    student = folded(seen, 2, distilled=True)  # whose own fold holds F2
    own = splits.learned_from(student, "one", teacher)
    taught = splits.trials_of(own, "one", "F", "teacher_train").tolist()
    assert taught == splits.trials_of(teacher, "one", "F", "train").tolist()
    assert 2 in taught
    judged = pd.concat([student[student["role"] == "test"], own])
    assert scored(judged, ["one"], "A", "live_test_main") == ([8, 9], [7])


def test_either_side_tells_of_another_version_of_a_video() -> None:
    """Of two tables only one may know both animals."""
    seen = videos().assign(near_ids="")
    for told in ("F2", "A8"):
        one_sided = seen.copy()
        other = {"F2": "A8", "A8": "F2"}[told]
        one_sided.loc[one_sided["video_id"] == told, "near_ids"] = other
        assert scored(table(one_sided), ["seed1"], "A", "live_test_main") == ([7, 9], [8])


def test_hashes_come_from_the_stores(recording: Recording) -> None:
    seen = pd.DataFrame({"animal": "A", "trial": np.arange(len(recording.trials))[::-1]})
    joined = splits.with_hashes(seen, [recording])
    assert joined["perceptual_hash"].tolist() == recording.trials.perceptual_hash[::-1].tolist()


@settings(deadline=None, max_examples=25)
@given(
    st.dictionaries(
        st.tuples(st.sampled_from(["A", "F"]), st.integers(0, 9)),
        st.sampled_from(["x", "y", "z", "w"]),
    )
)
def test_no_scored_video_was_ever_trained_on(shared: dict[tuple[str, int], str]) -> None:
    seen = videos(shared)
    split = table(seen, ("one",))
    ids = seen.set_index(["animal", "trial"])["video_id"]
    for animal in ("A", "F"):
        kept, left_out = scored(split, ["one"], animal, "live_test_main")
        assert sorted([*kept, *left_out]) == [7, 8, 9]
        trained = {ids[a, t] for a in ("A", "F") for t in range(4)}
        assert all(ids[animal, t] not in trained for t in kept)
        assert all(ids[animal, t] in trained for t in left_out)


def test_untested_tier_has_no_scored_trials() -> None:
    split = table(videos())
    assert scored(split, ["seed1"], "A", "oracle") == ([], [])
    assert splits.predicted_trials(split, "seed1", ["A"], ["oracle"])["A"].dtype == np.int64


def test_round_trip(tmp_path: Path) -> None:
    split = table(videos())
    path = tmp_path / "splits" / "clean" / "system.parquet"
    splits.write_splits(split, path)
    pd.testing.assert_frame_equal(splits.read_splits(path), split, check_dtype=False)
    first = path.read_bytes()
    splits.write_splits(table(videos()), path)
    assert path.read_bytes() == first
    assert [file.name for file in path.parent.iterdir()] == ["system.parquet"]


def test_errors_are_sentences(tmp_path: Path) -> None:
    seen = videos()

    def make(**changes: object) -> pd.DataFrame:
        arguments: dict[str, object] = {
            "members": ["one"],
            "videos": seen,
            "train": {"A": ["train"]},
            "select": {"A": ["oracle"]},
            "test_tiers": {},
        }
        return splits.split_table(**{**arguments, **changes})  # type: ignore[arg-type]

    with pytest.raises(ValueError, match=r"Animal A has no training trial: .*tier training"):
        make(train={"A": ["training"]})
    with pytest.raises(ValueError, match="Animal Z is in the split but has no recording"):
        make(test_tiers={"Z": ("oracle",)})
    with pytest.raises(ValueError, match="nothing can decide when training stops"):
        make(select={"A": ["validation"]})
    with pytest.raises(ValueError, match="animals to train on"):
        make(train={})
    with pytest.raises(ValueError, match="name tiers to select on, or a fold"):
        make(select=None)
    with pytest.raises(ValueError, match="Folds of 7 are 0 to 6, not 7"):
        Fold(7, 7)
    with pytest.raises(ValueError, match="distinct members"):
        make(members=["one", "one"])
    with pytest.raises(ValueError, match=r"Member two is not in the split \(it has one"):
        splits.trained_rows(make(), ["two"])
    with pytest.raises(ValueError, match="no role 'training'"):
        splits.trials_of(make(), "one", "A", "training")
    with pytest.raises(ValueError, match=r"no split at .*none\.parquet"):
        splits.read_splits(tmp_path / "none.parquet")
    seen.to_parquet(tmp_path / "videos.parquet")
    with pytest.raises(ValueError, match="lacks the column member, near_ids, role"):
        splits.read_splits(tmp_path / "videos.parquet")
