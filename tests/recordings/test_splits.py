"""Splits: who trains, selects and is tested on what; planted leaks are left out of the scores."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensorium_models.recordings import splits
from sensorium_models.recordings.splits import Selection

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
        train=Selection(("A", "F"), ("train",)),
        select=Selection(("A",), ("oracle",)),
        test_tiers={"A": ("live_test_main",), "F": ("live_test_main", "oracle")},
    )


def test_roles() -> None:
    split = table(videos())
    assert tuple(split.columns) == splits.SPLIT_COLUMNS
    assert splits.trials_of(split, "seed2", "F", "train").tolist() == [0, 1, 2, 3]
    assert splits.trials_of(split, "seed2", "A", "select").tolist() == [4, 5, 6]
    assert splits.trials_of(split, "seed2", "F", "select").tolist() == []
    assert splits.trials_of(split, "seed1", "F", "test").tolist() == [4, 5, 6, 7, 8, 9]
    assert splits.trained_on(split, "seed1") == {f"{a}{t}" for a in "AF" for t in range(4)}
    assert not split.duplicated(["member", "animal", "trial", "role"]).any()


def test_planted_leak_is_left_out_in_any_animal() -> None:
    """F was trained on the video of A's test trial 8."""
    seen = videos({("A", 8): "F2"})
    split = table(seen)
    kept, left_out = splits.scored_trials(split, seen, "seed1", "A", "live_test_main")
    assert kept.tolist() == [7, 9]
    assert left_out.tolist() == [8]
    kept, left_out = splits.scored_trials(split, seen, "seed1", "F", "live_test_main")
    assert (kept.tolist(), left_out.tolist()) == ([7, 8, 9], [])


def test_ensemble_leaves_out_what_any_member_saw() -> None:
    seen = videos({("A", 8): "F2"})
    clean = splits.split_table(
        members=["clean"],
        videos=seen,
        train=Selection(("A",), ("train",)),
        select=Selection((), ()),
        test_tiers={"A": ("live_test_main",)},
    )
    both = pd.concat([clean, table(seen, ("leaky",))], ignore_index=True)
    kept, left_out = splits.scored_trials(both, seen, "clean", "A", "live_test_main")
    assert (kept.tolist(), left_out.tolist()) == ([7, 8, 9], [])
    together = splits.members_trained_on(both, ["clean", "leaky"])
    assert together == {f"{a}{t}" for a in "AF" for t in range(4)}
    kept, left_out = splits.without_trained(both, seen, ["clean", "leaky"], "A", "live_test_main")
    assert (kept.tolist(), left_out.tolist()) == ([7, 9], [8])


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
        kept, left_out = splits.scored_trials(split, seen, "one", animal, "live_test_main")
        assert sorted([*kept, *left_out]) == [7, 8, 9]
        trained = {ids[a, t] for a in ("A", "F") for t in range(4)}
        assert all(ids[animal, t] not in trained for t in kept)
        assert all(ids[animal, t] in trained for t in left_out)


def test_untested_tier_has_no_scored_trials() -> None:
    seen = videos()
    kept, left_out = splits.scored_trials(table(seen), seen, "seed1", "A", "oracle")
    assert len(kept) == len(left_out) == 0
    assert kept.dtype == np.int64


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
            "train": Selection(("A",), ("train",)),
            "select": Selection(("A",), ("oracle",)),
            "test_tiers": {},
        }
        return splits.split_table(**{**arguments, **changes})  # type: ignore[arg-type]

    with pytest.raises(ValueError, match=r"Animal A has no training trial: .*tier training"):
        make(train=Selection(("A",), ("training",)))
    with pytest.raises(ValueError, match="Animal Z is in the split but has no recording"):
        make(test_tiers={"Z": ("oracle",)})
    with pytest.raises(ValueError, match="nothing can decide when training stops"):
        make(select=Selection(("A",), ("validation",)))
    with pytest.raises(ValueError, match="animals to train on"):
        make(train=Selection((), ("train",)))
    with pytest.raises(ValueError, match="distinct members"):
        make(members=["one", "one"])
    with pytest.raises(ValueError, match=r"Member two is not in the split \(it has one"):
        splits.trained_on(make(), "two")
    with pytest.raises(ValueError, match="no role 'training'"):
        splits.trials_of(make(), "one", "A", "training")
    with pytest.raises(ValueError, match=r"no split at .*none\.parquet"):
        splits.read_splits(tmp_path / "none.parquet")
    seen.to_parquet(tmp_path / "videos.parquet")
    with pytest.raises(ValueError, match="lacks the column member, role"):
        splits.read_splits(tmp_path / "videos.parquet")
