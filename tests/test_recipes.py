"""The schema of recipes: every published one is valid, and what cannot go together is refused."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from sensorium_models.configuration import (
    ConfigurationError,
    Origin,
    merged,
    read_yaml,
    validated,
)
from sensorium_models.recipes import Recipe
from sensorium_models.systems import SYSTEMS_FOLDER, System, load_system, with_changes

PUBLISHED = ["dwiseneuro", "dynamic_v1fm", "factorized_baseline", "viv1t", "viv1t_2025"]


def published(name: str) -> dict[str, Any]:
    """The recipe in a system's file."""
    return read_yaml(SYSTEMS_FOLDER / f"{name}.yaml")["recipe"]


def recipe(name: str, changes: dict[str, Any]) -> Recipe:
    return Recipe.model_validate(merged(published(name), changes))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_recipes_keep_all_that_their_files_say(name: str) -> None:
    def said(part: Any, whole: Any) -> bool:
        if isinstance(part, dict):
            return all(said(value, whole[key]) for key, value in part.items())
        return part == whole

    assert said(published(name), recipe(name, {}).model_dump(mode="json"))


def test_values_of_the_cards() -> None:
    """The numbers most easily lost, from the cards' training sections."""
    dwise, dynamic = recipe("dwiseneuro", {}), recipe("dynamic_v1fm", {})
    assert dwise.optimizer.learning_rate == pytest.approx(3e-4 * dwise.clips_per_batch / 4)
    assert (dwise.clip_frames - 1) * dwise.frame_step + 1 == 31
    assert dwise.schedule.max_epochs == 3 + 18
    assert dynamic.optimizer.missing_gradients == "zero"
    assert dynamic.schedule.max_epochs == 80 + 100
    viv1t, later = recipe("viv1t", {}), recipe("viv1t_2025", {})
    assert viv1t.loss.epsilon == later.loss.epsilon == pytest.approx(2**-23, rel=1e-7)
    assert viv1t.optimizer.parts["core"].weight_decay == 0.1789
    assert later.optimizer.parts["core"].weight_decay == 0.0783
    assert later.clipping.quantile == 0.1


@pytest.mark.parametrize(
    ("name", "changes", "sentence"),
    [
        ("dwiseneuro", {"samples_per_epoch": None}, "samples_per_epoch belongs to"),
        ("viv1t", {"samples_per_epoch": 5}, "samples_per_epoch belongs to"),
        ("dynamic_v1fm", {"cutmix": {"probability": 1, "alpha": 1}}, "cutmix needs batches: mixed"),
        ("dwiseneuro", {"loss": {"scale": "none"}}, "weighted_clips and batches mixed_animals"),
        ("viv1t", {"optimizer": {"kind": "adamw_schedule_free"}}, "go together"),
        ("viv1t_2025", {"moving_average": {"decay": 0.9}}, "averages the weights itself"),
        ("viv1t", {"clips_per_part": 3}, "allow_inexact_split: true to accept"),
        ("dwiseneuro", {"schedule": {"warm_up_epochs": 21}}, "fewer than max_epochs"),
    ],
)
def test_what_cannot_go_together_is_refused(
    name: str, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValidationError, match=sentence):
        recipe(name, changes)


def test_an_inexact_split_may_be_accepted() -> None:
    assert recipe("viv1t", {"clips_per_part": 3, "allow_inexact_split": True}).clips_per_part == 3


def system_with(changes: dict[str, Any]) -> System:
    content = {**read_yaml(SYSTEMS_FOLDER / "factorized_baseline.yaml"), "name": "tried"}
    if "members" in changes:
        del content["members"]
    content = with_changes(content, changes)
    return validated(System, content, Origin([], content))


def test_mistakes_are_told_by_key_without_the_kind() -> None:
    schedule = {"kind": "plateau", "max_epochs": 0}
    with pytest.raises(ConfigurationError, match=r"recipe\.schedule\.max_epochs: Input should be"):
        system_with({"recipe": {"schedule": schedule}})
    clipping = {"kind": "autoclip", "quantil": 0.1, "remembered_steps": 9}
    with pytest.raises(
        ConfigurationError,
        match=r"recipe\.clipping\.quantil: unknown key; allowed here: kind, quantile, remembered",
    ):
        system_with({"recipe": {"clipping": clipping}})


def test_another_kind_of_schedule_starts_from_nothing() -> None:
    schedule = published("dynamic_v1fm")["schedule"]
    system = system_with({"recipe": {"schedule": schedule}})
    assert system.recipe.schedule.model_dump() == schedule


BY_AXIS = {
    "members": {"fold": [0, 1], "stage": ["basic", "distilled"], "seed": [7]},
    "by_axis": {
        "fold": {1: {"core_settings": {"spatial_smoothness": 1.0}}},
        "stage": {
            "distilled": {"recipe": {"distillation": {"teacher": {"stage": "basic"}, "ratio": 0.3}}}
        },
    },
}
MIXED = {
    "batches": "mixed_animals",
    "samples_per_epoch": 8,
    "loss": {"scale": "weighted_clips"},
}


def test_an_axis_changes_the_system_of_its_members() -> None:
    system = system_with({**BY_AXIS, "recipe": MIXED})
    axes = system.member_axes()
    first, other = (system.of_member(axes[f"fold{fold}-basic-seed7"]) for fold in (0, 1))
    assert first.core_settings["spatial_smoothness"] == 10.0
    assert other.core_settings["spatial_smoothness"] == 1.0
    assert first.recipe.distillation is None
    assert first.by_axis == {}
    # Members that the file does not change are decided by the same settings.
    assert first.trained_by() == system_with({"recipe": MIXED}).trained_by()
    assert system.teacher_of(axes["fold1-basic-seed7"]) is None
    assert system.teacher_of(axes["fold1-distilled-seed7"]) == "fold1-basic-seed7"


def test_changes_by_axis_are_checked() -> None:
    with pytest.raises(ConfigurationError, match="by_axis: there is no axis stage; axes are seed"):
        system_with({"by_axis": {"stage": {}}})
    mistake = {"seed": {8: {"recipe": {"clip_frames": "x"}}}}
    with pytest.raises(ConfigurationError, match=r"by_axis: seed: 8: recipe\.clip_frames: Input"):
        system_with({"by_axis": mistake})


def test_a_teacher_is_another_member(tmp_path: Path) -> None:
    distillation = {"teacher": {"stage": "basics"}, "ratio": 0.3}
    content = {
        "extends": "factorized_baseline",
        **BY_AXIS,
        "recipe": MIXED,
        "by_axis": {"stage": {"distilled": {"recipe": {"distillation": distillation}}}},
    }
    (tmp_path / "student.yaml").write_text(str(content))
    with pytest.raises(
        ConfigurationError,
        match="fold0-basics-seed7 is no other member that fold0-distilled-seed7 could learn from",
    ):
        load_system("student", folders=[tmp_path], members={}, origin=Origin([], {}))
