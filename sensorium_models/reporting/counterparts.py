"""What of this study stands beside a published number: the same quantity of the same estimate.

Where there is none, why. Whether the two may be compared is for `reproduction` to say.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sensorium_models.ensemble import MEMBER as ENSEMBLE
from sensorium_models.reporting.cost_table import clips_per_step, hardware

TIERS = {
    "main": "final_test_main",
    "bonus": "final_test_bonus",
    "live_main": "live_test_main",
    "live_bonus": "live_test_bonus",
    "oracle": "oracle",
}


@dataclass(frozen=True)
class ProtocolResults:
    """What one protocol of the study has to put beside published numbers.

    Attributes:
        board: as `evaluation.leaderboard.leaderboard` returns it.
        by_animal: mean single-trial correlation over neurons; columns system, tier, animal, value,
            of ensembles.
        records: system -> member -> `run.json`, of the members that this protocol scores.
    """

    board: pd.DataFrame
    by_animal: pd.DataFrame
    records: Mapping[str, Mapping[str, Mapping[str, Any]]]


@dataclass(frozen=True)
class Counterpart:
    """Our counterpart of a published number: `value` None where there is none, and why."""

    value: float | str | None
    text: str | None = None
    estimate: str = ""
    missing: str = ""
    count: int = 1  # over how many members it is a mean
    neurons: int | None = None
    left_out: int = 0  # trials that are not scored because a member trained on their video


def counterpart(number: Mapping[str, Any], system: str, results: ProtocolResults) -> Counterpart:
    """Ours beside one row of `published.csv`, for one system under one protocol."""
    quantity = number["quantity"]
    if quantity in ("gpu", "gpu_memory", "batch_size", "wall_time", "parameters"):
        return _cost(quantity, list(results.records.get(system, {}).values()))
    developed = number["source_table"] in ("text", "A.1", "A.2", "README")
    if developed and number["member"] != "submission":
        return Counterpart(None, missing="no such result in this study")
    tier = TIERS[number["track"]]
    rows = results.board[(results.board["tier"] == tier) & (results.board["system"] == system)]
    if rows.empty:
        return Counterpart(None, missing=f"tier {tier} is not scored under this protocol")
    if "_animal_" in quantity and not quantity.endswith("_animal_mean"):
        return _of_animal(rows, results.by_animal, quantity.rsplit("_", 1)[1], tier, system)
    chosen, estimate = _estimate(rows, number["member"])
    if chosen.empty:
        return Counterpart(None, missing="this study has no such member")
    values = chosen[quantity].dropna().astype(float)
    if values.empty:
        reasons = sorted(set(chosen["reason"].dropna().astype(str)))
        missing = "; ".join(reasons) or "no score"
        if "responses withheld" in reasons:
            missing = "responses withheld: only the competition's server can score the submission"
        return Counterpart(None, missing=missing, estimate=estimate)
    deviation = number["member"] == "members_sd"
    if deviation and len(values) < 2:
        return Counterpart(None, missing="one member has no deviation")
    value = float(values.std(ddof=1) if deviation else values.mean())
    return Counterpart(
        value,
        _four_digits(value),
        estimate,
        count=len(values),
        neurons=_neurons(chosen),
        left_out=int(chosen["trials_left_out"].max()),
    )


def _of_animal(
    rows: pd.DataFrame, by_animal: pd.DataFrame, animal: str, tier: str, system: str
) -> Counterpart:
    found = by_animal[
        (by_animal["animal"] == animal)
        & (by_animal["tier"] == tier)
        & (by_animal["system"] == system)
    ]["value"].dropna()
    if found.empty:
        return Counterpart(None, missing=f"no score of animal {animal}")
    value = float(found.iloc[0])
    return Counterpart(
        value,
        _four_digits(value),
        f"ensemble, animal {animal}",
        neurons=_neurons(rows),
        left_out=int(rows["trials_left_out"].max()),
    )


def _estimate(rows: pd.DataFrame, member: str) -> tuple[pd.DataFrame, str]:
    """Which of our rows stand beside a published member, and what to call them."""
    ensemble = rows[rows["member"] == ENSEMBLE]
    members = rows[rows["member"] != ENSEMBLE]
    mean = f"mean of {len(members)} members" if len(members) > 1 else "single member"
    if member in ("ensemble", "submission"):
        # A team submitted an ensemble; of a system with one member that is it.
        return (ensemble, "ensemble") if len(ensemble) else (members, mean)
    if member == "members_sd":
        return members, f"deviation of {len(members)} members"
    if member.startswith("seed"):
        return members[members["member"] == member], member
    return members, mean


def _cost(quantity: str, records: Sequence[Mapping[str, Any]]) -> Counterpart:
    if not records:
        return Counterpart(None, missing="no record of a member")
    if quantity == "gpu":
        used = "; ".join(sorted({hardware(record) for record in records}))
        return Counterpart(used, used, "all members")
    if quantity == "batch_size":
        clips = clips_per_step(records[0])
        return Counterpart(clips, None if clips is None else str(clips), missing="not recorded")
    if quantity == "parameters":
        counts = {record["parameters"] for record in records if "parameters" in record}
        if len(counts) != 1:
            return Counterpart(None, missing="not recorded, or members differ")
        millions = counts.pop() / 1e6
        return Counterpart(millions, f"{millions:.4g} million", "every member")
    if quantity == "gpu_memory":
        peaks = [(record.get("peak_memory_mb") or {}).get("gpu") for record in records]
        known = [float(peak) / 1024 for peak in peaks if peak is not None]
        if not known:
            return Counterpart(None, missing="no GPU was used")
        return Counterpart(max(known), f"{max(known):.1f} GB", "largest peak of any member")
    hours = [float(r["wall_seconds"]) / 3600 for r in records if "wall_seconds" in r]
    if not hours:
        return Counterpart(None, missing="not recorded")
    mean = float(np.mean(hours))
    return Counterpart(mean, f"{mean:.2g} h", f"mean of {len(hours)} members", count=len(hours))


def _four_digits(value: float) -> str:
    return f"{value:.4f}".replace("-", "−")


def _neurons(rows: pd.DataFrame) -> int | None:
    counts = set(rows["neurons"].astype(int))
    return counts.pop() if len(counts) == 1 else None
