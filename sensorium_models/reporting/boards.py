"""What a board of scores shows: its protocol, its tiers and systems, and how they are called.

A board is what `evaluation.scores.leaderboard` returns, the rows of one protocol.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from sensorium_models.ensemble import MEMBER as ENSEMBLE
from sensorium_models.evaluation.leaderboard import track_of
from sensorium_models.evaluation.scores import METRICS

METRIC_LABELS = {
    "single_trial_correlation": "Single-trial correlation",
    "correlation_to_average": "Correlation to average",
}
TIER_LABELS = {
    "final_test_main": "Main track, final test set",
    "final_test_bonus": "Bonus track, final test set",
    "live_test_main": "Main track, live test set",
    "live_test_bonus": "Bonus track, live test set",
    "oracle": "Oracle trials",
}
SELECTION_TIER = "oracle"  # its trials decide which epoch of a member is kept


def one_protocol(board: pd.DataFrame) -> str:
    """The protocol of the rows; two protocols never share a figure or a table.

    Raises:
        ValueError: no rows, or more than one protocol.
    """
    protocols = sorted(board["protocol"].astype(str).unique())
    if len(protocols) != 1:
        raise ValueError(
            "A leaderboard shows one protocol, but the scores hold "
            f"{' and '.join(protocols) if protocols else 'none'}; pass the rows of one."
        )
    return protocols[0]


def shown_tiers(board: pd.DataFrame) -> list[str]:
    """Tiers in the order of the board, without live test sets whose final test set is there too."""
    tiers = list(dict.fromkeys(board["tier"].astype(str)))
    return [t for t in tiers if t.replace("live_", "final_", 1) not in tiers or "live_" not in t]


def ranked_systems(board: pd.DataFrame, tiers: Sequence[str]) -> list[str]:
    """Systems, best first by the best single-trial correlation in the first tier that has any."""
    systems = list(dict.fromkeys(board["system"].astype(str)))
    for tier in tiers:
        best = board[board["tier"] == tier].groupby("system", observed=True)[METRICS[0]].max()
        best = best.dropna()
        if len(best):
            return sorted(systems, key=lambda system: (-best.get(system, -np.inf), system))
    return sorted(systems)


def without_lone_ensembles(board: pd.DataFrame) -> pd.DataFrame:
    """Leave out the ensemble of a system with one member: it is that member once more."""
    members = (
        board[board["member"] != ENSEMBLE].groupby("system", observed=True)["member"].nunique()
    )
    lone = board["system"].map(members).astype(float) == 1
    return board[~(lone & (board["member"] == ENSEMBLE))]


def published_track(tier: str) -> str:
    """The published track that may stand beside a tier's scores; "" where none may.

    The published values are those of the final test sets; beside live or oracle scores they would
    claim a comparison that nobody made.
    """
    return track_of(tier) if tier.startswith("final_test") else ""


def selection_note(board: pd.DataFrame, tiers: Sequence[str]) -> list[str]:
    """A sentence where a tier with scores is one by which members were selected."""
    scored = board.loc[board[METRICS[0]].notna(), "tier"]
    if SELECTION_TIER in tiers and bool((scored == SELECTION_TIER).any()):
        return ["The oracle trials chose the best epoch of the members."]
    return []
