"""The leakage audit as tables: videos shown in several places, and what is scored for whom."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from sensorium_models.ensemble import MEMBER as ENSEMBLE
from sensorium_models.recordings.audit import MemberAudit, audit_members, shared_videos
from sensorium_models.reporting.tables import Column, Table

SECTION = "leakage"


@dataclass(frozen=True)
class JointMembers:
    """Whom an ensemble of several systems averages, and the tiers on which its weights were fitted.

    `members` are names by system.
    """

    members: Mapping[str, Sequence[str]]
    fitted_tiers: Sequence[str] = ()


MAX_MEMBERS_NAMED = 3


def shared_videos_table(videos: pd.DataFrame, *, tiers: Sequence[str], simulated: bool) -> Table:
    """Pairs of animal and tier that show the same videos.

    Args:
        videos: the table of `stimuli.videos_table`, of all animals present.
        tiers: those that serve something, in the order of the rows.
    """
    frame = shared_videos(videos, tiers=tiers)
    shown = videos[videos["tier"].isin(list(tiers))]
    animals = ", ".join(dict.fromkeys(videos["animal"]))
    found = (
        f"{shown['video_id'].nunique():,} different videos were shown to animals {animals}."
        if len(frame)
        else f"No video was shown in two places: animals {animals} share none."
    )
    return Table(
        frame=frame,
        columns=[
            Column("animal", "animal", group="Shown to"),
            Column("tier", "tier", group="Shown to"),
            Column("trials", "trials", "count", "Shown to"),
            Column("other_animal", "animal", group="And to"),
            Column("other_tier", "tier", group="And to"),
            Column("other_trials", "trials", "count", "And to"),
            Column("videos", "Videos in common", "count"),
        ],
        title="Videos shown in several places",
        caption=(
            f"{found} Each row is two places (animal and tier) with the videos that both show and "
            "the trials that show them. Identity is by content, whatever animal and tier. The CSV "
            "file also lists the videos." + (" The recordings are simulated." if simulated else "")
        ),
        section=SECTION,
        order=1,
    )


def leakage_table(
    splits: Mapping[str, pd.DataFrame],
    *,
    protocol: str,
    animals: Collection[str],
    tiers: Collection[str],
    withheld: Mapping[str, Collection[str]],
    titles: Mapping[str, str],
    simulated: bool,
    joint: Mapping[str, JointMembers] | None = None,
) -> Table:
    """What of the test trials is scored for each member and each ensemble, what not, and why.

    Args:
        splits: system -> the splits of all its members.
        animals, tiers: what the protocol predicts.
        withheld: animal -> tiers whose responses the publisher withholds.
        titles: system or ensemble -> the name that a reader knows.
        joint: ensembles of several systems, by name.

    Members of which the same is true share a row.
    """
    rows = []
    for system, table in splits.items():
        members = list(dict.fromkeys(table["member"]))
        alike: dict[str, tuple[list[str], dict[str, Any]]] = {}
        groups = [[member] for member in members] + ([members] if len(members) > 1 else [])
        for group in groups:
            audit = audit_members(table, group, animals=animals, tiers=tiers, withheld=withheld)
            row = _row(audit)
            key = str(len(group) > 1) + str(row)
            alike.setdefault(key, ([], row))[0].append(ENSEMBLE if len(group) > 1 else group[0])
        rows += [
            {
                "protocol": protocol,
                "system": system,
                "system_title": titles.get(system, system),
                "members": _members(named, of=len(members)),
                "member_names": " ".join(named),
                **row,
            }
            for named, row in alike.values()
        ]
    for name, ensemble in (joint or {}).items():
        # Members of different systems may bear the same name.
        members = [f"{s}/{member}" for s, named in ensemble.members.items() for member in named]
        table = pd.concat(
            [
                splits[s].assign(member=s + "/" + splits[s]["member"].astype(str))
                for s in ensemble.members
            ]
        )
        audit = audit_members(
            table,
            members,
            animals=animals,
            tiers=tiers,
            withheld=withheld,
            fitted_tiers=ensemble.fitted_tiers,
        )
        rows.append(
            {
                "protocol": protocol,
                "system": name,
                "system_title": titles.get(name, name),
                "members": f"ensemble of {len(members)}",
                "member_names": " ".join(members),
                **_row(audit),
            }
        )
    fitted = any(row["weights_fitted_on"] for row in rows)
    return Table(
        frame=pd.DataFrame(rows),
        columns=[
            Column("members", "Members"),
            Column("tested", "tested", "count", "Test trials"),
            Column("scored", "scored", "count", "Test trials"),
            Column("withheld", "withheld", "count", "Left out because"),
            Column("trained_on", "trained on", "count", "Left out because"),
            Column("teacher_trained_on", "teacher trained on", "count", "Left out because"),
            *(
                [Column("weights_fitted_on", "weights fitted on", "count", "Left out because")]
                if fitted
                else []
            ),
            Column("where", "tiers (animals)", "text", "Left out because"),
            Column("withheld_trained_on", "withheld, trained on", "count", "Also noted"),
            Column("scored_selected_on", "scored, selected on", "count", "Also noted"),
            Column("selecting", "trials", "count", "Selecting the epoch"),
            Column("selecting_trained_on", "trained on", "count", "Selecting the epoch"),
        ],
        title=f"Trials left out of scores, protocol {protocol}",
        caption=(
            "Test trials of each member and of the ensemble of all members of a system, counted by "
            "what becomes of them. Left out of every score: trials whose responses the publisher "
            "withholds, and trials whose video the member (in an ensemble: any member) or its "
            "teacher was trained on, in whatever animal. Also noted: withheld trials whose video "
            "was trained on, which the competition's server scores all the same, and scored trials "
            "whose video helped to select the best epoch. Selecting trials whose video was trained "
            "on make the selection too hopeful. "
            + ("The weights of an ensemble are not judged where they were fitted. " * fitted)
            + "The CSV file lists the trials."
            + (" The recordings are simulated." if simulated else "")
        ),
        section=SECTION,
        order=0,
        row_heading="system_title",
    )


def _row(audit: MemberAudit) -> dict[str, Any]:
    leaked = pd.concat([audit.trained_on, audit.teacher_trained_on, audit.weights_fitted_on])
    return {
        "tested": audit.tested,
        "scored": len(audit.scored),
        "withheld": len(audit.withheld),
        "trained_on": len(audit.trained_on),
        "teacher_trained_on": len(audit.teacher_trained_on),
        "weights_fitted_on": len(audit.weights_fitted_on),
        "where": _where(leaked) or None,
        "withheld_trained_on": len(audit.withheld_trained_on),
        "scored_selected_on": len(audit.scored_selected_on),
        "selecting": len(audit.selecting),
        "selecting_trained_on": len(audit.selecting_trained_on),
        "trials_withheld": _trials(audit.withheld),
        "trials_trained_on": _trials(audit.trained_on),
        "trials_teacher_trained_on": _trials(audit.teacher_trained_on),
        "trials_weights_fitted_on": _trials(audit.weights_fitted_on),
        "trials_withheld_trained_on": _trials(audit.withheld_trained_on),
        "trials_scored_selected_on": _trials(audit.scored_selected_on),
    }


def _where(trials: pd.DataFrame) -> str:
    """`oracle (F, G); live_test_main (F)`."""
    return "; ".join(
        f"{tier} ({', '.join(dict.fromkeys(part['animal']))})"
        for tier, part in trials.groupby("tier", sort=False)
    )


def _trials(trials: pd.DataFrame) -> str:
    """`A: 3 17; F: 4`, by animal."""
    return "; ".join(
        f"{animal}: {' '.join(str(trial) for trial in sorted(part['trial']))}"
        for animal, part in trials.groupby("animal", sort=False)
    )


def _members(names: Sequence[str], *, of: int) -> str:
    if list(names) == [ENSEMBLE]:
        return f"ensemble of {of}"
    if len(names) == of and of > 1:
        return f"each of {of}"
    if len(names) <= MAX_MEMBERS_NAMED:
        return ", ".join(names)
    return f"{names[0]} and {len(names) - 1} others"
