"""One trial as it was recorded: frames of the video, behaviour, and the activity of all neurons.

After Fig. 2a of Turishcheva et al. (2024), arXiv 2407.09100; read from a recording store alone.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from sensorium_models.recordings.quality import CHANNELS
from sensorium_models.recordings.store import Recording
from sensorium_models.reporting import style

FRAMES_SHOWN = 6
_ROWS_DRAWN = 1000  # a raster with more rows than this has no more to see in print
_CHANNEL_COLOURS = dict(
    zip(
        [name for names in CHANNELS.values() for name in names],
        ("#0072B2", "#D55E00", "#009E73", "#CC79A7"),
        strict=True,
    )
)


@dataclass(frozen=True)
class ExampleTrial:
    """One trial: `video` (T, H, W), `channels` name -> (T,), `responses` (T, N) in raw units."""

    animal: str
    tier: str
    trial: int
    stimulus_type: str
    frame_rate_hz: float
    video: np.ndarray
    channels: dict[str, np.ndarray]
    responses: np.ndarray


def example(store: Path, *, tier: str) -> ExampleTrial | None:
    """The first trial of `tier` with public responses; None where there is none."""
    with Recording(store) as recording:
        trials = recording.trials
        public = [t for t in recording.trials_of([tier]) if trials.first_response_frame[t] >= 0]
        if not public:
            return None
        trial = int(public[0])
        channels = {
            name: recording.read(modality, trial)[:, column]
            for modality, names in CHANNELS.items()
            if modality in recording.modalities
            for column, name in enumerate(names)
        }
        return ExampleTrial(
            animal=recording.animal,
            tier=tier,
            trial=trial,
            stimulus_type=str(trials.stimulus_type[trial]),
            frame_rate_hz=recording.frame_rate_hz,
            video=recording.read("video", trial),
            channels=channels,
            responses=recording.read("responses", trial),
        )


def draw(shown: ExampleTrial | None, *, simulated: bool) -> style.Drawing:
    """Frames, one trace per recorded channel of behaviour, the raster, and the population mean.

    Says in a sentence that there is nothing to show where `shown` is None.
    """
    if shown is None:
        return style.explained(
            "No example: no training trial of the first animal has public responses.",
            title="One trial as recorded",
            section="recordings",
            text="one trial",
            simulated=simulated,
        )
    activity, order = ordered_activity(shown.responses)
    seconds = np.arange(len(shown.video)) / shown.frame_rate_hz
    names = list(shown.channels)
    with style.look():
        figure = style.new_figure(height=2.75 + 0.36 * len(names))
        heights = [0.5, *[0.36] * len(names), 1.25, 0.4]
        rows = list(figure.subplots(len(heights), 1, height_ratios=heights, sharex=True))
        strip = rows.pop(0)
        _draw_frames(strip, shown, seconds)
        for axes, name in zip(rows, names, strict=False):
            _draw_channel(axes, seconds, name, shown.channels[name])
        _draw_raster(rows[-2], seconds, activity)
        rows[-1].plot(seconds, activity.mean(axis=0), color=style.INK, lw=0.8)
        rows[-1].set_ylabel("Mean", rotation=0, ha="right", va="center")
        rows[-1].yaxis.set_major_locator(MaxNLocator(2))
        for axes in rows:
            axes.set_xlim(0, float(seconds[-1]))
        rows[-1].set_xlabel("Time in trial (s)")
        figure.align_ylabels([strip, *rows])
        style.label(figure, f"animal {shown.animal}, trial {shown.trial}", simulated=simulated)
    kind = style.stimulus_label(shown.stimulus_type)
    missing = [name for name in _CHANNEL_COLOURS if name not in shown.channels]
    return style.Drawing(
        figure=figure,
        title="One trial as recorded",
        caption=(
            f"Trial {shown.trial} of animal {shown.animal} (tier {shown.tier}, {kind}): frames of "
            "the video, behaviour in recorded units, and the responses of "
            f"n = {len(order):,} neurons, each divided by its standard deviation in this trial "
            "(black: 4 or more). Neurons are ordered by their weight on the first principal "
            "component, so that those that vary together lie together; below, their mean. "
            + (f"Not recorded: {', '.join(missing)}. " if missing else "")
            + "After Fig. 2a of Turishcheva et al. (2024), arXiv 2407.09100."
            + (" The recording is simulated." if simulated else "")
        ),
        alternative=(
            f"{FRAMES_SHOWN} frames of a video, traces of {', '.join(names) or 'no behaviour'}, "
            f"and a raster of {len(order):,} neurons over {seconds[-1]:.0f} seconds."
        ),
        section="recordings",
        order=-5,
    )


def ordered_activity(responses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Responses (T, N) as (N, T) in standard deviations, and the order of the neurons (N,).

    The order is that of the loadings on the first principal component of the standardised
    responses, its sign chosen so that the population mean loads positively; constant neurons load
    zero.
    """
    values = np.nan_to_num(responses.astype(np.float64))
    deviation = values.std(axis=0)
    scaled = values / np.where(deviation > 0, deviation, 1.0)
    centred = scaled - scaled.mean(axis=0)
    # The frames are fewer than the neurons, so the small matrix is the one over frames.
    _, vectors = np.linalg.eigh(centred @ centred.T)
    component = vectors[:, -1]
    component = component * (1 if component @ centred.mean(axis=1) >= 0 else -1)
    order = np.argsort(component @ centred, kind="stable")[::-1]
    return scaled[:, order].T, order


