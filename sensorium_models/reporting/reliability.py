"""Score against reliability: which neurons are predicted, and how far below the repeats."""

from collections.abc import Mapping, Sequence

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

RELIABILITY = "oracle_jackknife"
SCORE = METRICS[0]
GROUPS = 12
_DENSE = 3000  # points from which on a picture of their density says more
_REFERENCE = {"color": style.MUTED, "lw": 0.8, "ls": (0, (4, 2)), "zorder": 1}


def draw(rows: pd.DataFrame, *, titles: Mapping[str, str], simulated: bool) -> style.Drawing:
    """Per tier: all neurons of the best system, and the mean of every system in groups of neurons.

    Args:
        rows: of ONE protocol, one network per system (`score_rows.read_ensembles`).
        titles: system -> the name that a reader knows, in the order of the study.

    Where nothing was scored, or no reliability is known, the figure says so.

    Raises:
        ValueError: no rows, or rows of several protocols.
    """
    protocol = one_protocol(rows)
    title = f"Score against reliability, protocol {protocol}"
    known = scored(rows)
    usable = known[known[RELIABILITY].notna()]
    tiers = [tier for tier in ordered_tiers(rows) if (usable["tier"] == tier).any()]
    if not tiers:
        why = "no video was repeated" if len(known) else why_not(rows)
        return style.explained(
            f"No scores against reliability: {why}.",
            title=title,
            section="scores",
            text=f"protocol {protocol}",
            simulated=simulated,
        )
    averages = usable.groupby(["system", "tier"], observed=True)[SCORE].mean().reset_index()
    systems = ranked_systems(averages, tiers)
    colours = style.colours([*titles, *systems])
    with style.look():
        figure = style.new_figure(height=0.55 + 2.3 * len(tiers))
        grid = figure.subplots(len(tiers), 2, squeeze=False, sharex=True)
        for tier, (cloud, lines) in zip(tiers, grid, strict=True):
            part = usable[usable["tier"] == tier]
            _cloud(cloud, part[part["system"] == systems[0]], colours[systems[0]])
            cloud.set_title(
                f"{TIER_LABELS.get(tier, f'Tier {tier}')}: {titles.get(systems[0], systems[0])}"
            )
            for system in systems:
                groups = by_reliability(part[part["system"] == system])
                lines.plot(
                    groups[RELIABILITY],
                    groups[SCORE],
                    color=colours[system],
                    marker="o",
                    ms=2.6,
                    mec="white",
                    mew=0.3,
                    label=titles.get(system, system),
                )
            lines.set_title("All systems, mean of groups of neurons")
            for axes in (cloud, lines):
                _finish(axes)
        for axes in grid[-1]:
            axes.set_xlabel("Reliability: correlation of a repeat with the others")
        handles, labels = grid[0, 1].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 4))
        style.label(figure, f"protocol {protocol}", simulated=simulated)
    return style.Drawing(
        figure=figure,
        title=title,
        caption=_caption(known, usable, tiers, simulated=simulated),
        alternative=(
            "Scatter plot of single-trial correlation against reliability of single neurons, and "
            f"its mean in groups of neurons for {len(systems)} systems."
        ),
        section="scores",
        order=4,
    )


def by_reliability(rows: pd.DataFrame) -> pd.DataFrame:
    """Means of reliability and score over groups of (nearly) as many neurons, least reliable first.

    As many groups as `GROUPS`, fewer where there are not ten neurons for each.
    """
    ordered = rows.sort_values(RELIABILITY, kind="stable")
    count = int(np.clip(len(ordered) // 10, 1, GROUPS))
    group = np.arange(len(ordered)) * count // max(len(ordered), 1)
    return ordered.groupby(group)[[RELIABILITY, SCORE]].mean()


def _cloud(axes: Axes, part: pd.DataFrame, colour: str) -> None:
    x, y = part[RELIABILITY].to_numpy(float), part[SCORE].to_numpy(float)
    if len(part) > _DENSE:
        axes.hexbin(
            x, y, gridsize=55, mincnt=1, bins="log", cmap="Greys", linewidths=0, rasterized=True
        )
    else:
        size = float(np.clip(1500 / max(len(part), 1), 2, 9))
        axes.scatter(x, y, s=size, color=colour, alpha=0.5, linewidths=0)


def _finish(axes: Axes) -> None:
    # The line on which a model is as good as the other repeats.
    (x0, x1), (y0, y1) = axes.get_xlim(), axes.get_ylim()
    low, high = max(x0, y0), min(x1, y1)
    if low < high:
        axes.plot([low, high], [low, high], **_REFERENCE)  # type: ignore[arg-type]
    axes.set_xlim(x0, x1)
    axes.set_ylim(y0, y1)
    axes.set_ylabel(METRIC_LABELS[SCORE])
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.grid()


def _caption(
    known: pd.DataFrame, usable: pd.DataFrame, tiers: Sequence[str], *, simulated: bool
) -> str:
    system = usable["system"].iloc[0]
    one, all_rows = usable[usable["system"] == system], known[known["system"] == system]
    counts = "; ".join(
        f"{TIER_LABELS.get(tier, tier)}: n = {int((one['tier'] == tier).sum()):,}" for tier in tiers
    )
    missing = int(all_rows["tier"].isin(tiers).sum()) - int(one["tier"].isin(tiers).sum())
    return (
        "Single-trial correlation of single neurons against their reliability, the correlation of "
        "a single response with the mean of the other repeats of the same video (jackknife), which "
        "on average falls short of what a perfect model would reach; dashed: both are equal. A "
        "neuron counts once per stimulus type. Left: ensemble (or only member) of the system that "
        f"is best on the first test set. Right: up to {GROUPS} groups of as many neurons each. "
        f"{counts} neurons."
        + (f" {missing:,} without a defined reliability are not shown." if missing else "")
        + (" The recordings are simulated." if simulated else "")
    )
