"""Differences between systems: signs, intervals, order, and what is said where there are none."""

from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from sensorium_models.evaluation.scores import METRICS
from sensorium_models.evaluation.uncertainty import COMPARISON_COLUMNS
from sensorium_models.reporting.page import SECTIONS
from sensorium_models.reporting.paired_differences import draw
from tests.layout import assert_tidy, saved

TIERS = ("live_test_main", "final_test_bonus", "final_test_main")


def _comparisons(scores: dict[str, float], *, half: float = 0.02, **changes: Any) -> pd.DataFrame:
    rows = []
    for tier in TIERS:
        for metric, factor in zip(METRICS, (1.0, 1.9), strict=True):
            for (one, a), (two, b) in combinations(scores.items(), 2):
                difference = factor * (a - b)
                rows.append(
                    {
                        **dict.fromkeys(COMPARISON_COLUMNS),
                        "protocol": "open",
                        "tier": tier,
                        "metric": metric,
                        "estimate": "ensemble",
                        "system": one,
                        "other": two,
                        "difference": difference,
                        "lower": difference - half,
                        "upper": difference + half,
                        "level": 0.95,
                        "resampled": "animals, videos, neurons",
                        "degrees_of_freedom": 4,
                        "resamples": 500,
                        "animals": 5,
                        "videos": 30,
                        "neurons": 38_819,
                    }
                    | changes
                )
    return pd.DataFrame(rows, columns=COMPARISON_COLUMNS)


def _labels(drawing: Any) -> list[str]:
    return [text.get_text() for text in drawing.figure.axes[0].get_yticklabels()]


@pytest.mark.slow
@pytest.mark.parametrize("systems", [2, 7])
def test_differences_at_all_sizes(made: SimpleNamespace, systems: int, tmp_path: Path) -> None:
    scores = {name: 0.3 - 0.03 * i for i, name in enumerate(list(made.titles)[:systems])}
    drawing = draw(_comparisons(scores), titles=made.titles, simulated=True)
    assert drawing.section in SECTIONS
    assert len(_labels(drawing)) == systems * (systems - 1) // 2
    assert "n = 38,819 neurons of 5 animals, 30 videos" in drawing.caption
    assert "95 % intervals: hierarchical bootstrap" in drawing.caption
    assert "simulated" in drawing.caption
    assert_tidy(drawing.figure)
    saved(drawing, tmp_path)


def test_the_better_system_stands_first(made: SimpleNamespace) -> None:
    # The table compares in the order of the study; the worst comes first in it.
    comparisons = _comparisons({"gru_baseline": 0.1, "viv1t": 0.24, "dwiseneuro": 0.29})
    drawing = draw(comparisons, titles=made.titles, simulated=False)
    assert _labels(drawing) == [
        "DwiseNeuro − GRU baseline",
        "ViV1T − GRU baseline",
        "DwiseNeuro − ViV1T",
    ]
    axes = drawing.figure.axes[0]
    assert axes.get_title(loc="left") == "Main track, final test set"
    dots = [line for line in axes.get_lines() if line.get_marker() == "o"]
    assert [dot.get_xdata()[0] for dot in dots] == pytest.approx([0.19, 0.14, 0.05])
    bars = [line for line in axes.get_lines() if line.get_linewidth() == 1.4]
    assert bars[0].get_xdata() == pytest.approx([0.17, 0.21])


def test_an_interval_around_zero_leaves_the_mark_hollow(made: SimpleNamespace) -> None:
    comparisons = _comparisons({"viv1t": 0.25, "dwiseneuro": 0.29, "viv1t_2025": 0.26})
    drawing = draw(comparisons, titles=made.titles, simulated=False)
    dots = [line for line in drawing.figure.axes[0].get_lines() if line.get_marker() == "o"]
    hollow = [dot.get_markerfacecolor() == "white" for dot in dots]
    # Differences of 0.04, 0.03 and 0.01, intervals of ±0.02.
    assert hollow == [False, False, True]


def test_differences_without_intervals_are_points(made: SimpleNamespace) -> None:
    comparisons = _comparisons({"viv1t": 0.25, "dwiseneuro": 0.29}, lower=None, upper=None)
    drawing = draw(comparisons, titles=made.titles, simulated=False)
    assert "too few animals, videos and neurons for intervals" in drawing.caption
    assert_tidy(drawing.figure)


def test_nothing_to_compare_is_said(made: SimpleNamespace, tmp_path: Path) -> None:
    alone = draw(_comparisons({"viv1t": 0.25}), titles=made.titles, simulated=False)
    assert "the study has one system only" in alone.caption
    empty = {"difference": None, "lower": None, "upper": None, "reason": "no video"}
    withheld = _comparisons({"viv1t": 0.25, "dwiseneuro": 0.29}, **empty)
    drawing = draw(withheld, titles=made.titles, simulated=False)
    assert "no two systems have scores here (no video)" in drawing.caption
    saved(drawing, tmp_path)
