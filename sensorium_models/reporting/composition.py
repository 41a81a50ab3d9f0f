"""What each recording is made of: minutes per tier and stimulus type, one row per animal.

After Fig. 2c of Turishcheva et al. (2024), arXiv 2407.09100; read from the recording stores alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
from matplotlib import colors
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from sensorium_models.recordings.store import Recording
from sensorium_models.reporting import style

TIER_LABELS = {
    "train": "train",
    "oracle": "oracle",
    "live_test_main": "live\nmain",
    "live_test_bonus": "live\nbonus",
    "final_test_main": "final\nmain",
    "final_test_bonus": "final\nbonus",
}
_CHARACTER_INCHES = 0.062  # of the counts in the bars
_BAR = 0.66
_GAP = 0.045  # between two tiers, share of all minutes


@dataclass(frozen=True)
class Composition:
    """The trials of one recording: tier, stimulus_type, frames, withheld; one row each."""

    animal: str
    neurons: int
    frame_rate_hz: float
    trials: pd.DataFrame

    @classmethod
    def read(cls, store: Path) -> Self:
        """From a recording store; reads no video and no response."""
        with Recording(store) as recording:
            trials = recording.trials
            return cls(
                animal=recording.animal,
                neurons=recording.neurons,
                frame_rate_hz=recording.frame_rate_hz,
                trials=pd.DataFrame(
                    {
                        "tier": trials.tier,
                        "stimulus_type": trials.stimulus_type,
                        "frames": trials.frames,
                        "withheld": trials.first_response_frame < 0,
                    }
                ),
            )


def draw(
    recordings: Sequence[Composition], *, tiers: Mapping[str, str], simulated: bool
) -> style.Drawing:
    """One row of bars per animal, one column per tier, on one scale of minutes.

    Args:
        recordings: in the order of the rows.
        tiers: tier -> role, in the order of the columns; those that serve nothing are left out.

    Raises:
        ValueError: no recording, or none with a trial in any of the tiers.
    """
    shown = [tier for tier, role in tiers.items() if role != "unused"]
    minutes = _minutes(recordings, shown)
    if minutes.empty:
        raise ValueError(
            "There is nothing to compose: no recording was given, or none has a trial in the tiers "
            f"{', '.join(shown)}."
        )
    columns = minutes.groupby(["tier", "animal"])["minutes"].sum().groupby("tier").max()
    shown = [tier for tier in shown if tier in columns.index]
    total = float(columns.sum())
    starts, left = {}, 0.0
    for tier in shown:
        starts[tier] = left
        left += float(columns[tier]) + _GAP * total
    types = style.ordered_types(minutes["stimulus_type"])
    with style.look():
        figure = style.new_figure(height=1.3 + 0.27 * len(recordings))
        axes = figure.subplots()
        per_inch = left / (0.88 * style.TWO_COLUMNS_INCHES)
        for row, recording in enumerate(recordings):
            part = minutes[minutes["animal"] == recording.animal]
            for tier in shown:
                _draw_cell(axes, part[part["tier"] == tier], starts[tier], row, types, per_inch)
        _finish(axes, recordings, shown, starts, columns, left - _GAP * total)
        handles = [Patch(fc=_colour(t), label=style.stimulus_label(t)) for t in types]
        if minutes["withheld"].any():
            handles.append(
                Patch(fc="#eeeeee", ec=style.MUTED, hatch="xxx", lw=0.0, label="responses withheld")
            )
        figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 4))
        style.label(figure, f"{len(recordings)} recordings", simulated=simulated)
    return style.Drawing(
        figure=figure,
        title="Composition of the recordings",
        caption=_caption(recordings, minutes, simulated=simulated),
        alternative=(
            f"Stacked bars of minutes per tier and stimulus type for {len(recordings)} animals; "
            "the quality sheets hold the same counts."
        ),
        section="recordings",
        order=-3,
    )


def _minutes(recordings: Sequence[Composition], tiers: Sequence[str]) -> pd.DataFrame:
    """One row per animal, tier and stimulus type: trials, minutes, withheld."""
    parts = []
    for recording in recordings:
        trials = recording.trials[recording.trials["tier"].isin(list(tiers))]
        grouped = trials.groupby(["tier", "stimulus_type"], sort=False)
        part = grouped.agg(
            trials=("frames", "size"), frames=("frames", "sum"), withheld=("withheld", "all")
        ).reset_index()
        part["minutes"] = part["frames"] / recording.frame_rate_hz / 60
        parts.append(part.assign(animal=recording.animal))
    columns = ["tier", "stimulus_type", "trials", "frames", "withheld", "minutes", "animal"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def _draw_cell(
    axes: Axes, cell: pd.DataFrame, start: float, row: int, types: Sequence[str], per_inch: float
) -> None:
    left = start
    for kind in types:
        for found in cell[cell["stimulus_type"] == kind].to_dict(orient="records"):
            width, colour = float(found["minutes"]), _colour(kind)
            withheld = bool(found["withheld"])
            axes.barh(
                row,
                width,
                left=left,
                height=_BAR,
                color=_pale(colour) if withheld else colour,
                ec="white",
                lw=0.6,
            )
            if withheld:
                for low, high in ((-0.5, 0.5), (0.5, -0.5)):
                    axes.plot(
                        [left, left + width],
                        [row + low * _BAR, row + high * _BAR],
                        color=colour,
                        lw=0.7,
                        solid_capstyle="butt",
                    )
            text = str(found["trials"])
            if width / per_inch > _CHARACTER_INCHES * len(text):
                axes.text(
                    left + width / 2,
                    row,
                    text,
                    ha="center",
                    va="center_baseline",
                    fontsize=6,
                    color=style.INK if withheld or _is_light(colour) else "white",
                    bbox={"fc": _pale(colour), "ec": "none", "pad": 0.6} if withheld else None,
                )
            left += width


def _finish(
    axes: Axes,
    recordings: Sequence[Composition],
    tiers: Sequence[str],
    starts: Mapping[str, float],
    columns: pd.Series,
    end: float,
) -> None:
    axes.set_yticks(
        range(len(recordings)), [f"{r.animal}  ({r.neurons:,} neurons)" for r in recordings]
    )
    axes.set_ylim(len(recordings) - 0.5, -0.5)
    axes.set_xlim(-0.004 * end, end)
    axes.tick_params(axis="both", length=0)
    axes.spines[:].set_visible(False)
    axes.set_xticks(
        [starts[tier] for tier in tiers],
        [TIER_LABELS.get(tier, tier.replace("_", "\n")) for tier in tiers],
        ha="left",
        fontweight="bold",
    )
    axes.xaxis.tick_top()
    # A scale bar: the columns share one scale but no axis.
    longest = next(m for m in (10, 5, 2, 1, 0.5, 0.2, 0.1, 0.01) if m < columns.max())
    place = len(recordings) - 0.4
    axes.plot(
        [0, longest], [place, place], color=style.INK, lw=1.2, clip_on=False, solid_capstyle="butt"
    )
    axes.text(
        longest + 0.008 * end, place, f"{longest:g} min", va="center", fontsize=6, clip_on=False
    )


def _colour(kind: str) -> str:
    return style.STIMULUS_COLOURS.get(kind, style.STIMULUS_COLOURS["unknown"])


def _pale(colour: str) -> tuple[float, ...]:
    return tuple(1 - 0.2 * (1 - part) for part in colors.to_rgb(colour))


def _is_light(colour: str) -> bool:
    return float(np.dot(colors.to_rgb(colour), (0.299, 0.587, 0.114))) > 0.55


def _caption(recordings: Sequence[Composition], minutes: pd.DataFrame, *, simulated: bool) -> str:
    neurons = sum(recording.neurons for recording in recordings)
    sentences = [
        f"Minutes of video per tier in each of {len(recordings)} recordings "
        f"({neurons:,} neurons), coloured by the type of the stimulus; numbers count trials, "
        "repeats included."
    ]
    if minutes["withheld"].any():
        sentences.append("Crossed: the publisher withholds the responses of these test trials.")
    sentences.append("After Fig. 2c of Turishcheva et al. (2024), arXiv 2407.09100.")
    if simulated:
        sentences.append("The recordings are simulated.")
    return " ".join(sentences)
