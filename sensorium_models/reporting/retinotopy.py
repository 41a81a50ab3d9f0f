"""Retinotopy of trained readouts: how readout positions change along the cortex.

A linear map from cortical x, y to readout x, y is fitted for each member and animal by least
squares; neighbouring cells of mouse visual cortex look at neighbouring places, so most of the
spread of positions should follow it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from sensorium_models.reporting import style
from sensorium_models.reporting.readout_positions import LookedAt, point_size, without_positions

_NAMES = ("x", "y")
_GROUPS = 15  # of neurons along the cortex, whose means make a line


@dataclass(frozen=True)
class LinearMap:
    """Least squares of readout x and y on cortical x and y.

    Attributes:
        slope: (2, 2) change of readout (row) per micrometre of cortex (column).
        explained: (2,) share of the variance of readout x and y that the map explains; NaN where
            all neurons look at one place.
    """

    slope: np.ndarray
    explained: np.ndarray


def linear_map(positions: np.ndarray, coordinates: np.ndarray) -> LinearMap:
    """Fit the map of one animal's neurons; positions (N, 2), coordinates (N, 2 or more)."""
    places = coordinates[:, :2] - coordinates[:, :2].mean(axis=0)
    looked_at = positions - positions.mean(axis=0)
    slope, *_ = np.linalg.lstsq(places, looked_at, rcond=None)
    left = ((looked_at - places @ slope) ** 2).sum(axis=0)
    total = (looked_at**2).sum(axis=0)
    # Positions that differ by rounding only are one place.
    varies = total > 1e-12 * len(positions)
    explained = np.full(2, np.nan)
    explained[varies] = 1 - left[varies] / total[varies]
    return LinearMap(slope.T, explained)


def draw(
    looked_at: Sequence[LookedAt],
    *,
    systems: Sequence[str],
    titles: Mapping[str, str],
    training_set: str,
    simulated: bool,
) -> style.Drawing:
    """Above: readout x and y along the cortex in one animal. Below: the map's fit in all animals.

    Args:
        systems: all that were looked at, in the order of the study.
    """
    title = f"Retinotopy of the readouts, training set {training_set}"
    problem = without_positions(looked_at)
    if problem:
        return style.explained(
            problem,
            title=title,
            section="readouts",
            text=f"training set {training_set}",
            simulated=simulated,
        )
    shown = [system for system in systems if any(i.system == system for i in looked_at)]
    colours = style.colours([*titles, *shown])
    first = {item.system: item for item in reversed(looked_at)}
    animals = list(dict.fromkeys(item.animal for item in looked_at))
    explained = [
        linear_map(item.positions, item.coordinates).explained
        for item in looked_at
        if item.coordinates is not None
    ]
    with style.look():
        figure = style.new_figure(height=4.2)
        above, below = figure.subplots(2, 2, height_ratios=[1.35, 1])
        for column, (axes, name) in enumerate(zip(above, _NAMES, strict=True)):
            for system in shown:
                _along_cortex(
                    axes, first[system], column, colours[system], points=system == shown[0]
                )
            axes.set_xlabel(f"Place in cortex along the gradient of readout {name} (µm)")
            axes.set_ylabel(f"Readout {name}")
            axes.set_ylim((-1.05, 1.05) if name == "x" else (1.05, -1.05))
            axes.xaxis.set_major_locator(MaxNLocator(6))
            axes.grid()
        for column, (axes, name) in enumerate(zip(below, _NAMES, strict=True)):
            _fits(axes, looked_at, explained, column, shown, animals, colours)
            axes.set_ylabel(f"Explained variance, {name}")
        figure.legend(
            handles=[
                Line2D([], [], ls="", marker="o", ms=4, color=colours[s], label=titles.get(s, s))
                for s in shown
            ],
            loc="outside lower center",
            ncols=min(len(shown), 4),
        )
        style.label(figure, f"training set {training_set}", simulated=simulated)
    counts = "; ".join(
        f"{titles.get(s, s)}: {_members(looked_at, s)}, above animal {first[s].animal}, "
        f"n = {len(first[s].positions):,} neurons"
        for s in shown
    )
    return style.Drawing(
        figure=figure,
        title=title,
        caption=(
            "Above: readout position against place in cortex, along the direction in which the "
            "fitted linear map changes most, in one animal (first member); line: means of groups "
            f"of neurons, points: single neurons of {titles.get(shown[0], shown[0])}. "
            "Below: share of the variance of readout positions that a linear map of cortical x and "
            "y explains, for each animal; dot: mean over members, line: smallest to largest. "
            f"{counts}." + (" The recordings are simulated." if simulated else "")
        ),
        alternative=(
            "Scatter plots of readout position against place in cortex, and dot plots of the "
            f"variance that a linear map explains, for {len(shown)} systems."
        ),
        section="readouts",
        order=1,
    )


def _along_cortex(axes: Axes, item: LookedAt, column: int, colour: str, *, points: bool) -> None:
    assert item.coordinates is not None
    slope = linear_map(item.positions, item.coordinates).slope[column]
    length = float(np.hypot(*slope))
    direction = slope / length if length > 0 else np.array([1.0, 0.0])
    places = (item.coordinates[:, :2] - item.coordinates[:, :2].mean(axis=0)) @ direction
    if points:  # those of several systems would hide each other
        axes.scatter(
            places,
            item.positions[:, column],
            s=point_size(len(places)),
            color=colour,
            alpha=0.35,
            linewidths=0,
            rasterized=True,
        )
    order = np.argsort(places, kind="stable")
    groups = np.array_split(order, int(np.clip(len(order) // 5, 1, _GROUPS)))
    axes.plot(
        [places[group].mean() for group in groups],
        [item.positions[group, column].mean() for group in groups],
        color=colour,
        marker="o",
        ms=2.4,
        mec="white",
        mew=0.3,
    )


def _fits(
    axes: Axes,
    looked_at: Sequence[LookedAt],
    explained: Sequence[np.ndarray],
    column: int,
    systems: Sequence[str],
    animals: Sequence[str],
    colours: Mapping[str, str],
) -> None:
    reach = min(0.3, 0.07 * (len(systems) - 1))
    offsets = np.linspace(-reach, reach, len(systems))
    for system, offset in zip(systems, offsets, strict=True):
        for place, animal in enumerate(animals):
            values = [
                shares[column]
                for item, shares in zip(looked_at, explained, strict=True)
                if (item.system, item.animal) == (system, animal)
            ]
            known = np.array([value for value in values if np.isfinite(value)])
            if len(known):
                x, colour = place + offset, colours[system]
                axes.plot([x, x], [known.min(), known.max()], color=colour, lw=1.0)
                axes.plot([x], [known.mean()], "o", ms=3.6, mfc=colour, mec="none")
    axes.set_ylim(-0.04, 1.04)
    longest = max(map(len, animals)) * len(animals)
    axes.set_xticks(range(len(animals)), animals, rotation=90 if longest > 32 else 0)
    axes.set_xlim(-0.6, len(animals) - 0.4)
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="y")


def _members(looked_at: Sequence[LookedAt], system: str) -> str:
    count = len({item.member for item in looked_at if item.system == system})
    return f"{count} member{'s' if count != 1 else ''}"
