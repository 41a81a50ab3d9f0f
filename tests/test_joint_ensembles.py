"""Ensembles of several systems: what may be asked for, exact scores, fitted weights."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from sensorium_models.configuration import REPOSITORY, ConfigurationError
from sensorium_models.ensemble import EnsembleError, build_ensemble
from sensorium_models.ensemble_weights import fitted_weights, fitting_moments
from sensorium_models.evaluation.correlation import correlation
from sensorium_models.evaluation.leaderboard import leaderboard
from sensorium_models.evaluation.moments_file import read_moments
from sensorium_models.evaluation.scores import METRICS, member_scores
from sensorium_models.evaluation.streaming import JointMoments
from sensorium_models.evaluation.subsets import EnsembleMoments, ensemble_scores
from sensorium_models.predictions import Predictions
from sensorium_models.recordings.splits import leaked_by_any, write_splits
from sensorium_models.reporting.joint import joint_notes
from sensorium_models.reporting.score_tables import leaderboard_table
from sensorium_models.study import Study, read_study
from tests.test_ensemble import IDS, direct, fake_responses, write_member

CONFIG = REPOSITORY / "config.yaml"


def study_with(ensemble: dict[str, Any], **overrides: Any) -> Study:
    return read_study(CONFIG, overrides={"ensembles": {"joint": ensemble}, **overrides})


def test_an_entry_counts_as_one_whatever_its_members() -> None:
    members = ["factorized_baseline", "gru_baseline", "viv1t/seed1234"]
    study = study_with({"members": members, "protocols": ["open"]})
    assert list(study.joint_ensembles("open")) == ["joint"]
    assert study.joint_ensembles("competition") == {}
    joint = study.settings.ensembles["joint"]
    assert joint.given_weights() == [1 / 3] * 3
    averaged = study.averaged_members("joint")
    assert averaged["factorized_baseline"] == study.members("factorized_baseline")
    assert averaged["viv1t"] == ["seed1234"]
    assert study.averaged_members("viv1t") == {"viv1t": study.members("viv1t")}
    weighted = study_with(
        {"members": members[:2], "weights": dict(zip(members[:2], (3, 1), strict=True))}
    )
    assert weighted.settings.ensembles["joint"].given_weights() == [0.75, 0.25]
    fitted = {
        "members": ["factorized_baseline", "gru_baseline", "dynamic_v1fm", "linear_nonlinear"],
        "weights": "fitted",
        "protocols": ["competition"],
    }
    assert study_with(fitted).settings.ensembles["joint"].given_weights() is None


@pytest.mark.parametrize(
    ("ensemble", "sentence"),
    [
        ({"members": []}, r"ensembles\.joint\.members: .*at least 1"),
        (
            {"members": ["nobody"]},
            r"ensembles\.joint\.members: nobody is unknown; systems .* out with joint: null",
        ),
        ({"members": ["viv1t/seed7"]}, r"members: viv1t/seed7 is unknown; members of viv1t are"),
        ({"members": ["viv1t", "viv1t"]}, r"members: viv1t is named twice; use weights"),
        ({"members": ["viv1t", "viv1t/seed1234"]}, r"viv1t/seed1234 is in viv1t already"),
        ({"members": ["viv1t"], "weights": {"gru_baseline": 1}}, r"weights: give one weight"),
        ({"members": ["viv1t"], "weights": {"viv1t": -1}}, r"weights: weights must not be neg"),
        ({"members": ["viv1t"], "weights": {"viv1t": 0}}, r"weights: .* one must be above 0"),
        ({"members": ["viv1t"], "weights": "best"}, r"ensembles\.joint\.weights"),
        ({"members": ["viv1t"], "protocols": ["closed"]}, r"protocols: closed is unknown"),
        ({"members": ["gru_baseline"], "weights": "fitted"}, r"open predicts no tier on which"),
        (
            {"members": ["viv1t", "dwiseneuro"], "weights": "fitted", "protocols": ["competition"]},
            r"protocol competition viv1t trains on tier live_test_main of A; give weights",
        ),
        (
            {
                "members": ["gru_baseline", "dwiseneuro"],
                "weights": "fitted",
                "protocols": ["competition"],
            },
            r"protocol competition dwiseneuro trains on tier oracle of F; give weights",
        ),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_mistake_stops_before_any_job(ensemble: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        study_with(ensemble)


def test_the_examples_of_the_readme_are_valid() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)
    example = yaml.safe_load(next(block for block in blocks if block.startswith("ensembles:")))
    names = read_study(CONFIG, overrides=example).settings.ensembles
    assert list(names) == ["everything", "weighted", "fitted"]


def test_a_study_can_leave_out_what_one_below_it_named(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("ensembles: {joint: {members: [nobody]}, two: null}\n")
    study = read_study(CONFIG, tmp_path / "mine.yaml", overrides={"ensembles": {"joint": None}})
    assert study.settings.ensembles == {}
    # As `--config 'ensembles={joint: null}'` hands it over.
    study = read_study(CONFIG, tmp_path / "mine.yaml", overrides={"ensembles": {"joint": "null"}})
    assert study.settings.ensembles == {}


def test_ensembles_of_systems_that_were_not_chosen_are_not_made() -> None:
    """One system of a study on the command line; what never was a system stays a mistake."""
    ensembles = {"joint": {"members": ["viv1t", "gru_baseline/seed42"]}}
    others = {"members": {"viv1t": {"seed": [1]}}, "published_weights": {"viv1t": {"path": "a.pt"}}}
    changes = {"ensembles": ensembles, "systems": ["gru_baseline"], **others}
    study = read_study(CONFIG, overrides=changes)
    assert study.left_out == ["ensembles.joint", "members.viv1t", "published_weights.viv1t"]
    assert study.joint_ensembles("open") == {}
    assert study.settings.members == study.settings.published_weights == {}
    with pytest.raises(ConfigurationError, match="nobody is unknown"):
        read_study(CONFIG, overrides={"ensembles": {"joint": {"members": ["nobody"]}}})


def test_ensembles_of_protocols_that_were_not_chosen_are_not_made() -> None:
    fitted = {"members": ["factorized_baseline", "gru_baseline"], "weights": "fitted"}
    changes = {"ensembles": {"joint": {**fitted, "protocols": ["competition"]}}}
    study = read_study(CONFIG, overrides={**changes, "protocols": ["open"]})
    assert study.joint_ensembles("open") == {}
    assert list(read_study(CONFIG, overrides=changes).joint_ensembles("competition")) == ["joint"]
    changes["ensembles"]["joint"]["protocols"] = ["closed"]
    with pytest.raises(ConfigurationError, match=r"closed is unknown; .* competition"):
        read_study(CONFIG, overrides=changes)


def test_a_name_is_a_systems_or_an_ensembles() -> None:
    with pytest.raises(ConfigurationError, match="viv1t is a system, whose own ensemble"):
        read_study(CONFIG, overrides={"ensembles": {"viv1t": {"members": ["gru_baseline"]}}})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two systems with two members each, and their ensembles."""
    folder = tmp_path_factory.mktemp("joint")
    responses = {animal: fake_responses(animal) for animal in IDS}
    for system, seeds, training_set in (("one", (0, 1), "clean"), ("two", (2, 3), "published")):
        members = [
            write_member(folder / f"seed{s}.h5", s, system=system, training_set=training_set)
            for s in seeds
        ]
        build(folder, system, members, responses)
    return folder


