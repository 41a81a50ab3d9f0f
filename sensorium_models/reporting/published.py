"""Published reference numbers, read from `published.csv`, each with its citation.

Scores are of animals F to J: by the competition's server on their withheld test sets, or by a team
on their oracle trials. Nothing here is comparable to a score on other animals or tiers; it is only
ever shown beside one.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pandas as pd

PUBLISHED_FILE = Path(__file__).with_name("published.csv")

PROTOCOL_LABEL = "competition, F–J"
NOTE = (
    "Published values are from the competition (animals F–J, withheld final test sets, "
    "arXiv 2407.09100, Table 1): other animals and other trials than the scores shown, "
    "given for reference only."
)

_SCORE_TABLES = ("1", "5")
# Which published row stands beside which of ours, the first that exists, and what to call it.
_ROWS = {
    "ensemble": {"ensemble": "ensemble", "submission": "submission"},
    "members": {"members_mean": "mean of 14 seeds", "single": "single model"},
}


@dataclass(frozen=True)
class Reference:
    """One published score, its standard deviation where it is a mean, and what it is a score of."""

    value: float
    spread: float | None
    estimate: str
    citation: str


@cache
def _table() -> pd.DataFrame:
    return pd.read_csv(PUBLISHED_FILE, dtype=str, keep_default_na=False)


def published() -> pd.DataFrame:
    """Every published number as text, one per row, in the order of the paper.

    Columns: source_table, published_name, system, member, track, quantity, value, unit, note,
    citation.
    """
    return _table().copy()


def reference_score(system: str, *, estimate: str, track: str, metric: str) -> Reference | None:
    """The published value that stands beside ours; None where nothing was published.

    Args:
        estimate: "ensemble" (teams submitted ensembles of their members), or "members" for the mean
            over single networks; the latter is the mean of the paper's Table 5 where it has one,
            because its Table 1 shows a single seed.
        track: "main" or "bonus".
        metric: "single_trial_correlation" or "correlation_to_average".
    """
    rows = _table()
    rows = rows[rows.source_table.isin(_SCORE_TABLES)]  # elsewhere the same with other digits
    rows = rows[(rows.system == system) & (rows.track == track) & (rows.quantity == metric)]
    found = {
        member: (value, citation)
        for member, value, citation in zip(rows.member, rows.value, rows.citation, strict=True)
    }
    for member, name in _ROWS[estimate].items():
        if member in found:
            value, citation = found[member]
            spread = float(found["members_sd"][0]) if member == "members_mean" else None
            return Reference(float(value), spread, name, citation)
    return None


def seed_scores(system: str) -> pd.DataFrame:
    """Table 5 of the paper: one row per published seed of a system, indexed by its member's name.

    One column per metric, on the final test set of the main track; empty where nothing was
    published for single seeds.
    """
    rows = _table()
    rows = rows[(rows.source_table == "5") & (rows.system == system) & (rows.track == "main")]
    rows = rows[rows.member.str.fullmatch(r"seed\d+")]
    return rows.assign(value=rows.value.astype(float)).pivot_table(
        index="member", columns="quantity", values="value"
    )


def variations(
    systems: Iterable[str], *, published_as: Mapping[str, str], titles: Mapping[str, str]
) -> list[str]:
    """A sentence for each of `systems` that stands beside the numbers of another, published one.

    Args:
        systems: those with a published number beside them.
        published_as: system -> the published system whose numbers these are.
        titles: system -> the name that a reader knows.
    """
    return [
        f"{titles.get(system, system)} is shown beside the published {published_as[system]}, of "
        "which it is a variation."
        for system in dict.fromkeys(systems)
        if published_as.get(system, system) != system
    ]


def training_cost(system: str) -> dict[str, str]:
    """Table 2 of the paper for one model: gpu, gpu_memory, batch_size, wall_time."""
    rows = _table()
    rows = rows[(rows.source_table == "2") & (rows.system == system)]
    return {
        quantity: f"{value} {unit}" if unit in ("GB", "h") else value
        for quantity, value, unit in zip(rows.quantity, rows.value, rows.unit, strict=True)
    }
