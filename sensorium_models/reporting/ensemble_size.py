"""Score against number of members: what averaging one more network is worth.

Curves come from `evaluation.subsets.score_by_size`, which computes them from stored cross-moments.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from sensorium_models.evaluation.scores import METRICS
from sensorium_models.reporting import style
from sensorium_models.reporting.boards import METRIC_LABELS, TIER_LABELS
from sensorium_models.reporting.score_rows import ordered_tiers


def draw(
    curves: Mapping[str, pd.DataFrame],
    *,
    titles: Mapping[str, str],
    protocol: str,
    simulated: bool,
    tiers: Sequence[str] | None = None,
) -> style.Drawing:
    """One row of panels per tier, one panel per metric, one line (mean over orders) per curve.

    Args:
        curves: system -> columns tier, metric, size, order, score (`score_by_size`); with a column
            axis (`score_by_axis`), one line for each axis, "" being all members.
        titles: system -> the name that a reader knows, in the order of the study.
        tiers: which to show; default all but live test sets whose final test set is there too.

    Where no curve has any score (all responses withheld), the figure says so in a sentence.
    """
    title = f"Score against number of members, protocol {protocol}"
    curves = {system: curve for system, curve in curves.items() if len(curve)}
    if not curves:
        return style.explained(
            "No curves: no system has an ensemble with scores under this protocol.",
            title=title,
            section="ensemble",
            text=f"protocol {protocol}",
            simulated=simulated,
        )
    tiers = list(tiers) if tiers is not None else ordered_tiers(pd.concat(curves.values()))
    curves = {s: curve if "axis" in curve else curve.assign(axis="") for s, curve in curves.items()}
    lines = [(system, axis) for system, curve in curves.items() for axis in curve["axis"].unique()]
    dashes = _dashes(lines)
    colours = style.colours([*titles, *curves])
    with style.look():
        figure = style.new_figure(height=0.45 + 1.55 * len(tiers))
        grid = figure.subplots(len(tiers), len(METRICS), squeeze=False, sharex=True)
        for tier, row in zip(tiers, grid, strict=True):
            for axes, metric in zip(row, METRICS, strict=True):
                for system, axis in lines:
                    curve = curves[system][curves[system]["axis"] == axis]
                    part = curve[(curve["tier"] == tier) & (curve["metric"] == metric)]
                    _line(axes, part, colours[system], dashes[axis])
                axes.set_ylabel(METRIC_LABELS[metric])
                axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
                axes.yaxis.set_major_locator(MaxNLocator(5))
                axes.grid(axis="y")
            row[0].set_title(TIER_LABELS.get(tier, f"Tier {tier}"))
        for axes in grid[-1]:
            axes.set_xlabel("Members in the ensemble")
            axes.set_xlim(0.6, max(int(curve["size"].max()) for curve in curves.values()) + 0.4)
        figure.legend(
            handles=[
                Line2D(
                    [],
                    [],
                    color=colours[system],
                    ls=dashes[axis],
                    marker="o",
                    ms=3,
                    label=titles.get(system, system) + (f", by {axis}" if axis else ""),
                )
                for system, axis in lines
            ],
            loc="outside lower center",
            ncols=min(len(lines), 4),
            handlelength=2.2,
        )
        style.label(figure, f"protocol {protocol}", simulated=simulated)
    counts = "; ".join(
        f"{titles.get(system, system)}: {int(curve['size'].max())} members, "
        f"{curve.loc[curve['axis'] == curve['axis'].iloc[0], 'order'].nunique()} orders"
        for system, curve in curves.items()
    )
    return style.Drawing(
        figure=figure,
        title=title,
        caption=(
            "Score of the mean prediction of a growing number of members; line: mean over random "
            "orders in which they join, band: smallest to largest value among these orders (at the "
            "full number all orders agree). Computed exactly from the members' cross-moments. "
            "Neurons of all animals are pooled within a stimulus type, then types are averaged. "
            + (
                "By an axis (dashed): only members that are alike but for it join. "
                if any(axis for _, axis in lines)
                else ""
            )
            + f"{counts}."
            + (" The recordings are simulated." if simulated else "")
        ),
        alternative=f"Line plots of score against number of members for {len(curves)} systems.",
        section="ensemble",
    )


def _dashes(lines: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Line style by axis, the same for all systems; all members are a solid line."""
    kinds = itertools.cycle([(0, (4, 1.5)), (0, (1.5, 1.5)), (0, (5, 1.5, 1, 1.5))])
    names = dict.fromkeys(axis for _, axis in lines if axis)
    return {"": "-", **dict(zip(names, kinds, strict=False))}


def _line(axes: Axes, part: pd.DataFrame, colour: str, dashes: Any) -> None:
    if part.empty:
        return
    by_size = part.groupby("size")["score"].agg(["mean", "min", "max"])
    axes.fill_between(by_size.index, by_size["min"], by_size["max"], color=colour, alpha=0.18, lw=0)
    axes.plot(
        by_size.index,
        by_size["mean"],
        color=colour,
        ls=dashes,
        marker="o",
        ms=3,
        mec="white",
        mew=0.4,
    )
