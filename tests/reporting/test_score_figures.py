"""Figures of scores by type, over neurons and over seeds: the numbers they show, and their gaps."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from sensorium_models.evaluation.leaderboard import leaderboard
from sensorium_models.evaluation.scores import METRICS, write_scores
from sensorium_models.reporting import (
    neuron_distribution,
    reliability,
    score_rows,
    scores_by_type,
    seed_stability,
    tables,
)
from sensorium_models.reporting.page import SECTIONS
from tests.layout import assert_tidy, saved

OVER_NEURONS = pytest.mark.parametrize(
    "family", [scores_by_type, neuron_distribution, reliability], ids=lambda f: f.__name__[27:]
)
# Stimulus types of the final bonus tests of the release, by animal.
BONUS = {
    "A": ("gaussian_dots", "random_dots"),
    "B": ("pink_noise", "images"),
    "C": ("gabor", "images"),
    "D": ("pink_noise", "gaussian_dots"),
    "E": ("random_dots", "gabor"),
}


def _rows(made: SimpleNamespace, systems: int, *, neurons: int, animals: str) -> pd.DataFrame:
    """Ensembles of `systems` systems, as `read_ensembles` returns them."""
    names = dict.fromkeys(list(made.titles)[:systems], 2)
    tables = [
        made.scores(
            names,
            neurons=neurons,
            animals=(animal,),
            tiers={"final_test_bonus": BONUS[animal], "final_test_main": ("movie",)},
            seed=ord(animal),
        )
        for animal in animals
    ]
    rows = pd.concat(tables)
    rows = rows[rows["member"] == "ensemble"].reset_index(drop=True)
    noise = np.random.default_rng(0).normal(0.05, 0.08, len(rows))
    return rows.assign(oracle_jackknife=rows[METRICS[0]] + noise)


@OVER_NEURONS
@pytest.mark.parametrize(
    ("systems", "neurons", "animals"),
    [(1, 3, "A"), (2, 60, "AB"), (7, 200, "ABCDE")],
    ids=["one animal", "two", "full width"],
)
def test_figures_over_neurons_at_all_sizes(
    made: SimpleNamespace, family: SimpleNamespace, systems: int, neurons: int, animals: str
) -> None:
    rows = _rows(made, systems, neurons=neurons, animals=animals)
    drawing = family.draw(rows, titles=made.titles, simulated=True)
    assert drawing.section in SECTIONS
    assert "simulated" in drawing.caption
    assert f"{neurons * len(animals):,}" in drawing.caption
    assert_tidy(drawing.figure)


@OVER_NEURONS
def test_figures_over_neurons_say_why_they_are_empty(
    made: SimpleNamespace, family: SimpleNamespace, tmp_path: Path
) -> None:
    withheld = made.scores({"viv1t": 1}, protocol="competition", withheld=True)
    drawing = family.draw(withheld, titles=made.titles, simulated=False)
    assert "responses withheld" in drawing.caption
    saved(drawing, tmp_path)


@OVER_NEURONS
def test_figures_over_neurons_show_one_protocol(
    made: SimpleNamespace, family: SimpleNamespace
) -> None:
    both = pd.concat([made.scores({"viv1t": 1}), made.scores({"viv1t": 1}, protocol="competition")])
    with pytest.raises(ValueError, match="competition and open"):
        family.draw(both, titles={}, simulated=False)


def test_full_size_figures_stay_small(made: SimpleNamespace, tmp_path: Path) -> None:
    rows = _rows(made, 1, neurons=4000, animals="A")
    pdf, png = saved(reliability.draw(rows, titles=made.titles, simulated=False), tmp_path)
    assert len(pdf) < 600_000  # clouds of neurons are a picture
    assert len(png) < 1_500_000


def test_scores_by_type_are_means_beneath_their_ceiling(made: SimpleNamespace) -> None:
    rows = _rows(made, 2, neurons=20, animals="A")
    rows["ceiling_single_trial"] = np.where(rows["neuron_id"] % 2 == 0, 0.8, np.nan)
    drawing = scores_by_type.draw(rows, titles=made.titles, simulated=False)
    axes = drawing.figure.axes[0]
    assert axes.get_title(loc="left") == "natural\nmovie"
    drawn = [float(line.get_ydata()[0]) for line in axes.get_lines() if line.get_marker() == "o"]
    movie = rows[rows["stimulus_type"] == "movie"]
    wanted = movie.groupby("system", sort=False)[METRICS[0]].mean()
    assert drawn == pytest.approx(wanted.tolist())
    # Ten of twenty neurons have a ceiling of 0.8, the others nothing repeatable.
    ceiling = [line for line in axes.get_lines() if line.get_linewidth() == 1.0]
    assert ceiling[0].get_ydata()[0] == pytest.approx(0.4)
    assert "No ceiling is known" not in drawing.caption


def test_a_type_that_two_tiers_show_has_a_panel_for_each(made: SimpleNamespace) -> None:
    rows = _rows(made, 2, neurons=20, animals="AB")
    movie = rows[rows["tier"] == "final_test_main"]
    oracle = movie.assign(tier="oracle", **{METRICS[0]: movie[METRICS[0]] + 0.3})
    both = pd.concat([rows, oracle], ignore_index=True)
    drawing = scores_by_type.draw(both, titles=made.titles, simulated=False)
    titles = [axes.get_title(loc="left") for axes in drawing.figure.axes]
    assert titles[:2] == ["natural\nmovie\nfinal\ntest main", "natural\nmovie\noracle"]
    assert "Gaussian\ndots" in titles  # one tier has it, which need not be said
    for axes, part in zip(drawing.figure.axes, (movie, oracle), strict=False):
        drawn = [
            float(line.get_ydata()[0]) for line in axes.get_lines() if line.get_marker() == "o"
        ]
        wanted = part.groupby(["animal", "system"], sort=False)[METRICS[0]].mean()
        assert drawn == pytest.approx(wanted.tolist())
    assert_tidy(drawing.figure)


def test_scores_by_type_without_repeats_have_no_ceiling(made: SimpleNamespace) -> None:
    rows = _rows(made, 1, neurons=5, animals="A")
    rows = rows.assign(ceiling_single_trial=np.nan, ceiling_to_average=np.nan)
    drawing = scores_by_type.draw(rows, titles=made.titles, simulated=False)
    assert "No ceiling is known: no video was repeated." in drawing.caption


def test_distribution_marks_median_and_quartiles(made: SimpleNamespace) -> None:
    rows = _rows(made, 1, neurons=5, animals="A")
    main = rows["tier"] == "final_test_main"
    rows.loc[main, METRICS[0]] = [0.1, 0.2, 0.3, 0.4, 0.5]
    drawing = neuron_distribution.draw(rows, titles=made.titles, simulated=False)
    lines = drawing.figure.axes[0].get_lines()
    median = [line for line in lines if line.get_marker() == "o"]
    assert median[0].get_xdata() == pytest.approx([0.3])
    bar = [line for line in lines if line.get_linewidth() == 2.2]
    assert bar[0].get_xdata() == pytest.approx([0.2, 0.4])
    constant = rows.assign(**dict.fromkeys(METRICS, 0.0))
    assert_tidy(neuron_distribution.draw(constant, titles={}, simulated=False).figure)


def test_groups_of_neurons_hold_every_neuron_once(made: SimpleNamespace) -> None:
    rows = pd.DataFrame({"oracle_jackknife": np.arange(25)[::-1] / 25, METRICS[0]: np.arange(25)})
    groups = reliability.by_reliability(rows)
    # Twenty-five neurons make two groups: the 13 least reliable, then 12.
    assert groups["oracle_jackknife"].tolist() == pytest.approx([6 / 25, 18.5 / 25])
    assert groups[METRICS[0]].tolist() == pytest.approx([18, 5.5])
    assert len(reliability.by_reliability(rows.iloc[:3])) == 1


def test_reliability_needs_repeats_and_counts_who_has_none(made: SimpleNamespace) -> None:
    rows = _rows(made, 1, neurons=10, animals="A")
    none = reliability.draw(rows.assign(oracle_jackknife=np.nan), titles={}, simulated=False)
    assert "no video was repeated" in none.caption
    rows.loc[rows["neuron_id"] == 1, "oracle_jackknife"] = np.nan
    some = reliability.draw(rows, titles={}, simulated=False)
    assert "3 without a defined reliability are not shown" in some.caption


def test_main_track_stands_above_the_bonus_track(made: SimpleNamespace) -> None:
    rows = _rows(made, 1, neurons=3, animals="A")
    assert rows["tier"].iloc[0] == "final_test_bonus"
    assert score_rows.ordered_tiers(rows) == ["final_test_main", "final_test_bonus"]


def test_only_ensembles_are_read(made: SimpleNamespace, tmp_path: Path) -> None:
    paths = []
    for system, members in {"viv1t": 3, "gru_baseline": 2}.items():
        paths.append(tmp_path / f"{system}.parquet")
        write_scores(paths[-1], made.scores({system: members}, neurons=4))
    rows = score_rows.read_ensembles(paths)
    assert set(rows["member"]) == {"ensemble"}
    assert set(rows["system"]) == {"viv1t", "gru_baseline"}
    assert len(rows) == 2 * 2 * 5 * 4  # systems, animals, tiers and types, neurons
    withheld = made.scores({"viv1t": 2}, withheld=True)
    write_scores(paths[0], withheld)
    assert score_rows.why_not(score_rows.read_ensembles(paths[:1])) == "responses withheld"


def _board(made: SimpleNamespace, system: str, count: int, **options: object) -> pd.DataFrame:
    return leaderboard(made.scores({system: count}, neurons=6, **options))


def test_seed_table_puts_ours_beside_the_published_seed(made: SimpleNamespace) -> None:
    board = _board(made, "factorized_baseline", 2)
    table = seed_stability.table(board, titles=made.titles, simulated=False)
    rows = table.frame.set_index("seed")
    assert list(rows.index) == [str(seed) for seed in made.seeds] + ["mean", "standard deviation"]
    assert rows.loc["16", "published_single_trial_correlation"] == 0.1642
    own = board[(board["tier"] == "final_test_main") & (board["member"] != "ensemble")]
    own = own.set_index("member")[METRICS[0]]
    assert rows.loc["16", METRICS[0]] == own["seed16"]
    assert pd.isna(rows.loc["42", METRICS[0]])
    assert rows.loc["mean", METRICS[0]] == pytest.approx(own.mean())
    assert rows.loc["standard deviation", METRICS[0]] == pytest.approx(own.std(ddof=1))
    assert rows.loc["standard deviation", "published_correlation_to_average"] == pytest.approx(
        0.0159, abs=0.5e-4
    )
    text = tables.to_markdown(tables.record(table))
    assert "| 0.1642 | 0.3210 |" in text


@pytest.mark.parametrize("members", [1, 14])
def test_seed_figure_with_one_member_and_with_all(made: SimpleNamespace, members: int) -> None:
    board = _board(made, "factorized_baseline", members)
    drawing = seed_stability.draw(board, titles=made.titles, simulated=True)
    marks = [line for line in drawing.figure.axes[0].get_lines() if line.get_marker() == "o"]
    assert sorted(len(line.get_xdata()) for line in marks) == sorted([members, 14])
    assert f"{members} member" in drawing.caption
    assert "0.1828 ± 0.0094" in drawing.caption
    assert "spreads may be compared and values not" in drawing.caption
    assert_tidy(drawing.figure)


def test_a_variation_and_members_without_scores_are_said_to_be_so(made: SimpleNamespace) -> None:
    withheld = _board(made, "mine", 2, withheld=True, protocol="competition")
    options = {
        "titles": {"mine": "Mine"},
        "simulated": False,
        "published_as": {"mine": "factorized_baseline"},
    }
    drawing = seed_stability.draw(withheld, **options)  # type: ignore[arg-type]
    assert "Mine has no scores under this protocol." in drawing.caption
    assert "of which it is a variation" in drawing.caption
    table = seed_stability.table(withheld, **options)  # type: ignore[arg-type]
    assert table.frame[METRICS[0]].isna().all()
    assert table.frame[f"published_{METRICS[0]}"].notna().all()


def test_a_study_without_published_seeds_says_so(made: SimpleNamespace, tmp_path: Path) -> None:
    board = _board(made, "viv1t", 3)
    drawing = seed_stability.draw(board, titles=made.titles, simulated=False)
    assert "No seeds to compare" in drawing.caption
    saved(drawing, tmp_path)
    table = seed_stability.table(board, titles=made.titles, simulated=False)
    assert table.frame.empty
    csv = tmp_path / "seeds.csv"
    tables.save(table, csv=csv, markdown=csv.with_suffix(".md"), latex=csv.with_suffix(".tex"))
    assert tables.read_record(tables.record_file(csv)).rows == []
