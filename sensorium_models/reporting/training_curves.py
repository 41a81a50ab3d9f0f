"""Training curves: loss, objective and learning rate against epoch, one line per member.

Read from the `history.csv` that training writes beside each member (one row per epoch).
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from sensorium_models.reporting import style

REQUIRED_COLUMNS = ("epoch", "learning_rate", "train_loss", "objective", "best")

_PANELS = (
    ("train_loss", "Training loss"),
    ("objective", "Objective"),
    ("learning_rate", "Learning rate"),
)


def draw(
    histories: Mapping[str, Mapping[str, Path | pd.DataFrame]],
    *,
    titles: Mapping[str, str],
    training_set: str,
    simulated: bool,
) -> style.Drawing:
    """One row of panels per system, one line per member; a dot marks the epoch that was kept.

    Args:
        histories: system -> member -> `history.csv` or its content.
        titles: system -> the name that a reader knows.
        training_set: what the members learned from; stated in the caption.

    Raises:
        ValueError: no history at all, or one without a needed column or without rows.
    """
    loaded = {
        system: {member: _history(source, system, member) for member, source in members.items()}
        for system, members in histories.items()
        if members
    }
    if not loaded:
        raise ValueError("Training curves need the history of at least one member; none was given.")
    order = [*titles, *loaded]
    loaded = dict(sorted(loaded.items(), key=lambda item: order.index(item[0])))
    colours = style.colours(order)
    with style.look():
        figure = style.new_figure(height=0.35 + 1.25 * len(loaded))
        grid = figure.subplots(len(loaded), len(_PANELS), squeeze=False, sharex="row")
        for row, (system, members) in zip(grid, loaded.items(), strict=True):
            for axes, (column, label) in zip(row, _PANELS, strict=True):
                _panel(axes, members, column, colours[system])
                axes.set_ylabel(label)
            row[0].set_title(titles.get(system, system), color=colours[system])
        for axes in grid[-1]:
            axes.set_xlabel("Epoch")
        style.label(figure, f"training set {training_set}", simulated=simulated)
    counts = "; ".join(
        f"{titles.get(system, system)}: {_members(len(members))}, {_epochs(members)}"
        for system, members in loaded.items()
    )
    return style.Drawing(
        figure=figure,
        title=f"Training curves, training set {training_set}",
        caption=(
            "Training loss, objective (mean single-trial correlation on the trials that select the "
            "best epoch) and learning rate against epoch (0: before training). One line per "
            "member; the dot marks the epoch whose weights were kept. Losses of different systems "
            f"are not comparable. {counts}."
        ),
        alternative=(
            f"Line plots of loss, objective and learning rate over epochs, {len(loaded)} systems."
        ),
        section="training",
    )


def kept_epoch(history: pd.DataFrame) -> int:
    """Row position of the epoch whose weights the member has: the first to reach the final best.

    An objective that is higher by less than the schedule's tolerance is no new best, so this is not
    always the highest one.

    Raises:
        ValueError: no epoch reached it; the history is not one that training wrote.
    """
    reached = np.flatnonzero(history["objective"] >= history["best"].iloc[-1])
    if not len(reached):
        raise ValueError(
            "No epoch of the history reaches its best objective; train the member again."
        )
    return int(reached[0])


def _history(source: Path | pd.DataFrame, system: str, member: str) -> pd.DataFrame:
    history = source if isinstance(source, pd.DataFrame) else pd.read_csv(source)
    where = f"The history of {system} {member}"
    where += f" ({source})" if isinstance(source, Path) else ""
    missing = [name for name in REQUIRED_COLUMNS if name not in history.columns]
    if missing:
        raise ValueError(f"{where} lacks the column {missing[0]}; train that member again.")
    if history.empty:
        raise ValueError(f"{where} has no rows; train that member again.")
    return history


def _panel(axes: Axes, members: Mapping[str, pd.DataFrame], column: str, colour: str) -> None:
    opacity = 0.9 if len(members) <= 3 else 0.55
    for history in members.values():
        drawn = "steps-post" if column == "learning_rate" else "default"
        axes.plot(
            history["epoch"], history[column], color=colour, lw=0.8, alpha=opacity, drawstyle=drawn
        )
        if column == "objective":
            best = history.iloc[kept_epoch(history)]
            axes.plot(
                [best["epoch"]],
                [best["objective"]],
                "o",
                ms=3,
                mfc=colour,
                mec="white",
                mew=0.5,
                zorder=3,
                clip_on=False,
            )
    if column == "learning_rate":
        axes.set_yscale("log")
        rates = pd.concat([history[column] for history in members.values()]).astype(float)
        axes.set_ylim(rates.min() / 1.6, rates.max() * 1.6)
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=6))
        axes.yaxis.set_major_formatter(_plain)
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.margins(x=0.02)
    axes.grid(axis="y")


def _plain(value: float, _position: float) -> str:
    return f"{value:g}"


def _members(count: int) -> str:
    return "1 member" if count == 1 else f"{count} members"


def _epochs(members: Mapping[str, pd.DataFrame]) -> str:
    lengths = [int(history["epoch"].max()) for history in members.values()]
    low, high = min(lengths), max(lengths)
    return f"{low} epochs" if low == high else f"{low} to {high} epochs"