def build(folder: Path, name: str, members: list[Path], responses: Any, **options: Any) -> None:
    build_ensemble(
        name=name,
        members=members,
        responses=responses,
        predictions=folder / f"{name}-predictions.h5",
        moments=folder / f"{name}-moments.h5",
        mean=folder / f"{name}-mean.h5",
        **options,
    )


def test_it_scores_as_the_weighted_mean_of_its_entries(folder: Path) -> None:
    responses = {animal: fake_responses(animal) for animal in IDS}
    entries = [folder / "one-predictions.h5", folder / "two-predictions.h5", folder / "seed1.h5"]
    weights = [0.5, 0.3, 0.2]
    build(folder, "joint", entries, responses, weights=weights, left_out={"A": [1]})
    with EnsembleMoments(folder / "joint-moments.h5") as moments:
        assert moments.members == [("one", "ensemble"), ("two", "ensemble"), ("one", "seed1")]
        assert moments.weights == weights
        assert moments.attributes["training_set"] == "clean and published"
        rows = ensemble_scores(moments)
        notes = joint_notes([moments], fitted=["joint"], titles={"joint": "All", "two": "Two"})
    assert notes == [
        "All is the mean 0.50 × one + 0.30 × Two + 0.20 × one seed1 (weights fitted on oracle "
        "trials, which do not score it)."
    ]
    assert set(rows["member"]) == {"ensemble"}
    # Directly, from what the four members predict.
    by_member = np.array([0.25, 0.25 + 0.2, 0.15, 0.15])
    for animal, trials in (("A", [0, 3, 6]), ("F", [0, 1, 3, 6])):
        expected = direct(folder, responses[animal], trials, by_member)
        found = rows[(rows["animal"] == animal) & (rows["tier"] == "oracle")]
        for metric, values in zip(METRICS, expected, strict=True):
            # The systems' means are stored as float16, to 5e-4 of each value.
            np.testing.assert_allclose(found[metric], values, rtol=0, atol=2e-3)
    # And exactly, from what the entries' files hold.
    with Predictions(entries[0]) as one, Predictions(entries[1]) as two:
        third = Predictions(entries[2])
        mean = [
            0.5 * one.read("F", t) + 0.3 * two.read("F", t) + 0.2 * third.read("F", t)
            for t in (0, 1, 3, 6)
        ]
        third.close()
    recorded = [
        responses["F"].read(t, 1, 1 + len(m)) for t, m in zip((0, 1, 3, 6), mean, strict=True)
    ]
    plain = [
        np.corrcoef(p, r)[0, 1]
        for p, r in zip(np.concatenate(mean).T, np.concatenate(recorded).T, strict=True)
    ]
    found = rows[(rows["animal"] == "F") & (rows["tier"] == "oracle")][METRICS[0]]
    np.testing.assert_allclose(found, plain, rtol=0, atol=1e-6)
    by_video = member_scores(read_moments(folder / "joint-mean.h5"))
    keys = ["animal", "tier", "stimulus_type", "neuron_id"]
    ours, theirs = (table.sort_values(keys) for table in (by_video, rows))
    np.testing.assert_allclose(ours[METRICS[1]], theirs[METRICS[1]], rtol=0, atol=1e-6)


