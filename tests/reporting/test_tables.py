"""Tables: full precision in CSV, the same cells in Markdown, LaTeX and JSON."""

import csv
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensorium_models.evaluation.leaderboard import leaderboard
from sensorium_models.reporting import tables
from sensorium_models.reporting.cost_table import clips_per_step, training_cost_table
from sensorium_models.reporting.score_tables import leaderboard_table, members_table
from sensorium_models.reporting.submissions import submissions_table
from sensorium_models.reporting.tables import Column, Table


def _save(table: Table, folder: Path) -> tables.TableRecord:
    tables.save(
        table, csv=folder / "t.csv", markdown=folder / "t.md", latex=folder / "some_table.tex"
    )
    return tables.read_record(tables.record_file(folder / "t.csv"))


def _markdown_rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]
    return [[re.sub(r"\\(.)", r"\1", cell.strip()) for cell in row] for row in rows]


def _latex_rows(text: str) -> list[list[str]]:
    body = text.split("\\midrule", 1)[1].split("\\bottomrule")[0]
    rows = [row for row in body.split("\\\\\n") if "\\multicolumn" not in row and row.strip()]
    return [
        [cell.replace("$\\pm$", "±").replace("--", "–").strip() for cell in row.split(" & ")]
        for row in (row.replace("\\midrule", "") for row in rows)
    ]


def test_all_forms_hold_the_same_cells(made: SimpleNamespace, tmp_path: Path) -> None:
    board = made.board({"factorized_baseline": 3, "linear_nonlinear": 1})
    table = leaderboard_table(board, titles=made.titles, simulated=True)
    shown = _save(table, tmp_path)
    markdown = _markdown_rows((tmp_path / "t.md").read_text(encoding="utf-8"))
    assert [row[1:] for row in markdown[2:]] == shown.rows
    assert [row[0] for row in markdown[2:]] == shown.row_headings
    assert _latex_rows((tmp_path / "some_table.tex").read_text(encoding="utf-8")) == shown.rows
    assert shown == tables.record(table)


def test_csv_round_trips_with_full_precision(made: SimpleNamespace, tmp_path: Path) -> None:
    board = made.board({"factorized_baseline": 3})
    table = leaderboard_table(board, titles=made.titles, simulated=False)
    _save(table, tmp_path)
    read = pd.read_csv(tmp_path / "t.csv")
    assert list(read.columns) == list(table.frame.columns)
    column = "single_trial_correlation_animal_mean"
    np.testing.assert_array_equal(read[column], table.frame[column])
    with (tmp_path / "t.csv").open(encoding="utf-8") as file:
        assert {len(row) for row in csv.reader(file)} == {len(table.frame.columns)}


def test_leaderboard_table_states_both_aggregates_and_their_spread(made: SimpleNamespace) -> None:
    board = made.board({"viv1t": 5})
    frame = leaderboard_table(board, titles=made.titles, simulated=False).frame
    row = frame[(frame["tier"] == "final_test_bonus") & (frame["estimate"] == "members")].iloc[0]
    members = board[(board["tier"] == "final_test_bonus") & (board["member"] != "ensemble")]
    for key in ("single_trial_correlation", "correlation_to_average_animal_mean"):
        assert row[key] == pytest.approx(members[key].mean(), rel=1e-12)
        assert row[f"{key}_sd"] == pytest.approx(np.std(members[key], ddof=1), rel=1e-12)
    assert row["members"] == 5
    assert (row["neurons"], row["animals"], row["trials"], row["trials_left_out"]) == (
        24,
        "A B",
        80,
        0,
    )


def test_intervals_stand_beside_the_scores_that_they_are_of(made: SimpleNamespace) -> None:
    board = made.board({"viv1t": 5, "gru_baseline": 1})
    intervals = made.intervals(board, half=0.025)
    table = leaderboard_table(board, titles=made.titles, simulated=False, intervals=intervals)
    frame = table.frame
    for metric in ("single_trial_correlation", "correlation_to_average"):
        np.testing.assert_allclose(frame[f"{metric}_lower"], frame[metric] - 0.025)
        np.testing.assert_allclose(frame[f"{metric}_upper"], frame[metric] + 0.025)
        first = frame.iloc[0]
        ends = f"{first[metric] - 0.025:.3f} to {first[metric] + 0.025:.3f}"
        assert first[f"{metric}_interval"] == ends
    assert "95 % interval" in [column.label for column in table.columns]
    assert "hierarchical bootstrap over animals, videos, neurons" in table.caption
    # Where there is none, a dash stands for it.
    none = intervals.assign(lower=np.nan, upper=np.nan)
    shown = leaderboard_table(board, titles=made.titles, simulated=False, intervals=none)
    assert shown.frame["single_trial_correlation_interval"].isna().all()
    bare = leaderboard_table(board, titles=made.titles, simulated=False)
    assert not [column for column in bare.columns if "interval" in column.label]


