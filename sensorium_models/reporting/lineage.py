"""Lineage: from every member to its weights, its configuration, and the data that it saw.

Digests are shown by the first digits of those in the files, so that each can be looked up: weights
are hashed as they lie on the disk, the rest is in `run.json`, recording stores and receipts.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from sensorium_models.files import sha256
from sensorium_models.reporting.tables import Column, Table

SECTION = "lineage"
SHORT = 10  # digits of a digest in print; the CSV has all of them

_MEMBER_KEYS = (
    *("system", "system_title", "member", "training_set", "weights", "weights_sha256"),
    *("weights_short", "configuration", "configuration_short", "commit", "commit_short"),
    *("uncommitted_changes", "imported_from", "origin", "finished", "recordings", "data"),
)
_RECEIPT_KEYS = (
    *("animal", "folder", "recording", "recording_short", "source", "commit", "commit_short"),
    *("checksum", "checksum_short", "bytes", "gigabytes", "obtained", "archive"),
)


def members_table(
    records: Mapping[str, Mapping[str, Mapping[str, Any]]],
    *,
    weights: Mapping[str, Mapping[str, Path]],
    recordings: Mapping[str, str],
    results: Path,
    titles: Mapping[str, str],
    training_set: str,
) -> Table:
    """One row per member of a training set: weights, configuration, code, recordings.

    Args:
        records: system -> member -> `run.json`.
        weights: system -> member -> `weights.safetensors`.
        recordings: animal -> content digest of its store as it is now.
        results: folder that paths are given relative to.
        titles: system -> the name that a reader knows.
    """
    rows = [
        _member_row(system, member, record, weights[system][member], recordings, results, titles)
        | {"training_set": training_set}
        for system, members in records.items()
        for member, record in members.items()
    ]
    changed = sum("other" in str(row["data"]) for row in rows)
    return Table(
        frame=pd.DataFrame(rows, columns=list(_MEMBER_KEYS)),
        columns=[
            Column("member", "Member"),
            Column("weights_short", "SHA-256", "text", "Weights"),
            Column("weights", "file", "text", "Weights"),
            Column("configuration_short", "configuration", "text", "Made by"),
            Column("commit_short", "commit", "text", "Made by"),
            Column("finished", "finished", "text", "Made by"),
            Column("data", "Recordings"),
        ],
        title=f"Lineage of the members, training set {training_set}",
        caption=(
            "What each member is and where it comes from: its weights, the fingerprint of its "
            "resolved configuration and sources (beside the weights in run.json, which holds both "
            "in full), the commit of the code (+: with changes that were not committed) or the "
            "published checkpoint, and the content of the recordings that it learned from, by the "
            "digests that the table of recordings lists. Every score, figure and submission names "
            "its member or the ensemble of all of them. "
            + (
                f"{changed} members were trained on other content than the recordings have now."
                if changed
                else "All recordings are the ones that members were trained on."
            )
        ),
        section=SECTION,
        order=0,
        row_heading="system_title",
    )


def recordings_table(
    receipts: Mapping[str, Mapping[str, Any] | None], *, recordings: Mapping[str, str]
) -> Table:
    """One row per animal: its recording, and the receipt of the archive that it was made from.

    Args:
        receipts: animal -> receipt; None where there is none any more.
        recordings: animal -> content digest of its store.
    """
    rows = [_receipt_row(animal, receipts.get(animal), recordings[animal]) for animal in recordings]
    return Table(
        frame=pd.DataFrame(rows, columns=list(_RECEIPT_KEYS)),
        columns=[
            Column("animal", "Animal"),
            Column("recording_short", "Recording"),
            Column("folder", "folder", "text", "Archive"),
            Column("source", "from", "text", "Archive"),
            Column("commit_short", "commit", "text", "Archive"),
            Column("checksum_short", "checksum", "text", "Archive"),
            Column("gigabytes", "size", "gigabytes", "Archive"),
            Column("obtained", "obtained", "text", "Archive"),
        ],
        title="Lineage of the recordings",
        caption=(
            "What each recording store holds (digest of its content) and the receipt of the "
            "archive that it was made from: where it came from, and the checksum that it had. "
            f"Digests are cut to {SHORT} digits; the CSV has them whole."
        ),
        section=SECTION,
        order=1,
    )


def _member_row(
    system: str,
    member: str,
    record: Mapping[str, Any],
    weights: Path,
    recordings: Mapping[str, str],
    results: Path,
    titles: Mapping[str, str],
) -> dict[str, Any]:
    digest = sha256(weights)
    git = (record.get("environment") or {}).get("git") or {}
    commit = git.get("commit")
    imported = record.get("imported_from") or {}
    configuration = (record.get("fingerprint") or {}).get("digest")
    trained_on = {str(a): str(d) for a, d in (record.get("recordings") or {}).items()}
    short_commit = f"{commit[:SHORT]}{'+' if git.get('dirty') else ''}" if commit else None
    return {
        "system": system,
        "system_title": titles.get(system, system),
        "member": member,
        "weights": _relative(weights, results),
        "weights_sha256": digest,
        "weights_short": digest[:SHORT],
        "configuration": configuration,
        "configuration_short": configuration[:SHORT] if configuration else None,
        "commit": commit,
        "commit_short": f"imported: {imported['sha256'][:SHORT]}" if imported else short_commit,
        "uncommitted_changes": git.get("dirty"),
        "imported_from": imported.get("path"),
        "origin": imported.get("sha256"),
        "finished": str(record["finished"])[:10] if "finished" in record else None,
        "recordings": " ".join(f"{animal}:{digest}" for animal, digest in trained_on.items()),
        "data": " ".join(
            f"{animal} {digest[:SHORT]}"
            + ("" if recordings.get(animal, digest) == digest else " (other now)")
            for animal, digest in trained_on.items()
        )
        or None,
    }


def _receipt_row(animal: str, receipt: Mapping[str, Any] | None, digest: str) -> dict[str, Any]:
    row: dict[str, Any] = {
        "animal": animal,
        "recording": digest,
        "recording_short": digest[:SHORT],
        "source": "no receipt",
    }
    if receipt is None:
        return row
    source = receipt.get("source") or {}
    published = receipt.get("published") or {}
    commit = published.get("commit") or source.get("commit")
    checksum = published.get("checksum") or receipt.get("checksum")
    size = receipt.get("bytes")
    return row | {
        "folder": receipt.get("folder"),
        "source": source.get("repository") or source.get("kind"),
        "commit": commit,
        "commit_short": str(commit)[:SHORT] if commit else None,
        "checksum": checksum,
        "checksum_short": _short_checksum(str(checksum)) if checksum else None,
        "bytes": size,
        "gigabytes": size / 1024**3 if size is not None else None,
        "obtained": str(receipt.get("time"))[:10] if receipt.get("time") else None,
        "archive": receipt.get("archive"),
    }


def _short_checksum(checksum: str) -> str:
    algorithm, _, digits = checksum.rpartition(":")
    return f"{algorithm}:{digits[:SHORT]}" if algorithm else digits[:SHORT]


def _relative(path: Path, results: Path) -> str:
    path, results = Path(path), Path(results)
    return str(path.relative_to(results)) if path.is_relative_to(results) else str(path)