@pytest.mark.parametrize("weights", [[1.0], [0.5, 0.6]])
def test_weights_must_fit(folder: Path, tmp_path: Path, weights: list[float]) -> None:
    responses = {animal: fake_responses(animal) for animal in IDS}
    members = [folder / "seed0.h5", folder / "seed1.h5"]
    with pytest.raises(EnsembleError, match="2 members need as many weights that sum to one"):
        build(tmp_path, "e", members, responses, weights=weights)
    other = write_member(tmp_path / "x.h5", 5, system="one", training_set="published")
    with pytest.raises(EnsembleError, match="training_set is 'clean' and 'published'"):
        build(tmp_path, "e", [members[0], other], responses)


def noisy(rng: np.random.Generator, errors: list[float], neurons: int) -> JointMoments:
    truth = rng.normal(size=(200, neurons))
    signals = [truth + error * rng.normal(size=truth.shape) for error in errors]
    return JointMoments.of([*signals, truth + rng.normal(size=truth.shape)])


def test_fitted_weights_are_the_best_of_a_grid() -> None:
    rng = np.random.default_rng(3)
    moments = [noisy(rng, [0.7, 1.2], neurons) for neurons in (30, 20)]

    def score(weights: np.ndarray) -> float:
        return float(np.concatenate([correlation(part, weights) for part in moments]).mean())

    found = fitted_weights(moments)
    assert found.sum() == pytest.approx(1)
    grid = [np.array([w, 1 - w]) for w in np.linspace(0, 1, 201)]
    best = max(grid, key=score)
    assert score(found) >= score(best) - 1e-9
    assert abs(found - best).max() < 0.01  # twice the grid's step
    # Independent errors of variance v are best weighted by 1 / v: 0.49 and 1.44.
    np.testing.assert_allclose(found, [1.44 / 1.93, 0.49 / 1.93], atol=0.05)


