"""Score tables: one row per neuron x tier x stimulus type x member, and the leaderboard over them.

From a prediction file and the recordings to moments (`score_member`), from moments to rows
(`member_scores`), from rows to one line per member, track and tier (`leaderboard`). Aggregation:
specs/metrics.md sections 2 and 4. A tier with withheld responses is never scored.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from sensorium_models import files
from sensorium_models.evaluation.correlation import (
    animal_mean,
    correlation,
    mean_over_types,
    pooled,
)
from sensorium_models.evaluation.moments import AnimalMoments, Group, GroupMoments, Moments
from sensorium_models.evaluation.responses import RecordedResponses, scoring_plan
from sensorium_models.predictions import Predictions
from sensorium_models.progress import track

METRICS = ("single_trial_correlation", "correlation_to_average")
TRACKS: Mapping[str, tuple[str, ...]] = {
    "main": ("live_test_main", "final_test_main"),
    "bonus": ("live_test_bonus", "final_test_bonus"),
    "oracle": ("oracle",),
}
# Who was scored and how; the same in every row of one member.
LABELS = ("protocol", "training_set", "system", "member", "score_unit", "frame_convention")

_TEXT = pa.dictionary(pa.int32(), pa.string())
SCHEMA = pa.schema(
    [
        *[(name, _TEXT) for name in ("protocol", "training_set", "system", "member", "animal")],
        ("neuron_id", pa.int64()),
        *[(name, _TEXT) for name in ("tier", "stimulus_type")],
        *[(name, pa.float64()) for name in METRICS],
        *[(name, pa.int64()) for name in ("trials", "videos", "frames", "trials_left_out")],
        *[(name, _TEXT) for name in ("reason", "score_unit", "frame_convention")],
    ]
)


def score_member(
    *,
    predictions: Path,
    responses: Mapping[str, RecordedResponses],
    left_out: Mapping[str, Collection[int]] | None = None,
) -> Moments:
    """Moments of all trials in a prediction file that may be scored.

    Args:
        predictions: prediction file of the member.
        responses: by animal, in the score unit of the file (`responses.open_responses`).
        left_out: by animal, trials whose video the member trained on (`splits.leaked_trials`);
            they are counted, not scored.

    Raises:
        ValueError: the file was predicted from other recordings, neurons or units, or an animal
            has no responses object.
    """
    left_out = left_out or {}
    with Predictions(predictions) as file:
        moments = Moments(asdict(file.attributes))
        for animal in file.animals:
            matching(file, animal, responses)
            moments.animals[animal] = _animal_moments(
                file, animal, responses[animal], left_out.get(animal, ())
            )
    return moments


def matching(
    file: Predictions, animal: str, responses: Mapping[str, RecordedResponses]
) -> RecordedResponses:
    """The responses that belong to an animal of a prediction file, or a sentence why none do."""
    where = f"animal {animal} in {file.path}"
    if animal not in responses:
        raise ValueError(f"no recording was given for {where}; given: {', '.join(responses)}.")
    found = responses[animal]
    if found.unit != file.attributes.score_unit:
        raise ValueError(
            f"{where} is predicted in unit {file.attributes.score_unit!r}, the responses are in "
            f"{found.unit!r}."
        )
    digest = file.attributes.recording_digests.get(animal)
    if digest != found.digest:
        raise ValueError(
            f"{where} was predicted from a recording with digest {digest}, the one given now has "
            f"{found.digest}. Predict again."
        )
    if not np.array_equal(found.neuron_ids, file.neuron_ids(animal)):
        raise ValueError(f"{where} has other neuron ids than the recording. Predict again.")
    return found


def member_scores(moments: Moments) -> pd.DataFrame:
    """Tidy rows of one member, columns as in `SCHEMA`.

    One row per neuron, tier and stimulus type. Where no trial could be scored there is one row per
    animal, tier and type instead: neuron id and values null, `reason` says why.
    """
    labels = {name: moments.attributes[name] for name in LABELS}
    return score_rows(
        labels,
        {
            animal: (content.neuron_ids, content.groups())
            for animal, content in sorted(moments.animals.items())
        },
    )


def score_rows(
    labels: Mapping[str, Any],
    animals: Mapping[str, tuple[np.ndarray, Mapping[Group, GroupMoments]]],
    weights: np.ndarray | None = None,
) -> pd.DataFrame:
    """Tidy rows from grouped moments; `weights` as in `correlation` for ensembles."""
    parts = []
    for animal, (neuron_ids, groups) in animals.items():
        for (tier, stimulus_type), group in groups.items():
            scored = group.frames > 0
            columns: dict[str, Any] = {"neuron_id": neuron_ids if scored else [pd.NA]}
            for metric, moments in zip(
                METRICS, (group.single_trial, group.repeat_average), strict=True
            ):
                columns[metric] = correlation(moments, weights) if moments.count else np.nan
            columns |= {
                "animal": animal,
                "tier": tier,
                "stimulus_type": stimulus_type,
                "trials": group.trials,
                "videos": group.videos,
                "frames": group.frames,
                "trials_left_out": group.trials_left_out,
                "reason": None if scored else _reason(group),
            }
            part = pd.DataFrame(columns)
            parts.append(part.astype({"neuron_id": "Int64", "reason": "object"}))
    if not parts:
        parts = [pd.DataFrame(columns=SCHEMA.names)]
    rows = pd.concat(parts, ignore_index=True)
    for name, value in labels.items():
        rows[name] = value
    texts = [name for name in SCHEMA.names if SCHEMA.field(name).type == _TEXT]
    return rows[SCHEMA.names].astype(dict.fromkeys(texts, "category") | {"neuron_id": "Int64"})


def write_scores(path: Path, rows: pd.DataFrame) -> None:
    """Write rows as parquet, atomically; one schema for all, so a folder reads as one table."""
    table = pa.Table.from_pandas(rows, schema=SCHEMA, preserve_index=False)
    with files.replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def track_of(tier: str) -> str:
    """Track of a tier; tiers that SENSORIUM 2023 does not have are a track of their own."""
    return next((track for track, tiers in TRACKS.items() if tier in tiers), tier)


def leaderboard(scores: pd.DataFrame) -> pd.DataFrame:
    """One row per system, member (or "ensemble") and tier, best first within a tier.

    Columns: the labels; track, tier; each metric aggregated as the paper does (neurons of all
    animals pooled within a stimulus type, then mean over types), `*_animal_mean` (within a type
    mean of animal means, then mean over types) and `*_types_pooled` (one mean over all rows);
    animals scored, stimulus types, neurons, trials, trials left out; reason where no value is.
    """
    rows = []
    keys = [*LABELS, "tier"]
    for key, part in scores.groupby(keys, observed=True, sort=False):
        labels = dict(zip(keys, map(str, key), strict=True))
        scored = part[part["neuron_id"].notna()]
        counts = part.groupby(["animal", "stimulus_type"], observed=True)[
            ["trials", "trials_left_out"]
        ].first()
        row: dict[str, Any] = {"track": track_of(labels["tier"]), **labels}
        for metric in METRICS:
            row[metric] = _by_types(scored, metric, pooled)
        for metric in METRICS:
            row[f"{metric}_animal_mean"] = _by_types(scored, metric, animal_mean)
        for metric in METRICS:
            row[f"{metric}_types_pooled"] = scored[metric].mean()
        rows.append(
            row
            | {
                "animals": " ".join(sorted(map(str, scored["animal"].unique()))),
                "stimulus_types": " ".join(sorted(map(str, scored["stimulus_type"].unique()))),
                "neurons": len(scored[["animal", "neuron_id"]].drop_duplicates()),
                **counts.sum().astype(int).to_dict(),
                "reason": None if len(scored) else "; ".join(sorted(part["reason"].unique())),
            }
        )
    if not rows:
        raise ValueError("there are no score rows to make a leaderboard of.")
    order = [tier for tiers in TRACKS.values() for tier in tiers]
    board = pd.DataFrame(rows)
    position = board["tier"].map(lambda tier: order.index(tier) if tier in order else len(order))
    return (
        board.assign(_position=position)
        .sort_values(
            ["protocol", "_position", "tier", METRICS[0], "system", "member"],
            ascending=[True, True, True, False, True, True],
        )
        .drop(columns="_position")
        .reset_index(drop=True)
    )


def _by_types(
    scored: pd.DataFrame, metric: str, aggregate: Callable[[Mapping[str, np.ndarray]], float]
) -> float:
    by_type: dict[str, dict[str, np.ndarray]] = {}
    for key, values in scored.groupby(["stimulus_type", "animal"], observed=True)[metric]:
        stimulus_type, animal = map(str, key)
        by_type.setdefault(stimulus_type, {})[animal] = values.to_numpy()
    return mean_over_types({name: aggregate(animals) for name, animals in by_type.items()})


def _reason(group: GroupMoments) -> str:
    reasons = []
    if group.trials_withheld:
        reasons.append("responses withheld")
    if group.trials_left_out:
        reasons.append("every video was trained on")
    return " or ".join(reasons)


def _animal_moments(
    file: Predictions, animal: str, responses: RecordedResponses, left_out: Collection[int]
) -> AnimalMoments:
    moments = AnimalMoments(file.neuron_ids(animal))
    plan = scoring_plan(file.trials(animal), responses, left_out)
    moments.excluded.update(plan.excluded)
    start = file.attributes.first_scored_frame
    videos = [
        (tier, stimulus_type, video, repeats)
        for (tier, stimulus_type), by_video in plan.scored.items()
        for video, repeats in by_video.items()
    ]
    for tier, stimulus_type, video, repeats in track(videos, f"score {animal}", unit="video"):
        signals = {}
        for trial in repeats:
            prediction = file.read(animal, trial)
            signals[trial] = prediction, responses.read(trial, start, start + len(prediction))
        moments.add_video(tier=tier, stimulus_type=stimulus_type, video=video, repeats=signals)
    return moments
