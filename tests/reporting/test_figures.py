"""Every figure: drawn at all sizes of study, saved twice with the same bytes, nothing colliding."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sensorium_models.recordings.quality import CHANNELS, Quality
from sensorium_models.reporting import (
    boards,
    ensemble_size,
    leaderboard,
    style,
    traces,
    training_curves,
)
from sensorium_models.reporting.page import SECTIONS
from sensorium_models.reporting.quality import draw as draw_quality
from tests.layout import assert_tidy, saved

ALL_SYSTEMS = 7


def _systems(made: SimpleNamespace, count: int, members: int) -> dict[str, int]:
    return dict.fromkeys(list(made.titles)[:count], members)


SIZES = pytest.mark.parametrize(("systems", "members"), [(1, 2), (2, 3), (ALL_SYSTEMS, 14)])


@pytest.mark.slow
@SIZES
def test_leaderboard_at_all_sizes(made: SimpleNamespace, systems: int, members: int) -> None:
    board = made.board(_systems(made, systems, members), neurons=3, animals=("A",))
    drawing = leaderboard.draw(board, titles=made.titles, simulated=True)
    assert_tidy(drawing.figure)


def test_leaderboard_says_that_recordings_are_simulated_and_names_the_protocol(
    made: SimpleNamespace,
) -> None:
    board = made.board({"factorized_baseline": 3})
    simulated = leaderboard.draw(board, titles=made.titles, simulated=True)
    real = leaderboard.draw(board, titles=made.titles, simulated=False)
    assert simulated.figure.get_suptitle() == "SIMULATED RECORDINGS  ·  protocol open"
    assert "simulated" in simulated.caption
    assert "simulated" not in (real.figure.get_suptitle() + real.caption).lower()
    assert "n = 24 neurons of animals A, B" in real.caption
    assert "F–J" in real.caption
    assert "reference only" in real.caption


def test_leaderboard_draws_published_values_only_beside_final_test_sets(
    made: SimpleNamespace,
) -> None:
    tiers = {"oracle": ("movie",), "final_test_main": ("movie",)}
    board = made.board({"factorized_baseline": 3}, tiers=tiers)
    drawing = leaderboard.draw(board, titles=made.titles, simulated=False)
    hollow = [
        [line.get_xdata()[0] for line in axes.get_lines() if line.get_markerfacecolor() == "none"]
        for axes in drawing.figure.axes
    ]
    assert hollow == [[0.1828, 0.197], [0.3472, 0.371], [], []]


def test_a_variation_is_drawn_beside_what_it_varies_and_says_so(made: SimpleNamespace) -> None:
    board = made.board({"factorized_small": 3, "viv1t": 1}, tiers={"final_test_main": ("movie",)})
    titles = {"factorized_small": "Factorized (small)", "viv1t": "ViV1T"}

    def hollow(drawing: style.Drawing) -> list[tuple[float, float]]:
        lines = [
            line
            for line in drawing.figure.axes[0].get_lines()
            if line.get_markerfacecolor() == "none"
        ]
        return [(line.get_xdata()[0], line.get_ydata()[0]) for line in lines]

    def legend(drawing: style.Drawing) -> set[str]:
        return {text.get_text() for text in drawing.figure.legends[0].get_texts()}

    named = {"factorized_small": "factorized_baseline", "viv1t": "viv1t"}
    shown = leaderboard.draw(board, titles=titles, simulated=False, published_as=named)
    assert hollow(shown) == [(0.1828, 0), (0.197, 0), (0.243, 1)]
    assert {"published (F–J), single", "published (F–J), ensemble"} <= legend(shown)
    sentence = "Factorized (small) is shown beside the published factorized_baseline"
    assert shown.caption.count(sentence) == 1
    assert "ViV1T is shown" not in shown.caption
    assert_tidy(shown.figure)

    alone = leaderboard.draw(board, titles=titles, simulated=False)
    assert hollow(alone) == [(0.243, 1)]
    assert "published (F–J), single" not in legend(alone)
    assert "is shown beside" not in alone.caption


def test_a_variation_without_published_marks_is_not_mentioned(made: SimpleNamespace) -> None:
    board = made.board({"mine": 2}, tiers={"final_test_main": ("movie",), "oracle": ("movie",)})
    for published_as, tiers in (
        ({"mine": "never_published"}, None),
        ({"mine": "viv1t"}, ["oracle"]),
    ):
        drawing = leaderboard.draw(
            board, titles={}, simulated=False, tiers=tiers, published_as=published_as
        )
        assert "is shown beside" not in drawing.caption


def test_leaderboard_draws_the_interval_of_each_systems_mean_prediction(
    made: SimpleNamespace,
) -> None:
    board = made.board({"viv1t": 3, "gru_baseline": 1}, tiers={"final_test_main": ("movie",)})
    intervals = made.intervals(board, half=0.02)
    best = {("final_test_main", "single_trial_correlation"): 0.6}
    drawing = leaderboard.draw(
        board, titles=made.titles, simulated=True, intervals=intervals, achievable=best
    )
    lines = [
        line
        for line in drawing.figure.axes[0].get_lines()
        if len(line.get_xdata()) == 2 and line.get_ydata()[0] == line.get_ydata()[1]
    ]
    ensemble = board.query("system == 'viv1t' and member == 'ensemble'")
    alone = board.query("system == 'gru_baseline'")
    for line, rows in zip(lines, (ensemble, alone), strict=True):
        score = rows["single_trial_correlation"].iloc[0]
        np.testing.assert_allclose(line.get_xdata(), [score - 0.02, score + 0.02])
    assert "95 % interval" in {t.get_text() for t in drawing.figure.legends[0].get_texts()}
    assert "bootstrap over animals, videos, neurons (4 degrees of freedom), 500" in drawing.caption
    assert_tidy(drawing.figure)
    without = leaderboard.draw(
        board, titles=made.titles, simulated=False, intervals=intervals.assign(lower=np.nan)
    )
    assert "interval" not in without.caption


def test_leaderboard_says_which_tier_selected_the_members(made: SimpleNamespace) -> None:
    sentence = "oracle trials chose the best epoch of the members"
    tiers = {"oracle": ("movie",), "final_test_main": ("movie",)}
    board = made.board({"viv1t": 2}, tiers=tiers)
    assert sentence in leaderboard.draw(board, titles={}, simulated=False).caption
    final = leaderboard.draw(board, titles={}, simulated=False, tiers=["final_test_main"])
    assert sentence not in final.caption
    hidden = made.board({"viv1t": 2}, tiers=tiers, withheld=True)
    assert sentence not in leaderboard.draw(hidden, titles={}, simulated=False).caption


def test_leaderboard_leaves_out_the_ensemble_of_a_single_member(made: SimpleNamespace) -> None:
    board = made.board({"linear_nonlinear": 1})
    twice = pd.concat([board, board.assign(member="ensemble")])
    assert list(boards.without_lone_ensembles(twice)["member"].unique()) == ["seed8"]
    assert set(boards.without_lone_ensembles(made.board({"viv1t": 2}))["member"]) == {
        "seed8",
        "seed16",
        "ensemble",
    }


def test_leaderboard_of_one_member(made: SimpleNamespace) -> None:
    drawing = leaderboard.draw(made.board({"viv1t": 1}), titles=made.titles, simulated=True)
    assert_tidy(drawing.figure)


def test_leaderboard_of_withheld_responses_says_why_it_is_empty(made: SimpleNamespace) -> None:
    board = made.board({"factorized_baseline": 3}, protocol="competition", withheld=True)
    drawing = leaderboard.draw(board, titles=made.titles, simulated=False)
    assert "responses withheld" in drawing.figure.axes[0].get_title(loc="left")
    assert "no scores (responses withheld)" in drawing.caption
    assert_tidy(drawing.figure)


def test_an_emulated_server_ranks_what_is_withheld_and_is_called_so(made: SimpleNamespace) -> None:
    both = {"factorized_baseline": 3, "viv1t": 2}
    board = made.board(both, protocol="competition", withheld=True)
    served = made.board(both, protocol="competition")
    served = served[served["member"] == "ensemble"].assign(member="submission")
    served.loc[served["system"] == "viv1t", "single_trial_correlation"] += 0.3
    drawing = leaderboard.draw(board, titles=made.titles, simulated=True, served=served)
    panel = drawing.figure.axes[0]
    assert "responses withheld: emulated server" in panel.get_title(loc="left")
    marks = [line for line in panel.get_lines() if line.get_marker() == "^"]
    assert len(marks) == 2
    ranked = [tick.get_text() for tick in panel.get_yticklabels()]
    assert ranked == [made.titles["viv1t"], made.titles["factorized_baseline"]]
    assert "EMULATED server" in drawing.caption
    assert_tidy(drawing.figure)


def test_two_protocols_never_share_a_figure(made: SimpleNamespace) -> None:
    board = pd.concat(
        [made.board({"viv1t": 1}), made.board({"viv1t": 1}, protocol="competition", withheld=True)]
    )
    with pytest.raises(ValueError, match="competition and open"):
        leaderboard.draw(board, titles=made.titles, simulated=False)


def test_tiers_of_another_study_are_drawn_too(made: SimpleNamespace) -> None:
    board = made.board({"linear_nonlinear": 1}, tiers={"test": ("unknown",)})
    drawing = leaderboard.draw(board, titles={}, simulated=False)
    assert drawing.figure.axes[0].get_title(loc="left") == "Tier test"
    assert "F–J" not in drawing.caption


@pytest.mark.slow
@SIZES
def test_training_curves_at_all_sizes(made: SimpleNamespace, systems: int, members: int) -> None:
    histories = {
        system: {f"seed{i}": made.history(30 + 5 * (i % 3), i) for i in range(count)}
        for system, count in _systems(made, systems, members).items()
    }
    drawing = training_curves.draw(
        histories, titles=made.titles, training_set="clean", simulated=False
    )
    assert len(drawing.figure.axes) == 3 * systems
    assert_tidy(drawing.figure)


def test_training_curves_have_the_order_and_colours_of_the_study(made: SimpleNamespace) -> None:
    """Whatever the order in which files came: as every other figure has them."""
    titles = {"mine": "Mine", "other": "Other"}
    histories = {name: {"seed1": made.history(3, 1)} for name in reversed(titles)}
    drawing = training_curves.draw(histories, titles=titles, training_set="clean", simulated=False)
    rows = drawing.figure.axes[::3]
    assert [axes.get_title(loc="left") for axes in rows] == ["Mine", "Other"]
    expected = style.colours(list(titles))
    assert [axes.lines[0].get_color() for axes in rows] == list(expected.values())


def test_training_curves_mark_the_kept_epoch(made: SimpleNamespace, tmp_path: Path) -> None:
    history = pd.DataFrame(
        {
            "epoch": [0, 1, 2, 3],
            "learning_rate": 0.005,
            "train_loss": [np.nan, 3.0, 2.0, 1.0],
            "objective": [0.0, 0.2, 0.2 + 1e-9, 0.1],
            "best": [0.0, 0.2, 0.2, 0.2],  # the gain of epoch 2 is below the tolerance
        }
    )
    assert training_curves.kept_epoch(history) == 1
    path = tmp_path / "history.csv"
    history.drop(columns="best").to_csv(path, index=False)
    with pytest.raises(ValueError, match=r"seed1 \(.*history\.csv\) lacks the column best"):
        training_curves.draw(
            {"viv1t": {"seed1": path}}, titles={}, training_set="clean", simulated=False
        )
    with pytest.raises(ValueError, match="at least one member"):
        training_curves.draw({}, titles={}, training_set="clean", simulated=False)


@SIZES
def test_ensemble_size_at_all_sizes(made: SimpleNamespace, systems: int, members: int) -> None:
    curves = {
        system: made.curve(count, seed=i)
        for i, (system, count) in enumerate(_systems(made, systems, members).items())
    }
    drawing = ensemble_size.draw(curves, titles=made.titles, protocol="open", simulated=True)
    assert f"{members} members, 10 orders" in drawing.caption
    assert_tidy(drawing.figure)


def test_curves_along_each_axis_have_lines_of_their_own(made: SimpleNamespace) -> None:
    whole = made.curve(6, seed=1).assign(axis="")
    folds = made.curve(3, seed=2).assign(axis="fold")
    stages = made.curve(2, seed=3).assign(axis="stage")
    curves = {
        "dwiseneuro": pd.concat([whole, folds, stages]),
        "viv1t": made.curve(5, seed=4),
    }
    drawing = ensemble_size.draw(curves, titles=made.titles, protocol="open", simulated=True)
    labels = [text.get_text() for text in drawing.figure.legends[0].get_texts()]
    assert labels == ["DwiseNeuro", "DwiseNeuro, by fold", "DwiseNeuro, by stage", "ViV1T"]
    sizes = [len(line.get_xdata()) for line in drawing.figure.axes[0].get_lines()]
    assert sizes == [6, 3, 2, 5]
    assert "alike but for it" in drawing.caption
    assert "DwiseNeuro: 6 members, 10 orders" in drawing.caption
    assert_tidy(drawing.figure)


def test_ensemble_size_without_scores_says_so(made: SimpleNamespace, tmp_path: Path) -> None:
    empty = made.curve(2).iloc[:0]
    drawing = ensemble_size.draw(
        {"viv1t": empty}, titles=made.titles, protocol="competition", simulated=False
    )
    assert drawing.caption.startswith("No curves")
    saved(drawing, tmp_path)


def _traces(made: SimpleNamespace, folder: Path, **options: object) -> style.Drawing:
    responses, rate = made.responses()
    paths = {}
    for system, member, error in (
        ("factorized_baseline", "ensemble", 0.3),
        ("linear_nonlinear", "seed8", 0.6),
    ):
        paths[system] = folder / f"{system}.h5"
        made.write_predictions(
            paths[system], rate, system=system, member=member, trials=4, error=error
        )
    settings = {
        "responses": responses,
        "predictions": paths,
        "scores": made.scores({"factorized_baseline": 3, "linear_nonlinear": 1}),
        "tier": "final_test_main",
        "frame_rate_hz": 30.0,
        "titles": made.titles,
        "simulated": True,
    }
    return traces.draw(**(settings | options))  # type: ignore[arg-type]


def test_traces_show_the_best_median_and_worst_neuron(
    made: SimpleNamespace, tmp_path: Path
) -> None:
    drawing = _traces(made, tmp_path)
    scores = made.scores({"factorized_baseline": 3, "linear_nonlinear": 1}).query(
        "system == 'factorized_baseline' and member == 'ensemble' and animal == 'A'"
        " and tier == 'final_test_main'"
    )
    ranked = scores.sort_values("single_trial_correlation", ascending=False)
    titles = [axes.get_title(loc="left") for axes in drawing.figure.axes]
    for title, rank, row in zip(
        titles, ("Best", "Median", "Worst"), ranked.iloc[[0, 6, 11]].itertuples(), strict=True
    ):
        assert title == f"{rank}: neuron {row.neuron_id}, r = {row.single_trial_correlation:.2f}"
    assert "n = 12 neurons" in drawing.caption
    assert "4 repeats" in drawing.caption
    assert_tidy(drawing.figure)


def test_traces_are_the_recorded_and_predicted_numbers(
    made: SimpleNamespace, tmp_path: Path
) -> None:
    drawing = _traces(made, tmp_path)
    axes = drawing.figure.axes[0]
    neuron = int(axes.get_title(loc="left").split()[2].rstrip(","))
    responses, rate = made.responses()
    column = list(responses.neuron_ids).index(neuron)
    recorded = np.mean([responses.read(trial, 50, 299) for trial in range(4)], axis=0)[:, column]
    drawn = {line.get_label(): line for line in axes.get_lines()}
    np.testing.assert_allclose(drawn["mean of repeats"].get_ydata(), recorded, rtol=1e-6)
    assert drawn["mean of repeats"].get_xdata()[0] == pytest.approx(50 / 30)
    predicted = drawn["Factorized baseline"].get_ydata()
    assert np.corrcoef(predicted, rate[50:299, column])[0, 1] > 0.99


def test_traces_of_an_unscored_tier_say_so(made: SimpleNamespace, tmp_path: Path) -> None:
    drawing = _traces(made, tmp_path, tier="final_test_bonus")
    assert "No traces" in drawing.caption
    assert "No traces" in _traces(made, tmp_path, left_out=range(4)).caption


def test_traces_without_matching_scores_are_refused(made: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="No neuron of animal A has a score for factorized"):
        _traces(made, tmp_path, scores=made.scores({"viv1t": 2}))
    with pytest.raises(ValueError, match="none was given"):
        _traces(made, tmp_path, predictions={})


def test_the_example_is_a_scored_final_test_set(made: SimpleNamespace) -> None:
    order = list(made.tiers)
    scores = made.scores({"viv1t": 1}, animals=("B", "A"))
    assert traces.shown_animal_and_tier(scores, order) == ("A", "final_test_main")
    oracle = made.scores({"viv1t": 1}, tiers={"oracle": ("movie",)}, animals=("F",))
    hidden = made.scores({"viv1t": 1}, withheld=True, animals=("F",))
    assert traces.shown_animal_and_tier(pd.concat([hidden, oracle]), order) == ("F", "oracle")
    assert traces.shown_animal_and_tier(hidden, order) == ("F", "final_test_main")
    with pytest.raises(ValueError, match="no score rows"):
        traces.shown_animal_and_tier(scores.iloc[:0], order)


@pytest.mark.slow
def test_same_data_same_bytes(made: SimpleNamespace, tmp_path: Path) -> None:
    def draw_all(folder: Path) -> list[tuple[bytes, bytes]]:
        board = made.board({"factorized_baseline": 3, "viv1t": 2})
        curves = {"viv1t": made.curve(3)}
        histories = {"viv1t": {"seed8": made.history(20, 1)}}
        titles = made.titles
        return [
            saved(leaderboard.draw(board, titles=titles, simulated=True), folder, "a"),
            saved(
                ensemble_size.draw(curves, titles=titles, protocol="open", simulated=True),
                folder,
                "b",
            ),
            saved(
                training_curves.draw(
                    histories, titles=titles, training_set="clean", simulated=True
                ),
                folder,
                "c",
            ),
            saved(_traces(made, folder), folder, "d"),
        ]

    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    assert draw_all(first) == draw_all(second)


def test_a_figure_leaves_no_date_and_no_temporary_file(
    made: SimpleNamespace, tmp_path: Path
) -> None:
    drawing = leaderboard.draw(made.board({"viv1t": 1}), titles=made.titles, simulated=False)
    pdf, _ = saved(drawing, tmp_path)
    assert b"CreationDate" not in pdf
    assert b"Producer" not in pdf
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "figure.json",
        "figure.pdf",
        "figure.png",
    ]
    assert json.loads((tmp_path / "figure.json").read_text())["section"] == "scores"


def test_drawing_leaves_other_peoples_settings_alone(made: SimpleNamespace) -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    leaderboard.draw(made.board({"viv1t": 1}), titles=made.titles, simulated=False)
    assert dict(matplotlib.rcParams) == before


def test_a_system_keeps_its_colour() -> None:
    known = list(style.SYSTEM_COLOURS)
    assert style.colours(known) == style.SYSTEM_COLOURS
    mixed = style.colours(["mine", "viv1t", "yours"])
    assert mixed["viv1t"] == style.SYSTEM_COLOURS["viv1t"]
    assert style.colours(["mine", "gru_baseline", "yours"])["yours"] == mixed["yours"]
    assert len({*mixed.values(), *style.SYSTEM_COLOURS.values()}) == len(known) + 2
    assert len(style.colours([f"own{i}" for i in range(20)])) == 20


def test_a_lost_caption_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"missing.json.*caption.*Draw that figure again"):
        style.read_record(tmp_path / "missing.png")


def _quality(*, neurons: int = 400, **changes: Any) -> Quality:
    """An animal with all tiers and three stimulus types, withheld test tiers, and everything."""
    rng = np.random.default_rng(5)
    rows = []
    tiers = {"train": 40, "oracle": 20, "live_test_main": 20, "final_test_bonus": 40, "none": 2}
    for tier, count in tiers.items():
        for trial in range(count):
            kind = "images" if trial >= 20 else "random_dots"
            kind = kind if tier == "final_test_bonus" else "movie" if tier != "none" else "unknown"
            frames = {"random_dots": 240, "images": 306 + trial % 10}.get(kind, 300)
            video = len(rows) if tier == "train" else 1000 * len(tier) + trial // 10
            rows.append((tier, kind, frames, video, "test" in tier))
    columns = ["tier", "stimulus_type", "frames", "video", "withheld"]
    facts: dict[str, Any] = {
        "animal": "A",
        "frame_rate_hz": 30.0,
        "trials": pd.DataFrame(rows, columns=columns),
        "channels": {
            name: rng.gamma(4, 9, 3000).astype(np.float32)
            for names in CHANNELS.values()
            for name in names
        },
        "padded_frames": 324,
        "coordinates": rng.uniform(100, 700, (neurons, 3)),
        "mean_response": rng.lognormal(0, 1, neurons),
        "constant": np.zeros(neurons, dtype=bool),
        "lowest_response": 0.0,
        "negative_share": 0.0,
        "missing_share": 0.0,
        "reliability": np.append(rng.normal(0.2, 0.1, neurons - 1), np.nan),
        "reliability_videos": 2,
        "reliability_trials": 20,
    }
    return Quality(**{**facts, **changes})


ROLES = {
    "train": "train",
    "oracle": "select",
    "live_test_main": "test",
    "final_test_bonus": "test",
    "none": "unused",
}
BARE = {"coordinates": None, "reliability": None, "channels": {}, "padded_frames": None}


@pytest.mark.slow
@pytest.mark.parametrize(
    "quality",
    [
        _quality(),
        _quality(neurons=8000),
        _quality(neurons=2),
        _quality(reliability=None),
        _quality(**BARE),
        _quality(mean_response=np.zeros(400), channels={"pupil size": np.full(9, 4.0)}),
    ],
    ids=["usual", "full size", "two neurons", "no repeats", "bare", "silent"],
)
def test_quality_sheet_of_any_recording(quality: Quality) -> None:
    drawing = draw_quality(quality, unusual=[], tiers=ROLES, order=3, simulated=True)
    assert_tidy(drawing.figure)
    assert drawing.order == 3
    assert drawing.section in SECTIONS


@pytest.mark.slow
def test_quality_sheet_says_in_words_what_is_unusual(tmp_path: Path) -> None:
    words = ["12 neurons were silent.", "Pupil size was not recorded."]
    drawing = draw_quality(_quality(), unusual=words, tiers=ROLES, order=0, simulated=False)
    assert drawing.caption.endswith("Unusual: 12 neurons were silent. Pupil size was not recorded.")
    assert "400 neurons, 122 trials" in drawing.caption
    assert "n = 399 neurons" in drawing.caption
    assert "simulated" not in drawing.caption.lower() + drawing.figure.get_suptitle().lower()
    usual = draw_quality(_quality(), unusual=[], tiers=ROLES, order=0, simulated=True)
    assert "Nothing unusual was found. The recording is simulated." in usual.caption
    assert saved(usual, tmp_path, "one") == saved(
        draw_quality(_quality(), unusual=[], tiers=ROLES, order=0, simulated=True), tmp_path, "two"
    )


@pytest.mark.slow
def test_quality_sheet_of_a_full_size_animal_stays_small(tmp_path: Path) -> None:
    drawing = draw_quality(
        _quality(neurons=8000), unusual=[], tiers=ROLES, order=0, simulated=False
    )
    pdf, png = saved(drawing, tmp_path)
    assert len(pdf) < 600_000  # its 8000 cells are a picture
    assert len(png) < 2_000_000
