"""Columns of a table: how near systems come to what repeats allow, on how many neurons."""

from typing import Any

import pandas as pd

from sensorium_models.evaluation.ceiling import RELATIVE_SCORES
from sensorium_models.reporting.tables import Column

COUNTS = ("rows_reliable", "rows_not_reliable")
_LABELS = {
    "normalised_correlation": "CC_norm",
    "feve": "FEVE",
    "rows_reliable": "reliable",
    "rows_not_reliable": "not",
}


def is_known(board: pd.DataFrame) -> bool:
    """Whether repeats of a video told anything about a neuron of the board."""
    return bool(board[list(COUNTS)].to_numpy().any())


def columns() -> list[Column]:
    """Of the values of `values_of`."""
    kinds = dict.fromkeys(RELATIVE_SCORES, "spread") | dict.fromkeys(COUNTS, "count")
    return [
        Column(key, _LABELS[key], kind, "Against the ceiling")  # type: ignore[arg-type]
        for key, kind in kinds.items()
    ]


def values_of(part: pd.DataFrame) -> dict[str, Any]:
    """Means and deviations over the rows of one estimate, and its counts; null where unknown."""
    row: dict[str, Any] = {}
    for key in RELATIVE_SCORES:
        row[key] = part[key].mean()
        row[f"{key}_sd"] = part[key].std(ddof=1) if len(part) > 1 else None
    first = part.iloc[0]
    known = is_known(part)
    return row | {key: int(first[key]) if known else None for key in COUNTS}


def note(reliable_variance: float) -> str:
    """What the columns hold; `reliable_variance` is the explainable variance of the threshold."""
    return (
        "Against the ceiling: means over the reliable neurons, those at least "
        f"{100 * reliable_variance:g} % of whose variance the repeats of a video share; beside "
        "them how many neurons count and how many do not, once for each stimulus type. CC_norm: "
        "correlation of the mean prediction with the mean response, over what noise allows "
        "(Schoppe et al. 2016); FEVE: fraction of the explainable variance explained. Both are of "
        "videos with repeats only."
    )
