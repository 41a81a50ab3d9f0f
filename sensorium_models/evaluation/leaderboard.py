"""From score rows, in memory or in files, to one line per member, track and tier.

Aggregation as the paper's (specs/metrics.md sections 2 and 4), as means of animal means, and as one
mean over all rows: they differ, so all are stated.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from sensorium_models.evaluation.ceiling import RELATIVE_SCORES
from sensorium_models.evaluation.correlation import animal_mean, mean_over_types, pooled
from sensorium_models.evaluation.scores import LABELS, METRICS

TRACKS: Mapping[str, tuple[str, ...]] = {
    "main": ("live_test_main", "final_test_main"),
    "bonus": ("live_test_bonus", "final_test_bonus"),
    "oracle": ("oracle",),
}


# What `leaderboard` reads of the score rows.
_COLUMNS = [*LABELS, "animal", "neuron_id", "tier", "stimulus_type", *METRICS, *RELATIVE_SCORES]
_COLUMNS += ["reliable", "trials", "trials_left_out", "reason"]


def track_of(tier: str) -> str:
    """Track of a tier; tiers that SENSORIUM 2023 does not have are a track of their own."""
    return next((track for track, tiers in TRACKS.items() if tier in tiers), tier)


def read_leaderboard(paths: Iterable[Path | str]) -> pd.DataFrame:
    """`leaderboard` of the rows of several score files together.

    One member is read at a time, without the columns that are not needed: at full size all rows
    together, fifteen million, are gigabytes.

    Raises:
        ValueError: the files hold no row.
    """
    boards = []
    for path in paths:
        members = pc.unique(pq.read_table(path, columns=["member"])["member"]).to_pylist()
        for member in members:
            rows = pd.read_parquet(path, columns=_COLUMNS, filters=[("member", "==", member)])
            boards.append(leaderboard(rows))
    if not boards:
        raise ValueError("there are no score rows to make a leaderboard of.")
    return _best_first(pd.concat(boards, ignore_index=True))


def leaderboard(scores: pd.DataFrame) -> pd.DataFrame:
    """One row per system, member (or "ensemble") and tier, best first within a tier.

    Columns: the labels; track, tier; each metric aggregated as the paper does (neurons of all
    animals pooled within a stimulus type, then mean over types), `*_animal_mean` (within a type
    mean of animal means, then mean over types) and `*_types_pooled` (one mean over all rows);
    scores relative to the ceilings, their mean over the rows of reliable neurons, which are counted
    beside those that are not; animals scored, stimulus types, neurons, trials, trials left out;
    reason where no value is.
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
        reliable = scored[scored["reliable"].fillna(False).astype(bool)]
        for metric in RELATIVE_SCORES:
            row[metric] = reliable[metric].mean()
        row["rows_reliable"] = len(reliable)
        row["rows_not_reliable"] = int(scored["reliable"].notna().sum()) - len(reliable)
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
    return _best_first(pd.DataFrame(rows))


def _best_first(board: pd.DataFrame) -> pd.DataFrame:
    order = [tier for tiers in TRACKS.values() for tier in tiers]
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
    groups = scored.groupby(["stimulus_type", "animal"], observed=True)[metric]
    values = {tuple(map(str, key)): part.to_numpy() for key, part in groups}
    # By name: the order of categories would show in the last bit.
    for stimulus_type, animal in sorted(values):
        by_type.setdefault(stimulus_type, {})[animal] = values[stimulus_type, animal]
    return mean_over_types({name: aggregate(animals) for name, animals in by_type.items()})
