"""Tables of scores: the leaderboard with published values beside it, and every member by itself.

Scores come from `evaluation.scores.leaderboard`; one table holds one protocol.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from sensorium_models.ensemble import MEMBER as ENSEMBLE
from sensorium_models.evaluation.scores import METRICS
from sensorium_models.reporting import against_ceiling, published
from sensorium_models.reporting.boards import (
    TIER_LABELS,
    one_protocol,
    published_track,
    selection_note,
    shown_tiers,
    without_lone_ensembles,
)
from sensorium_models.reporting.intervals import interval_note, interval_of, level_label
from sensorium_models.reporting.tables import Column, Table, signed

_SHORT = {METRICS[0]: "Single-trial correlation", METRICS[1]: "Correlation to average"}
_PUBLISHED_GROUP = f"Published ({published.PROTOCOL_LABEL})"


def leaderboard_table(
    board: pd.DataFrame,
    *,
    titles: Mapping[str, str],
    simulated: bool,
    intervals: pd.DataFrame | None = None,
    reliable_variance: float | None = None,
    further: pd.DataFrame | None = None,
    published_as: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
) -> Table:
    """Two rows per system and tier: its ensemble, and the mean ± sd over its members.

    Args:
        board: rows of ONE protocol, as `evaluation.scores.leaderboard` returns them.
        titles: system -> the name that a reader knows.
        intervals: of the same protocol, as `evaluation.uncertainty` makes them.
        reliable_variance: explainable variance from which the scores' neurons are `reliable`; with
            it the scores relative to the ceilings are shown, where repeats told any.
        further: rows like those of `board`, of the same predictions scored in other units.
        published_as: system -> the published system whose numbers stand beside it; a system that is
            absent has its own.
        notes: sentences for the caption, such as what an ensemble of several systems is made of.

    Raises:
        ValueError: no rows, or rows of several protocols.
    """
    published_as = published_as or {}
    protocol = one_protocol(board)
    board = without_lone_ensembles(board)
    further = None if further is None else without_lone_ensembles(further)
    relative = reliable_variance if against_ceiling.is_known(board) else None
    units = [] if further is None else sorted(further["score_unit"].astype(str).unique())
    rows = [
        _row(part, tier, system, estimate, titles, published_as.get(system, system))
        | (against_ceiling.values_of(part) if relative is not None else {})
        | _interval(intervals, tier, system, estimate)
        | _in_units(further, units, tier, system, estimate)
        for tier in _final_first(board)
        for in_tier in [board[board["tier"] == tier]]
        for system in _best_first(in_tier)
        for estimate in ("ensemble", "members")
        if len(part := _estimate(in_tier, system, estimate))
    ]
    columns = [
        Column("system_title", "System"),
        Column("estimate_title", "Estimate"),
    ]
    for metric in METRICS:
        columns += [
            Column(metric, "pooled", "spread", _SHORT[metric]),
            *(
                []
                if intervals is None or intervals.empty
                else [Column(f"{metric}_interval", level_label(intervals), "text", _SHORT[metric])]
            ),
            Column(f"{metric}_animal_mean", "animal mean", "spread", _SHORT[metric]),
        ]
    columns += [
        Column(f"{metric}_{unit}", label, "spread", f"In unit {unit}")
        for unit in units
        for metric, label in zip(METRICS, ("single-trial", "to average"), strict=True)
    ]
    columns.append(Column("published_estimate", "of", "text", _PUBLISHED_GROUP))
    columns += [
        Column(f"published_{metric}", label, "spread", _PUBLISHED_GROUP)
        for metric, label in zip(METRICS, ("single-trial", "to average"), strict=True)
    ]
    columns += against_ceiling.columns() if relative is not None else []
    columns += [
        Column("neurons", "neurons", "count", "Scored on"),
        Column("animals", "animals", "text", "Scored on"),
        Column("trials", "trials", "count", "Scored on"),
        Column("trials_left_out", "left out", "count", "Scored on"),
        Column("training_set", "Training set"),
    ]
    # What is the same in all rows is said once: the table has many columns as it is.
    same = {
        key: rows[0][key]
        for key in ("training_set", "animals")
        if len({row[key] for row in rows}) == 1
    }
    columns = [column for column in columns if column.key not in same]
    first = board.iloc[0]
    reasons = sorted(set(board["reason"].dropna().astype(str)))
    fitted = any("fitted" in reason for reason in reasons)
    compared = [str(row["system"]) for row in rows if row["published_system"]]
    return Table(
        frame=pd.DataFrame(rows).astype(
            dict.fromkeys(
                ["members", *(against_ceiling.COUNTS if relative is not None else ())], "Int64"
            )
        ),
        columns=columns,
        title=f"Leaderboard, protocol {protocol}",
        caption=" ".join(
            [
                *(["Simulated recordings, not real animals."] if simulated else []),
                "Pooled: one mean over the neurons of all animals within a stimulus type, then the "
                "mean over types; animal mean: the mean of the animals' means instead. Members: "
                "mean ± standard deviation (ddof 1) over single networks. Left out: trials whose "
                "video a member trained on"
                + (", or on which weights were fitted. " if fitted else ". ")
                + f"Score unit {first['score_unit']}; {first['frame_convention']}.",
                *([f"Training set {same['training_set']}."] if "training_set" in same else []),
                *([f"Scored on animals {same['animals']}."] if same.get("animals") else []),
                *interval_note(intervals, _final_first(board)),
                *([] if relative is None else [against_ceiling.note(relative)]),
                *selection_note(board, _final_first(board)),
                *([f"– : no value ({'; '.join(reasons)})."] if reasons else []),
                published.NOTE,
                "The mean of 14 seeds is from its Table 5.",
                *notes,
                *published.variations(compared, published_as=published_as, titles=titles),
            ]
        ),
        section="scores",
        row_heading="tier_title",
    )


def members_table(
    board: pd.DataFrame,
    *,
    records: Mapping[tuple[str, str], Mapping[str, Any]],
    titles: Mapping[str, str],
) -> Table:
    """Every member by itself: its scores per tier and what it can be traced to.

    Args:
        board: rows of ONE protocol, as `evaluation.scores.leaderboard` returns them.
        records: (system, member) -> its `run.json`; a member without one gets empty cells.

    Raises:
        ValueError: no rows, or rows of several protocols.
    """
    protocol = one_protocol(board)
    members = board[board["member"] != ENSEMBLE]
    tiers = [
        tier
        for tier in _final_first(board)
        if members.loc[members["tier"] == tier, METRICS[0]].notna().any()
    ]
    rows = []
    for (system, member), part in members.groupby(["system", "member"], sort=False, observed=True):
        record = records.get((str(system), str(member)), {})
        row: dict[str, Any] = {
            "protocol": protocol,
            "system": str(system),
            "system_title": titles.get(str(system), str(system)),
            "member": str(member),
            "training_set": str(part["training_set"].iloc[0]),
        }
        for tier in tiers:
            for metric in METRICS:
                value = part.loc[part["tier"] == tier, metric]
                row[f"{metric}_{tier}"] = float(value.iloc[0]) if len(value) else None
        commit = _commit(record)
        row |= {
            "fingerprint": _fingerprint(record),
            "fingerprint_short": (_fingerprint(record) or "")[:10] or None,
            "commit": commit,
            "commit_short": (commit or "")[:10] or None,
        }
        rows.append(row)
    systems, known = list(titles), list(records)
    rows.sort(
        key=lambda row: (
            _place(row["system"], systems),
            _place((row["system"], row["member"]), known),
        )
    )
    columns = [
        Column("system_title", "System"),
        Column("member", "Member"),
        Column("training_set", "Training set"),
    ]
    columns += [
        Column(f"{metric}_{tier}", label, "score", TIER_LABELS.get(tier, f"Tier {tier}"))
        for tier in tiers
        if tier in shown_tiers(board)
        for metric, label in zip(METRICS, ("single-trial", "to average"), strict=True)
    ]
    columns += [Column("fingerprint_short", "Configuration"), Column("commit_short", "Commit")]
    return Table(
        frame=pd.DataFrame(rows, columns=None if rows else [column.key for column in columns]),
        columns=columns,
        title=f"Members, protocol {protocol}",
        caption=(
            f"n = {len(rows)} members. Single-trial correlation and correlation to average, pooled "
            "over the neurons of all animals within a stimulus type, then averaged over types. "
            "Configuration: start of the fingerprint of the resolved configuration; the whole one "
            "is in the CSV and in the member's run.json."
        ),
        section="scores",
        order=1,
    )


def _final_first(board: pd.DataFrame) -> list[str]:
    # Live test sets decided nothing in the competition; they come after everything else.
    shown = shown_tiers(board)
    return [*shown, *(t for t in dict.fromkeys(board["tier"].astype(str)) if t not in shown)]


def _place(item: Any, order: Sequence[Any]) -> int:
    return order.index(item) if item in order else len(order)


def _estimate(in_tier: pd.DataFrame, system: str, estimate: str) -> pd.DataFrame:
    rows = in_tier[in_tier["system"] == system]
    is_ensemble = rows["member"] == ENSEMBLE
    return rows[is_ensemble] if estimate == "ensemble" else rows[~is_ensemble]


def _best_first(in_tier: pd.DataFrame) -> list[str]:
    best = in_tier.groupby("system", observed=True)[METRICS[0]].max()
    return [str(name) for name in best.sort_values(ascending=False, na_position="last").index]


def _row(
    part: pd.DataFrame,
    tier: str,
    system: str,
    estimate: str,
    titles: Mapping[str, str],
    published_system: str,
) -> dict[str, Any]:
    count = len(part)
    first = part.iloc[0]
    if estimate == "ensemble":
        label = "ensemble"
    else:
        label = "single member" if count == 1 else f"mean of {count} members"
    row: dict[str, Any] = {
        "protocol": str(first["protocol"]),
        "track": str(first["track"]),
        "tier": tier,
        "tier_title": TIER_LABELS.get(tier, f"Tier {tier}"),
        "system": system,
        "system_title": titles.get(system, system),
        "estimate": estimate,
        "estimate_title": label,
        "members": count if estimate == "members" else None,
        "training_set": str(first["training_set"]),
    }
    for metric in METRICS:
        for key in (metric, f"{metric}_animal_mean", f"{metric}_types_pooled"):
            row[key] = part[key].mean()
            row[f"{key}_sd"] = part[key].std(ddof=1) if count > 1 else None
    row |= {
        "neurons": int(first["neurons"]),
        "animals": str(first["animals"]),
        "stimulus_types": str(first["stimulus_types"]),
        "trials": int(first["trials"]),
        "trials_left_out": int(part["trials_left_out"].max()),
        "reason": next((str(reason) for reason in part["reason"].dropna()), None),
        "score_unit": str(first["score_unit"]),
        "frame_convention": str(first["frame_convention"]),
    }
    return row | _published(published_system, estimate, tier, single=label == "single member")


def _interval(
    intervals: pd.DataFrame | None, tier: str, system: str, estimate: str
) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for metric in METRICS:
        ends = interval_of(intervals, system=system, estimate=estimate, tier=tier, metric=metric)
        row[f"{metric}_lower"], row[f"{metric}_upper"] = ends or (None, None)
        row[f"{metric}_interval"] = f"{signed(ends[0])} to {signed(ends[1])}" if ends else None
    return row


def _in_units(
    further: pd.DataFrame | None, units: Sequence[str], tier: str, system: str, estimate: str
) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for unit in units:
        assert further is not None
        chosen = (further["tier"] == tier) & (further["score_unit"] == unit)
        part = _estimate(further[chosen], system, estimate)
        for metric in METRICS:
            row[f"{metric}_{unit}"] = part[metric].mean()
            row[f"{metric}_{unit}_sd"] = part[metric].std(ddof=1) if len(part) > 1 else None
    return row


def _published(system: str, estimate: str, tier: str, *, single: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"published_system": None}
    for metric in METRICS:
        # A single member has no ensemble beside it, so it shows what its system submitted, if only
        # that was published.
        candidates = [estimate, "ensemble"] if single else [estimate]
        references = [
            published.reference_score(
                system, estimate=name, track=published_track(tier), metric=metric
            )
            for name in candidates
        ]
        reference = next((found for found in references if found), None)
        row[f"published_{metric}"] = reference.value if reference else None
        row[f"published_{metric}_sd"] = reference.spread if reference else None
        if reference:
            row["published_system"] = system
        row["published_estimate"] = reference.estimate if reference else None
        row["published_protocol"] = published.PROTOCOL_LABEL if reference else None
        row["published_citation"] = reference.citation if reference else None
    return row


def _fingerprint(record: Mapping[str, Any]) -> str | None:
    fingerprint = record.get("fingerprint")
    return fingerprint.get("digest") if isinstance(fingerprint, Mapping) else fingerprint


def _commit(record: Mapping[str, Any]) -> str | None:
    git = (record.get("environment") or {}).get("git") or {}
    return git.get("commit")
