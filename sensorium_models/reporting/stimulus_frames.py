"""Frames of every type of stimulus in a study, one row per type.

After Fig. 2b of Turishcheva et al. (2024), arXiv 2407.09100; read from the recording stores alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sensorium_models.recordings.store import Recording
from sensorium_models.reporting import style

FRAMES_SHOWN = 6
UNKNOWN = "unknown"


@dataclass(frozen=True)
class StimulusFrames:
    """Some frames of one video: `frames` (F, H, W) of any grey levels, at `seconds` (F,)."""

    stimulus_type: str
    animal: str
    tier: str
    trial: int
    frames: np.ndarray
    seconds: np.ndarray


def gather(stores: Sequence[Path], *, tiers: Sequence[str]) -> list[StimulusFrames]:
    """The first video of every type that any trial of `tiers` shows, in the order of the types.

    The first store that has a type serves; of a video, a frame with much contrast in each of
    `FRAMES_SHOWN` equal parts, since some types pause on grey.
    """
    found: dict[str, StimulusFrames] = {}
    for store in stores:
        with Recording(store) as recording:
            trials = recording.trials
            for trial in recording.trials_of(tiers):
                kind = str(trials.stimulus_type[trial])
                if kind == UNKNOWN or kind in found:
                    continue
                video = recording.read("video", int(trial))
                places = _contrasted(video)
                found[kind] = StimulusFrames(
                    stimulus_type=kind,
                    animal=recording.animal,
                    tier=str(trials.tier[trial]),
                    trial=int(trial),
                    frames=video[places],
                    seconds=places / recording.frame_rate_hz,
                )
    return [found[kind] for kind in style.ordered_types(found)]


def draw(shown: Sequence[StimulusFrames], *, simulated: bool) -> style.Drawing:
    """One row of frames per type; says in a sentence where no trial has a known type."""
    title = "Types of stimuli"
    if not shown:
        return style.explained(
            "No frames: no trial of this study has a known type of stimulus.",
            title=title,
            section="recordings",
            text="stimuli",
            simulated=simulated,
        )
    height, width = shown[0].frames.shape[1:]
    row_inches = (style.TWO_COLUMNS_INCHES - 1.0) / FRAMES_SHOWN * height / width
    with style.look():
        figure = style.new_figure(height=0.45 + (row_inches + 0.17) * len(shown))
        grid = figure.subplots(len(shown), FRAMES_SHOWN, squeeze=False)
        for row, stimulus in zip(grid, shown, strict=True):
            for axes in row:
                axes.set_axis_off()
            for axes, frame, second in zip(row, stimulus.frames, stimulus.seconds, strict=False):
                # The scale of the release, whatever the frames hold: types differ in contrast.
                axes.imshow(frame, cmap="gray", vmin=0, vmax=_white(shown), aspect="equal")
                axes.set_title(f"{second:.1f} s", fontsize=6, fontweight="normal", pad=1.5)
            row[0].text(
                -0.06,
                0.5,
                _two_lines(style.stimulus_label(stimulus.stimulus_type)),
                transform=row[0].transAxes,
                ha="right",
                va="center",
                fontweight="bold",
                color=style.STIMULUS_COLOURS.get(stimulus.stimulus_type, style.INK),
            )
        style.label(figure, f"{len(shown)} types of stimuli", simulated=simulated)
    places = "; ".join(
        f"{style.stimulus_label(s.stimulus_type)}: animal {s.animal}, tier {s.tier}, "
        f"trial {s.trial}"
        for s in shown
    )
    return style.Drawing(
        figure=figure,
        title=title,
        caption=(
            f"Frames of one video of each type, {width} × {height} pixels, with their time in the "
            f"trial: in each of {FRAMES_SHOWN} equal parts of the video a frame with much "
            f"contrast. {places}. After Fig. 2b of Turishcheva et al. (2024), arXiv 2407.09100."
            + (" The recordings are simulated." if simulated else "")
        ),
        alternative=(
            "Example frames of "
            + ", ".join(style.stimulus_label(s.stimulus_type) for s in shown)
            + "."
        ),
        section="recordings",
        order=-4,
    )


def _contrasted(video: np.ndarray) -> np.ndarray:
    """Index of the frame with the largest standard deviation in each equal part of (T, H, W)."""
    contrast = video.reshape(len(video), -1).astype(np.float32).std(axis=1)
    parts = np.array_split(np.arange(len(video)), min(FRAMES_SHOWN, len(video)))
    # Away from the ends of a part, lest neighbours show the same moment.
    middles = [part[len(part) // 5 : max(len(part) - len(part) // 5, 1)] for part in parts]
    return np.array([middle[contrast[middle].argmax()] for middle in middles])


def _white(shown: Sequence[StimulusFrames]) -> float:
    return max(255.0, *(float(stimulus.frames.max()) for stimulus in shown))


def _two_lines(text: str) -> str:
    return text.replace(" ", "\n", 1)
