"""The quality sheet of one recording: its trials, behaviour, responses and cells on one page."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from sensorium_models.recordings.quality import CHANNELS, Quality
from sensorium_models.reporting import style

SECTION = "recordings"

_FILL = "#8a8a8a"
_BINS = 50
# Names and relative widths of the panels in each row.
_PANELS: tuple[dict[str, float], ...] = (
    {"trials": 7, "lengths": 5},
    {name: 1.0 for names in CHANNELS.values() for name in names},
    {"reliability": 1, "rate": 1, "cells": 1.25},
)
_ROW_HEIGHTS = (1.15, 0.8, 1.25)


def draw(
    quality: Quality,
    *,
    unusual: Sequence[str],
    tiers: Mapping[str, str],
    order: int,
    simulated: bool,
) -> style.Drawing:
    """The sheet of one animal.

    Args:
        unusual: sentences of `recordings.unusual`.
        tiers: tier -> role, in the order in which they are shown; unused ones come last.
        order: the animal's place in the study.
    """
    with style.look():
        figure = style.new_figure(height=6.1)
        panels: dict[str, Axes] = {}
        grid = figure.add_gridspec(len(_PANELS), 1, height_ratios=_ROW_HEIGHTS)
        for number, row in enumerate(_PANELS):
            cells = grid[number].subgridspec(1, len(row), width_ratios=list(row.values()))
            panels |= {name: figure.add_subplot(cells[i]) for i, name in enumerate(row)}
        _draw_trials(panels["trials"], quality.trials, tiers)
        _draw_lengths(panels["lengths"], quality.trials)
        for modality, names in CHANNELS.items():
            for name in names:
                _draw_channel(panels[name], name, quality, modality)
        panels["pupil size"].set_ylabel("Share of frames")
        _draw_reliability(panels["reliability"], quality)
        _draw_rates(panels["rate"], quality)
        _draw_cells(figure, panels["cells"], quality)
        style.label(figure, f"animal {quality.animal}", simulated=simulated)
    return style.Drawing(
        figure=figure,
        title=f"Recording of animal {quality.animal}",
        caption=_caption(quality, unusual, simulated),
        alternative=(
            f"Bar plots of the trials of animal {quality.animal} per tier and stimulus type and of "
            "their lengths, histograms of pupil size, running speed, pupil position, reliability "
            "and mean response, and a map of its cells."
        ),
        section=SECTION,
        order=order,
    )


def _draw_trials(axes: Axes, trials: pd.DataFrame, tiers: Mapping[str, str]) -> None:
    present = [tier for tier in tiers if any(trials["tier"] == tier)]
    for row, tier in enumerate(present):
        part = trials[trials["tier"] == tier]
        left = 0
        for kind, colour in style.STIMULUS_COLOURS.items():
            count = int((part["stimulus_type"] == kind).sum())
            axes.barh(
                row,
                count,
                left=left,
                color=colour,
                height=0.7,
                alpha=0.45 if part["withheld"].all() else 1.0,
            )
            left += count
        axes.text(left, row, f" {_trial_words(part, tiers[tier])}", va="center", fontsize=6)
    axes.set_yticks(range(len(present)), present)
    axes.invert_yaxis()
    axes.set_xlabel("Trials", loc="left")
    longest = int(trials["tier"].value_counts().max())
    axes.set_xlim(0, longest * 1.75)  # room for the words behind the bars
    axes.set_xticks(
        [n for n in MaxNLocator(4, integer=True).tick_values(0, longest) if n <= longest]
    )
    axes.spines["bottom"].set_bounds(0, longest)
    axes.tick_params(axis="y", length=0)
    axes.set_title("Trials per tier")


def _trial_words(part: pd.DataFrame, role: str) -> str:
    if role == "unused":
        return f"{len(part)}, unused"
    repeats = part.groupby("video").size()
    low, high = int(repeats.min()), int(repeats.max())
    times = "" if high == 1 else f" × {low}" if low == high else f" × {low} to {high}"
    text = f"{len(part)}: {len(repeats)} video{'s' if len(repeats) > 1 else ''}{times}"
    return f"{text}, withheld" if part["withheld"].all() else text


def _draw_lengths(axes: Axes, trials: pd.DataFrame) -> None:
    types = [kind for kind in style.STIMULUS_COLOURS if kind in set(trials["stimulus_type"])]
    for row, kind in enumerate(types):
        counts = trials.loc[trials["stimulus_type"] == kind, "frames"].value_counts()
        axes.scatter(
            counts.index,
            [row] * len(counts),
            s=8 + 4 * np.sqrt(counts.to_numpy()),
            color=style.STIMULUS_COLOURS[kind],
            alpha=0.8,
            linewidths=0,
        )
    axes.set_yticks(range(len(types)), [style.stimulus_label(kind) for kind in types])
    for label, kind in zip(axes.get_yticklabels(), types, strict=True):
        label.set(
            color=style.STIMULUS_COLOURS[kind], fontweight="bold"
        )  # the key to the bars beside
    axes.set_ylim(len(types) - 0.5, -0.5)
    low, high = int(trials["frames"].min()), int(trials["frames"].max())
    room = max(0.08 * (high - low), 5)
    axes.set_xlim(low - room, high + room)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_xlabel("Frames per trial")
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    axes.set_title("Trial lengths")


def _draw_channel(axes: Axes, name: str, quality: Quality, modality: str) -> None:
    axes.set_title(name.capitalize())
    values = quality.channels.get(name, np.zeros(0))
    values = values[np.isfinite(values)]
    if not len(values):
        _say(axes, "not recorded")
        return
    low, high = np.quantile(values, [0.0005, 0.9995])
    if low == high:
        low, high = low - 0.5, high + 0.5
    shown = np.clip(values, low, high)
    weights = np.full(len(shown), 1 / len(shown))
    axes.hist(shown, bins=_BINS, range=(low, high), weights=weights, color=_FILL)
    if name == "running speed":
        axes.set_yscale("log")
    axes.axvline(float(np.median(values)), color=style.INK, lw=0.8)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    if name != "running speed":
        axes.yaxis.set_major_locator(MaxNLocator(3))
    axes.set_xlabel("pixels of the eye camera" if modality == "pupil_center" else "recorded units")


def _draw_reliability(axes: Axes, quality: Quality) -> None:
    axes.set_title("Response reliability")
    axes.set_xlabel("Correlation with the other repeats")
    if quality.reliability is None or not np.isfinite(quality.reliability).any():
        _say(axes, "no repeated video")
        return
    known = quality.reliability[np.isfinite(quality.reliability)]
    axes.hist(known, bins=_bins(known), color=_FILL)
    median = float(np.median(known))
    axes.axvline(median, color=style.INK, lw=0.8)
    axes.text(0.98, 0.95, f"median {median:.2f}", ha="right", va="top", transform=axes.transAxes)
    axes.set_ylabel("Neurons")
    axes.set_ylim(0, axes.get_ylim()[1] * 1.15)  # room for the words
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))


def _draw_rates(axes: Axes, quality: Quality) -> None:
    axes.set_title("Mean response")
    axes.set_xlabel("Recorded units (log scale)")
    axes.set_ylabel("Neurons")
    positive = quality.mean_response[quality.mean_response > 0]
    if not len(positive):
        _say(axes, "no neuron responded")
        return
    low, high = positive.min() / 1.1, positive.max() * 1.1
    axes.hist(positive, bins=list(np.geomspace(low, high, _bins(positive) + 1)), color=_FILL)
    axes.set_xscale("log")
    steps = (1.0,) if high > 100 * low else (1.0, 2.0, 5.0)
    axes.xaxis.set_major_locator(LogLocator(subs=steps, numticks=8))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))


def _draw_cells(figure: Figure, axes: Axes, quality: Quality) -> None:
    axes.set_title("Cells in cortex")
    if quality.coordinates is None:
        _say(axes, "positions unknown")
        return
    if quality.reliability is None:
        colour, name = quality.coordinates[:, 2], "Depth (µm)"
    else:
        colour, name = quality.reliability, "Reliability"
    order = np.argsort(np.nan_to_num(colour, nan=-np.inf))  # the most reliable cells on top
    points = axes.scatter(
        quality.coordinates[order, 0],
        quality.coordinates[order, 1],
        c=colour[order],
        s=float(np.clip(4000 / quality.neurons, 0.8, 12)),
        cmap=colormaps["viridis"].with_extremes(bad=style.FAINT),
        linewidths=0,
        plotnonfinite=True,
        rasterized=True,  # thousands of points would make the PDF slow
    )
    x, y = quality.coordinates[:, 0], quality.coordinates[:, 1]
    half = 0.54 * max(np.ptp(x), np.ptp(y), 50.0)
    axes.set_xlim(*(x.min() + np.ptp(x) / 2 + np.array([-half, half])))
    axes.set_ylim(*(y.min() + np.ptp(y) / 2 + np.array([-half, half])))
    axes.set_aspect("equal")
    axes.set_xlabel("x (µm)")
    axes.set_ylabel("y (µm)")
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    bar = figure.colorbar(points, ax=axes, shrink=0.8, aspect=15)
    bar.set_label(name)
    bar.outline.set_visible(False)
    bar.locator = MaxNLocator(4)


def _bins(values: np.ndarray) -> int:
    """About the square root of how many there are, at most `_BINS`."""
    return int(np.clip(1.5 * np.sqrt(len(values)), 8, _BINS))


def _say(axes: Axes, sentence: str) -> None:
    axes.text(0.5, 0.5, sentence, ha="center", va="center", color=style.MUTED)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)


def _caption(quality: Quality, unusual: Sequence[str], simulated: bool) -> str:
    trials = quality.trials
    minutes = trials["frames"].sum() / quality.frame_rate_hz / 60
    lengths = f"{trials['frames'].min()} to {trials['frames'].max()}"
    facts = [
        f"{quality.neurons:,} neurons, {len(trials):,} trials, {minutes:.0f} minutes at "
        f"{quality.frame_rate_hz:g} Hz. Trials per tier, coloured as the stimulus types beside, "
        "with the number of videos and their repeats (pale: responses withheld). Dots of trial "
        f"lengths grow with the number of trials; {lengths} frames are valid in all arrays"
        + (
            f", the archive pads every trial to {quality.padded_frames} with NaN. "
            if quality.padded_frames
            else ". "
        )
        + "Behaviour: all frames of all trials, the outermost 0.05 % drawn at the edges; line: "
        "median."
    ]
    if quality.reliability is not None:
        known = quality.reliability[np.isfinite(quality.reliability)]
        facts.append(
            "Reliability: correlation of single repeats with the mean of the other repeats, scored "
            f"frames in the score unit, {quality.reliability_trials} trials of repeated videos "
            f"({quality.reliability_videos}), n = {len(known):,} neurons (grey cells: undefined)."
        )
    if quality.coordinates is not None:
        depths = quality.coordinates[:, 2]
        facts.append(f"Cells lie {depths.min():.0f} to {depths.max():.0f} µm deep.")
    facts.append(f"Unusual: {' '.join(unusual)}" if unusual else "Nothing unusual was found.")
    if simulated:
        facts.append("The recording is simulated.")
    return " ".join(facts)
