"""Lineage: digests of what lies on the disk, and a word where something has changed since."""

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sensorium_models.reporting import lineage, tables
from sensorium_models.reporting.page import SECTIONS

DIGESTS = {"A": "0" * 64, "B": "1" * 64}
RECEIPT = {
    "archive": "/data/A.zip",
    "folder": "dynamic29156-11-10-Video-A",
    "checksum": "7" * 64,
    "bytes": 3 * 1024**3,
    "source": {"kind": "gin", "repository": "pollytur/sensorium_2023_data", "commit": "master"},
    "published": {
        "commit": "798ba8ad041d8f0f0ce879af396d52c7238c2730",
        "checksum": "MD5:" + "9" * 32,
    },
    "time": "2026-03-01T10:00:00+00:00",
}


def _members(made: SimpleNamespace, folder: Path, **changes: Any) -> tables.Table:
    records, weights = {}, {}
    for seed in (8, 16):
        path = folder / f"members/clean/viv1t/seed{seed}/weights.safetensors"
        path.parent.mkdir(parents=True)
        path.write_bytes(bytes([seed]))
        weights[f"seed{seed}"] = path
        records[f"seed{seed}"] = made.record("viv1t", seed) | {"finished": "2026-03-02T01:02:03"}
    records["seed16"] |= changes
    return lineage.members_table(
        {"viv1t": records},
        weights={"viv1t": weights},
        recordings=DIGESTS,
        results=folder,
        titles=made.titles,
        training_set="clean",
    )


def test_a_member_leads_to_weights_configuration_and_recordings(
    made: SimpleNamespace, tmp_path: Path
) -> None:
    table = _members(made, tmp_path)
    row = table.frame.set_index("member").loc["seed8"]
    assert row["weights_sha256"] == hashlib.sha256(b"\x08").hexdigest()
    assert (tmp_path / row["weights"]).read_bytes() == b"\x08"
    assert row["configuration"] == f"{8:064x}"
    assert row["data"] == "A 0000000000 B 1111111111"
    assert row["commit_short"] == "c0ffeec0ff"
    assert "All recordings are the ones" in table.caption
    assert table.section in SECTIONS
    shown = tables.record(table)
    assert shown.rows[0][1] == row["weights_sha256"][:10]


def test_recordings_that_changed_since_are_pointed_out(
    made: SimpleNamespace, tmp_path: Path
) -> None:
    table = _members(made, tmp_path, recordings={"A": "0" * 64, "B": "2" * 64})
    row = table.frame.set_index("member").loc["seed16"]
    assert row["data"] == "A 0000000000 B 2222222222 (other now)"
    assert "1 members were trained on other content" in table.caption


def test_imported_weights_name_their_checkpoint(made: SimpleNamespace, tmp_path: Path) -> None:
    table = _members(made, tmp_path, imported_from={"path": "ckpt.pt", "sha256": "a" * 64})
    row = table.frame.set_index("member").loc["seed16"]
    assert row["commit_short"] == "imported: aaaaaaaaaa"
    assert row["origin"] == "a" * 64


def test_a_recording_leads_to_the_receipt_of_its_archive() -> None:
    table = lineage.recordings_table({"A": RECEIPT, "B": None}, recordings=DIGESTS)
    rows = table.frame.set_index("animal")
    assert rows.loc["A", "recording"] == DIGESTS["A"]
    # What was downloaded counts, not the moving name that was asked for.
    assert rows.loc["A", "commit"] == "798ba8ad041d8f0f0ce879af396d52c7238c2730"
    assert rows.loc["A", "checksum_short"] == "MD5:9999999999"
    assert tables.record(table).rows[0][6] == "3.0 GB"
    assert rows.loc["B", "source"] == "no receipt"
    assert tables.record(table).rows[1][2] == tables.NO_VALUE


def test_the_recordings_of_members_are_those_of_the_receipts(
    made: SimpleNamespace, tmp_path: Path
) -> None:
    members = _members(made, tmp_path).frame
    receipts = lineage.recordings_table({}, recordings=DIGESTS).frame
    for row in members["recordings"]:
        for pair in row.split():
            animal, digest = pair.split(":")
            assert receipts.set_index("animal").loc[animal, "recording"] == digest
