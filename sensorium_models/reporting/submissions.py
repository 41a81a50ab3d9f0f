"""Table of the files to upload, with the published values and, in simulated studies, their scores.

The competition's server alone can score withheld responses. Where recordings are simulated, an
emulated server does (`simulation.server`), and the table says so.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from sensorium_models.evaluation.leaderboard import track_of
from sensorium_models.evaluation.scores import METRICS
from sensorium_models.reporting import published
from sensorium_models.reporting.boards import TIER_LABELS, published_track
from sensorium_models.reporting.tables import Column, Table
from sensorium_models.submission import UPLOADS

_SHORT = ("single-trial", "to average")
_PUBLISHED_GROUP = f"Published ({published.PROTOCOL_LABEL})"
EMULATED_GROUP = "Emulated server"


def submissions_table(
    uploads: Mapping[str, Sequence[Path]],
    *,
    protocol: str,
    served: pd.DataFrame | None,
    titles: Mapping[str, str],
    simulated: bool,
    published_as: Mapping[str, str] | None = None,
) -> Table:
    """One row per system and tier: the file that holds it and what it scores.

    Args:
        uploads: system -> its zip files, named after `submission.UPLOADS`.
        served: rows of `evaluation.leaderboard` over the emulated server's scores; None where
            there is no such server.
        titles: system -> the name that a reader knows.
        published_as: system -> the published system whose numbers stand beside it.
    """
    rows = [
        _row(protocol, system, path, tier, served, titles, (published_as or {}).get(system, system))
        for system, paths in uploads.items()
        for path in paths
        for tier in UPLOADS[path.stem]
    ]
    rows.sort(key=lambda row: (list(TIER_LABELS).index(row["tier"]), -(row[METRICS[0]] or 0)))
    columns = [
        Column("system_title", "System"),
        Column("file", "File"),
        Column("size", "Size", "text"),
    ]
    if served is not None:
        columns += [
            Column(metric, label, "score", EMULATED_GROUP)
            for metric, label in zip(METRICS, _SHORT, strict=True)
        ]
    columns += [
        Column(f"published_{metric}", label, "score", _PUBLISHED_GROUP)
        for metric, label in zip(METRICS, _SHORT, strict=True)
    ]
    scoring = (
        "Emulated server: scored with the withheld responses of SIMULATED recordings, on every "
        "trial, also those whose video a member was trained on, as the competition's server does; "
        "it is not the competition's, and its scores say nothing about real animals. "
        if served is not None
        else "Only the competition's server can score them. "
    )
    return Table(
        frame=pd.DataFrame(rows),
        columns=columns,
        title=f"Files to upload, protocol {protocol}",
        caption=(
            "Each file holds the mean prediction of a system's members in the server's format and "
            f"was checked as the server would. {scoring}{published.NOTE}"
            + (" The recordings are simulated." if simulated and served is None else "")
        ),
        section="scores",
        order=2,
        row_heading="tier_title",
    )


def _row(
    protocol: str,
    system: str,
    path: Path,
    tier: str,
    served: pd.DataFrame | None,
    titles: Mapping[str, str],
    published_system: str,
) -> dict[str, Any]:
    size = path.stat().st_size
    row: dict[str, Any] = {
        "protocol": protocol,
        "track": track_of(tier),
        "tier": tier,
        "tier_title": TIER_LABELS[tier],
        "system": system,
        "system_title": titles.get(system, system),
        "file": f"{system}/{path.name}",
        "bytes": size,
        "size": f"{size / 1e6:,.1f} MB" if size >= 1e6 else f"{size / 1e3:,.1f} kB",
        "scored_by": None if served is None else "emulated server",
    }
    for metric in METRICS:
        row[metric] = None
        if served is not None:
            scores = served[(served["system"] == system) & (served["tier"] == tier)]
            row[metric] = float(scores[metric].iloc[0]) if len(scores) else None
        references = [
            published.reference_score(
                published_system, estimate=estimate, track=published_track(tier), metric=metric
            )
            for estimate in ("ensemble", "members")
        ]
        reference = next((found for found in references if found), None)
        row[f"published_{metric}"] = reference.value if reference else None
    return row