def test_what_does_not_help_gets_no_weight() -> None:
    rng = np.random.default_rng(4)
    truth = rng.normal(size=(300, 40))
    recorded = truth + rng.normal(size=truth.shape)
    # The second is worse than useless: it takes away from what is to be predicted.
    moments = [JointMoments.of([truth, -recorded, recorded])]
    np.testing.assert_allclose(fitted_weights(moments), [1, 0], atol=1e-6)


def test_weights_are_fitted_on_what_nobody_trained_on(folder: Path) -> None:
    responses = {animal: fake_responses(animal) for animal in IDS}
    members = [folder / "seed0.h5", folder / "seed2.h5"]
    some = fitting_moments(
        members=members, responses=responses, tiers=["oracle"], left_out={"A": [0, 3], "F": []}
    )
    with Predictions(members[0]) as file:
        lengths = {animal: [file.frames(animal, t) for t in (0, 1, 3, 6)] for animal in IDS}
    assert [part.count for part in some] == [
        lengths["A"][1] + lengths["A"][3],
        sum(lengths["F"]),
    ]
    with pytest.raises(EnsembleError, match="no trial of tier oracle is left to fit weights on"):
        fitting_moments(
            members=members,
            responses=responses,
            tiers=["oracle"],
            left_out={"A": [0, 1, 3, 6], "F": [0, 1, 3, 6]},
        )
    with pytest.raises(EnsembleError, match="no trial of tier live_test_main"):
        fitting_moments(members=members, responses=responses, tiers=["live_test_main"], left_out={})


def test_trials_on_which_weights_were_fitted_have_a_reason_of_their_own(folder: Path) -> None:
    responses = {animal: fake_responses(animal) for animal in IDS}
    members = [folder / "seed0.h5", folder / "seed2.h5"]
    fitted_on = {animal: [0, 1, 3, 6] for animal in IDS}
    options = {"weights": [0.5, 0.5], "left_out": {"A": [1]}, "fitted_on": fitted_on}
    build(folder, "seen", members, responses, **options)
    by_video = member_scores(read_moments(folder / "seen-mean.h5"))
    with EnsembleMoments(folder / "seen-moments.h5") as moments:
        counts = {a: dict(moments.groups(a))["oracle", "movie"] for a in moments.animals}
        rows = ensemble_scores(moments)
    assert (counts["A"].trials_left_out, counts["A"].trials_fitted) == (1, 3)
    assert (counts["F"].trials_left_out, counts["F"].trials_fitted) == (0, 4)
    for table in (rows, by_video):
        oracle = table[table["tier"] == "oracle"].set_index("animal")
        fitted = "the ensemble's weights were fitted on these trials"
        assert oracle.loc["F", "reason"] == fitted
        assert oracle.loc["A", "reason"] == f"every video was trained on or {fitted}"
        assert (oracle["trials_left_out"] == 4).all()
        board = leaderboard(table)
        shown = leaderboard_table(board, titles={}, simulated=False).caption
        assert "video a member trained on, or on which weights were fitted." in shown


def test_members_of_two_systems_may_bear_one_name(tmp_path: Path) -> None:
    def write(name: str, rows: list[tuple[str, int, str, str]]) -> Path:
        table = pd.DataFrame(rows, columns=["animal", "trial", "video_id", "role"])
        table["tier"] = np.where(table["role"] == "test", "oracle", "train")
        table = table.assign(member="seed1", near_ids="", stimulus_type="movie")
        write_splits(table, tmp_path / name)
        return tmp_path / name

    test = [("A", trial, f"v{trial}", "test") for trial in range(3)]
    judged = [
        (write(f"{video}-split", test), write(f"{video}-learned", [("F", 9, video, "train")]))
        for video in ("v0", "v2")
    ]
    leaked = leaked_by_any(judged, ["A"], ["oracle"])
    assert leaked["A"].tolist() == [0, 2]
