"""Predicted and recorded traces of the best, median and worst neuron for one test video.

Predictions come from the prediction files, responses from the recording store in the same unit; the
neurons are picked by their score in the same tier and stimulus type.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sensorium_models.ensemble import MEMBER as ENSEMBLE
from sensorium_models.evaluation.responses import RecordedResponses, scoring_plan
from sensorium_models.evaluation.scores import METRICS
from sensorium_models.predictions import Predictions
from sensorium_models.reporting import style
from sensorium_models.reporting.boards import TIER_LABELS

MAX_REPEATS_DRAWN = 10
# Of the score rows, what an example is chosen by.
COLUMNS = ("system", "member", "animal", "tier", "stimulus_type", "neuron_id", METRICS[0])

_UNIT_LABELS = {
    "per_frame_published": "Response (s.d.)",
    "per_frame_train": "Response (s.d.)",
    "per_neuron_train": "Response (s.d.)",
    "raw": "Response (raw)",
}


@dataclass(frozen=True)
class Trace:
    """One neuron: recorded (repeats, frames), predicted by system (frames), in the score unit."""

    rank: str
    neuron_id: int
    correlation: float
    recorded: np.ndarray
    predicted: Mapping[str, np.ndarray]


def draw(
    *,
    responses: RecordedResponses,
    predictions: Mapping[str, Path],
    scores: pd.DataFrame,
    tier: str,
    frame_rate_hz: float,
    titles: Mapping[str, str],
    simulated: bool,
    left_out: Collection[int] = (),
) -> style.Drawing:
    """Three rows of traces over the scored frames of the test video with the most repeats.

    Args:
        responses: of the animal to show (`evaluation.responses.open_responses`).
        predictions: system -> its prediction file; the first system's scores rank the neurons.
        scores: the tidy scores table (one row per neuron, tier, type and member).
        tier: a test tier whose responses are public.
        titles: system -> the name that a reader knows.
        left_out: trials that are not scored because a member trained on their video.

    Where no trial of the tier was scored for this animal, the figure says so in a sentence.

    Raises:
        ValueError: no predictions were given, or the scores hold no value of what was predicted.
    """
    if not predictions:
        raise ValueError("Traces need the prediction file of at least one system; none was given.")
    first_system, first_path = next(iter(predictions.items()))
    animal = responses.animal
    place = f"animal {animal}, {TIER_LABELS.get(tier, f'tier {tier}').lower()}"
    with Predictions(first_path) as file:
        attributes = file.attributes
        title = f"Predicted and recorded responses, protocol {attributes.protocol}, {place}"
        plan = scoring_plan(file.trials(animal), responses, left_out)
        candidates = [
            (stimulus_type, repeats)
            for (scored_tier, stimulus_type), videos in plan.scored.items()
            if scored_tier == tier
            for repeats in videos.values()
        ]
        if not candidates:
            return style.explained(
                f"No traces: no trial of animal {animal} in tier {tier} was scored.",
                title=title,
                section="traces",
                text=f"protocol {attributes.protocol}, {place}",
                simulated=simulated,
            )
        stimulus_type, trials = max(candidates, key=lambda candidate: len(candidate[1]))
        frames = min(file.frames(animal, trial) for trial in trials)
        neuron_ids = file.neuron_ids(animal)
    chosen = _ranked(scores, first_system, attributes.member, animal, tier, stimulus_type)
    start = attributes.first_scored_frame
    recorded = np.stack([responses.read(trial, start, start + frames) for trial in trials])
    predicted = {
        system: _predicted(path, animal, trials, frames) for system, path in predictions.items()
    }
    column = {int(neuron): place for place, neuron in enumerate(neuron_ids)}
    traces = [
        Trace(
            rank=rank,
            neuron_id=neuron,
            correlation=correlation,
            recorded=recorded[:, :, column[neuron]],
            predicted={system: values[:, column[neuron]] for system, values in predicted.items()},
        )
        for rank, neuron, correlation in chosen.rows
    ]
    seconds = (start + np.arange(frames)) / frame_rate_hz
    return style.Drawing(
        figure=_figure(
            traces,
            seconds,
            titles,
            unit=attributes.score_unit,
            place=f"protocol {attributes.protocol}, {place}",
            simulated=simulated,
        ),
        title=title,
        caption=(
            f"Best, median and worst of n = {chosen.neurons:,} neurons of animal {animal} by the "
            f"single-trial correlation (r) of {titles.get(first_system, first_system)} "
            f"({_member_words(attributes.member)}) in tier {tier}, stimulus type {stimulus_type}. "
            f"One video, {_repeats(len(trials))}: single repeats (grey), their mean (black) and "
            "the prediction averaged over the same repeats (coloured; it differs between repeats "
            "with the animal's behaviour). Axes end at the 99.5th percentile of single repeats; "
            f"higher peaks are cut. Scored: {attributes.frame_convention}."
            + (" The recordings are simulated." if simulated else "")
        ),
        alternative=(
            "Line plots of recorded and predicted responses against time for three neurons: "
            + "; ".join(f"{t.rank.lower()}, correlation {t.correlation:.2f}" for t in traces)
            + "."
        ),
        section="traces",
    )


@dataclass(frozen=True)
class _Ranked:
    rows: list[tuple[str, int, float]]  # rank, neuron id, single-trial correlation
    neurons: int


def _ranked(
    scores: pd.DataFrame, system: str, member: str, animal: str, tier: str, stimulus_type: str
) -> _Ranked:
    rows = scores[
        (scores["system"] == system)
        & (scores["member"] == member)
        & (scores["animal"] == animal)
        & (scores["tier"] == tier)
        & (scores["stimulus_type"] == stimulus_type)
        & scores["single_trial_correlation"].notna()
    ].sort_values(["single_trial_correlation", "neuron_id"], ascending=[False, True])
    if rows.empty:
        raise ValueError(
            f"No neuron of animal {animal} has a score for {system} {member} in tier {tier}, type "
            f"{stimulus_type}; choose a tier that is scored for this animal."
        )
    # The lower one of two middle neurons, so that the median is a neuron that exists.
    places = {"Best": 0, "Median": len(rows) // 2, "Worst": len(rows) - 1}
    return _Ranked(
        rows=[
            (
                rank,
                int(rows["neuron_id"].iloc[place]),
                float(rows["single_trial_correlation"].iloc[place]),
            )
            for rank, place in places.items()
        ],
        neurons=len(rows),
    )


def shown_animal_and_tier(scores: pd.DataFrame, test_tiers: Sequence[str]) -> tuple[str, str]:
    """Which animal and tier make the example: a final test set before others, the first animal.

    Args:
        scores: the tidy scores table.
        test_tiers: tiers that only testing uses; a tier outside of them is the last resort.

    Raises:
        ValueError: the table is empty.
    """
    if scores.empty:
        raise ValueError("There are no score rows to choose an example from; score a member first.")
    scored = scores[scores["single_trial_correlation"].notna()]
    pairs = (scored if len(scored) else scores)[["tier", "animal"]].drop_duplicates().astype(str)
    tiers = list(dict.fromkeys(pairs["tier"]))
    tier = min(
        tiers,
        key=lambda name: (
            name not in test_tiers,
            not name.startswith("final_"),
            tuple(test_tiers).index(name) if name in test_tiers else tiers.index(name),
        ),
    )
    return str(pairs.loc[pairs["tier"] == tier, "animal"].min()), tier


def _predicted(path: Path, animal: str, trials: list[int], frames: int) -> np.ndarray:
    with Predictions(path) as file:
        return np.mean([file.read(animal, trial)[:frames] for trial in trials], axis=0)


def _figure(
    traces: list[Trace],
    seconds: np.ndarray,
    titles: Mapping[str, str],
    *,
    unit: str,
    place: str,
    simulated: bool,
) -> Figure:
    colours = style.colours([*titles, *traces[0].predicted])
    with style.look():
        figure = style.new_figure(height=0.75 + 1.0 * len(traces))
        panels = figure.subplots(len(traces), 1, sharex=True, squeeze=False)[:, 0]
        for axes, trace in zip(panels, traces, strict=True):
            _panel(axes, trace, seconds, colours, titles)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 5))
        panels[-1].set_xlabel("Time in trial (s)")
        figure.supylabel(_UNIT_LABELS.get(unit, f"Response ({unit})"), fontsize=7)
        style.label(figure, place, simulated=simulated)
    return figure


def _panel(
    axes: Axes,
    trace: Trace,
    seconds: np.ndarray,
    colours: Mapping[str, str],
    titles: Mapping[str, str],
) -> None:
    for index, repeat in enumerate(trace.recorded[:MAX_REPEATS_DRAWN]):
        label = "single repeats" if index == 0 else None
        axes.plot(seconds, repeat, color=style.FAINT, lw=0.5, label=label)
    mean = trace.recorded.mean(axis=0)
    axes.plot(seconds, mean, color=style.INK, lw=0.9, label="mean of repeats")
    width = 1.2 if len(trace.predicted) <= 3 else 0.8  # many thick lines hide one another
    for system, values in trace.predicted.items():
        label = titles.get(system, system)
        axes.plot(seconds, values, color=colours[system], lw=width, label=label)
    correlation = f"{trace.correlation:.2f}".replace("-", "−")
    axes.set_title(f"{trace.rank}: neuron {trace.neuron_id}, r = {correlation}")
    # A single spike of a single repeat would flatten everything else.
    shown = [mean, *trace.predicted.values()]
    top = max(
        float(np.quantile(trace.recorded, 0.995)), max(float(values.max()) for values in shown)
    )
    bottom = min(0.0, min(float(values.min()) for values in shown))
    axes.set_ylim(bottom - 0.03 * (top - bottom), top * 1.05 if top > bottom else bottom + 1.0)
    axes.set_xlim(float(seconds[0]), float(seconds[-1]))


def _member_words(member: str) -> str:
    return "ensemble" if member == ENSEMBLE else f"member {member}"


def _repeats(count: int) -> str:
    return "1 repeat" if count == 1 else f"{count} repeats"
