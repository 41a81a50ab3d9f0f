"""Where the neurons of a trained network look, on the map of the cortex that they were found in.

Positions are read from a member's weights alone, without its network: the Gaussian readout of Lurz
et al. (2021, ICLR) has them as a parameter or computes them from cortical coordinates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import Collection
from matplotlib.ticker import MaxNLocator
from safetensors import safe_open

from sensorium_models.recordings.store import Recording
from sensorium_models.reporting import style

COLOURS = "viridis"
_DENSE = 1500  # cells
_HEXAGONS = 36  # across a panel


@dataclass(frozen=True)
class LookedAt:
    """Positions of one member's neurons of one animal.

    Attributes:
        positions: (N, 2) x, y on the feature map, -1 and 1 at the centres of its outermost pixels,
            y downwards.
        coordinates: (N, 3) micrometres in cortex, in the same order; None where unknown.
    """

    system: str
    member: str
    animal: str
    positions: np.ndarray
    coordinates: np.ndarray | None


def read_positions(weights: Path, animal: str) -> np.ndarray | None:
    """Position (x, y) of every neuron of an animal, (N, 2) in [-1, 1]; None without a Gaussian one.

    The same numbers as `GaussianReadout.mean_positions` in evaluation: a clamped parameter, or tanh
    of a network of two layers (ELU between them) on the cortical coordinates.
    """
    prefix = f"readouts.{animal}."
    with safe_open(weights, framework="numpy") as file:
        present = set(file.keys())

        def tensor(name: str) -> np.ndarray:
            return np.asarray(file.get_tensor(prefix + name), dtype=np.float64)

        if prefix + "mu" in present:
            return tensor("mu").clip(-1, 1)
        if prefix + "position_network.0.weight" not in present:
            return None
        hidden = tensor("source_grid") @ tensor("position_network.0.weight").T
        hidden += tensor("position_network.0.bias")
        hidden = np.where(hidden > 0, hidden, np.expm1(np.minimum(hidden, 0)))
        output = hidden @ tensor("position_network.2.weight").T
        return np.tanh(output + tensor("position_network.2.bias"))


def gather(
    members: Mapping[str, Mapping[str, Path]], recordings: Mapping[str, Path]
) -> list[LookedAt]:
    """Positions of every member for every animal that it has a readout for.

    Args:
        members: system -> member -> its weights.
        recordings: animal -> store, for the cortical coordinates.
    """
    coordinates = {}
    for animal, store in recordings.items():
        with Recording(store) as recording:
            coordinates[animal] = recording.coordinates
    found = []
    for system, weights in members.items():
        for member, path in weights.items():
            for animal, places in coordinates.items():
                positions = read_positions(path, animal)
                if positions is not None:
                    found.append(LookedAt(system, member, animal, positions, places))
    return found


def draw(
    looked_at: Sequence[LookedAt],
    *,
    systems: Sequence[str],
    titles: Mapping[str, str],
    training_set: str,
    simulated: bool,
) -> style.Drawing:
    """One row per system: the cortex coloured by either coordinate, and the feature map itself.

    Shown are the first member and the first animal of each system.

    Args:
        systems: all that were looked at, also those without positions, which the caption names.
    """
    title = f"Learned readout positions, training set {training_set}"
    first = {item.system: item for item in reversed(looked_at)}
    shown = [first[system] for system in systems if system in first]
    problem = without_positions(shown)
    if problem:
        return style.explained(
            problem,
            title=title,
            section="readouts",
            text=f"training set {training_set}",
            simulated=simulated,
        )
    with style.look():
        figure = style.new_figure(height=0.35 + 1.8 * len(shown))
        grid = figure.subplots(len(shown), 3, squeeze=False, width_ratios=[1.16, 1.16, 1.5])
        for row, item in zip(grid, shown, strict=True):
            assert item.coordinates is not None
            for axes, column, name in zip(row, (0, 1), ("x", "y"), strict=False):
                points = _cortex(axes, item.coordinates, item.positions[:, column])
                # As high as the map with its equal sides, not as the room given to it.
                bar = figure.colorbar(points, cax=axes.inset_axes((1.04, 0.0, 0.05, 0.92)))
                bar.set_label(f"Readout {name}", labelpad=1)
                bar.outline.set_visible(False)
                bar.locator = MaxNLocator(4)
            row[1].set_ylabel("")
            _feature_map(row[2], item)
            row[0].set_title(f"{titles.get(item.system, item.system)}, animal {item.animal}")
        style.label(figure, f"training set {training_set}", simulated=simulated)
    without = [titles.get(s, s) for s in systems if s not in first]
    return style.Drawing(
        figure=figure,
        title=title,
        caption=(
            "Where each neuron reads the feature map, x to the right and y downwards, -1 and 1 at "
            "its edges. Left and middle: cells at their place in cortex, coloured by the readout's "
            "x and y. Right: the same positions on the feature map, coloured by the cells' x in "
            f"cortex. Of more than {_DENSE:,} cells, hexagons show the mean. "
            + "; ".join(
                f"{titles.get(i.system, i.system)}: member {i.member}, n = {len(i.positions):,}"
                for i in shown
            )
            + " neurons."
            + (f" Without positions in their readouts: {', '.join(without)}." if without else "")
            + (" The recordings are simulated." if simulated else "")
        ),
        alternative=f"Maps of cells in cortex coloured by readout position, {len(shown)} systems.",
        section="readouts",
    )


def without_positions(shown: Sequence[LookedAt]) -> str:
    """Why no map can be drawn, as a sentence; "" if it can."""
    if not shown:
        return "No positions: no readout of this training set looks at places of a feature map."
    if any(item.coordinates is None for item in shown):
        return "No map: the recordings do not say where in cortex the cells lie."
    return ""


def point_size(count: int) -> float:
    """Area of a dot, in points squared, with which `count` of them fill a small panel."""
    return float(np.clip(2500 / max(count, 1), 0.5, 9))


def _coloured(axes: Axes, x: np.ndarray, y: np.ndarray, values: np.ndarray) -> Collection:
    """A dot per cell or, where these would cover each other, the mean of the cells in a hexagon."""
    if len(values) > _DENSE:
        return axes.hexbin(
            x, y, C=values, gridsize=_HEXAGONS, mincnt=1, cmap=COLOURS, linewidths=0.1
        )
    return axes.scatter(x, y, c=values, s=point_size(len(values)), cmap=COLOURS, linewidths=0)


def _cortex(axes: Axes, coordinates: np.ndarray, values: np.ndarray) -> Collection:
    x, y = coordinates[:, 0], coordinates[:, 1]
    points = _coloured(axes, x, y, values)
    half = 0.54 * max(np.ptp(x), np.ptp(y), 50.0)
    axes.set_xlim(x.min() + np.ptp(x) / 2 - half, x.min() + np.ptp(x) / 2 + half)
    axes.set_ylim(y.min() + np.ptp(y) / 2 - half, y.min() + np.ptp(y) / 2 + half)
    axes.set_aspect("equal")
    axes.set_xlabel("Cortex x (µm)")
    axes.set_ylabel("Cortex y (µm)")
    axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.yaxis.set_major_locator(MaxNLocator(3))
    return points


def _feature_map(axes: Axes, item: LookedAt) -> None:
    assert item.coordinates is not None
    _coloured(axes, item.positions[:, 0], item.positions[:, 1], item.coordinates[:, 0])
    axes.set_xlim(-1.05, 1.05)
    axes.set_ylim(1.05, -1.05)
    axes.set_xticks([-1, 0, 1])
    axes.set_yticks([-1, 0, 1])
    axes.set_xlabel("Readout x")
    axes.set_ylabel("Readout y", labelpad=0)
    axes.spines[:].set_visible(True)
    axes.set_box_aspect(36 / 64)  # the shape of the frame
