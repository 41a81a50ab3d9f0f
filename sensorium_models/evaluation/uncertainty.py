"""Intervals of every system's scores, and differences between systems on the same resamples.

Reads the stored moments of members and ensembles, one tier of one animal at a time, so memory is
that of a few videos whatever the size of the study. The bootstrap itself: `bootstrap`.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from sensorium_models import files
from sensorium_models.evaluation.bootstrap import Draws, ResampledScore, summed_correlations
from sensorium_models.evaluation.moments_file import MomentsIndex, read_index, read_tier
from sensorium_models.evaluation.scores import METRICS
from sensorium_models.progress import track

Estimate = Literal["ensemble", "members"]
ESTIMATES: tuple[Estimate, ...] = ("ensemble", "members")
NO_VIDEO = "no video that all of them are scored on"

_TEXTS = ["protocol", "tier", "metric", "estimate", "score_unit", "frame_convention"]
_COUNTS = ["degrees_of_freedom", "resamples", "animals", "videos", "neurons"]
_SHARED = [
    "standard_error",
    "lower",
    "upper",
    "level",
    "resampled",
    *_COUNTS,
    "reason",
]
INTERVAL_COLUMNS = [*_TEXTS, "system", "members", "score", "members_sd", *_SHARED]
COMPARISON_COLUMNS = [*_TEXTS, "system", "other", "score", "other_score", "difference", *_SHARED]


@dataclass(frozen=True)
class SystemMoments:
    """Moments files of one system: of its mean prediction and of every member.

    An ensemble of several systems has no members of its own.
    """

    ensemble: Path
    members: Sequence[Path] = ()

    def files(self, estimate: Estimate) -> Sequence[Path]:
        """The files whose scores are averaged in an estimate."""
        return [self.ensemble] if estimate == "ensemble" else self.members


# What is resampled: scored videos as (animal, stimulus type, video), of one tier.
_Support = frozenset[tuple[str, str, str]]


@dataclass
class _Replicates:
    """Scores of files in every resample of their support, by tier and metric."""

    draws: Mapping[tuple[str, _Support], Draws]
    scores: Mapping[tuple[str, _Support, Path], Mapping[str, np.ndarray]] = field(
        default_factory=dict
    )

    def mean(self, tier: str, support: _Support, paths: Sequence[Path], metric: str) -> np.ndarray:
        """(files, 1 + resamples): the scores of several files, each in every resample."""
        return np.stack([self.scores[tier, support, path][metric] for path in paths])


def uncertainty(
    systems: Mapping[str, SystemMoments], *, resamples: int, seed: int, level: float
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Intervals of all systems under one protocol, and of the differences between any two.

    Estimate "ensemble" is the score of a system's mean prediction, "members" the mean over the
    scores of its members. Both are of the videos that all of the files concerned are scored on: a
    video that one member was trained on is left out for what stands beside it as well.

    Args:
        systems: in the order in which they are compared.
        level: of the intervals, such as 0.95.

    Returns:
        Tables with `INTERVAL_COLUMNS` and `COMPARISON_COLUMNS`; a difference is `score` of `system`
        minus `other_score` of `other`. Where nothing can be scored, `reason` says why.

    Raises:
        ValueError: no system, or files of different protocols, units or frames.
    """
    indices = _indices(systems)
    labels = _labels(indices)
    tiers = list(dict.fromkeys(tier for index in indices.values() for tier in index.tiers))
    asked: list[_Asked] = []
    for tier in tiers:
        for estimate in ESTIMATES:
            named = {
                name: _Asked(tier, estimate, (name,), [paths], _support(indices, tier, paths))
                for name, moments in systems.items()
                if (paths := moments.files(estimate))
            }
            asked += named.values()
            for one, two in combinations(named.values(), 2):
                common = one.support & two.support
                both = (*one.systems, *two.systems)
                asked.append(_Asked(tier, estimate, both, [*one.paths, *two.paths], common))
    replicates = _replicates(asked, indices, resamples=resamples, seed=seed)
    intervals: list[dict[str, Any]] = []
    comparisons: list[dict[str, Any]] = []
    for question in asked:
        for metric in METRICS:
            row = labels | question.row(replicates, indices, metric, level=level)
            (intervals if len(question.systems) == 1 else comparisons).append(row)
    return _table(intervals, INTERVAL_COLUMNS), _table(comparisons, COMPARISON_COLUMNS)


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write one of the tables as Parquet, atomically."""
    with files.replacing(path) as temporary:
        table.to_parquet(temporary, index=False)


def _table(rows: list[dict[str, Any]], columns: list[str]) -> pd.DataFrame:
    """One type per column, whatever is missing in it."""
    kinds = dict.fromkeys(columns, "Float64")
    kinds |= dict.fromkeys([*_TEXTS, "system", "other", "resampled", "reason"], "string")
    kinds |= dict.fromkeys([*_COUNTS, "members"], "Int64")
    return pd.DataFrame(rows, columns=columns).astype({name: kinds[name] for name in columns})


@dataclass(frozen=True)
class _Asked:
    """One score, or the difference between two: whose files, on which videos of which tier."""

    tier: str
    estimate: Estimate
    systems: tuple[str, ...]
    paths: Sequence[Sequence[Path]]  # per system
    support: _Support

    def row(
        self,
        replicates: _Replicates,
        indices: Mapping[Path, MomentsIndex],
        metric: str,
        *,
        level: float,
    ) -> dict[str, Any]:
        """The columns of this row, labels of the protocol left out."""
        row: dict[str, Any] = {
            "tier": self.tier,
            "metric": metric,
            "estimate": self.estimate,
            "system": self.systems[0],
            "level": level,
        }
        if len(self.systems) == 1:
            row["members"] = len(self.paths[0])
        else:
            row["other"] = self.systems[1]
        if not self.support:
            return row | {"animals": 0, "videos": 0, "neurons": 0, "reason": NO_VIDEO}
        draws = replicates.draws[self.tier, self.support]
        scores = [replicates.mean(self.tier, self.support, p, metric) for p in self.paths]
        values = [score.mean(axis=0) for score in scores]
        row["score"] = values[0][0]
        if len(self.systems) == 1:
            row["members_sd"] = scores[0][:, 0].std(ddof=1) if len(scores[0]) > 1 else None
            found = draws.interval(values[0], level=level)
        else:
            row["other_score"] = values[1][0]
            found = draws.interval(values[0] - values[1], level=level)
            row["difference"] = found.value
        animals = {animal for animal, _, _ in self.support}
        neurons = indices[self.paths[0][0]].neurons
        return row | {
            "standard_error": found.standard_error,
            "lower": found.lower,
            "upper": found.upper,
            "resampled": ", ".join(draws.resampled),
            "degrees_of_freedom": draws.freedom,
            "resamples": draws.resamples,
            "animals": len(animals),
            "videos": len(self.support),
            "neurons": sum(neurons[animal] for animal in animals),
        }


def _indices(systems: Mapping[str, SystemMoments]) -> dict[Path, MomentsIndex]:
    if not systems:
        raise ValueError("there is no system whose uncertainty could be estimated.")
    paths = {path for moments in systems.values() for e in ESTIMATES for path in moments.files(e)}
    return {path: read_index(path) for path in sorted(paths)}


def _labels(indices: Mapping[Path, MomentsIndex]) -> dict[str, str]:
    labels = {}
    for name in ("protocol", "score_unit", "frame_convention"):
        values = sorted({str(index.attributes[name]) for index in indices.values()})
        if len(values) > 1:
            raise ValueError(
                f"scores of different {name} are never compared, but the moments are of "
                f"{' and of '.join(values)}."
            )
        labels[name] = values[0]
    return labels


def _support(indices: Mapping[Path, MomentsIndex], tier: str, paths: Sequence[Path]) -> _Support:
    """Videos of a tier that every one of the files is scored on."""
    scored = [
        frozenset(
            (animal, kind, video) for animal, t, kind, video in indices[p].videos if t == tier
        )
        for p in paths
    ]
    return frozenset.intersection(*scored)


def _replicates(
    asked: Sequence[_Asked], indices: Mapping[Path, MomentsIndex], *, resamples: int, seed: int
) -> _Replicates:
    # Most often all systems have one support in a tier, and each is scored on it once.
    wanted: dict[tuple[str, _Support], dict[Path, None]] = {}
    for question in asked:
        if question.support:
            key = (question.tier, question.support)
            paths = [path for paths in question.paths for path in paths]
            wanted.setdefault(key, {}).update(dict.fromkeys(paths))
    draws = {
        (tier, support): Draws(
            _numbers(support), indices[next(iter(paths))].neurons, resamples=resamples, seed=seed
        )
        for (tier, support), paths in wanted.items()
    }
    gathered: dict[tuple[str, _Support, Path], dict[str, ResampledScore]] = {}
    steps = [
        (key, animal) for key in wanted for animal in sorted({animal for animal, _, _ in key[1]})
    ]
    for (tier, support), animal in track(steps, "bootstrap", unit="animal"):
        drawn = draws[tier, support]
        neuron_counts = drawn.neurons_of(animal)
        resample = drawn.resample_of(animal)
        for path in wanted[tier, support]:
            scores = gathered.setdefault(
                (tier, support, path), {metric: ResampledScore(resamples) for metric in METRICS}
            )
            for stimulus_type, videos in _by_type(path, animal, tier, support):
                video_counts = drawn.videos_of(animal, stimulus_type)
                for metric, moments in zip(METRICS, zip(*videos, strict=True), strict=True):
                    sums = summed_correlations(moments, video_counts, neuron_counts)
                    scores[metric].add(
                        stimulus_type, resample, sums, neurons=neuron_counts.shape[1]
                    )
    return _Replicates(
        draws,
        {
            key: {metric: score.values() for metric, score in scores.items()}
            for key, scores in gathered.items()
        },
    )


def _numbers(support: _Support) -> dict[str, dict[str, int]]:
    """Number of videos by animal and stimulus type."""
    numbers: dict[str, dict[str, int]] = {}
    for animal, stimulus_type, _ in sorted(support):
        types = numbers.setdefault(animal, {})
        types[stimulus_type] = types.get(stimulus_type, 0) + 1
    return numbers


def _by_type(
    path: Path, animal: str, tier: str, support: Collection[tuple[str, str, str]]
) -> Iterator[tuple[str, list[Any]]]:
    """(single trials, repeat averages) of the supported videos, by stimulus type, videos sorted."""
    read = read_tier(path, animal, tier)
    for stimulus_type in sorted({kind for kind, _ in read}):
        videos = [
            moments
            for (kind, video), moments in sorted(read.items(), key=lambda item: item[0])
            if kind == stimulus_type and (animal, kind, video) in support
        ]
        if videos:
            yield stimulus_type, videos
