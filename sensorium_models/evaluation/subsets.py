"""Scores of any subset or weighting of an ensemble's members, from their stored cross-moments.

For each animal, tier and stimulus type the file holds the joint moments of K predictions and the
response (written by `ensemble.build_ensemble`). A weighted sum of the members has variance w'Cw and
covariance w'c with the response, so its correlations follow exactly, without the predictions.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
import pandas as pd

from sensorium_models.evaluation.correlation import correlation, mean_over_types
from sensorium_models.evaluation.moments import Group, GroupMoments
from sensorium_models.evaluation.moments_file import MomentsError, read_joint, write_joint
from sensorium_models.evaluation.scores import LABELS, METRICS, score_rows
from sensorium_models.evaluation.streaming import JointMoments

SCHEMA_VERSION = 2
_COUNTS = ("trials", "videos", "trials_left_out", "trials_withheld", "trials_fitted")


class EnsembleMoments:
    """Read-only handle on the cross-moments of an ensemble; a context manager.

    Attributes:
        attributes: those of the mean's prediction file.
        members: (system, member) in the order of the signals.
        weights: of the members in the ensemble's mean, in the same order.

    Raises:
        MomentsError: the file is missing, is no such file, or of another schema version.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        try:
            self._file = h5py.File(self.path, "r", locking=False)
        except OSError as error:
            raise MomentsError(
                f"{path} cannot be read as ensemble moments ({error}). Build the ensemble again."
            ) from error
        version = self._file.attrs.get("schema_version")
        if version != SCHEMA_VERSION or "members" not in self._file.attrs:
            raise MomentsError(
                f"{path} holds no ensemble moments of schema version {SCHEMA_VERSION} (it says "
                f"{version}). Build the ensemble again."
            )
        self.attributes: dict[str, Any] = json.loads(self._file.attrs["attributes"])
        self.members = [(str(a), str(b)) for a, b in json.loads(self._file.attrs["members"])]
        self.weights: list[float] = json.loads(self._file.attrs["weights"])

    @property
    def animals(self) -> tuple[str, ...]:
        """Animals in the file, sorted."""
        return tuple(sorted(self._file))

    def neuron_ids(self, animal: str) -> np.ndarray:
        """Unit ids (N,) int64."""
        return self._file[animal]["neuron_ids"][:]

    def groups(self, animal: str) -> Iterator[tuple[Group, GroupMoments]]:
        """Tier and stimulus type with their moments, read one by one (they can be large)."""
        for group in (self._file[animal][name] for name in _numbered(self._file[animal])):
            yield (
                (str(group.attrs["tier"]), str(group.attrs["stimulus_type"])),
                GroupMoments(
                    read_joint(group, "single_trial"),
                    read_joint(group, "repeat_average"),
                    **{name: int(group.attrs.get(name, 0)) for name in _COUNTS},
                ),
            )

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def subset_scores(
    moments: JointMoments,
    *,
    members: Sequence[int] | None = None,
    weights: Sequence[float] | None = None,
) -> np.ndarray:
    """Correlations (N,) of a subset of the members with the response, in any order.

    Args:
        moments: `single_trial` or `repeat_average` of a group.
        members: indices into `EnsembleMoments.members`, each at most once; default all.
        weights: one per entry of `members`, used as they are; default their mean.

    Raises:
        ValueError: no member, an index out of range or given twice, or a wrong number of weights.
    """
    return correlation(moments, _full_weights(len(moments.mean) - 1, members, weights))


def ensemble_scores(
    moments: EnsembleMoments,
    *,
    members: Sequence[int] | None = None,
    weights: Sequence[float] | None = None,
) -> pd.DataFrame:
    """Tidy rows (`scores.SCHEMA`) of the ensemble as it is, or of a subset or other weighting."""
    labels = {name: moments.attributes[name] for name in LABELS}
    if members is None and weights is None:
        weights = moments.weights
    full = _full_weights(len(moments.members), members, weights)
    parts = [
        score_rows(labels, {animal: (moments.neuron_ids(animal), {key: group})}, full)
        for animal in moments.animals
        for key, group in moments.groups(animal)
    ]
    texts = [name for name in parts[0].columns if parts[0][name].dtype == "category"]
    return pd.concat(parts, ignore_index=True).astype(dict.fromkeys(texts, "category"))


def score_by_size(
    moments: EnsembleMoments,
    *,
    orders: int,
    seed: int,
    members: Sequence[int] | None = None,
) -> pd.DataFrame:
    """Score against number of members, for members joining in random orders.

    Args:
        orders: number of random orders; order i depends on `seed` and i only.
        members: indices to choose from; default all K.

    Returns:
        Columns tier, metric, size (1..K), order, score: neurons of all animals pooled within a
        stimulus type, then mean over types. At size K all orders have the same value.
    """
    pool = range(len(moments.members)) if members is None else members
    return _scores_along(moments, _random_orders(pool, orders, seed))


