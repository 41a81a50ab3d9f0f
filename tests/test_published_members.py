"""Which members a system has where its axes do not simply multiply, and what a variant changes."""

from pathlib import Path
from typing import Any

import pytest

from sensorium_models import fingerprints
from sensorium_models.configuration import REPOSITORY, ConfigurationError
from sensorium_models.networks.build import check_members
from sensorium_models.study import Study, read_study


def study(folder: Path, text: str, **overrides: Any) -> Study:
    """The full study with the system `mine`."""
    (folder / "mine.yaml").write_text(text)
    overrides = {"systems": ["mine"], "systems_folders": [str(folder)], **overrides}
    return read_study(REPOSITORY / "config.yaml", overrides=overrides)


def test_dwiseneuro_has_seven_folds_in_two_variants(tmp_path: Path) -> None:
    mine = study(tmp_path, "extends: dwiseneuro\n")
    assert len(mine.members("mine")) == 14
    assert mine.teacher("mine", "fold3-distilled-seed42") == "fold3-basic-seed42"
    assert mine.teacher("mine", "fold3-basic-seed42") is None
    assert [name for _, name in mine.trainings()] == ["mine", "mine"]


def test_a_change_of_one_variant_is_no_change_of_the_other(tmp_path: Path) -> None:
    before = study(tmp_path, "extends: dwiseneuro\n")
    after = study(
        tmp_path,
        "extends: dwiseneuro\nby_axis: {variant: {distilled: {core_settings: {expansion: 5}}}}\n",
    )
    changed = {
        variant: fingerprints.changed_keys(
            *(
                fingerprints.member(s, "clean", "mine", f"fold0-{variant}-seed42")
                for s in (before, after)
            )
        )
        for variant in ("basic", "distilled")
    }
    assert changed == {"basic": [], "distilled": ["system.core_settings.expansion"]}


def test_combinations_that_are_left_out_are_no_members(tmp_path: Path) -> None:
    mine = study(tmp_path, "extends: dynamic_v1fm\n")
    assert len(mine.members("mine")) == 31
    # A study that narrows the axes need not know of them.
    few = study(
        tmp_path,
        "extends: dynamic_v1fm\n",
        members={"mine": {"scales": ["0", "2_4"], "fusion": ["mean"], "seed": ["1"]}},
    )
    assert few.members("mine") == ["scales2_4-mean-seed1"]
    # A child states its members whole.
    whole = study(
        tmp_path, "extends: dynamic_v1fm\nmembers: {scales: [0], fusion: [mean], seed: [1]}\n"
    )
    assert whole.members("mine") == ["scales0-mean-seed1"]


MISTAKES = {
    "axis": (
        "extends: dynamic_v1fm\nmembers_left_out: [{scale: 0}]\n",
        "members_left_out: there is no axis scale; axes are scales, fusion, seed",
    ),
    "nothing": (
        "extends: dynamic_v1fm\nmembers_left_out: [{seed: 42}]\n",
        "members_left_out leaves no member",
    ),
    "frames apart": (
        "extends: dwiseneuro\ninference: whole_trial\n",
        "inference: recipe.frame_step is 2, which only sliding_windows can predict",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_end_in_a_sentence(tmp_path: Path, mistake: str) -> None:
    text, sentence = MISTAKES[mistake]
    with pytest.raises(ConfigurationError, match=f"mine.yaml: (?s:.*){sentence}"):
        study(tmp_path, text)


def test_the_settings_of_every_member_are_checked_before_any_job(tmp_path: Path) -> None:
    tiny = "core_settings: {embedding: 8, heads: 2, blocks: 1, mlp_hidden: 4}\n"
    for text, sentence in (
        (
            "by_axis: {scales: {16: {readout_settings: {scales: [15]}}}}\n",
            r"readout_settings: scales must be some of \[2, 4, 8, 16\], in this order, not \[15\]",
        ),
        (
            "by_axis: {fusion: {adaptive: {core_settings: {window: [8, 7]}}}}\n",
            "core_settings: window must be three whole numbers",
        ),
        ("inference: whole_trial\n", "inference: .* so it cannot see a whole trial"),
    ):
        system = study(tmp_path, f"extends: dynamic_v1fm\n{tiny}{text}").systems["mine"]
        with pytest.raises(ConfigurationError, match=f"mine.yaml: {sentence}"):
            check_members(system, frame_shape=(36, 64), file="mine.yaml")
