"""A finished member is never trained again silently."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sensorium_models import files, fingerprints
from sensorium_models.configuration import REPOSITORY, ConfigurationError
from sensorium_models.finished import MemberGuard
from sensorium_models.study import Study, read_study


def study(results: Path, **overrides: Any) -> Study:
    base = {
        "results": str(results),
        "protocols": ["open"],
        "systems": ["factorized_baseline"],
        "members": {"factorized_baseline": {"seed": [8, 16]}},
    }
    return read_study(REPOSITORY / "config.yaml", overrides={**base, **overrides})


def finish(which: Study, member: str) -> None:
    """Leave the record that a training leaves."""
    guard = MemberGuard(which)
    content = fingerprints.member(which, "clean", "factorized_baseline", member)
    record = {
        "fingerprint": {"digest": fingerprints.digest(content), "content": content},
        "recordings": dict.fromkeys("ABCDE", "digest"),
        "wall_seconds": 7200.0,
    }
    folder = guard.folder("clean", "factorized_baseline", member)
    files.write_json(folder / "run.json", record)


def fingerprint(which: Study, member: str = "seed8") -> str:
    return MemberGuard(which).fingerprint("clean", "factorized_baseline", member)


def test_an_unchanged_member_keeps_its_fingerprint(tmp_path: Path) -> None:
    before = fingerprint(study(tmp_path))
    finish(study(tmp_path), "seed8")
    assert fingerprint(study(tmp_path)) == before
    # Another seed is another member; it touches nobody else.
    more = study(tmp_path, members={"factorized_baseline": {"seed": [8, 16, 42]}})
    assert fingerprint(more) == before


def test_a_change_stops_with_the_list_and_the_hours_at_stake(tmp_path: Path) -> None:
    for member in ("seed8", "seed16"):
        finish(study(tmp_path), member)
    changed = study(tmp_path, animals=["A", "B", "C"])
    with pytest.raises(ConfigurationError) as caught:
        fingerprint(changed)
    message = str(caught.value)
    assert "2 finished members" in message
    assert "4.00 hours" in message
    assert "clean/factorized_baseline/seed16: training_set.recordings.D" in message
    assert "replace_members=true" in message
    assert "adopt_members=true" in message


def test_replacing_gives_a_new_fingerprint_and_adopting_keeps_the_old(tmp_path: Path) -> None:
    finish(study(tmp_path), "seed8")
    before = fingerprint(study(tmp_path))
    few = {"animals": ["A", "B", "C"]}
    assert fingerprint(study(tmp_path, **few, replace_members=True)) != before
    assert fingerprint(study(tmp_path, **few, adopt_members=True)) == before
    # Adopting lasts once it is recorded.
    assert MemberGuard(study(tmp_path, **few)).adopt() == ["clean/factorized_baseline/seed8"]
    assert fingerprint(study(tmp_path, **few)) == before
    # It was adopted for this change, not for any other.
    with pytest.raises(ConfigurationError):
        fingerprint(study(tmp_path, animals=["A", "B"]))


def test_a_record_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    finish(study(tmp_path), "seed8")
    path = tmp_path / "members/clean/factorized_baseline/seed8/run.json"
    path.write_text("{")
    with pytest.raises(ConfigurationError, match=r"run\.json"):
        fingerprint(study(tmp_path))


def test_records_are_read_without_torch() -> None:
    """Reports run in an environment that has none."""
    code = "import sys, sensorium_models.finished; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY).returncode == 0
