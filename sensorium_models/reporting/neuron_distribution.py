"""How scores are distributed over neurons, one ridge per system."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from sensorium_models.evaluation.scores import METRICS
from sensorium_models.reporting import style
from sensorium_models.reporting.boards import (
    METRIC_LABELS,
    TIER_LABELS,
    one_protocol,
    ranked_systems,
)
from sensorium_models.reporting.score_rows import ordered_tiers, scored, why_not

_BINS = 80
_RIDGE = 0.82  # height of the tallest ridge, in rows
_SMOOTHING = np.array([1, 2, 3, 2, 1]) / 9


def draw(rows: pd.DataFrame, *, titles: Mapping[str, str], simulated: bool) -> style.Drawing:
    """One row of panels per tier, one panel per metric; median and quartiles beneath each ridge.

    Args:
        rows: of ONE protocol, one network per system (`score_rows.read_ensembles`).
        titles: system -> the name that a reader knows, in the order of the study.

    Where nothing was scored the figure says why.

    Raises:
        ValueError: no rows, or rows of several protocols.
    """
    protocol = one_protocol(rows)
    title = f"Scores over neurons, protocol {protocol}"
    known = scored(rows)
    tiers = [tier for tier in ordered_tiers(rows) if (known["tier"] == tier).any()]
    if not tiers:
        return style.explained(
            f"No distribution over neurons: {why_not(rows)}.",
            title=title,
            section="scores",
            text=f"protocol {protocol}",
            simulated=simulated,
        )
    averages = known.groupby(["system", "tier"], observed=True)[METRICS[0]].mean().reset_index()
    systems = ranked_systems(averages, tiers)
    colours = style.colours([*titles, *systems])
    shown = known[known["tier"].isin(tiers)]
    limits = {metric: _limits(shown, metric) for metric in METRICS}
    with style.look():
        figure = style.new_figure(height=0.5 + len(tiers) * (0.35 + 0.33 * max(len(systems), 2)))
        grid = figure.subplots(len(tiers), len(METRICS), squeeze=False, sharex="col")
        for tier, panels in zip(tiers, grid, strict=True):
            part = known[known["tier"] == tier]
            for axes, metric in zip(panels, METRICS, strict=True):
                low, high = limits[metric]
                for place, system in enumerate(systems):
                    values = part.loc[part["system"] == system, metric].dropna().to_numpy(float)
                    _ridge(axes, values, place, colours[system], low, high)
                _finish(axes, len(systems), low, high)
            panels[0].set_yticks(range(len(systems)), [titles.get(s, s) for s in systems])
            panels[0].set_title(TIER_LABELS.get(tier, f"Tier {tier}"))
        for axes, metric in zip(grid[-1], METRICS, strict=True):
            axes.set_xlabel(f"{METRIC_LABELS[metric]} of a neuron")
        style.label(figure, f"protocol {protocol}", simulated=simulated)
    counts = "; ".join(
        f"{TIER_LABELS.get(tier, tier)}: n = "
        f"{len(known.loc[known['tier'] == tier, ['animal', 'neuron_id']].drop_duplicates()):,}"
        for tier in tiers
    )
    return style.Drawing(
        figure=figure,
        title=title,
        caption=(
            "Scores of single neurons of all animals for the ensemble of each system (or its only "
            "member); a neuron counts once for each stimulus type that it was tested with. Dot: "
            "median; bar: quartiles. "
            f"The outermost 0.1 % of neurons lie at the edges. {counts} neurons."
            + (" The recordings are simulated." if simulated else "")
        ),
        alternative=f"Ridge plots of the scores of single neurons for {len(systems)} systems.",
        section="scores",
        order=3,
    )


def _limits(known: pd.DataFrame, metric: str) -> tuple[float, float]:
    low, high = known[metric].quantile([0.0005, 0.9995])
    low, high = min(float(low), 0.0), max(float(high), 0.0)
    room = 0.04 * (high - low) or 0.05
    return low - room, high + room


def _ridge(
    axes: Axes, values: np.ndarray, place: int, colour: str, low: float, high: float
) -> None:
    if not len(values):
        return
    density, edges = np.histogram(
        np.clip(values, low, high), bins=_BINS, range=(low, high), density=True
    )
    smooth = np.convolve(density, _SMOOTHING, mode="same")
    middles = (edges[:-1] + edges[1:]) / 2
    height = _RIDGE * smooth / smooth.max()
    axes.fill_between(middles, place - height, place, color=colour, alpha=0.45, lw=0)
    axes.plot(middles, place - height, color=colour, lw=0.8)
    lower, median, upper = np.quantile(values, [0.25, 0.5, 0.75])
    axes.plot([lower, upper], [place] * 2, color=colour, lw=2.2, solid_capstyle="butt")
    axes.plot([median], [place], "o", ms=3.6, mfc="white", mec=colour, mew=1.0, zorder=4)


def _finish(axes: Axes, systems: int, low: float, high: float) -> None:
    axes.set_yticks(range(systems), [""] * systems)
    axes.set_ylim(systems - 0.7, -1.0)
    axes.set_xlim(low, high)
    axes.axvline(0, color=style.FAINT, lw=0.6, zorder=0)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.grid(axis="x")
