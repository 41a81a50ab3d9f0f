"""Differences between systems with their intervals, both measured on the same resamples.

Two intervals that overlap do not make two systems equal: what both share (the same animals, videos
and neurons) cancels in the difference. Rows come from `evaluation.uncertainty`.
"""

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from sensorium_models.evaluation.scores import METRICS
from sensorium_models.reporting import style
from sensorium_models.reporting.boards import METRIC_LABELS, TIER_LABELS, one_protocol
from sensorium_models.reporting.intervals import interval_note, level_label
from sensorium_models.reporting.score_rows import ordered_tiers

ESTIMATE = "ensemble"


def draw(comparisons: pd.DataFrame, *, titles: Mapping[str, str], simulated: bool) -> style.Drawing:
    """One row per pair of systems, the better one first; one column of panels per metric.

    Args:
        comparisons: rows of ONE protocol (`uncertainty.COMPARISON_COLUMNS`).
        titles: system -> the name that a reader knows, in the order of the study.

    Says in a sentence where there are no two systems with scores, or no interval.
    """
    rows = comparisons[(comparisons["estimate"] == ESTIMATE) & comparisons["difference"].notna()]
    protocol = one_protocol(comparisons) if len(comparisons) else ""
    where = f"protocol {protocol}" if protocol else "differences"
    title = f"Differences between systems, {where}"
    if rows.empty:
        reasons = sorted(set(comparisons["reason"].dropna().astype(str)))
        return style.explained(
            "No differences: "
            + (
                f"no two systems have scores here ({'; '.join(reasons)})."
                if reasons
                else "the study has one system only."
            ),
            title=title,
            section="scores",
            text=where,
            simulated=simulated,
        )
    tiers = ordered_tiers(rows)
    pairs = {tier: _ranked_pairs(rows[rows["tier"] == tier]) for tier in tiers}
    colours = style.colours([*titles, *rows["system"], *rows["other"]])
    most = max(len(found) for found in pairs.values())
    heights = [0.45 + 0.155 * max(len(pairs[tier]), 2) for tier in tiers]
    with style.look():
        figure = style.new_figure(height=0.55 + sum(heights))
        grid = figure.subplots(
            len(tiers), len(METRICS), squeeze=False, sharex="col", height_ratios=heights
        )
        for tier, panels in zip(tiers, grid, strict=True):
            part = rows[rows["tier"] == tier]
            for axes, metric in zip(panels, METRICS, strict=True):
                _panel(axes, part[part["metric"] == metric], pairs[tier], colours)
            names = [f"{titles.get(a, a)} − {titles.get(b, b)}" for a, b in pairs[tier]]
            panels[0].set_yticks(range(len(names)), names, fontsize=6.5 if most <= 12 else 6)
            panels[0].set_title(TIER_LABELS.get(tier, f"Tier {tier}"))
        for axes, metric in zip(grid[-1], METRICS, strict=True):
            axes.set_xlabel(f"Difference in {METRIC_LABELS[metric].lower()}")
            axes.xaxis.set_major_locator(MaxNLocator(5))
        known = rows[rows["lower"].notna()]
        figure.legend(handles=_legend(known), loc="outside lower center", ncols=3)
        style.label(figure, where, simulated=simulated)
    counts = "; ".join(_counts(rows[rows["tier"] == tier], tier) for tier in tiers)
    return style.Drawing(
        figure=figure,
        title=title,
        caption=" ".join(
            [
                "Score of the first system's ensemble (or only member) minus that of the second, "
                "both on the videos that the two are scored on and on the same resamples, so that "
                "what animals, videos and neurons have in common cancels. "
                f"{counts}.",
                *interval_note(known, tiers),
                *(
                    []
                    if len(known)
                    else ["There are too few animals, videos and neurons for intervals."]
                ),
                *(["The recordings are simulated."] if simulated else []),
            ]
        ),
        alternative=(
            f"Dots with intervals for the differences between {most} pairs of systems; the values "
            "are in the file comparisons.parquet beside the scores."
        ),
        section="scores",
        order=1,
    )


def _ranked_pairs(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """All pairs, the better system first in each, largest single-trial difference first."""
    first = rows[rows["metric"] == METRICS[0]]
    found = [
        (float(d), str(a), str(b)) if d >= 0 else (-float(d), str(b), str(a))
        for a, b, d in zip(first["system"], first["other"], first["difference"], strict=True)
    ]
    return [(a, b) for _, a, b in sorted(found, key=lambda pair: (-pair[0], pair[1:]))]


def _panel(
    axes: Axes,
    rows: pd.DataFrame,
    pairs: Sequence[tuple[str, str]],
    colours: Mapping[str, str],
) -> None:
    found = {(str(row["system"]), str(row["other"])): row for row in rows.to_dict(orient="records")}
    for place, (one, two) in enumerate(pairs):
        turned = (one, two) not in found
        row = found.get((two, one) if turned else (one, two))
        if row is None or pd.isna(row["difference"]):
            continue
        sign = -1.0 if turned else 1.0
        value = sign * float(row["difference"])
        sure = False
        if pd.notna(row["lower"]) and pd.notna(row["upper"]):
            ends = sorted((sign * float(row["lower"]), sign * float(row["upper"])))
            sure = ends[0] > 0 or ends[1] < 0
            axes.plot(ends, [place] * 2, color=colours[one], lw=1.4, solid_capstyle="butt")
        face = colours[one] if sure else "white"
        axes.plot([value], [place], "o", ms=3.8, mfc=face, mec=colours[one], mew=0.9, zorder=3)
    axes.axvline(0, color=style.INK, lw=0.7, zorder=0)
    axes.set_yticks(range(len(pairs)), [""] * len(pairs))
    axes.set_ylim(len(pairs) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")


def _legend(known: pd.DataFrame) -> list[Line2D]:
    grey = style.MUTED
    dot = {"ls": "", "marker": "o", "ms": 4, "mec": grey}
    if known.empty:
        return [Line2D([], [], mfc="white", label="difference", **dot)]  # type: ignore[arg-type]
    return [
        Line2D([], [], color=grey, lw=1.4, label=level_label(known)),
        Line2D([], [], mfc=grey, label="excludes zero", **dot),  # type: ignore[arg-type]
        Line2D([], [], mfc="white", label="includes zero", **dot),  # type: ignore[arg-type]
    ]


def _counts(rows: pd.DataFrame, tier: str) -> str:
    def span(column: str) -> str:
        low, high = int(rows[column].min()), int(rows[column].max())
        return f"{low:,}" if low == high else f"{low:,} to {high:,}"

    label = TIER_LABELS.get(tier, f"tier {tier}")
    animals = span("animals")
    return f"{label}: n = {span('neurons')} neurons of {animals} animals, {span('videos')} videos"