def test_other_units_stand_in_columns_of_their_own(made: SimpleNamespace) -> None:
    board = made.board({"viv1t": 3, "gru_baseline": 1})
    further = made.board({"viv1t": 3, "gru_baseline": 1}, seed=2)
    further = further.assign(score_unit="per_neuron_train")
    table = leaderboard_table(board, titles=made.titles, simulated=False, further=further)
    plain = leaderboard_table(board, titles=made.titles, simulated=False)
    alone = leaderboard_table(further, titles=made.titles, simulated=False)
    # The headline is what it was, in the order that it was.
    pd.testing.assert_frame_equal(table.frame[plain.frame.columns], plain.frame)
    keys = ["tier", "system", "estimate"]
    expected = alone.frame.set_index(keys)["single_trial_correlation"]
    found = table.frame.set_index(keys)["single_trial_correlation_per_neuron_train"]
    pd.testing.assert_series_equal(found.sort_index(), expected.sort_index(), check_names=False)
    assert "In unit per_neuron_train" in {column.group for column in table.columns}


def test_what_all_rows_share_is_said_once(made: SimpleNamespace) -> None:
    board = made.board({"viv1t": 1, "gru_baseline": 1})
    table = leaderboard_table(board, titles=made.titles, simulated=False)
    labels = {column.label for column in table.columns}
    assert not labels & {"animals", "Training set"}
    assert "Training set clean. Scored on animals A B." in table.caption
    other = board["system"] == "viv1t"
    board.loc[other, ["animals", "training_set"]] = "A", "published"
    table = leaderboard_table(board, titles=made.titles, simulated=False)
    assert {"animals", "Training set"} <= {column.label for column in table.columns}
    assert "Scored on animals" not in table.caption


def test_scores_against_the_ceiling_say_whom_they_are_of(
    made: SimpleNamespace, tmp_path: Path
) -> None:
    scores = made.scores({"viv1t": 3, "gru_baseline": 1})
    rng = np.random.default_rng(0)
    scores["normalised_correlation"] = rng.normal(0.6, 0.1, len(scores))
    scores["feve"] = rng.normal(-0.2, 0.1, len(scores))
    scores["reliable"] = (scores["neuron_id"] < 25).astype("boolean")  # 8 of 12 in either animal
    scores.loc[scores["tier"] == "live_test_bonus", ["reliable"]] = pd.NA
    board = leaderboard(scores)
    options = {"titles": made.titles, "simulated": False}
    table = leaderboard_table(board, reliable_variance=0.15, **options)
    columns = [column for column in table.columns if column.group == "Against the ceiling"]
    assert [column.label for column in columns] == ["CC_norm", "FEVE", "reliable", "not"]
    frame = table.frame.set_index(["tier", "system", "estimate"])
    row = frame.loc["final_test_bonus", "viv1t", "members"]
    members = board[(board["system"] == "viv1t") & (board["member"] != "ensemble")]
    values = members.loc[members["tier"] == "final_test_bonus", "normalised_correlation"]
    assert row["normalised_correlation"] == pytest.approx(values.mean())
    assert row["normalised_correlation_sd"] == pytest.approx(np.std(values, ddof=1))
    assert (row["rows_reliable"], row["rows_not_reliable"]) == (32, 16)  # two types
    assert frame.loc["live_test_bonus", "viv1t", "members"][["rows_reliable", "feve"]].isna().all()
    assert "at least 15 % of whose variance the repeats of a video share" in table.caption
    assert "once for each stimulus type" in table.caption
    shown = _save(table, tmp_path)
    assert _latex_rows((tmp_path / "some_table.tex").read_text(encoding="utf-8")) == [
        [cell.replace("−", "$-$") for cell in cells] for cells in shown.rows
    ]
    assert "CC\\_norm" in (tmp_path / "some_table.tex").read_text(encoding="utf-8")
    # Where no video has repeats, there is nothing to show.
    unknown = leaderboard(scores.assign(reliable=pd.array([pd.NA] * len(scores), "boolean")))
    bare = leaderboard_table(unknown, reliable_variance=0.15, **options)
    assert not [column for column in bare.columns if column.group == "Against the ceiling"]
    assert "ceiling" not in bare.caption


