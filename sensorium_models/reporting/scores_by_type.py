"""Scores by type of stimulus and animal, every system on one scale, beneath what repeats allow."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from sensorium_models.evaluation.scores import METRICS
from sensorium_models.reporting import style
from sensorium_models.reporting.boards import METRIC_LABELS, one_protocol
from sensorium_models.reporting.score_rows import ordered_tiers, scored, why_not

_CEILING_OF = dict(zip(METRICS, ("ceiling_single_trial", "ceiling_to_average"), strict=True))
_LEAST_WIDTH = 1.7  # of a panel, in animals: its heading must fit
_CHARACTER_INCHES = 0.075


def draw(rows: pd.DataFrame, *, titles: Mapping[str, str], simulated: bool) -> style.Drawing:
    """One panel per type of stimulus and metric; per animal a mark for each system.

    A type that several tiers show has a panel for each: what they show is not the same.

    Args:
        rows: of ONE protocol, one network per system (`score_rows.read_ensembles`).
        titles: system -> the name that a reader knows, in the order of the study.

    Where nothing was scored the figure says why.

    Raises:
        ValueError: no rows, or rows of several protocols.
    """
    protocol = one_protocol(rows)
    title = f"Scores by stimulus type and animal, protocol {protocol}"
    shown = scored(rows[rows["tier"].isin(ordered_tiers(rows))])
    if shown.empty:
        return style.explained(
            f"No scores by stimulus type: {why_not(rows)}.",
            title=title,
            section="scores",
            text=f"protocol {protocol}",
            simulated=simulated,
        )
    systems = [s for s in titles if s in set(shown["system"])]
    systems += sorted(set(shown["system"]) - set(systems))
    colours = style.colours([*titles, *systems])
    means = _means(shown)
    parts = _parts(means)
    types = list(dict.fromkeys(kind for kind, _ in parts))
    animals = {key: sorted(part["animal"].unique()) for key, part in parts.items()}
    widths = [max(len(names), _LEAST_WIDTH) for names in animals.values()]
    slot_inches = 0.88 * style.TWO_COLUMNS_INCHES / sum(widths)
    longest = max(len(name) for names in animals.values() for name in names)
    upright = longest * _CHARACTER_INCHES > slot_inches
    with style.look():
        figure = style.new_figure(height=3.75 + 0.14 * ((len(systems) + 1) // 4))
        grid = figure.subplots(
            len(METRICS), len(parts), squeeze=False, sharex="col", sharey="row", width_ratios=widths
        )
        for metric, panels in zip(METRICS, grid, strict=True):
            for axes, (key, part) in zip(panels, parts.items(), strict=True):
                _panel(axes, part, metric, systems, animals[key], colours)
            panels[0].set_ylabel(METRIC_LABELS[metric])
        for axes, (kind, tier) in zip(grid[0], parts, strict=True):
            named = [style.stimulus_label(kind)]
            if sum(other == kind for other, _ in parts) > 1:
                named.append(tier.replace("_", " "))
            heading = "\n".join(name.replace(" ", "\n", 1) for name in named)
            axes.set_title(heading, color=_type_colour(kind))
        for axes, names in zip(grid[-1], animals.values(), strict=True):
            axes.set_xticks(range(len(names)), names, rotation=90 if upright else 0)
        figure.legend(
            handles=[
                *(
                    Line2D([], [], ls="", marker="o", ms=4, mfc=colours[s], mec="none")
                    for s in systems
                ),
                Line2D([], [], color=style.INK, lw=1.0),
            ],
            labels=[*(titles.get(s, s) for s in systems), "ceiling"],
            loc="outside lower center",
            ncols=min(len(systems) + 1, 4),
        )
        style.label(figure, f"protocol {protocol}", simulated=simulated)
    return style.Drawing(
        figure=figure,
        title=title,
        caption=_caption(shown, means, types, simulated=simulated),
        alternative=(
            f"Dot plots of the mean scores of {len(systems)} systems for {len(types)} types of "
            f"stimuli and {means['animal'].nunique()} animals, with a ceiling for each."
        ),
        section="scores",
        order=2,
    )


def _means(shown: pd.DataFrame) -> pd.DataFrame:
    """One row per system, tier, stimulus type and animal: means over neurons."""
    columns = [*METRICS, *_CEILING_OF.values()]
    # No repeatable signal found means that nothing can be predicted.
    filled = shown.fillna(dict.fromkeys(_CEILING_OF.values(), 0.0))
    keys = ["system", "tier", "stimulus_type", "animal"]
    means = filled.groupby(keys, observed=True)[columns].mean()
    known = shown.groupby(keys, observed=True)[list(_CEILING_OF.values())].count()
    means[known.columns] = means[known.columns].where(known > 0)  # a ceiling that nobody gave
    return means.reset_index()


def _parts(means: pd.DataFrame) -> dict[tuple[str, str], pd.DataFrame]:
    """What a column of panels shows, by stimulus type and tier, in their order."""
    found = {}
    for kind in style.ordered_types(means["stimulus_type"]):
        of_kind = means[means["stimulus_type"] == kind]
        for tier in ordered_tiers(of_kind):
            found[kind, tier] = of_kind[of_kind["tier"] == tier]
    return found


def _panel(
    axes: Axes,
    part: pd.DataFrame,
    metric: str,
    systems: Sequence[str],
    animals: Sequence[str],
    colours: Mapping[str, str],
) -> None:
    # Side by side, so that systems of the same score do not hide each other.
    reach = min(0.3, 0.07 * (len(systems) - 1))
    offsets = np.linspace(-reach, reach, len(systems))
    for place, animal in enumerate(animals):
        of_animal = part[part["animal"] == animal]
        ceiling = of_animal[_CEILING_OF[metric]].max()
        if np.isfinite(ceiling):
            axes.plot([place - 0.4, place + 0.4], [ceiling] * 2, color=style.INK, lw=1.0)
        for system, offset in zip(systems, offsets, strict=True):
            value = of_animal.loc[of_animal["system"] == system, metric]
            if len(value):
                axes.plot([place + offset], value, "o", ms=3.6, mfc=colours[system], mec="none")
    middle = (len(animals) - 1) / 2
    half = max(len(animals), _LEAST_WIDTH) / 2
    axes.set_xlim(middle - half, middle + half)
    axes.axhline(0, color=style.FAINT, lw=0.6, zorder=0)
    axes.margins(y=0.08)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.grid(axis="y")
    axes.tick_params(axis="x", length=0)


def _type_colour(kind: str) -> str:
    return style.STIMULUS_COLOURS.get(kind, style.INK)


def _caption(
    shown: pd.DataFrame, means: pd.DataFrame, types: Sequence[str], *, simulated: bool
) -> str:
    first = shown.iloc[0]
    tiers = ", ".join(ordered_tiers(shown))
    reliable = shown[shown["system"] == first["system"]]["reliable"].fillna(False).astype(bool)
    neurons = len(shown[["animal", "neuron_id"]].drop_duplicates())
    sentences = [
        f"Mean over the neurons of each animal (n = {neurons:,} in all), tiers {tiers}, of the "
        "ensemble of each system (or its only member). Ceiling: mean over the same neurons of the "
        "correlation that a model of the repeatable part of the responses would reach (0 for a "
        "neuron without any); what behaviour adds to a response differs between repeats, so that a "
        "model which sees behaviour may exceed it.",
        f"{int((~reliable).sum()):,} of {len(reliable):,} pairs of neuron and stimulus type are "
        "below the reliability that scores relative to a ceiling ask for; they count here.",
        f"Score unit {first['score_unit']}, {first['frame_convention']}.",
    ]
    if means[list(_CEILING_OF.values())].isna().all(axis=None):
        sentences.append("No ceiling is known: no video was repeated.")
    if simulated:
        sentences.append("The recordings are simulated.")
    return " ".join(sentences)