def _frames(shown: ExampleTrial) -> np.ndarray:
    """Indices of evenly spaced frames, in the middle of equal parts of the trial."""
    count = min(FRAMES_SHOWN, len(shown.video))
    return ((np.arange(count) + 0.5) * len(shown.video) / count).astype(int)


def _draw_frames(axes: Axes, shown: ExampleTrial, seconds: np.ndarray) -> None:
    """Each frame stands above its moment on the time axis that all rows share."""
    frames = _frames(shown)
    share = 0.94 / len(frames)
    for frame in frames:
        middle = seconds[frame] / seconds[-1]
        inset = axes.inset_axes((middle - share / 2, 0, share, 1))
        inset.imshow(shown.video[frame], cmap="gray", vmin=0, vmax=_white(shown.video))
        inset.set_title(f"{seconds[frame]:.1f} s", fontsize=6, fontweight="normal", loc="center")
        inset.set_axis_off()
    axes.spines[:].set_visible(False)
    axes.tick_params(bottom=False, left=False, labelleft=False)
    axes.set_ylabel("Video", rotation=0, ha="right", va="center")


def _draw_channel(axes: Axes, seconds: np.ndarray, name: str, values: np.ndarray) -> None:
    axes.plot(seconds, values, color=_CHANNEL_COLOURS[name], lw=0.9)
    words = name.split()
    half = (len(words) + 1) // 2
    label = f"{' '.join(words[:half])}\n{' '.join(words[half:])}".strip().capitalize()
    axes.set_ylabel(label, rotation=0, ha="right", va="center", color=_CHANNEL_COLOURS[name])
    axes.yaxis.set_major_locator(MaxNLocator(2))


def _draw_raster(axes: Axes, seconds: np.ndarray, activity: np.ndarray) -> None:
    neurons = len(activity)
    if neurons > _ROWS_DRAWN:  # neighbouring rows are averaged
        edges = np.linspace(0, neurons, _ROWS_DRAWN + 1).astype(int)
        activity = np.add.reduceat(activity, edges[:-1], axis=0) / np.diff(edges)[:, None]
    axes.imshow(
        activity,
        cmap="gray_r",
        vmin=0,
        vmax=4,
        aspect="auto",
        interpolation="nearest",
        extent=(0, float(seconds[-1]), neurons, 0),
        rasterized=True,
    )
    axes.set_ylabel("Neurons", rotation=0, ha="right", va="center")
    axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))


def _white(video: np.ndarray) -> float:
    return max(255.0, float(video.max()))
