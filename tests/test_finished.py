"""A finished member is never trained again silently."""

import re
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


def finish_files(which: Study, member: str) -> None:
    """Leave everything that a training leaves."""
    finish(which, member)
    folder = MemberGuard(which).folder("clean", "factorized_baseline", member)
    for name in ("weights.safetensors", "history.csv", "split.parquet"):
        (folder / name).touch()


def waits(which: Study, member: str) -> bool:
    """Whether the training rule exists for a member."""
    path = f"clean/factorized_baseline/{member}/run.json"
    pattern = MemberGuard(which).pattern()
    return re.match(rf"{pattern}/factorized_baseline/{member}/run\.json$", path) is not None


def check(which: Study, member: str = "seed8") -> None:
    MemberGuard(which).check("clean", "factorized_baseline", member)


def test_only_what_is_not_finished_is_trained(tmp_path: Path) -> None:
    assert waits(study(tmp_path), "seed8")
    finish_files(study(tmp_path), "seed8")
    check(study(tmp_path))
    assert not waits(study(tmp_path), "seed8")
    assert waits(study(tmp_path), "seed16")
    # Another seed is another member; it touches nobody else.
    more = study(tmp_path, members={"factorized_baseline": {"seed": [8, 16, 42]}})
    check(more)
    assert not waits(more, "seed8")
    assert waits(more, "seed42")
    # Half of a member is none.
    (tmp_path / "members/clean/factorized_baseline/seed8/weights.safetensors").unlink()
    assert waits(study(tmp_path), "seed8")


def test_a_change_stops_with_the_list_and_the_hours_at_stake(tmp_path: Path) -> None:
    for member in ("seed8", "seed16"):
        finish_files(study(tmp_path), member)
    changed = study(tmp_path, animals=["A", "B", "C"])
    with pytest.raises(ConfigurationError) as caught:
        check(changed)
    message = str(caught.value)
    assert "2 finished members" in message
    assert "4.00 hours" in message
    assert "clean/factorized_baseline/seed16: training_set.recordings.D" in message
    assert "replace_members=true" in message
    assert "adopt_members=true" in message
    assert not waits(changed, "seed8")


def test_replacing_trains_again_and_adopting_keeps(tmp_path: Path) -> None:
    finish_files(study(tmp_path), "seed8")
    few = {"animals": ["A", "B", "C"]}
    replacing = study(tmp_path, **few, replace_members=True)
    check(replacing)
    assert waits(replacing, "seed8")
    adopting = study(tmp_path, **few, adopt_members=True)
    check(adopting)
    assert not waits(adopting, "seed8")
    # Adopting lasts once it is recorded.
    assert MemberGuard(study(tmp_path, **few)).adopt() == ["clean/factorized_baseline/seed8"]
    check(study(tmp_path, **few))
    # It was adopted for this change, not for any other.
    with pytest.raises(ConfigurationError):
        check(study(tmp_path, animals=["A", "B"]))


def test_a_record_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    finish_files(study(tmp_path), "seed8")
    path = tmp_path / "members/clean/factorized_baseline/seed8/run.json"
    path.write_text("{")
    with pytest.raises(ConfigurationError, match=r"run\.json"):
        check(study(tmp_path))


def test_records_are_read_without_torch() -> None:
    """Reports run in an environment that has none."""
    code = "import sys, sensorium_models.finished; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY).returncode == 0


def test_published_weights_take_the_place_of_a_training(tmp_path: Path) -> None:
    which = study(
        tmp_path,
        protocols=["competition", "open"],
        published_weights={"factorized_baseline": {"path": "weights/{member}-{seed}.pt"}},
    )
    assert which.published_weights("published", "factorized_baseline", "seed8") == Path(
        "weights/seed8-8.pt"
    )
    # Clean members are trained all the same.
    assert which.published_weights("clean", "factorized_baseline", "seed8") is None
    guard = MemberGuard(which)
    for training_set, imported in (("published", True), ("clean", False)):
        path = f"{training_set}/factorized_baseline/seed8/run.json"
        assert bool(re.match(guard.pattern(imported=imported), path))
        assert not re.match(guard.pattern(imported=not imported), path)
    # Nothing of the recipe decides an imported member; its checkpoint does.
    content = guard.fingerprint("published", "factorized_baseline", "seed8")
    assert content["published_weights"] == "weights/seed8-8.pt"
    assert "recipe" not in content["system"]
