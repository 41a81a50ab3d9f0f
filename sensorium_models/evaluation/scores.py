"""Score tables: one row per neuron x tier x stimulus type x member, and the leaderboard over them.

From a prediction file and the recordings to moments (`score_member`), from moments to rows
(`member_scores`). A tier with withheld responses is never scored. Aggregation: `leaderboard`.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from sensorium_models import files
from sensorium_models.evaluation.ceiling import (
    CEILINGS,
    RELATIVE_SCORES,
    ceilings,
    relative_scores,
)
from sensorium_models.evaluation.ceiling_file import AnimalRepeats
from sensorium_models.evaluation.correlation import (
    correlation,
)
from sensorium_models.evaluation.moments import AnimalMoments, Group, GroupMoments, Moments
from sensorium_models.evaluation.responses import RecordedResponses, scoring_plan
from sensorium_models.predictions import Predictions
from sensorium_models.progress import track

METRICS = ("single_trial_correlation", "correlation_to_average")
# Who was scored and how; the same in every row of one member.
LABELS = ("protocol", "training_set", "system", "member", "score_unit", "frame_convention")

_TEXT = pa.dictionary(pa.int32(), pa.string())
SCHEMA = pa.schema(
    [
        *[(name, _TEXT) for name in ("protocol", "training_set", "system", "member", "animal")],
        ("neuron_id", pa.int64()),
        *[(name, _TEXT) for name in ("tier", "stimulus_type")],
        *[(name, pa.float64()) for name in (*METRICS, *RELATIVE_SCORES, *CEILINGS)],
        ("reliable", pa.bool_()),
        *[(name, pa.int64()) for name in ("trials", "videos", "frames", "trials_left_out")],
        *[(name, _TEXT) for name in ("reason", "score_unit", "frame_convention")],
    ]
)


def score_member(
    *,
    predictions: Path,
    responses: Mapping[str, RecordedResponses],
    left_out: Mapping[str, Collection[int]] | None = None,
    further: Mapping[str, Mapping[str, RecordedResponses]] | None = None,
) -> Moments:
    """Moments of all trials in a prediction file that may be scored.

    Args:
        predictions: prediction file of the member.
        responses: by animal, in the score unit of the file (`responses.open_responses`).
        left_out: by animal, trials whose video the member trained on (`splits.leaked_trials`);
            they are counted, not scored.
        further: by unit and animal, responses in other units, in which the same trials are scored
            too (`Moments.further`).

    Raises:
        ValueError: the file was predicted from other recordings, neurons or units, or an animal
            has no responses object.
    """
    left_out = left_out or {}
    with Predictions(predictions) as file:
        moments = Moments.started(asdict(file.attributes), further or {})
        for animal in file.animals:
            matching(file, animal, responses)
            others = [by_animal[animal] for by_animal in (further or {}).values()]
            found = _animal_moments(
                file, animal, responses[animal], others, left_out.get(animal, ())
            )
            for unit, content in zip(moments.in_units(), found, strict=True):
                unit.animals[animal] = content
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


def member_scores(
    moments: Moments,
    *,
    repeats: Mapping[str, AnimalRepeats] | None = None,
    reliable_variance: float = 0.0,
) -> pd.DataFrame:
    """Tidy rows of one member, columns as in `SCHEMA`.

    One row per neuron, tier and stimulus type. Where no trial could be scored there is one row per
    animal, tier and type instead: neuron id and values null, `reason` says why.

    Args:
        repeats: by animal, statistics of the same trials in the same unit; ceilings and scores
            relative to them are of the videos that this member is scored on, and null without.
        reliable_variance: a neuron is `reliable` from this explainable variance on.

    Raises:
        ValueError: the statistics lack a video or are of other neurons.
    """
    labels = {name: moments.attributes[name] for name in LABELS}
    animals, extra = {}, {}
    for animal, content in sorted(moments.animals.items()):
        groups = content.groups()
        animals[animal] = content.neuron_ids, groups
        if repeats is not None:
            extra[animal] = {
                key: _ceiling_columns(animal, content, key, repeats, reliable_variance)
                for key, group in groups.items()
                if group.frames
            }
    return score_rows(labels, animals, extra=extra)


def _ceiling_columns(
    animal: str,
    content: AnimalMoments,
    key: Group,
    repeats: Mapping[str, AnimalRepeats],
    reliable_variance: float,
) -> dict[str, np.ndarray]:
    known = repeats.get(animal)
    videos = {video for tier, kind, video in content.videos if (tier, kind) == key}
    missing = [video for video in videos if known is None or (*key, video) not in known.videos]
    if known is None or missing or not np.array_equal(known.neuron_ids, content.neuron_ids):
        raise ValueError(
            f"the ceilings of animal {animal}, tier {key[0]}, are of other neurons or videos than "
            "its scores; make them again from the same recordings."
        )
    statistics = known.group(key, videos)
    # What is compared with repeats must be of the videos that have some.
    repeated = {video for video in videos if known.videos[*key, video].videos}
    relative = relative_scores(content.group(key, repeated), statistics)
    columns = {**ceilings(statistics), **relative}
    return {**columns, "reliable": columns["explainable_variance"] >= reliable_variance}


def score_rows(
    labels: Mapping[str, Any],
    animals: Mapping[str, tuple[np.ndarray, Mapping[Group, GroupMoments]]],
    weights: np.ndarray | None = None,
    extra: Mapping[str, Mapping[Group, Mapping[str, np.ndarray]]] | None = None,
) -> pd.DataFrame:
    """Tidy rows from grouped moments; `weights` as in `correlation` for ensembles.

    `extra` holds further columns by animal and group; what nobody gives is null.
    """
    parts = []
    for animal, (neuron_ids, groups) in animals.items():
        for (tier, stimulus_type), group in groups.items():
            scored = group.frames > 0
            columns: dict[str, Any] = {"neuron_id": neuron_ids if scored else [pd.NA]}
            for metric, moments in zip(
                METRICS, (group.single_trial, group.repeat_average), strict=True
            ):
                columns[metric] = correlation(moments, weights) if moments.count else np.nan
            given = (extra or {}).get(animal, {}).get((tier, stimulus_type), {})
            columns |= {name: given.get(name, np.nan) for name in (*RELATIVE_SCORES, *CEILINGS)}
            columns["reliable"] = given.get("reliable", pd.NA)
            columns |= {
                "animal": animal,
                "tier": tier,
                "stimulus_type": stimulus_type,
                "trials": group.trials,
                "videos": group.videos,
                "frames": group.frames,
                "trials_left_out": group.trials_left_out + group.trials_fitted,
                "reason": None if scored else _reason(group),
            }
            part = pd.DataFrame(columns)
            parts.append(
                part.astype({"neuron_id": "Int64", "reason": "object", "reliable": "boolean"})
            )
    if not parts:
        parts = [pd.DataFrame(columns=SCHEMA.names)]
    rows = pd.concat(parts, ignore_index=True)
    for name, value in labels.items():
        rows[name] = value
    texts = [name for name in SCHEMA.names if SCHEMA.field(name).type == _TEXT]
    return rows[SCHEMA.names].astype(
        dict.fromkeys(texts, "category") | {"neuron_id": "Int64", "reliable": "boolean"}
    )


def write_scores(path: Path, rows: pd.DataFrame) -> None:
    """Write rows as parquet, atomically; one schema for all, so a folder reads as one table."""
    table = pa.Table.from_pandas(rows, schema=SCHEMA, preserve_index=False)
    with files.replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def _reason(group: GroupMoments) -> str:
    reasons = []
    if group.trials_withheld:
        reasons.append("responses withheld")
    if group.trials_left_out:
        reasons.append("every video was trained on")
    if group.trials_fitted:
        reasons.append("the ensemble's weights were fitted on these trials")
    return " or ".join(reasons)


def _animal_moments(
    file: Predictions,
    animal: str,
    responses: RecordedResponses,
    others: Sequence[RecordedResponses],
    left_out: Collection[int],
) -> list[AnimalMoments]:
    """In the unit of `responses`, then in those of `others`."""
    moments = [AnimalMoments(file.neuron_ids(animal)) for _ in range(1 + len(others))]
    plan = scoring_plan(file.trials(animal), responses, left_out)
    for unit in moments:
        unit.excluded.update(plan.excluded)
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
        add_in_units(moments, [responses, *others], start, (tier, stimulus_type, video), signals)
    return moments


def add_in_units(
    moments: Sequence[AnimalMoments],
    responses: Sequence[RecordedResponses],
    start: int,
    video: tuple[str, str, str],
    repeats: Mapping[int, tuple[np.ndarray, np.ndarray]],
) -> None:
    """Add a video, given in the unit of the first of `responses`, in the unit of every one.

    Args:
        moments: one for each of `responses`.
        start: absolute frame of the first scored one.
        video: tier, stimulus type and identity.
        repeats: as in `AnimalMoments.add_video`.
    """
    tier, stimulus_type, name = video
    for content, unit in zip(moments, responses, strict=True):
        factor = None
        if unit is not responses[0]:
            longest = max(len(response) for _, response in repeats.values())
            factor = responses[0].factor_to(unit, start, start + longest)
        content.add_video(
            tier=tier, stimulus_type=stimulus_type, video=name, repeats=repeats, factor=factor
        )