def _uploads(folder: Path, systems: list[str]) -> dict[str, list[Path]]:
    uploads: dict[str, list[Path]] = {}
    for system in systems:
        for name in ("main", "bonus_final"):
            path = folder / system / f"{name}.zip"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(bytes(1_500_000))
            uploads.setdefault(system, []).append(path)
    return uploads


def test_files_to_upload_are_listed_with_the_emulated_servers_scores(
    made: SimpleNamespace, tmp_path: Path
) -> None:
    served = made.board({"viv1t": 1, "gru_baseline": 1}, protocol="competition")
    table = submissions_table(
        _uploads(tmp_path, ["gru_baseline", "viv1t"]),
        protocol="competition",
        served=served,
        titles=made.titles,
        simulated=True,
    )
    frame = table.frame
    assert frame["tier"].drop_duplicates().tolist() == [
        "final_test_main",
        "final_test_bonus",
        "live_test_main",
    ]
    best = frame[frame["tier"] == "final_test_main"]
    assert best["system"].tolist() == ["viv1t", "gru_baseline"]
    expected = served.query("tier == 'final_test_main' and system == 'viv1t'")
    key = "single_trial_correlation"
    assert best.iloc[0][key] == expected[key].iloc[0]
    assert (best.iloc[0]["file"], best.iloc[0]["size"]) == ("viv1t/main.zip", "1.5 MB")
    assert best[f"published_{key}"].tolist() == [0.243, 0.106]
    assert frame.query("tier == 'live_test_main'")[f"published_{key}"].isna().all()
    groups = {column.key: column.group for column in table.columns}
    assert groups[key] == "Emulated server"
    assert "SIMULATED" in table.caption
    assert "not the competition's" in table.caption


def test_files_to_upload_have_no_score_where_only_the_server_knows(
    made: SimpleNamespace, tmp_path: Path
) -> None:
    table = submissions_table(
        _uploads(tmp_path, ["viv1t"]),
        protocol="competition",
        served=None,
        titles=made.titles,
        simulated=False,
    )
    assert not [column for column in table.columns if column.group == "Emulated server"]
    assert table.frame["single_trial_correlation"].isna().all()
    assert "Only the competition's server can score them" in table.caption
    assert "mulated" not in table.caption
    tables.record(table)


def test_published_values_stand_in_columns_of_their_own(made: SimpleNamespace) -> None:
    board = made.board({"factorized_baseline": 3, "linear_nonlinear": 1, "dwiseneuro": 1})
    table = leaderboard_table(board, titles=made.titles, simulated=False)
    frame = table.frame.set_index(["tier", "system", "estimate"])
    key = "published_single_trial_correlation"
    assert frame.loc[("final_test_main", "factorized_baseline", "ensemble"), key] == 0.197
    assert frame.loc[("final_test_main", "factorized_baseline", "members"), key] == 0.1828
    dwiseneuro = frame.loc[("final_test_main", "dwiseneuro", "members")]
    assert (dwiseneuro[key], dwiseneuro["published_estimate"]) == (0.291, "submission")
    assert frame.loc[("final_test_main", "linear_nonlinear", "members")][[key]].isna().all()
    # Nothing was published for live test sets of the same comparison.
    assert table.frame.query("tier == 'live_test_main'")[key].isna().all()
    groups = {column.key: column.group for column in table.columns}
    assert groups[key] == "Published (competition, F–J)"
    assert groups["single_trial_correlation"] == "Single-trial correlation"


def test_a_variation_stands_beside_the_published_system_that_it_varies(
    made: SimpleNamespace,
) -> None:
    board = made.board({"factorized_small": 3, "linear_nonlinear": 1})
    titles = {"factorized_small": "Factorized (small)"}
    named = {"factorized_small": "factorized_baseline"}
    table = leaderboard_table(board, titles=titles, simulated=False, published_as=named)
    frame = table.frame.set_index(["tier", "system", "estimate"]).sort_index()
    small = frame.loc[("final_test_main", "factorized_small")]
    key = "published_single_trial_correlation"
    assert small[key].to_dict() == {"ensemble": 0.197, "members": 0.1828}
    assert set(small["published_system"]) == {"factorized_baseline"}
    rest = frame.drop(index="factorized_small", level="system")
    assert rest[[key, "published_system"]].isna().all(axis=None)
    sentence = "Factorized (small) is shown beside the published factorized_baseline"
    assert table.caption.count(sentence) == 1
    alone = leaderboard_table(board, titles=titles, simulated=False)
    assert alone.frame[key].isna().all()
    assert "is shown beside" not in alone.caption


