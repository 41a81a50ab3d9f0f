"""Rows of the scores folder as the figures over neurons need them: one network per system."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from sensorium_models.ensemble import MEMBER as ENSEMBLE
from sensorium_models.evaluation.ceiling import CEILINGS
from sensorium_models.evaluation.leaderboard import TRACKS
from sensorium_models.evaluation.scores import METRICS
from sensorium_models.reporting.boards import shown_tiers

_LABELS = ("protocol", "system", "member", "animal", "tier", "stimulus_type")
_MORE = ("neuron_id", "reliable", "trials_left_out", "reason", "score_unit", "frame_convention")
COLUMNS = (*_LABELS, *METRICS, *CEILINGS, *_MORE)


def read_ensembles(paths: Sequence[Path]) -> pd.DataFrame:
    """Rows of every system's ensemble, which is the single member of a system that has but one.

    Only these rows are ever in memory: at full size the members have ten times as many.
    """
    parts = [
        pd.read_parquet(path, columns=list(COLUMNS), filters=[("member", "==", ENSEMBLE)])
        for path in paths
    ]
    table = pd.concat(parts, ignore_index=True)
    return table.astype(dict.fromkeys(_LABELS, "str"))


def scored(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of neurons that have a single-trial correlation."""
    return rows[rows[METRICS[0]].notna()]


def ordered_tiers(rows: pd.DataFrame) -> list[str]:
    """Tiers to show, main track first: live test sets only where there is no final one."""
    known = [tier for tiers in TRACKS.values() for tier in tiers]
    present = shown_tiers(rows)
    return [t for t in known if t in present] + [t for t in present if t not in known]


def why_not(rows: pd.DataFrame) -> str:
    """The reasons for which rows have no score, for a sentence."""
    return ", ".join(sorted(rows["reason"].dropna().astype(str).unique())) or "nothing predicted"
