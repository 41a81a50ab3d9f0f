"""The configuration: what it resolves to, and that every mistake ends in a sentence that helps."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from sensorium_models.configuration import REPOSITORY, ConfigurationError, merged
from sensorium_models.networks.build import check_study
from sensorium_models.study import Study, read_study

CONFIG = REPOSITORY / "config.yaml"
DEMO = REPOSITORY / "config" / "demo.yaml"


@pytest.fixture(scope="module")
def full() -> Study:
    return read_study(CONFIG)


def test_full_study_is_the_competition(full: Study) -> None:
    assert full.group("public") == ["A", "B", "C", "D", "E"]
    assert full.group("withheld") == ["F", "G", "H", "I", "J"]
    neurons = {a: full.recording(a).neurons for a in full.settings.animals}
    assert sum(neurons[a] for a in full.group("public")) == 38_819
    assert sum(neurons[a] for a in full.group("withheld")) == 40_034
    assert {system: len(full.members(system)) for system in full.systems} == {
        "gru_baseline": 1,
        "factorized_baseline": 14,
        "dwiseneuro": 14,
        "dynamic_v1fm": 31,
        "viv1t": 5,
        "viv1t_2025": 5,
        "linear_nonlinear": 1,
    }
    assert full.members("factorized_baseline")[0] == "seed8"
    assert sum(len(full.members(system)) for _, system in full.trainings()) == 105
    teachers = {name: full.teacher("dwiseneuro", name) for name in full.members("dwiseneuro")}
    assert sum(teacher is not None for teacher in teachers.values()) == 7
    assert all(
        teacher == student.replace("distilled", "basic")
        for student, teacher in teachers.items()
        if teacher
    )


def test_training_sets_of_the_protocols(full: Study) -> None:
    assert full.training_set_of("factorized_baseline", "competition") == "published"
    assert full.training_set_of("factorized_baseline", "open") == "clean"
    # One set of clean members serves both protocols where nothing else was published.
    assert full.training_set_of("linear_nonlinear", "competition") == "clean"
    assert {system for training_set, system in full.trainings() if training_set == "published"} == {
        "gru_baseline",
        "factorized_baseline",
        "dwiseneuro",
        "viv1t",
    }
    assert {system for training_set, system in full.trainings() if training_set == "clean"} == set(
        full.systems
    )
    # The notebook's order, in which the animals take turns.
    assert full.training_animals("published", "factorized_baseline") == ["F", "J", "G", "I", "H"]
    assert full.training_animals("clean", "factorized_baseline") == full.group("public")
    assert full.training_animals("clean", "linear_nonlinear") == full.settings.animals
    # F-J's oracle movies are A-E's test movies, so they select nothing in the clean set.
    assert full.select_tiers("clean", "linear_nonlinear") == {
        animal: ["oracle"] for animal in full.group("public")
    }


def test_open_is_scored_in_a_second_unit(full: Study) -> None:
    assert full.further_units("open") == ["per_neuron_train"]
    assert full.further_units("competition") == []
    same = read_study(CONFIG, overrides={"score_unit": "per_neuron_train"})
    assert same.further_units("open") == []


def test_a_subset_needs_no_edit_of_the_repository() -> None:
    study = read_study(
        CONFIG,
        overrides={"animals": ["A"], "systems": ["linear_nonlinear"], "protocols": ["open"]},
    )
    assert study.trainings() == [("clean", "linear_nonlinear")]
    assert study.training_animals("clean", "linear_nonlinear") == ["A"]


def test_a_source_of_another_kind_replaces_the_whole_source(tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    study.write_text("recordings: {A: {source: {kind: directory, path: /data/A}}}")
    source = read_study(REPOSITORY / "config.yaml", study).recording("A").source
    assert source.model_dump() == {"kind": "directory", "path": Path("/data/A")}
    overrides = {"recordings": {"A": {"source": {"kind": "simulated", "pair": "one", "seed": 3}}}}
    again = read_study(REPOSITORY / "config.yaml", study, overrides=overrides).recording("A")
    assert again.source.kind == "simulated"
    # A key of the same kind still changes alone, and a wrong one is still refused.
    mirror = {"recordings": {"B": {"source": {"commit": "master"}}}}
    assert (
        read_study(REPOSITORY / "config.yaml", overrides=mirror)
        .recording("B")
        .source.model_dump()["repository"]
        .endswith("sensorium_2023_data")
    )
    wrong = {"recordings": {"A": {"source": {"commit": "master"}}}}
    with pytest.raises(ConfigurationError, match=r"recordings\.A\.source\.commit: unknown key"):
        read_study(REPOSITORY / "config.yaml", study, overrides=wrong)


def test_extends_replaces_values_and_drops_settings_of_another_class(tmp_path: Path) -> None:
    write(tmp_path / "wider.yaml", {"extends": "factorized_baseline", "members": {"seed": [7]}})
    write(
        tmp_path / "pixels.yaml",
        {
            "extends": "wider",
            "core": "sensorium_models.networks.cores.pixels:PixelCore",
            "core_settings": {"pool": 4},
            "recipe": {"clip_frames": 90},
        },
    )
    study = read_study(
        CONFIG, overrides={"systems": ["pixels"], "systems_folders": [str(tmp_path)]}
    )
    system = study.systems["pixels"]
    assert system.core_settings == {"pool": 4}
    assert system.readout_settings["sigma_range"] == 1.0
    assert system.recipe.clip_frames == 90
    assert system.recipe.clips_per_batch == 8
    assert study.members("pixels") == ["seed7"]


def test_members_name_every_axis_in_order(tmp_path: Path) -> None:
    axes = {"fold": [0, 1], "variant": ["basic", "distilled"], "seed": [42]}
    write(tmp_path / "folds.yaml", {"extends": "factorized_baseline", "members": axes})
    study = read_study(CONFIG, overrides={"systems": ["folds"], "systems_folders": [str(tmp_path)]})
    assert study.members("folds") == [
        "fold0-basic-seed42",
        "fold0-distilled-seed42",
        "fold1-basic-seed42",
        "fold1-distilled-seed42",
    ]
    assert study.member_axes("folds")["fold1-basic-seed42"] == {
        "fold": 1,
        "variant": "basic",
        "seed": 42,
    }


def test_the_study_may_name_other_members() -> None:
    for seed in (42, "42"):  # the command line hands numbers over as text
        study = read_study(CONFIG, overrides={"members": {"factorized_baseline": {"seed": [seed]}}})
        assert study.members("factorized_baseline") == ["seed42"]
        assert study.member_axes("factorized_baseline")["seed42"] == {"seed": 42}


def test_demo_is_a_simulated_study() -> None:
    study = read_study(CONFIG, DEMO)
    check_study(study)
    assert study.simulated
    # Small, but with something to average, and with a file for the server.
    assert len(study.members("factorized_small")) == 3
    assert study.settings.protocols == ["competition", "open"]


STUDY_MISTAKES: list[tuple[dict[str, Any], list[str]]] = [
    ({"systems": ["dwisneuro"]}, ["systems", "dwisneuro", "factorized_baseline"]),
    ({"animals": ["A", "Q"]}, ["animals", "Q", "A, B, C"]),
    ({"animals": ["A", "A", "F"]}, ["animals", "A twice"]),
    ({"animals": []}, ["animals", "at least 1"]),
    ({"systems": []}, ["systems", "at least 1"]),
    ({"protocols": ["closed"]}, ["protocols", "closed", "competition, open"]),
    ({"animals": ["F"], "protocols": ["open"]}, ["protocols", "public", "F"]),
    (
        {"members": {"factorized_baseline": {"seed": [8, 16, 8]}}},
        ["members", "names 8 twice"],
    ),
    ({"members": {"factorized_baseline": {"seed": []}}}, ["members", "empty list"]),
    ({"members": {"factorized_baseline": {"fold": [1]}}}, ["members", "axis seed"]),
    ({"members": {"viv1t_3000": {"seed": [1]}}}, ["members", "viv1t_3000"]),
    ({"scored_frames": {"first": -50}}, ["scored_frames.first", "greater than or equal to 0"]),
    ({"scored_frames": {"last": 3}}, ["scored_frames.last", "unknown key", "drop_last"]),
    ({"scored_frames": {"first": 299}}, ["scored_frames", "fewer than two frames"]),
    ({"replace_members": True, "adopt_members": True}, ["exclude each other"]),
    (
        {"recordings": {"A": {"folder": "same"}, "B": {"folder": "same"}}},
        ["recordings", "two animals have the folder same"],
    ),
    (
        {"protocol_definitions": {"open": {"tiers": ["train"]}}},
        ["protocol_definitions.open.tiers", "train has the role train"],
    ),
    (
        {"protocol_definitions": {"open": {"further_units": ["zscore"]}}},
        ["protocol_definitions.open.further_units", "per_neuron_train"],
    ),
    ({"score_unit": "zscore"}, ["score_unit", "per_frame_published", "raw"]),
    ({"cpu_threads": "many"}, ["cpu_threads", "valid integer", "many"]),
    ({"frame_rate_hz": 0}, ["frame_rate_hz", "greater than 0"]),
    ({"resluts": "here"}, ["resluts", "unknown key", "results"]),
    ({"recordings": {"A": {"neurons": -3}}}, ["recordings.A.neurons", "greater"]),
    ({"recordings": {"A": {"source": {"kind": "ftp"}}}}, ["recordings.A.source", "'gin'"]),
    (
        {"recordings": {"A": {"source": {"commit": "v1"}}}},
        ["recordings.A.source.commit", "pattern", "v1"],
    ),
    (
        {"recordings": {"A": {"stimulus_types": {"test": ["gabor"]}}}},
        ["recordings.A.stimulus_types", "test", "final_test_bonus"],
    ),
    (
        {"recordings": {"A": {"stimulus_types": {"live_test_bonus": ["plaid"]}}}},
        ["recordings.A.stimulus_types.live_test_bonus.0", "gabor"],
    ),
    (
        {"protocol_definitions": {"open": {"tiers": ["live_main"]}}},
        ["protocol_definitions.open.tiers", "live_main", "live_test_main"],
    ),
    ({"tiers": {"train": "select"}}, ["tiers", "role train"]),
    ({"systems_folders": ["/no/such/folder"]}, ["systems_folders", "/no/such/folder"]),
    (
        {"recordings": {"B": {"source": {"kind": "native", "path": "/data/b"}}}},
        ["score_unit", "animal B is recorded at native rates", "per_neuron_train"],
    ),
]


@pytest.mark.parametrize(("change", "words"), STUDY_MISTAKES, ids=lambda value: str(value)[:50])
def test_a_mistake_in_the_study_names_file_key_and_allowed_values(
    change: dict[str, Any], words: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "mine.yaml"
    write(file, change)
    with pytest.raises(ConfigurationError) as caught:
        read_study(CONFIG, file)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "mine.yaml" in message or "config.yaml" in message


def test_a_system_that_needs_published_statistics_and_a_recording_without(tmp_path: Path) -> None:
    native = {
        "recordings": {"B": {"source": {"kind": "native", "path": "/data/b"}}},
        "score_unit": "per_neuron_train",
        "systems": ["mine"],
        "systems_folders": [str(tmp_path)],
    }
    unit = {"response_unit": "per_neuron_train"}
    for changes, words in (
        ({}, "response_unit: per_frame_published"),
        (unit, "inputs.normalisation: per_frame_published"),
    ):
        write(tmp_path / "mine.yaml", {"extends": "factorized_baseline", **changes})
        with pytest.raises(ConfigurationError, match=rf"mine\.yaml: {words} .* animal B is"):
            read_study(CONFIG, overrides=native)
    inputs = {"inputs": {"normalisation": "global_train"}}
    write(tmp_path / "mine.yaml", {"extends": "factorized_baseline", **unit, **inputs})
    assert read_study(CONFIG, overrides=native).recording("B").is_native


SYSTEM_MISTAKES: list[tuple[dict[str, Any], list[str]]] = [
    ({"inputs": {"normalisation": "z"}}, ["inputs.normalisation", "per_frame_published"]),
    ({"inputs": {"channels": ["behavior"]}}, ["inputs", "start with video"]),
    ({"recipe": {"clip_frames": "long"}}, ["recipe.clip_frames", "valid integer"]),
    ({"recipe": {"learning_rat": 1}}, ["recipe.learning_rat", "unknown key", "clip_frames"]),
    ({"recipe": {"optimizer": {"learning_rate": 0}}}, ["recipe.optimizer.learning_rate"]),
    (
        {"training_sets": {"clean": {"train": {"animals": "all", "tiers": ["trian"]}}}},
        ["training_sets.clean.select", "is missing"],
    ),
    (
        {
            "training_sets": {
                "clean": {
                    "train": {"animals": "all", "tiers": ["trian"]},
                    "select": {"animals": "public", "tiers": ["oracle"]},
                }
            }
        },
        ["training_sets.clean.train.tiers", "trian", "oracle"],
    ),
    (
        {
            "training_sets": {
                "clean": {
                    "train": {"animals": "all", "tiers": ["final_test_main"]},
                    "select": {"animals": "public", "tiers": ["oracle"]},
                }
            }
        },
        ["training_sets.clean.train", "withheld"],
    ),
    ({"core": "no_colon"}, ["core", "pattern"]),
    ({"core": "no_such_package.module:Core"}, ["core", "no_such_package"]),
    ({"core_settings": {"chanels": [8]}}, ["core_settings", "chanels", "channels"]),
    ({"recipe": {"clip_frames": 18}}, ["clip_frames", "18"]),
    ({"core_settings": {"temporal_kernels": [41, 12, 5]}}, ["history of 55", "50"]),
    ({"extends": "nothing_like_it"}, ["nothing_like_it", "factorized_baseline"]),
    ({"extends": "varied"}, ["extends", "circle"]),
    ({"members": {"seed": [-1]}}, ["members", "whole numbers"]),
]


@pytest.mark.parametrize(("change", "words"), SYSTEM_MISTAKES, ids=lambda value: str(value)[:50])
def test_a_mistake_in_a_system_names_its_file_and_key(
    change: dict[str, Any], words: list[str], tmp_path: Path
) -> None:
    write(tmp_path / "varied.yaml", merged({"extends": "factorized_baseline"}, change))
    overrides = {"systems": ["varied"], "systems_folders": [str(tmp_path)], "protocols": ["open"]}
    with pytest.raises(ConfigurationError) as caught:
        check_study(read_study(CONFIG, overrides=overrides))
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "varied.yaml" in message


@pytest.mark.parametrize("field", ["title", "core", "inputs", "recipe", "members", "resources"])
def test_a_system_that_is_missing_a_field(field: str, tmp_path: Path) -> None:
    content = yaml.safe_load((REPOSITORY / "config/systems/factorized_baseline.yaml").read_text())
    del content[field]
    write(tmp_path / "bare.yaml", content)
    with pytest.raises(ConfigurationError, match=rf"bare\.yaml: {field}: is missing"):
        read_study(CONFIG, overrides={"systems": ["bare"], "systems_folders": [str(tmp_path)]})


def test_not_yaml_and_not_a_mapping(tmp_path: Path) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text("animals: [A, B")
    with pytest.raises(ConfigurationError, match=r"broken\.yaml: is not valid YAML"):
        read_study(CONFIG, file)
    file.write_text("- A\n- B\n")
    with pytest.raises(ConfigurationError, match="keys and values"):
        read_study(CONFIG, file)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_study(CONFIG, tmp_path / "absent.yaml")


def test_a_value_from_the_command_line_is_blamed_on_it() -> None:
    with pytest.raises(ConfigurationError, match=r"^--config: animals: Q is unknown"):
        read_study(CONFIG, overrides={"animals": ["Q"]})


def write(path: Path, content: Any) -> None:
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        ({"nobody": {"path": "a.pt"}}, "published_weights: nobody is unknown"),
        ({"factorized_baseline": {"path": "{fold}.pt"}}, r"path: \{fold\}.pt may hold \{member\}"),
        ({"factorized_baseline": {"path": "a.pt"}}, "14 members would be one checkpoint"),
        (
            {"linear_nonlinear": {"path": "{seed}.pt"}},
            "training_set: published is unknown; training sets are clean",
        ),
    ],
)
def test_published_weights_are_checked(weights: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        read_study(CONFIG, overrides={"published_weights": weights})