def test_leaderboard_table_says_which_tier_selected_the_members(made: SimpleNamespace) -> None:
    sentence = "oracle trials chose the best epoch of the members"
    board = made.board({"viv1t": 2}, tiers={"oracle": ("movie",), "final_test_main": ("movie",)})
    assert sentence in leaderboard_table(board, titles={}, simulated=False).caption
    tested = board[board["tier"] != "oracle"]
    assert sentence not in leaderboard_table(tested, titles={}, simulated=False).caption


def test_an_ensemble_that_was_trained_on_every_trial_has_a_dash(made: SimpleNamespace) -> None:
    """Members that each left out other trials are scored on these; their mean has seen them all."""
    scores = made.scores({"dwiseneuro": 3}, protocol="competition", tiers={"oracle": ("movie",)})
    is_ensemble = scores["member"] == "ensemble"
    seen = (
        scores[is_ensemble]
        .drop_duplicates("animal")
        .assign(neuron_id=pd.NA, trials=0, trials_left_out=20, reason="every video was trained on")
    )
    seen[["single_trial_correlation", "correlation_to_average"]] = np.nan
    members = scores[~is_ensemble].assign(trials_left_out=17)
    table = leaderboard_table(
        leaderboard(pd.concat([members, seen])), titles=made.titles, simulated=False
    )
    rows = {row["estimate"]: row for row in table.frame.to_dict("records")}
    cells = dict(zip(table.frame["estimate"], tables.record(table).rows, strict=True))
    assert rows["members"]["single_trial_correlation"] > 0
    assert (rows["members"]["trials_left_out"], rows["ensemble"]["trials_left_out"]) == (34, 40)
    assert "–" in cells["ensemble"][2]
    assert "– : no value (every video was trained on)" in table.caption


def test_leaderboard_table_of_withheld_responses_gives_the_reason(made: SimpleNamespace) -> None:
    board = made.board({"factorized_baseline": 3}, protocol="competition", withheld=True)
    table = leaderboard_table(board, titles=made.titles, simulated=False)
    assert "responses withheld" in table.caption
    assert set(table.frame["reason"]) == {"responses withheld"}
    shown = tables.record(table)
    assert {row[2] for row in shown.rows} == {"–"}


def test_members_table_traces_every_member(made: SimpleNamespace, tmp_path: Path) -> None:
    board = made.board({"linear_nonlinear": 1, "factorized_baseline": 3})
    records = {
        ("factorized_baseline", f"seed{seed}"): made.record("factorized_baseline", seed)
        for seed in (8, 16, 42)
    }
    table = members_table(board, records=records, titles=made.titles)
    shown = _save(table, tmp_path)
    assert table.frame["member"].tolist() == ["seed8", "seed16", "seed42", "seed8"]
    assert table.frame["system"].tolist() == ["factorized_baseline"] * 3 + ["linear_nonlinear"]
    assert table.frame["fingerprint"].iloc[2] == f"{42:064x}"
    assert shown.rows[3][-2:] == ["–", "–"]  # no record, so nothing is claimed
    assert "single_trial_correlation_live_test_main" in table.frame
    assert "single_trial_correlation_live_test_main" not in [c.key for c in table.columns]


def test_members_table_of_withheld_responses_keeps_its_members(made: SimpleNamespace) -> None:
    board = made.board({"viv1t": 2}, protocol="competition", withheld=True)
    table = members_table(board, records={}, titles=made.titles)
    assert set(table.frame["member"]) == {"seed8", "seed16"}
    assert not [column for column in table.columns if column.kind == "score"]