def score_by_axis(
    moments: EnsembleMoments,
    axes: Mapping[str, Mapping[str, int | str]],
    *,
    orders: int,
    seed: int,
) -> pd.DataFrame:
    """Score against number of members along each axis by itself: seeds, folds, variants.

    Members that are alike but for their value on the axis join in random orders; where other axes
    have several values too, every combination of these gives `orders` orders.

    Args:
        axes: by member of the one system in `moments`, its value on each axis.

    Returns:
        Columns as `score_by_size`, and axis; an axis along which no two members differ is absent.

    Raises:
        ValueError: a member of the ensemble is not in `axes`.
    """
    members = [member for _, member in moments.members]
    if absent := [member for member in members if member not in axes]:
        raise ValueError(f"the axes of member {absent[0]} of {moments.path} were not given.")
    paths: list[np.ndarray] = []
    named: list[str] = []
    for axis in axes[members[0]]:
        alike: dict[tuple[str, ...], list[int]] = {}
        for index, member in enumerate(members):
            others = tuple(str(v) for name, v in axes[member].items() if name != axis)
            alike.setdefault(others, []).append(index)
        for pool in alike.values():
            if len(pool) > 1:
                paths += _random_orders(pool, orders, seed)
                named += [axis] * orders
    if not paths:
        return pd.DataFrame(columns=["tier", "metric", "size", "order", "score", "axis"])
    curves = _scores_along(moments, paths)
    return curves.assign(axis=np.array(named)[curves["order"].to_numpy()])


def _random_orders(pool: Sequence[int], orders: int, seed: int) -> list[np.ndarray]:
    members = np.asarray(pool)
    return [np.random.default_rng([seed, order]).permutation(members) for order in range(orders)]


def _scores_along(moments: EnsembleMoments, paths: Sequence[np.ndarray]) -> pd.DataFrame:
    """The score of every beginning of each path of members; `order` counts the paths."""
    total = len(moments.members)
    subsets: dict[frozenset[int], int] = {}  # many orders meet the same subset; score it once
    for path in paths:
        for size in range(1, len(path) + 1):
            subsets.setdefault(frozenset(path[:size].tolist()), len(subsets))
    weights = np.array([_full_weights(total, sorted(subset), None) for subset in subsets])
    # (tier, metric) -> stimulus type -> [sum over neurons per subset, neurons]
    sums: dict[tuple[str, str], dict[str, tuple[np.ndarray, int]]] = {}
    for animal in moments.animals:
        for (tier, stimulus_type), group in moments.groups(animal):
            for metric, joint in zip(
                METRICS, (group.single_trial, group.repeat_average), strict=True
            ):
                if joint.count:
                    values = correlation(joint, weights)  # (subsets, N)
                    by_type = sums.setdefault((tier, metric), {})
                    known, neurons = by_type.get(stimulus_type, (np.zeros(len(weights)), 0))
                    by_type[stimulus_type] = (
                        known + values.sum(axis=1),
                        neurons + values.shape[1],
                    )
    rows = [
        {
            "tier": tier,
            "metric": metric,
            "size": size,
            "order": order,
            "score": mean_over_types(
                {
                    name: float(total_score[subsets[frozenset(path[:size].tolist())]] / neurons)
                    for name, (total_score, neurons) in by_type.items()
                }
            ),
        }
        for (tier, metric), by_type in sorted(sums.items())
        for order, path in enumerate(paths)
        for size in range(1, len(path) + 1)
    ]
    curves = pd.DataFrame(rows, columns=["tier", "metric", "size", "order", "score"])
    # Where no trial is scored there is no row to tell the types.
    return curves.astype({"size": np.int64, "order": np.int64, "score": np.float64})


def _full_weights(
    total: int, members: Sequence[int] | None, weights: Sequence[float] | None
) -> np.ndarray:
    chosen = np.arange(total) if members is None else np.asarray(members, dtype=np.int64)
    if not chosen.size or chosen.min() < 0 or chosen.max() >= total:
        raise ValueError(f"members must be some of 0..{total - 1}, got {chosen.tolist()}.")
    if len(np.unique(chosen)) != chosen.size:
        raise ValueError(f"a member is given twice in {chosen.tolist()}; use weights instead.")
    if weights is not None and len(weights) != chosen.size:
        raise ValueError(f"{len(weights)} weights were given for {chosen.size} members.")
    full = np.zeros(total)
    full[chosen] = 1 / chosen.size if weights is None else weights
    return full


def write_header(
    file: h5py.File,
    *,
    attributes: Mapping[str, Any],
    members: Sequence[tuple[str, str]],
    weights: Sequence[float],
) -> None:
    """Store what the file is about; `members` are (system, member) in the order of the signals."""
    file.attrs["schema_version"] = SCHEMA_VERSION
    file.attrs["attributes"] = json.dumps(dict(attributes), sort_keys=True)
    file.attrs["weights"] = json.dumps(list(weights))
    file.attrs["members"] = json.dumps([list(member) for member in members])


def write_groups(target: h5py.Group, groups: Iterable[tuple[Group, GroupMoments]]) -> None:
    """Store the moments of one animal, group by group, as `build_ensemble` documents."""
    for index, ((tier, stimulus_type), group) in enumerate(groups):
        stored = target.create_group(str(index))
        stored.attrs["tier"], stored.attrs["stimulus_type"] = tier, stimulus_type
        for name in _COUNTS:
            stored.attrs[name] = getattr(group, name)
        write_joint(stored, "single_trial", group.single_trial)
        write_joint(stored, "repeat_average", group.repeat_average)


def _numbered(animal: h5py.Group) -> list[str]:
    return sorted((name for name in animal if name.isdigit()), key=int)
