"""The ledger judges only what is comparable, and invents nothing."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sensorium_models.evaluation.leaderboard import leaderboard
from sensorium_models.evaluation.scores import METRICS
from sensorium_models.reporting import reproduction, tables
from sensorium_models.reporting.counterparts import ProtocolResults
from sensorium_models.reporting.page import SECTIONS
from sensorium_models.reporting.published import published
from sensorium_models.reporting.reproduction import NOT_COMPARABLE, OUTSIDE, WITHIN, ledger

MEAN = f"{METRICS[0]}_animal_mean"


def _results(
    made: SimpleNamespace,
    members: dict[str, int],
    *,
    protocol: str = "competition",
    records: dict[str, Any] | None = None,
    neurons: int | None = None,
    **options: Any,
) -> ProtocolResults:
    scores = made.scores(members, protocol=protocol, neurons=3, **options)
    board = leaderboard(scores)
    if neurons is not None:
        board["neurons"] = neurons
    ensembles = scores[scores["member"] == "ensemble"]
    means = ensembles.groupby(["system", "tier", "animal"])[METRICS[0]].mean()
    return ProtocolResults(board, means.rename("value").reset_index(), records or {})


def _oracle(made: SimpleNamespace, members: dict[str, int], **options: Any) -> ProtocolResults:
    return _results(
        made,
        members,
        tiers={"oracle": ("movie",)},
        animals="FGHIJ",
        **{"neurons": reproduction.COMPETITION_NEURONS, **options},
    )


def _ledger(made: SimpleNamespace, results: dict[str, ProtocolResults], **options: Any) -> Any:
    settings = {"systems": list(made.titles), "titles": made.titles, "simulated": False}
    return ledger(results, **(settings | options))


def test_every_published_number_has_a_row_and_its_citation(made: SimpleNamespace) -> None:
    table = _ledger(made, {"open": _results(made, {"viv1t": 2}, protocol="open")})
    assert len(table.frame) == len(published())
    assert table.frame["published_value"].tolist() == published()["value"].tolist()
    assert table.frame["citation"].tolist() == published()["citation"].tolist()
    assert set(table.frame["verdict"]) == {NOT_COMPARABLE}
    assert (table.frame["reason"].str.len() > 0).all()
    assert table.section in SECTIONS
    assert f"{len(published())} not comparable" in table.caption


def test_simulated_recordings_are_comparable_with_nothing(made: SimpleNamespace) -> None:
    results = {"competition": _oracle(made, {"viv1t": 5})}
    frame = _ledger(made, results, simulated=True).frame
    assert set(frame["verdict"]) == {NOT_COMPARABLE}
    ours = frame[frame["ours_competition"].notna()]
    assert len(ours) > 0
    assert set(ours["reason"]) == {"simulated recordings"}


def test_a_score_on_the_same_neurons_is_judged(made: SimpleNamespace) -> None:
    results = _oracle(made, {"viv1t": 5})
    board = results.board
    members = board["member"] != "ensemble"
    board.loc[members, MEAN] = 0.2510
    board.loc[~members, MEAN] = 0.2660
    frame = _ledger(made, {"competition": results}).frame
    demo = frame[(frame["source"] == "Repository of ViV1T") & (frame["quantity"] == MEAN)]
    rows = demo.set_index("of")
    # 0.2507, 0.2530, 0.2509, 0.2494, 0.2495: sd 0.00145; 2 sd sqrt(1 + 1/5) = 0.00318.
    deviation = np.std([0.2507, 0.2530, 0.2509, 0.2494, 0.2495], ddof=1)
    assert rows.loc["model 1", "band"] == pytest.approx(2 * deviation * np.sqrt(1.2))
    assert rows.loc["model 1", "verdict"] == WITHIN
    assert rows.loc["model 1", "ours_competition"] == "0.2510"
    # One ensemble against another: 2 sd sqrt(2) = 0.0041, and they differ by 0.0052.
    assert rows.loc["ensemble", "verdict"] == OUTSIDE
    assert "difference +0.0052" in rows.loc["ensemble", "reason"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"neurons": 15}, "15 neurons, not the 40,034 of F–J"),
        ({"trials_left_out": 12}, "other trials: 12 are left out as seen in training"),
    ],
)
def test_other_neurons_or_trials_are_not_compared(
    made: SimpleNamespace, change: dict[str, int], reason: str
) -> None:
    results = _oracle(made, {"viv1t": 5})
    for column, value in change.items():
        results.board[column] = value
    frame = _ledger(made, {"competition": results}).frame
    demo = frame[frame["source"] == "Repository of ViV1T"]
    assert set(demo["verdict"]) == {NOT_COMPARABLE}
    assert set(demo["reason"]) == {reason}
    assert demo["ours_competition"].notna().all()  # shown, not judged


def test_withheld_responses_leave_a_gap_and_say_who_can_fill_it(made: SimpleNamespace) -> None:
    results = {
        "competition": _results(made, {"factorized_baseline": 14}, withheld=True, animals="FGHIJ"),
        "open": _results(made, {"factorized_baseline": 14}, protocol="open"),
    }
    frame = _ledger(made, results).frame
    table_5 = frame[frame["source"].str.startswith("Table 5")]
    assert table_5["ours_competition"].isna().all()
    assert table_5["ours_open"].notna().all()
    assert table_5["reason"].str.contains("only the competition's server").all()
    seed = table_5[table_5["of"] == "seed 16"].iloc[0]
    board = results["open"].board
    own = board[(board["member"] == "seed16") & (board["tier"] == "final_test_main")]
    assert seed["ours_open_value"] == pytest.approx(own[METRICS[0]].item())


def test_a_deviation_is_compared_as_a_deviation(made: SimpleNamespace) -> None:
    results = _results(
        made,
        {"factorized_baseline": 14},
        animals="FGHIJ",
        tiers={"final_test_main": ("movie",)},
        neurons=reproduction.COMPETITION_NEURONS,
    )
    members = results.board["member"] != "ensemble"
    results.board.loc[members, METRICS[0]] = 0.18 + 0.0094 * np.tile([-1, 1], 7) * np.sqrt(13 / 14)
    frame = _ledger(made, {"competition": results}).frame
    rows = frame[(frame["source"].str.startswith("Table 5")) & (frame["quantity"] == METRICS[0])]
    rows = rows.set_index("of")
    spread = rows.loc["deviation of 14 seeds"]
    assert spread["ours_competition_value"] == pytest.approx(0.0094)
    assert spread["verdict"] == WITHIN
    # 2 sd sqrt(1/26 + 1/26): a deviation over fourteen seeds is known to a fifth of itself.
    assert spread["band"] == pytest.approx(2 * 0.00938 * np.sqrt(2 / 26), rel=1e-3)
    assert rows.loc["mean of 14 seeds", "band"] == pytest.approx(
        2 * 0.00938 * np.sqrt(2 / 14), rel=1e-3
    )


def test_cost_is_shown_and_settings_are_judged(made: SimpleNamespace) -> None:
    record = made.record("viv1t", 8) | {"parameters": 12_278_365, "recordings": dict.fromkeys("AB")}
    record["system"]["recipe"]["clips_per_batch"] = 30
    results = _oracle(made, {"viv1t": 5}, records={"viv1t": {"seed8": record}})
    rows = _ledger(made, {"competition": results}).frame.query("published_name == 'ViV1T'")
    rows = rows.set_index("quantity")
    assert rows.loc["batch_size", "verdict"] == WITHIN
    assert rows.loc["parameters", "verdict"] == WITHIN
    assert rows.loc["parameters", "ours_competition"] == "12.28 million"
    assert rows.loc["wall_time", "ours_competition"] == "1.4 h"
    assert rows.loc["wall_time", "reason"] == "depends on the hardware"
    record["system"]["recipe"]["clips_per_batch"] = 6
    rows = _ledger(made, {"competition": results}).frame.query("published_name == 'ViV1T'")
    assert rows.set_index("quantity").loc["batch_size", "verdict"] == OUTSIDE


def test_a_variation_stands_beside_the_original_and_is_not_judged(made: SimpleNamespace) -> None:
    results = {"competition": _oracle(made, {"mine": 3, "viv1t": 5})}
    table = _ledger(
        made, results, systems=["viv1t", "mine"], published_as={"mine": "viv1t"}, titles={}
    )
    demo = table.frame[table.frame["source"] == "Repository of ViV1T"]
    assert set(demo["system"]) == {"viv1t", "mine"}
    assert set(demo.loc[demo["system"] == "mine", "reason"]) == {
        "a variation of the published system"
    }


def test_a_study_without_the_competition_says_what_it_lacks(made: SimpleNamespace) -> None:
    results = {"open": _results(made, {"gru_baseline": 1}, protocol="open")}
    frame = _ledger(made, results).frame
    table_1 = frame[
        (frame["published_name"] == "GRU baseline") & (frame["source"].str.startswith("Table 1"))
    ]
    assert set(table_1["reason"]) == {"other animals and trials: the study lacks F–J"}
    assert table_1["ours_open"].notna().all()
    text = tables.to_latex(tables.record(_ledger(made, results)), label="reproduction")
    assert pd.notna(text)
