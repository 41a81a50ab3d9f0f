"""What every system of the study learns from and is selected on, fold by fold, in both sets."""

import hashlib
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from sensorium_models.configuration import REPOSITORY, ConfigurationError
from sensorium_models.recordings import splits
from sensorium_models.recordings.splits import Fold, split_table
from sensorium_models.study import Study, read_study

OLD, NEW = list("ABCDE"), list("FGHIJ")
LIVE_AND_FINAL = ["live_test_main", "live_test_bonus", "final_test_main", "final_test_bonus"]
ORACLE_OF_OLD = {"animals": "public", "tiers": ["oracle"]}
FOLDS = {"count": 7, "by": "perceptual_hash"}

# As the cards have them: DwiseNeuro sections 1 and 4.2, ViV1T A1.


def distilling(teacher: dict[str, Any]) -> dict[str, Any]:
    """A recipe by which members of variant `distilled` learn from those with `teacher`'s values."""
    return {
        "recipe": {
            "batches": "mixed_animals",
            "samples_per_epoch": 8,
            "loss": {"scale": "weighted_clips"},
        },
        "by_axis": {
            "variant": {
                "distilled": {"recipe": {"distillation": {"teacher": teacher, "ratio": 0.36}}}
            }
        },
    }


DWISENEURO: dict[str, Any] = {
    "training_sets": {
        "published": {
            "train": [
                {"animals": "withheld", "tiers": ["train", "oracle"]},
                {"animals": "public", "tiers": ["train", "oracle", *LIVE_AND_FINAL]},
            ],
            "folds": FOLDS,
        },
        "clean": {
            "train": [
                {"animals": "withheld", "tiers": ["train"]},
                {"animals": "public", "tiers": ["train"]},
            ],
            "folds": FOLDS,
            "select": ORACLE_OF_OLD,
        },
    },
    "members": {"fold": list(range(7)), "variant": ["basic", "distilled"], "seed": [42]},
    **distilling({"variant": "basic"}),
}
VIV1T: dict[str, Any] = {
    "training_sets": {
        "published": {
            "train": [
                {"animals": "public", "tiers": ["train", *LIVE_AND_FINAL]},
                {"animals": "withheld", "tiers": ["train"]},
            ],
            "select": {"animals": "all", "tiers": ["oracle"]},
        },
        "clean": {"train": {"animals": "all", "tiers": ["train"]}, "select": ORACLE_OF_OLD},
    },
    "members": {"seed": [1]},
}


def study(folder: Path, content: dict[str, Any], **overrides: Any) -> Study:
    """The full study with one system, `mine`: another network, but trained as `content` says."""
    text = yaml.safe_dump({"extends": "factorized_baseline", **content}, sort_keys=False)
    (folder / "mine.yaml").write_text(text, encoding="utf-8")
    overrides = {"systems": ["mine"], "systems_folders": [str(folder)], **overrides}
    return read_study(REPOSITORY / "config.yaml", overrides=overrides)


def videos(study: Study) -> pd.DataFrame:
    """20 training videos per animal, 6 in every other tier, 2 repeats; A and F saw the same ones.

    What is a test movie of A is an oracle movie of F, and the other way round.
    """
    rows = []
    for place, animal in enumerate(study.settings.animals):
        pair = place % 5
        tiers = ["train", "oracle", *LIVE_AND_FINAL, "none"]
        shown = tiers if animal in OLD else ["train", *reversed(tiers[1:-1]), "none"]
        trial = 0
        for tier, films in zip(tiers, shown, strict=True):
            for video in range(20 if tier == "train" else 6):
                for _ in range(1 if tier == "train" else 2):
                    name = hashlib.sha256(f"{pair} {films} {video}".encode()).hexdigest()
                    rows.append((animal, trial, name, tier, "movie", 300, name[:16]))
                    trial += 1
    columns = ["animal", "trial", "video_id", "tier", "stimulus_type", "frames", "perceptual_hash"]
    return pd.DataFrame(rows, columns=columns)


def split(study: Study, training_set: str, member: str) -> pd.DataFrame:
    fold = study.fold(training_set, "mine", member)
    return split_table(
        members=[member],
        videos=videos(study),
        train=study.training_tiers(training_set, "mine"),
        select=study.select_tiers(training_set, "mine"),
        test_tiers=study.tested_tiers(training_set, "mine"),
        fold=Fold(*fold) if fold else None,
        distilled=study.teacher("mine", member) is not None,
    )


def tiers(rows: pd.DataFrame, role: str) -> dict[str, set[str]]:
    """Animal -> tiers of a role."""
    chosen = rows[rows["role"] == role]
    return {str(animal): set(part["tier"]) for animal, part in chosen.groupby("animal")}


def each(animals: list[str], names: set[str]) -> dict[str, set[str]]:
    """The same tiers for every animal."""
    return dict.fromkeys(animals, names)


@pytest.mark.parametrize("variant", ["basic", "distilled"])
def test_dwiseneuro_published_folds(tmp_path: Path, variant: str) -> None:
    lab = study(tmp_path, DWISENEURO)
    assert lab.training_animals("published", "mine") == NEW + OLD  # its order of animals
    labelled = videos(lab)
    old = labelled["animal"].isin(OLD) & (labelled["tier"] != "none")
    new = labelled["animal"].isin(NEW) & labelled["tier"].isin(["train", "oracle"])
    labelled = labelled[old | new]
    selected = []
    for fold in range(7):
        rows = split(lab, "published", f"fold{fold}-{variant}-seed42")
        train, select = rows[rows["role"] == "train"], rows[rows["role"] == "select"]
        assert len(train) + len(select) == len(labelled)
        assert {int(name[:16], 16) % 7 for name in select["video_id"]} == {fold}
        assert fold not in {int(name[:16], 16) % 7 for name in train["video_id"]}
        taught = rows[rows["role"] == "teacher_train"]
        assert len(taught) == (len(train) if variant == "distilled" else 0)
        selected.append(select)
    together = pd.concat(selected)[["animal", "trial"]].sort_values(["animal", "trial"])
    expected = labelled[["animal", "trial"]].sort_values(["animal", "trial"])
    assert together.to_numpy().tolist() == expected.to_numpy().tolist()


