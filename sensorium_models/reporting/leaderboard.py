"""Leaderboard figure: every system's members and ensemble on one scale, per tier and metric.

Scores come from `evaluation.scores.leaderboard`; published values are hollow reference marks, and
so are those of an emulated server, which scores what is withheld in simulated recordings.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from sensorium_models.ensemble import MEMBER as ENSEMBLE
from sensorium_models.evaluation.scores import METRICS
from sensorium_models.reporting import published, style
from sensorium_models.reporting.boards import (
    METRIC_LABELS,
    TIER_LABELS,
    one_protocol,
    published_track,
    ranked_systems,
    selection_note,
    shown_tiers,
    without_lone_ensembles,
)
from sensorium_models.reporting.intervals import interval_note, interval_of, level_label

_REFERENCE: dict[str, Any] = {"ms": 4.6, "mfc": "none", "mec": style.INK, "mew": 0.8, "zorder": 5}
# (system, tier, metric, estimate) -> published value
_References = Mapping[tuple[str, str, str, str], float]

_SERVED: dict[str, Any] = {"marker": "^", "ms": 5, "mfc": "none", "mew": 1.1, "zorder": 4}
_INTERVAL: dict[str, Any] = {"lw": 0.9, "solid_capstyle": "butt", "zorder": 2}
_ACHIEVABLE: dict[str, Any] = {"color": style.MUTED, "lw": 0.8, "ls": (0, (4, 2))}


def draw(
    board: pd.DataFrame,
    *,
    titles: Mapping[str, str],
    simulated: bool,
    tiers: Sequence[str] | None = None,
    intervals: pd.DataFrame | None = None,
    achievable: Mapping[tuple[str, str], float] | None = None,
    served: pd.DataFrame | None = None,
    published_as: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
) -> style.Drawing:
    """One row of panels per tier, one panel per metric, one line of marks per system.

    Args:
        board: rows of ONE protocol, as `evaluation.scores.leaderboard` returns them.
        titles: system -> the name that a reader knows, in the order of the study.
        tiers: which to show; default `shown_tiers(board)`.
        intervals: of the same protocol, as `evaluation.uncertainty` makes them; one is drawn for
            each system, its ensemble's.
        achievable: (tier, metric) -> best score that any model can reach, where the truth is known.
        served: rows like those of `board`, from the emulated server of a simulated study.
        published_as: system -> the published system whose numbers stand beside it; a system that is
            absent has its own.
        notes: sentences for the caption, such as what an ensemble of several systems is made of.

    Raises:
        ValueError: no rows, or rows of several protocols.
    """
    protocol = one_protocol(board)
    board = without_lone_ensembles(board)
    tiers = list(tiers) if tiers is not None else shown_tiers(board)
    if served is not None and served.empty:
        served = None
    systems = ranked_systems(board if served is None else pd.concat([served, board]), tiers)
    colours = style.colours([*titles, *systems])
    achievable = {key: best for key, best in (achievable or {}).items() if key[0] in tiers}
    references = _references(systems, tiers, published_as or {})
    with style.look():
        panel_height = 0.42 + 0.2 * max(len(systems), 2)
        figure = style.new_figure(height=0.55 + panel_height * len(tiers))
        grid = figure.subplots(len(tiers), len(METRICS), squeeze=False, sharex="col")
        for tier, row in zip(tiers, grid, strict=True):
            part = board[board["tier"] == tier]
            for axes, metric in zip(row, METRICS, strict=True):
                best = achievable.get((tier, metric))
                _panel(axes, part, tier, metric, systems, colours, references, best)
                _emulated(axes, served, tier, metric, systems, colours)
                _intervals(axes, intervals, tier, metric, systems, colours)
            row[0].set_yticks(range(len(systems)), [titles.get(s, s) for s in systems])
            row[1].set_yticks(range(len(systems)), [""] * len(systems))
            row[0].set_title(_heading(part, tier, served))
        for column, metric in zip(grid.T, METRICS, strict=True):
            _common_scale(column)
            column[-1].set_xlabel(METRIC_LABELS[metric])
        marks = _legend(board, references, intervals, bool(achievable), served is not None)
        figure.legend(
            handles=marks,
            loc="outside lower center",
            ncols=len(marks) if len(marks) <= 6 else 4,
            columnspacing=1.4,
        )
        style.label(figure, f"protocol {protocol}", simulated=simulated)
    return style.Drawing(
        figure=figure,
        title=f"Leaderboard, protocol {protocol}",
        caption=_caption(
            board,
            tiers,
            simulated=simulated,
            intervals=intervals,
            achievable=bool(achievable),
            served=served is not None,
            notes=[
                *notes,
                *published.variations(
                    (system for system, *_ in references),
                    published_as=published_as or {},
                    titles=titles,
                ),
            ],
        ),
        alternative=(
            f"Dot plot of the scores of {len(systems)} systems in {len(tiers)} tiers; the values "
            "are in the leaderboard table."
        ),
        section="scores",
    )


def _references(
    systems: Sequence[str], tiers: Sequence[str], published_as: Mapping[str, str]
) -> _References:
    references = {
        (system, tier, metric, estimate): published.reference_score(
            published_as.get(system, system),
            estimate=estimate,
            track=published_track(tier),
            metric=metric,
        )
        for system in systems
        for tier in tiers
        for metric in METRICS
        for estimate in ("members", "ensemble")
    }
    return {key: found.value for key, found in references.items() if found}


def _panel(
    axes: Axes,
    part: pd.DataFrame,
    tier: str,
    metric: str,
    systems: Sequence[str],
    colours: Mapping[str, str],
    references: _References,
    achievable: float | None,
) -> None:
    for place, system in enumerate(systems):
        rows = part[part["system"] == system]
        values = rows.loc[rows["member"] != ENSEMBLE, metric].dropna().to_numpy(dtype=float)
        ensemble = rows.loc[rows["member"] == ENSEMBLE, metric].dropna().to_numpy(dtype=float)
        colour = colours[system]
        if len(values) == 1:
            axes.plot(values, [place], "o", ms=4, mfc=colour, mec="none")
        if len(values) > 1:
            # Neighbours in value lie at different heights, so that none hides another.
            offsets = np.resize([0.0, 0.13, -0.13, 0.22, -0.22], len(values))
            axes.plot(
                np.sort(values), place + offsets, "o", ms=2.6, mfc=colour, mec="none", alpha=0.6
            )
            axes.plot([values.mean()] * 2, [place - 0.32, place + 0.32], color=colour, lw=1.4)
        if len(ensemble):
            axes.plot(ensemble, [place], "D", ms=5, mfc=colour, mec="white", mew=0.6, zorder=4)
        for estimate, marker in (("members", "o"), ("ensemble", "D")):
            reference = references.get((system, tier, metric, estimate))
            if reference is not None:
                axes.plot([reference], [place], marker, **_REFERENCE)
    if achievable is not None:
        axes.axvline(achievable, **_ACHIEVABLE)
    axes.set_ylim(len(systems) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
    axes.grid(axis="x")


def _emulated(
    axes: Axes,
    served: pd.DataFrame | None,
    tier: str,
    metric: str,
    systems: Sequence[str],
    colours: Mapping[str, str],
) -> None:
    if served is None:
        return
    for place, system in enumerate(systems):
        rows = served[(served["system"] == system) & (served["tier"] == tier)]
        for value in rows[metric].dropna():
            axes.plot([value], [place], ls="", mec=colours[system], **_SERVED)


def _intervals(
    axes: Axes,
    intervals: pd.DataFrame | None,
    tier: str,
    metric: str,
    systems: Sequence[str],
    colours: Mapping[str, str],
) -> None:
    for place, system in enumerate(systems):
        # The ensemble of a single member is that member.
        ends = interval_of(intervals, system=system, estimate="ensemble", tier=tier, metric=metric)
        if ends is not None:
            axes.plot(ends, [place] * 2, color=colours[system], **_INTERVAL)


def _common_scale(column: np.ndarray) -> None:
    # Zero is always in sight, and marks at either end are never cut.
    low, high = 0.0, 0.0
    for axes in column:
        for line in axes.get_lines():
            values = np.asarray(line.get_xdata(), dtype=float)
            low, high = min(low, values.min()), max(high, values.max())
    margin = 0.05 * (high - low) or 0.05
    column[0].set_xlim(low - margin if low < 0 else 0.0, high + margin)


def _heading(part: pd.DataFrame, tier: str, served: pd.DataFrame | None) -> str:
    label = TIER_LABELS.get(tier, f"Tier {tier}")
    if part[METRICS[0]].notna().any():
        return label
    if served is not None and (served["tier"] == tier).any():
        return f"{label} ({_reasons(part)}: emulated server)"
    return f"{label} (no scores: {_reasons(part)})"


def _reasons(part: pd.DataFrame) -> str:
    return ", ".join(sorted(part["reason"].dropna().astype(str).unique())) or "nothing predicted"


def _legend(
    board: pd.DataFrame,
    references: _References,
    intervals: pd.DataFrame | None,
    achievable: bool,
    served: bool,
) -> list[Line2D]:
    scored = board[board[METRICS[0]].notna()]
    ensembles = bool((scored["member"] == ENSEMBLE).any())
    members = scored[scored["member"] != ENSEMBLE].groupby(["system", "tier"], observed=True).size()
    found = {estimate for *_, estimate in references}
    grey = style.MUTED
    entries: list[tuple[bool, str, dict[str, Any]]] = [
        (len(members) > 0, "member", {"marker": "o", "ms": 3, "mfc": grey, "mec": "none"}),
        (
            bool((members > 1).any()),
            "mean of members",
            {"marker": "|", "ms": 7, "mec": grey, "mew": 1.4},
        ),
        (ensembles, "ensemble", {"marker": "D", "ms": 5, "mfc": grey, "mec": "white"}),
        (served, "emulated server, ensemble", {**_SERVED, "mec": grey}),
        (
            bool(interval_note(intervals, shown_tiers(board))),
            "" if intervals is None or intervals.empty else level_label(intervals),
            {"color": grey, "ls": "-", **_INTERVAL},
        ),
        ("members" in found, "published (F–J), single", {"marker": "o", **_REFERENCE}),
        ("ensemble" in found, "published (F–J), ensemble", {"marker": "D", **_REFERENCE}),
        (achievable, "achievable", _ACHIEVABLE),
    ]
    return [
        Line2D([], [], **{"ls": "", "label": label, **options})
        for shown, label, options in entries
        if shown
    ]


def _caption(
    board: pd.DataFrame,
    tiers: Sequence[str],
    *,
    simulated: bool,
    intervals: pd.DataFrame | None,
    achievable: bool,
    served: bool,
    notes: Sequence[str],
) -> str:
    counts = []
    for tier in tiers:
        part = board[(board["tier"] == tier) & board[METRICS[0]].notna()]
        label = TIER_LABELS.get(tier, f"tier {tier}")
        if part.empty:
            counts.append(f"{label}: no scores ({_reasons(board[board['tier'] == tier])})")
            continue
        row = part.iloc[0]
        left_out = int(part["trials_left_out"].max())
        counts.append(
            f"{label}: n = {int(row['neurons']):,} neurons of animals "
            f"{str(row['animals']).replace(' ', ', ')}, {int(row['trials']):,} trials"
            + (f", up to {left_out} left out as seen in training" if left_out else "")
        )
    labels = board.iloc[0]
    sentences = [
        "Correlation averaged over the neurons of all animals within each stimulus type, then over "
        f"types; score unit {labels['score_unit']}, {labels['frame_convention']}.",
        "; ".join(counts) + ".",
        *interval_note(intervals, tiers),
        *selection_note(board, tiers),
    ]
    if simulated:
        sentences.append("The recordings are simulated: the scores say nothing about real animals.")
    if achievable:
        sentences.append(
            "Dashed line: score of the simulation's true rates, the best that a model can reach."
        )
    if served:
        sentences.append(
            "Triangles: the uploads of the ensembles scored by an EMULATED server, on every trial "
            "and with the responses that the simulation withholds."
        )
    if any(tier.startswith("final_test") for tier in tiers):
        sentences.append(published.NOTE)
    sentences += notes
    return " ".join(sentences)