def test_training_cost_beside_the_published_one(made: SimpleNamespace, tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    made.history(30, 1).to_csv(path, index=False)
    longer = tmp_path / "longer.csv"
    made.history(50, 2).to_csv(longer, index=False)
    records = {
        "factorized_baseline": {f"seed{s}": made.record("factorized_baseline", s) for s in (8, 16)},
        "linear_nonlinear": {"seed1": {"wall_seconds": 40.0}},
    }
    table = training_cost_table(
        records,
        histories={"factorized_baseline": {"seed8": path, "seed16": longer}},
        titles=made.titles,
        training_set="clean",
        simulated=True,
    )
    rows = [
        dict(zip([c.key for c in table.columns], r, strict=True))
        for r in _save(table, tmp_path).rows
    ]
    assert rows[0]["hardware"] == "Some GPU"
    assert rows[0]["epochs"] == "40 (30 to 50)"
    assert rows[0]["wall_time"] == "83.5 min ± 6 s"
    assert rows[0]["clips_per_step"] == "16"  # 8 clips of each of two animals
    assert (rows[0]["host_memory_gb"], rows[0]["gpu_memory_gb"]) == ("4.0 GB", "10.0 GB")
    assert rows[0]["published_gpu"] == "1 x RTX A5000"
    assert rows[1]["hardware"] == "not recorded"
    assert (rows[1]["wall_time"], rows[1]["epochs"], rows[1]["published_gpu"]) == ("40 s", "–", "–")
    with pytest.raises(ValueError, match="none was given"):
        training_cost_table({}, histories={}, titles={}, training_set="clean", simulated=False)


@pytest.mark.parametrize(
    ("batches", "clips", "expected"),
    [
        ("all_animals_summed", 8, 80),
        ("one_animal", 32, 32),
        ("mixed_animals", 32, 32),
        (None, 8, None),  # not recorded
    ],
)
def test_a_step_has_a_batch_of_every_animal_only_where_gradients_are_summed(
    batches: str | None, clips: int, expected: int | None
) -> None:
    recipe = {"clips_per_batch": clips} | ({"batches": batches} if batches else {})
    record = {"system": {"recipe": recipe}, "recordings": dict.fromkeys("ABCDEFGHIJ", "digest")}
    assert clips_per_step(record) == expected


def test_training_cost_of_a_variation_stands_beside_what_it_varies(made: SimpleNamespace) -> None:
    records = {
        name: {"seed8": made.record(name, 8)}
        for name in ("factorized_small", "factorized_baseline", "mine")
    }
    table = training_cost_table(
        records,
        histories={},
        titles={"factorized_small": "Factorized (small)"},
        training_set="clean",
        simulated=False,
        published_as={
            "factorized_small": "factorized_baseline",
            "factorized_baseline": "factorized_baseline",
            "mine": "never_published",
        },
    )
    assert table.frame["published_gpu"].fillna("").tolist() == ["1 x RTX A5000"] * 2 + [""]
    assert table.caption.count("is shown beside") == 1
    assert "Factorized (small) is shown beside the published factorized_base" in table.caption


def test_numbers_are_written_for_reading() -> None:
    frame = pd.DataFrame(
        {
            "score": [0.12345, -0.0001, -0.25, np.nan],
            "mean": [0.5, 0.5, 0.5, None],
            "mean_sd": [0.01, np.nan, None, 0.1],
            "count": pd.array([78853, 1, pd.NA, 0], dtype="Int64"),
            "seconds": [12.4, 300.0, 7200.0, np.nan],
        }
    )
    columns = [
        Column("score", "score", "score"),
        Column("mean", "mean", "spread"),
        Column("count", "count", "count"),
        Column("seconds", "time", "duration"),
    ]
    shown = tables.record(Table(frame, columns, title="t", caption="c", section="s"))
    assert shown.rows == [
        ["0.123", "0.500 ± 0.010", "78,853", "12 s"],
        ["0.000", "0.500", "1", "5.0 min"],
        ["−0.250", "0.500", "–", "2.0 h"],
        ["–", "–", "0", "–"],
    ]


def test_a_table_without_its_column_is_refused() -> None:
    with pytest.raises(ValueError, match="column 'b', which it lacks; it has a"):
        Table(pd.DataFrame({"a": [1]}), [Column("b", "B")], title="t", caption="", section="s")
    with pytest.raises(FileNotFoundError, match=r"none.json is missing"):
        tables.read_record(Path("none.json"))


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=40))
def test_text_survives_markdown_and_cannot_leave_its_latex_cell(text: str) -> None:
    frame = pd.DataFrame({"a": [text], "b": ["x"]})
    table = Table(frame, [Column("a", "A"), Column("b", "B")], title="t", caption="c", section="s")
    shown = tables.record(table)
    cells = _markdown_rows(tables.to_markdown(shown))[2]
    assert len(cells) == 2
    assert cells[1] == "x"
    latex = tables.to_latex(shown, label="a_b")
    line = next(line for line in latex.splitlines() if line.endswith("& x \\\\"))
    cell = line.removesuffix(" & x \\\\")
    assert not re.search(r"(?<!\\)[&%#_]", cell)
    assert "\\label{tab:a-b}" in latex