def test_dwiseneuro_clean_leaves_the_fold_out_and_selects_on_oracle(tmp_path: Path) -> None:
    lab = study(tmp_path, DWISENEURO)
    for fold in (0, 6):
        rows = split(lab, "clean", f"fold{fold}-basic-seed42")
        assert tiers(rows, "train") == each(OLD + NEW, {"train"})
        assert tiers(rows, "select") == each(OLD, {"oracle"})
        trained = rows[rows["role"] == "train"]
        remainders = {int(name[:16], 16) % 7 for name in trained["video_id"]}
        assert remainders == set(range(7)) - {fold}


def test_a_student_has_its_teachers_fold(tmp_path: Path) -> None:
    lab = study(tmp_path, DWISENEURO)
    for fold in range(7):
        student, teacher = f"fold{fold}-distilled-seed42", f"fold{fold}-basic-seed42"
        assert lab.teacher("mine", student) == teacher
        assert lab.teacher("mine", teacher) is None
        assert lab.fold("clean", "mine", student) == lab.fold("clean", "mine", teacher) == (fold, 7)


def test_viv1t_published_trains_on_the_old_test_tiers(tmp_path: Path) -> None:
    lab = study(tmp_path, VIV1T)
    assert lab.training_animals("published", "mine") == OLD + NEW
    rows = split(lab, "published", "seed1")
    assert tiers(rows, "train") == {
        **each(OLD, {"train", *LIVE_AND_FINAL}),
        **each(NEW, {"train"}),
    }
    assert tiers(rows, "select") == each(OLD + NEW, {"oracle"})
    # F's oracle movies were A's test movies, so no trial of them may be scored.
    left_out = splits.leaked_trials(rows, ["seed1"], NEW, ["oracle"])
    assert [len(trials) for trials in left_out.values()] == [12] * 5


def test_clean_members_never_saw_an_open_test_video(tmp_path: Path) -> None:
    for content in (DWISENEURO, VIV1T):
        lab = study(tmp_path, content)
        rows = split(lab, "clean", lab.members("mine")[-1])
        assert tiers(rows, "train") == each(OLD + NEW, {"train"})
        assert tiers(rows, "select") == each(OLD, {"oracle"})
        left_out = splits.leaked_trials(rows, [lab.members("mine")[-1]], OLD, LIVE_AND_FINAL)
        assert not any(len(trials) for trials in left_out.values())


def test_baselines_train_on_one_half_of_the_animals(tmp_path: Path) -> None:
    lab = study(tmp_path, {"members": {"seed": [1]}})
    published = split(lab, "published", "seed1")
    assert tiers(published, "train") == each(NEW, {"train"})
    assert tiers(published, "select") == each(NEW, {"oracle"})
    clean = split(lab, "clean", "seed1")
    assert tiers(clean, "train") == each(OLD, {"train"})
    assert tiers(clean, "select") == each(OLD, {"oracle"})
    assert lab.fold("clean", "mine", "seed1") is None


def test_joined_selections_of_a_part_of_the_animals(tmp_path: Path) -> None:
    lab = study(tmp_path, DWISENEURO, animals=["B", "F"], protocols=["open"])
    assert lab.training_tiers("published", "mine") == {
        "F": ["train", "oracle"],
        "B": ["train", "oracle", *LIVE_AND_FINAL],
    }
    assert lab.select_tiers("published", "mine") is None
    assert lab.select_tiers("clean", "mine") == {"B": ["oracle"]}


def changed(**changes: Any) -> dict[str, Any]:
    """DwiseNeuro's published set alone, with another value at some keys."""
    published = {**DWISENEURO["training_sets"]["published"], **changes.pop("published", {})}
    return {**DWISENEURO, "training_sets": {"published": published}, **changes}


MISTAKES: list[tuple[dict[str, Any], list[str]]] = [
    (
        changed(members={"variant": ["basic", "distilled"], "seed": [1]}),
        ["training_sets.published.folds", "axis fold", "0 to 6"],
    ),
    (
        changed(members={"fold": [7], "variant": ["basic"], "seed": [1]}),
        ["training_sets.published.folds", "0 to 6"],
    ),
    (
        changed(**distilling({"variant": "basic", "fold": 0})),
        [
            "training_sets.published.folds",
            "fold1-distilled-seed42 learns from a teacher of another",
        ],
    ),
    (changed(published={"folds": None}), ["training_sets.published.select", "is missing"]),
    (
        changed(published={"folds": {"count": 7, "by": "video"}}),
        ["training_sets.published.folds.by", "perceptual_hash"],
    ),
    (
        changed(
            published={
                "train": [
                    {"animals": "public", "tiers": ["train"]},
                    {"animals": "withheld", "tiers": ["train", "final_test_main"]},
                ]
            }
        ),
        ["training_sets.published.train.1", "final_test_main", "withheld"],
    ),
    (
        changed(published={"train": [{"animals": "public", "tiers": ["train"], "tier": "x"}]}),
        ["training_sets.published.train", "tier", "allowed here: animals, order, tiers"],
    ),
]


@pytest.mark.parametrize(("content", "words"), MISTAKES, ids=lambda value: str(value)[:40])
def test_mistakes_are_sentences(tmp_path: Path, content: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        study(tmp_path, content, protocols=["competition"])
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "mine.yaml" in message
