"""Fingerprints change with what decides a result and with nothing else."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from sensorium_models import fingerprints, source_code
from sensorium_models.configuration import REPOSITORY
from sensorium_models.study import read_study

CONFIG = REPOSITORY / "config.yaml"


@pytest.fixture(autouse=True)
def _forget_sources() -> None:
    for cached in (source_code.closure, source_code.imports, source_code.meaning):
        cached.cache_clear()


def test_comments_docstrings_and_formatting_do_not_count(tmp_path: Path) -> None:
    plain, dressed, other = tmp_path / "a.py", tmp_path / "b.py", tmp_path / "c.py"
    plain.write_text("def f(x):\n    return x+1\n")
    dressed.write_text(
        '"""Doc."""\n\ndef f(\n    x,\n):  # note\n    """Doc."""\n    return x + 1\n'
    )
    other.write_text("def f(x):\n    return x+2\n")
    assert source_code.meaning(plain) == source_code.meaning(dressed)
    assert source_code.meaning(plain) != source_code.meaning(other)


def test_a_member_depends_on_its_own_core_and_not_on_others() -> None:
    study = read_study(CONFIG)
    closure = {name for name, _ in source_code.closure("sensorium_models.training.loop")}
    assert "sensorium_models.recordings.clips" in closure
    assert "sensorium_models.training.state" in closure
    # A core of one system is no reason to train another one again.
    assert "sensorium_models.networks.cores.factorized" not in closure
    assert "sensorium_models.networks.cores.pixels" not in closure
    assert not any(name.startswith("sensorium_models.reporting") for name in closure)
    assert not any(name.startswith("sensorium_models.simulation") for name in closure)
    one = fingerprints.member(study, "clean", "factorized_baseline", "seed8")
    two = fingerprints.member(study, "clean", "factorized_baseline", "seed16")
    assert fingerprints.changed_keys(one, two) == ["axes.seed"]


def test_titles_and_cluster_resources_do_not_decide_a_member(tmp_path: Path) -> None:
    (tmp_path / "same.yaml").write_text(
        "extends: factorized_baseline\ntitle: Another name\nresources: {runtime_hours: 1}\n"
    )
    (tmp_path / "faster.yaml").write_text(
        "extends: factorized_baseline\nrecipe: {optimizer: {learning_rate: 0.01}}\n"
    )
    study = read_study(
        CONFIG,
        overrides={
            "systems": ["factorized_baseline", "same", "faster"],
            "systems_folders": [str(tmp_path)],
        },
    )
    base, same, faster = (
        fingerprints.member(study, "clean", name, "seed8")
        for name in ("factorized_baseline", "same", "faster")
    )
    assert fingerprints.changed_keys(base, same) == ["system.name"]
    assert fingerprints.changed_keys(base, faster) == [
        "system.name",
        "system.recipe.optimizer.learning_rate",
    ]


def test_another_animal_in_the_training_set_is_another_member() -> None:
    few = read_study(CONFIG, overrides={"animals": ["A", "B"], "protocols": ["open"]})
    more = read_study(CONFIG, overrides={"animals": ["A", "B", "C"], "protocols": ["open"]})
    changed = fingerprints.changed_keys(
        fingerprints.member(few, "clean", "factorized_baseline", "seed8"),
        fingerprints.member(more, "clean", "factorized_baseline", "seed8"),
    )
    assert all(key.startswith("training_set.") for key in changed)
    assert changed


def test_another_teacher_is_another_student(tmp_path: Path) -> None:
    def students(epochs: int) -> dict[str, Any]:
        # The system's file changes what its teachers are, and not the students.
        basic = {"recipe": {"schedule": {"max_epochs": epochs}}}
        distilled = {"recipe": {"distillation": {"teacher": {"stage": "basic"}, "ratio": 0.3}}}
        content = {
            "extends": "factorized_baseline",
            "members": {"stage": ["basic", "distilled"], "seed": [1]},
            "by_axis": {"stage": {"basic": basic, "distilled": distilled}},
            "recipe": {
                "batches": "mixed_animals",
                "samples_per_epoch": 12,
                "loss": {"scale": "weighted_clips"},
            },
        }
        (tmp_path / "pair.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        overrides = {"systems": ["pair"], "systems_folders": [str(tmp_path)]}
        study = read_study(CONFIG, overrides=overrides)
        return fingerprints.member(study, "clean", "pair", "distilled-seed1")

    keys = fingerprints.changed_keys(students(10), students(20))
    assert keys == ["teacher.system.recipe.schedule.max_epochs"]


def test_how_archives_are_read_decides_no_network() -> None:
    """It shows in the stores, whose digests are compared."""
    behind = {name for name, _ in source_code.closure("sensorium_models.training.loop")}
    assert "sensorium_models.recordings.store" in behind
    assert not behind & {"sensorium_models.recordings.archives", "sensorium_models.training.lock"}
