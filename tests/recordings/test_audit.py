"""The leakage audit: every planted leak is found, and counted under the reason that holds first."""

import pandas as pd
import pytest

from sensorium_models.recordings import splits
from sensorium_models.recordings.audit import audit_members, shared_videos

TIERS = ("train", "oracle", "final_test_main")
LEAK = {("A", 8): "F2"}  # A's test trial 8 shows F's training video 2


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


def split(seen: pd.DataFrame, members: tuple[str, ...] = ("one",)) -> pd.DataFrame:
    return splits.split_table(
        members=members,
        videos=seen,
        train={"A": ["train"], "F": ["train"]},
        select={"A": ["oracle"]},
        test_tiers={"A": ["final_test_main", "oracle"], "F": ["final_test_main"]},
    )


def audit(table: pd.DataFrame, *members: str, withheld: dict[str, list[str]] | None = None):  # type: ignore[no-untyped-def]
    return audit_members(
        table,
        members or ("one",),
        animals=["A", "F"],
        tiers=["final_test_main", "oracle"],
        withheld=withheld or {},
    )


def trials(rows: pd.DataFrame) -> set[tuple[str, int]]:
    return {(str(a), int(t)) for a, t in zip(rows["animal"], rows["trial"], strict=True)}


def test_nothing_leaks_in_disjoint_videos() -> None:
    found = audit(split(videos()))
    assert found.tested == len(found.scored) == 9
    assert trials(found.scored_selected_on) == {("A", 4), ("A", 5), ("A", 6)}
    assert len(found.selecting) == 3
    assert found.selecting_trained_on.empty


def test_a_test_video_in_another_animals_training_tier() -> None:
    found = audit(split(videos(LEAK)))
    assert trials(found.trained_on) == {("A", 8)}
    assert ("A", 8) not in trials(found.scored)
    assert found.tested == 9
    # What the scores leave out is what the audit says.
    left_out = splits.leaked_trials(
        split(videos(LEAK)), ["one"], ["A", "F"], ["final_test_main", "oracle"]
    )
    assert {animal: rows.tolist() for animal, rows in left_out.items()} == {"A": [8], "F": []}


def test_a_slightly_different_version_of_a_training_video() -> None:
    """F's training video 2 and A's test videos 8 are the same but for a few frames."""
    seen = videos().assign(near_ids="")
    seen.loc[seen["video_id"] == "F2", "near_ids"] = "X A8"
    seen.loc[seen["video_id"] == "A8", "near_ids"] = "F2 X"
    found = audit(split(seen))
    assert trials(found.trained_on) == {("A", 8)}
    left_out = splits.leaked_trials(split(seen), ["one"], ["A"], ["final_test_main"])
    assert left_out["A"].tolist() == [8]
    shared = shared_videos(seen, tiers=TIERS)
    assert shared.to_numpy().tolist() == [
        ["A", "final_test_main", "F", "train", 1, 1, 1, "A8"],
    ]


def test_a_withheld_trial_is_withheld_first_but_its_leak_is_told() -> None:
    found = audit(split(videos({("F", 7): "A1"})), withheld={"F": ["final_test_main"]})
    assert trials(found.withheld) == {("F", 7), ("F", 8), ("F", 9)}
    assert trials(found.withheld_trained_on) == {("F", 7)}
    assert found.trained_on.empty


def test_a_leak_through_the_teacher() -> None:
    table = split(videos())
    taught = pd.DataFrame(
        [("one", "F", 99, "final_test_main", "A9", "", "movie", "teacher_train")],
        columns=list(splits.SPLIT_COLUMNS),
    )
    found = audit(pd.concat([table, taught], ignore_index=True))
    assert trials(found.teacher_trained_on) == {("A", 9)}
    assert found.trained_on.empty
    assert trials(found.scored) == trials(audit(table).scored) - {("A", 9)}


def test_an_ensemble_has_seen_what_any_member_saw() -> None:
    clean, leaky = split(videos(), ("clean",)), split(videos(LEAK), ("leaky",))
    # The same trials of the same recordings: only what was trained on differs.
    clean.loc[clean["video_id"] == "A8", "video_id"] = "F2"
    clean = clean[~((clean["role"] == "train") & (clean["video_id"] == "F2"))]
    both = pd.concat([clean, leaky], ignore_index=True)
    assert audit(both, "clean").trained_on.empty
    assert trials(audit(both, "clean", "leaky").trained_on) == {("A", 8)}
    with pytest.raises(ValueError, match="Member two is not in the split"):
        audit(both, "two")


def test_selecting_on_a_video_that_was_trained_on_is_told() -> None:
    found = audit(split(videos({("A", 5): "F0"})))
    assert trials(found.selecting_trained_on) == {("A", 5)}


def test_shared_videos_between_animals_and_tiers() -> None:
    seen = videos({("A", 8): "F2", ("A", 9): "F2", ("A", 4): "A7", ("F", 9): "A0", ("F", 8): "A0"})
    shared = shared_videos(seen, tiers=TIERS)
    rows = {tuple(row[:4]): tuple(row[4:]) for row in shared.itertuples(index=False)}
    assert rows == {
        ("A", "oracle", "A", "final_test_main"): (1, 1, 1, "A7"),
        ("A", "train", "F", "final_test_main"): (1, 1, 2, "A0"),
        ("A", "final_test_main", "F", "train"): (1, 2, 1, "F2"),
    }
    assert shared["tier"].tolist() == ["train", "oracle", "final_test_main"]
    unused = shared_videos(seen, tiers=TIERS[:2])
    assert unused.empty
    assert list(unused.columns) == list(shared.columns)
