"""The plan of a study: numbers worked by hand from the configuration, Table 2 and records."""

import json
from pathlib import Path

import pytest

from sensorium_models import planning
from sensorium_models.configuration import REPOSITORY
from sensorium_models.study import Study, read_study

FULL = REPOSITORY / "config.yaml"
TINY = REPOSITORY / "tests" / "workflow" / "tiny.yaml"


def study(folder: Path, *files: Path, **changes: object) -> Study:
    places = {"results": str(folder / "results"), "archives": str(folder / "archives")}
    return read_study(FULL, *files, overrides={**places, **changes})


def finish(study: Study, name: str, gpu_seconds: float) -> None:
    """A member as a finished training leaves it, as far as the plan looks."""
    folder = study.settings.results / "members" / name
    folder.mkdir(parents=True)
    for file in ("weights.safetensors", "history.csv", "split.parquet"):
        (folder / file).write_bytes(b"1234")
    (folder / "run.json").write_text(json.dumps({"gpu_seconds": gpu_seconds}))


def test_gpu_hours_are_those_of_table_2_until_something_is_measured(tmp_path: Path) -> None:
    full = study(tmp_path)
    plans = {(p.training_set, p.system): p for p in planning.plan_systems(full)}
    # Table 2: 8 hours on one A5000; 12 hours on two A6000; 24 hours on eight 2080 Ti.
    assert plans["clean", "factorized_baseline"].hours == 14 * 8
    assert plans["clean", "dwiseneuro"].hours == 14 * 2 * 12
    assert plans["clean", "dynamic_v1fm"].hours == 31 * 8 * 24
    # Not in the table: what its file allows.
    assert plans["clean", "linear_nonlinear"].cost == planning.Cost(12, "at most, by its file")

    finish(full, "clean/factorized_baseline/seed8", gpu_seconds=3600)
    finish(full, "published/factorized_baseline/seed8", gpu_seconds=3 * 3600)
    plans = {(p.training_set, p.system): p for p in planning.plan_systems(full)}
    plan = plans["clean", "factorized_baseline"]
    assert (plan.members, plan.waiting) == (14, 13)
    assert plan.cost == planning.Cost(2.0, "measured, 2 members")
    assert plan.hours == 26


def test_imported_members_cost_nothing(tmp_path: Path) -> None:
    weights = {"viv1t": {"path": "weights/{seed}.pt"}}
    plans = planning.plan_systems(study(tmp_path, published_weights=weights))
    imported = next(p for p in plans if (p.training_set, p.system) == ("published", "viv1t"))
    assert imported.hours == 0
    assert next(p for p in plans if (p.training_set, p.system) == ("clean", "viv1t")).hours == 100


def test_disk_is_counted_by_trials_and_neurons(tmp_path: Path) -> None:
    tiny = study(tmp_path, TINY, animals=["tinyA"], systems=["linear_tiny"])
    # 4 training trials, and two repeats of one video in each of the 5 other tiers that count.
    store = (4 + 5 * 2) * 300 * (36 * 64 + 16 + 4 * 12)
    # Four test tiers of two trials, frames 50..298, 12 neurons, two bytes.
    predictions = 4 * 2 * 249 * 12 * 2
    sizes = planning.disk(tiny)
    assert sizes["recordings"] == store
    assert sizes["predictions of members"] == predictions
    # Of each neuron, of single trials and of averages: two means and three products of every video
    # in two units, beside the names; one member gives the mean as many per tier again.
    moments = 2 * 4 * 12 * 2 * 5 * 8
    assert moments < sizes["moments of members"] < moments + 2 * (4 * 4_000 + 40_100)
    mean = predictions + sizes["moments of members"]
    types = 5  # the last bonus tier has two
    assert sizes["ensembles"] == mean + types * 12 * 2 * 5 * 8
    assert "submissions" not in sizes  # nothing is withheld
    # What is there counts as it is.
    (tiny.settings.results / "recordings").mkdir(parents=True)
    (tiny.settings.results / "recordings" / "tinyA.h5").write_bytes(bytes(1000))
    assert planning.disk(tiny)["recordings"] == 1000
    unkept = study(tmp_path, TINY, keep_predictions=False)
    assert "predictions of members" not in planning.disk(unkept)


def test_disk_counts_ensembles_of_systems_and_submissions(tmp_path: Path) -> None:
    changes = {"systems": ["viv1t", "linear_nonlinear"], "protocols": ["competition"]}
    alone = planning.disk(study(tmp_path, **changes))
    both = {"both": {"members": ["viv1t", "linear_nonlinear"]}}
    joint = planning.disk(study(tmp_path, **changes, ensembles=both))
    assert 2 * 5e9 < alone["submissions"] < 2 * 7e9  # 5 animals x 296 trials x 249 x 8,000 x 2
    assert joint["submissions"] == pytest.approx(1.5 * alone["submissions"])
    assert 1.4 < joint["ensembles"] / alone["ensembles"] < 1.6
    assert joint["members"] == alone["members"]


def test_the_longest_chain_goes_through_the_teacher(tmp_path: Path) -> None:
    chain, hours = planning.longest_chain(study(tmp_path, systems=["dwiseneuro", "viv1t"]))
    trainings = [stage for stage in chain if stage.startswith("train ")]
    assert [name.split("-")[-2] for name in trainings] == ["basic", "distilled"]
    assert hours == 2 * 24
    assert chain.index("split") < chain.index(trainings[0]) < chain.index("predict")


def test_the_report_names_every_system_and_sums_up(tmp_path: Path) -> None:
    full = study(tmp_path)
    text = planning.report(full, {"train": 105, "predict": 142})
    assert "247 jobs to run" in text
    for system in full.settings.systems:
        assert f"  {system} (" in text
    total = sum(plan.hours for plan in planning.plan_systems(full))
    assert f"{total:.1f} h" in text


@pytest.mark.parametrize("system", ["factorized_baseline", "viv1t"])
def test_a_variation_costs_what_the_published_system_does(tmp_path: Path, system: str) -> None:
    full = study(tmp_path)
    full.systems[system] = full.systems[system].model_copy(
        update={"name": "mine", "published_as": system}
    )
    assert planning.member_cost(full, system).source.startswith("Table 2")
