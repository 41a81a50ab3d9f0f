"""The leakage audit as tables: planted leaks are in every form, members alike share a row."""

from pathlib import Path

import pandas as pd
import pytest

from sensorium_models.recordings.splits import SPLIT_COLUMNS
from sensorium_models.reporting import tables
from sensorium_models.reporting.leakage import JointMembers, leakage_table, shared_videos_table
from sensorium_models.reporting.page import SECTIONS

WITHHELD = {"F": ["final_test_main"]}


def split(members: list[str], *, leaky: tuple[str, ...] = ()) -> pd.DataFrame:
    """Six test trials of A and F; `leaky` members trained on the video of A's first one."""
    rows = []
    for member in members:
        for animal in ("A", "F"):
            rows += [
                (member, animal, t, "train", f"{animal}{t}", "", "movie", "train") for t in (0, 1)
            ]
            rows += [
                (member, animal, t, "final_test_main", f"{animal}{t}", "", "movie", "test")
                for t in (5, 6, 7)
            ]
            rows += [(member, animal, 3, "oracle", f"{animal}3", "", "movie", "select")]
        if member in leaky:
            rows += [(member, "F", 2, "train", "A5", "", "movie", "train")]
    return pd.DataFrame(rows, columns=list(SPLIT_COLUMNS))


def audited(splits: dict[str, pd.DataFrame]) -> tables.Table:
    return leakage_table(
        splits,
        protocol="open",
        animals=["A", "F"],
        tiers=["final_test_main"],
        withheld=WITHHELD,
        titles={"gru": "GRU baseline"},
        simulated=True,
    )


def test_members_alike_share_a_row_and_the_ensemble_has_its_own(tmp_path: Path) -> None:
    splits = {
        "gru": split(["seed1", "seed2", "seed3"], leaky=("seed2",)),
        "mine": split(["a", "b", "c", "d"]),
        "single": split(["seed1"], leaky=("seed1",)),
    }
    table = audited(splits)
    shown = [
        (row.system_title, row.members, row.tested, row.scored, row.withheld, row.trained_on)
        for row in table.frame.itertuples()
    ]
    assert shown == [
        ("GRU baseline", "seed1, seed3", 6, 3, 3, 0),
        ("GRU baseline", "seed2", 6, 2, 3, 1),
        ("GRU baseline", "ensemble of 3", 6, 2, 3, 1),
        ("mine", "each of 4", 6, 3, 3, 0),
        ("mine", "ensemble of 4", 6, 3, 3, 0),
        ("single", "seed1", 6, 2, 3, 1),
    ]
    assert table.frame["trials_trained_on"].tolist() == ["", "A: 5", "A: 5", "", "", "A: 5"]
    assert table.frame["trials_withheld"][0] == "F: 5 6 7"
    assert table.section in SECTIONS
    csv, markdown, latex = (tmp_path / f"leakage.{end}" for end in ("csv", "md", "tex"))
    tables.save(table, csv=csv, markdown=markdown, latex=latex)
    assert "seed1 seed3" in csv.read_text()
    assert "final\\_test\\_main (A)" in markdown.read_text()
    assert "final\\_test\\_main (A)" in latex.read_text()
    assert "simulated" in tables.read_record(tables.record_file(csv)).caption


def test_an_ensemble_of_different_folds(tmp_path: Path) -> None:
    splits = {"gru": split(["fold0", "fold1", "fold2", "fold3", "fold4"], leaky=("fold4",))}
    frame = audited(splits).frame
    assert frame["members"].tolist() == ["fold0 and 3 others", "fold4", "ensemble of 5"]
    assert frame["member_names"].tolist()[0] == "fold0 fold1 fold2 fold3"


def test_an_ensemble_of_several_systems_has_what_any_member_has_seen() -> None:
    splits = {"gru": split(["seed1", "seed2"]), "mine": split(["seed1"], leaky=("seed1",))}
    extra = pd.DataFrame(
        [(m, "A", 3, "oracle", "A3", "", "movie", "test") for m in ("seed1", "seed2")],
        columns=list(SPLIT_COLUMNS),
    )
    table = leakage_table(
        {
            name: pd.concat([rows, extra[extra["member"].isin(rows["member"])]])
            for name, rows in splits.items()
        },
        protocol="open",
        animals=["A", "F"],
        tiers=["final_test_main", "oracle"],
        withheld=WITHHELD,
        titles={"all": "All together"},
        simulated=True,
        joint={
            "all": JointMembers({"gru": ["seed1", "seed2"], "mine": ["seed1"]}, ["oracle"]),
            "two": JointMembers({"gru": ["seed2"], "mine": ["seed1"]}),
        },
    )
    frame = table.frame.set_index("system")
    row = frame.loc["all"]
    assert (row["system_title"], row["members"]) == ("All together", "ensemble of 3")
    assert row["member_names"] == "gru/seed1 gru/seed2 mine/seed1"
    assert row[["tested", "scored", "withheld", "trained_on", "weights_fitted_on"]].tolist() == [
        7,
        2,
        3,
        1,
        1,
    ]
    assert (row["trials_trained_on"], row["trials_weights_fitted_on"]) == ("A: 5", "A: 3")
    assert row["where"] == "final_test_main (A); oracle (A)"
    assert frame.loc["two", ["scored", "trained_on", "weights_fitted_on"]].tolist() == [3, 1, 0]
    assert "weights fitted on" in [column.label for column in table.columns]
    assert "not judged where they were fitted" in table.caption
    plain = audited({"gru": split(["seed1"])})
    assert "weights fitted on" not in [column.label for column in plain.columns]


@pytest.mark.parametrize("leak", [True, False])
def test_shared_videos(tmp_path: Path, leak: bool) -> None:
    rows = [
        ("A", 0, "x", "train", "movie", 300),
        ("A", 1, "y", "oracle", "movie", 300),
        ("F", 0, "y" if leak else "z", "final_test_main", "movie", 300),
        ("F", 1, "x", "none", "movie", 300),
    ]
    columns = ["animal", "trial", "video_id", "tier", "stimulus_type", "frames"]
    videos = pd.DataFrame(rows, columns=columns)
    table = shared_videos_table(
        videos, tiers=["train", "oracle", "final_test_main"], simulated=False
    )
    csv, markdown, latex = (tmp_path / f"shared.{end}" for end in ("csv", "md", "tex"))
    tables.save(table, csv=csv, markdown=markdown, latex=latex)
    read = pd.read_csv(csv)
    assert len(read) == (1 if leak else 0)
    if leak:
        row = read.iloc[0]
        assert (row["animal"], row["tier"], row["other_animal"]) == ("A", "oracle", "F")
        assert (row["other_tier"], row["videos"], row["video_ids"]) == ("final_test_main", 1, "y")
        assert "| A | oracle | 1 | F | final\\_test\\_main | 1 | 1 |" in markdown.read_text()
    else:
        assert "share none" in markdown.read_text()
    assert latex.read_text().count("\\begin{tabular}") == 1
