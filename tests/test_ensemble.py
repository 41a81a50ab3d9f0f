"""Ensembles: the stored cross-moments give the score of any subset exactly."""

from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest

from sensorium_models.ensemble import EnsembleError, build_ensemble
from sensorium_models.evaluation.leaderboard import leaderboard
from sensorium_models.evaluation.moments_file import MomentsError, read_moments
from sensorium_models.evaluation.responses import RecordedResponses
from sensorium_models.evaluation.scores import METRICS, SCHEMA, member_scores, score_member
from sensorium_models.evaluation.subsets import (
    EnsembleMoments,
    ensemble_scores,
    score_by_axis,
    score_by_size,
    subset_scores,
)
from sensorium_models.predictions import Predictions, PredictionWriter

IDS = {"A": np.array([1, 3, 4]), "F": np.array([2, 8])}
START, FRAMES, MEMBERS = 1, 9, 6
# tier, type, video; odd lengths of repeats through `frames_of`
TRIALS = [
    ("oracle", "movie", 0),
    ("oracle", "movie", 1),
    ("final_test_bonus", "gabor", 2),
    ("oracle", "movie", 0),
    ("final_test_bonus", "images", 3),
    ("live_test_main", "movie", 4),
    ("oracle", "movie", 1),
]
ALL_TRIALS = tuple(range(len(TRIALS)))


def frames_of(trial: int) -> int:
    return FRAMES + trial % 3


def fake_responses(animal: str) -> RecordedResponses:
    rng = np.random.default_rng(ord(animal))
    data = [
        rng.gamma(0.5, size=(frames_of(trial), IDS[animal].size)).astype(np.float32)
        for trial in range(len(TRIALS))
    ]
    tiers, types, videos = zip(*TRIALS, strict=True)
    recording = SimpleNamespace(
        animal=animal,
        digest=f"digest {animal}",
        neuron_ids=IDS[animal],
        trials=SimpleNamespace(
            tier=np.array(tiers),
            stimulus_type=np.array(types),
            video=np.array(videos),
            video_id=np.array([f"content {video}" for video in videos]),
            first_response_frame=np.array([-1 if t == "live_test_main" else 0 for t in tiers]),
        ),
        read=lambda modality, trial, start, stop: data[trial][start:stop],
    )
    return RecordedResponses(recording, unit="raw", precision=np.ones((1, IDS[animal].size)))


@pytest.fixture(scope="module")
def responses() -> dict[str, RecordedResponses]:
    return {animal: fake_responses(animal) for animal in IDS}


def write_member(path: Path, index: int, *, trials=ALL_TRIALS, ids=IDS, **changes) -> Path:
    attributes = {
        "protocol": "open",
        "training_set": "clean",
        "system": "toy",
        "member": f"seed{index}",
        "score_unit": "raw",
        "first_scored_frame": START,
        "frame_convention": "frames 1..T-1 of a trial of T",
        "recording_digests": {animal: f"digest {animal}" for animal in IDS},
        "fingerprint": f"f{index}",
    } | changes
    rng = np.random.default_rng(index)
    with PredictionWriter(path, **attributes) as writer:
        for animal in ids:
            for trial in trials:
                truth = fake_responses(animal).read(trial, START, frames_of(trial))
                noise = rng.gamma(0.5, size=truth.shape)
                writer.add(animal, ids[animal], trial, 0.2 * truth + noise)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory, responses) -> Path:
    """Six members and the ensemble of them, trial 1 of animal A left out."""
    folder = tmp_path_factory.mktemp("ensemble")
    build_ensemble(
        name="all_toys",
        members=[write_member(folder / f"seed{i}.h5", i) for i in range(MEMBERS)],
        responses=responses,
        predictions=folder / "predictions.h5",
        moments=folder / "moments.h5",
        mean=folder / "mean.h5",
        left_out={"A": {1}},
    )
    return folder


def mean_of(folder: Path, animal: str, trial: int, weights: np.ndarray) -> np.ndarray:
    total = 0.0
    for index in np.flatnonzero(weights):
        with Predictions(folder / f"seed{index}.h5") as file:
            total = total + weights[index] * file.read(animal, trial).astype(np.float64)
    return total


def direct(
    folder: Path, responses: RecordedResponses, trials: list[int], weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Both correlations of the weighted mean prediction, everything in memory."""

    def correlate(response: np.ndarray, prediction: np.ndarray) -> np.ndarray:
        z_response = (response - response.mean(axis=0)) / (response.std(axis=0) + 1e-8)
        z_prediction = (prediction - prediction.mean(axis=0)) / (prediction.std(axis=0) + 1e-8)
        return (z_response * z_prediction).mean(axis=0)

    pairs = {
        trial: (
            responses.read(trial, START, frames_of(trial)).astype(np.float64),
            mean_of(folder, responses.animal, trial, weights),
        )
        for trial in trials
    }
    averages = []
    for video in sorted({TRIALS[trial][2] for trial in trials}):
        repeats = [pairs[trial] for trial in trials if TRIALS[trial][2] == video]
        shortest = min(len(response) for response, _ in repeats)
        averages.append(
            [np.mean([both[side][:shortest] for both in repeats], axis=0) for side in (0, 1)]
        )
    joined = [
        correlate(*(np.concatenate([part[side] for part in parts]) for side in (0, 1)))
        for parts in (list(pairs.values()), averages)
    ]
    return joined[0], joined[1]


def test_room_is_asked_for_what_is_written(folder, responses, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("sensorium_models.files.check_room", lambda path, size: asked.append(size))
    build_ensemble(
        name="all_toys",
        members=[folder / f"seed{i}.h5" for i in range(MEMBERS)],
        responses=responses,
        predictions=tmp_path / "predictions.h5",
        moments=tmp_path / "moments.h5",
        mean=tmp_path / "mean.h5",
        left_out={"A": [0, 1, 3, 6]},  # all of a tier
        further={"even": responses},
    )
    written = 0

    def count(name: str, item: Any) -> None:
        nonlocal written
        if name.endswith(("/mean", "/products")):
            written += item.nbytes

    for name in ("moments.h5", "mean.h5"):
        with h5py.File(tmp_path / name) as file:
            file.visititems(count)
    assert asked == [(folder / "seed0.h5").stat().st_size + written]


def groups(folder: Path, animal: str) -> dict:
    with EnsembleMoments(folder / "moments.h5") as moments:
        return dict(moments.groups(animal))


@pytest.mark.parametrize(("animal", "trials"), [("A", [0, 3, 6]), ("F", [0, 1, 3, 6])])
def test_every_subset_agrees_with_the_direct_computation(folder, responses, animal, trials):
    group = groups(folder, animal)["oracle", "movie"]
    for size in (1, 2, 5, 6):
        for subset in combinations(range(MEMBERS), size):
            weights = np.zeros(MEMBERS)
            weights[list(subset)] = 1 / size
            expected = direct(folder, responses[animal], trials, weights)
            for moments, values in zip(
                (group.single_trial, group.repeat_average), expected, strict=True
            ):
                found = subset_scores(moments, members=subset)
                np.testing.assert_allclose(found, values, rtol=0, atol=1e-10)
                backwards = subset_scores(moments, members=subset[::-1])
                np.testing.assert_array_equal(backwards, found)


@pytest.mark.parametrize("weights", [[0.5, 0.2, 0.3], [3, -1, 0.1]])
def test_any_weighting_agrees_with_the_direct_computation(folder, responses, weights):
    full = np.zeros(MEMBERS)
    full[[4, 0, 2]] = weights
    group = groups(folder, "F")["oracle", "movie"]
    expected = direct(folder, responses["F"], [0, 1, 3, 6], full)
    for moments, values in zip((group.single_trial, group.repeat_average), expected, strict=True):
        found = subset_scores(moments, members=[4, 0, 2], weights=weights)
        np.testing.assert_allclose(found, values, rtol=0, atol=1e-10)


def test_mean_prediction_holds_every_trial(folder):
    with Predictions(folder / "predictions.h5") as mean:
        assert (mean.attributes.system, mean.attributes.member) == ("all_toys", "ensemble")
        for animal, ids in IDS.items():
            np.testing.assert_array_equal(mean.neuron_ids(animal), ids)
            assert mean.trials(animal).tolist() == list(range(len(TRIALS)))
            for trial in mean.trials(animal):
                expected = mean_of(folder, animal, trial, np.full(MEMBERS, 1 / MEMBERS))
                # half a float16 step, and the float32 mean before it
                np.testing.assert_allclose(mean.read(animal, trial), expected, rtol=6e-4, atol=1e-7)


def test_counts_and_withheld_tiers(folder):
    found = groups(folder, "A")
    assert set(found) == {
        ("oracle", "movie"),
        ("final_test_bonus", "gabor"),
        ("final_test_bonus", "images"),
        ("live_test_main", "movie"),
    }
    oracle, withheld = found["oracle", "movie"], found["live_test_main", "movie"]
    assert (oracle.trials, oracle.videos, oracle.trials_left_out) == (3, 2, 1)
    assert (withheld.frames, withheld.trials_withheld) == (0, 1)


def test_score_rows_of_the_ensemble(folder, responses):
    with EnsembleMoments(folder / "moments.h5") as moments:
        rows = ensemble_scores(moments)
        only_third = ensemble_scores(moments, members=[2])
    assert list(rows.columns) == SCHEMA.names
    assert set(rows["system"]) == {"all_toys"}
    assert set(rows["member"]) == {"ensemble"}
    reasons = rows.loc[rows["tier"] == "live_test_main", "reason"]
    assert reasons.tolist() == ["responses withheld"] * 2
    # its mean prediction, read back from the file, scores the same up to float16
    again = member_scores(
        score_member(
            predictions=folder / "predictions.h5", responses=responses, left_out={"A": [1]}
        )
    )
    key = ["animal", "tier", "stimulus_type", "neuron_id"]
    columns = ["single_trial_correlation", "correlation_to_average"]
    np.testing.assert_allclose(
        rows.set_index(key)[columns], again.set_index(key)[columns], atol=5e-3
    )
    member = member_scores(
        score_member(predictions=folder / "seed2.h5", responses=responses, left_out={"A": [1]})
    )
    np.testing.assert_allclose(
        only_third.set_index(key)[columns], member.set_index(key)[columns], atol=1e-12
    )


def test_score_by_size(folder):
    with EnsembleMoments(folder / "moments.h5") as moments:
        curve = score_by_size(moments, orders=5, seed=1)
        again = score_by_size(moments, orders=5, seed=1)
        board = leaderboard(ensemble_scores(moments)).set_index("tier")
        singles = [leaderboard(ensemble_scores(moments, members=[i])) for i in range(MEMBERS)]
        some = score_by_size(moments, orders=2, seed=1, members=[1, 3])
    assert curve.equals(again)
    assert set(curve["tier"]) == {"oracle", "final_test_bonus"}  # nothing from the withheld one
    assert len(curve) == 2 * 2 * 5 * MEMBERS
    for (tier, metric), part in curve.groupby(["tier", "metric"]):
        full = part.loc[part["size"] == MEMBERS, "score"]
        assert full.nunique() == 1  # noqa: PD101
        assert full.iloc[0] == pytest.approx(board.loc[tier, metric], abs=1e-12)
        possible = [single.set_index("tier").loc[tier, metric] for single in singles]
        for value in part.loc[part["size"] == 1, "score"]:
            assert min(abs(np.array(possible) - value)) < 1e-12
    oracle = curve[(curve["tier"] == "oracle") & (curve["metric"] == "single_trial_correlation")]
    by_size = oracle.groupby("size")["score"].mean()
    assert by_size[MEMBERS] > by_size[1]  # members have independent noise
    assert some["size"].max() == 2


def test_curves_of_members_that_were_trained_on_every_trial(tmp_path, responses):
    """As DwiseNeuro's in `competition`: nothing is scored, and nothing fails."""
    build_ensemble(
        name="all_toys",
        members=[write_member(tmp_path / f"seed{i}.h5", i) for i in range(2)],
        responses=responses,
        predictions=tmp_path / "predictions.h5",
        moments=tmp_path / "moments.h5",
        mean=tmp_path / "mean.h5",
        left_out={animal: set(range(20)) for animal in responses},
    )
    with EnsembleMoments(tmp_path / "moments.h5") as moments:
        axes = {f"seed{i}": {"seed": i, "fold": 0} for i in range(2)}
        curves = [
            score_by_size(moments, orders=2, seed=1),
            score_by_axis(moments, axes, orders=2, seed=1),
        ]
    assert [len(curve) for curve in curves] == [0, 0]
    assert "axis" in curves[1]


def test_curves_along_each_axis_are_of_the_subsets_that_they_say(folder, responses):
    """Six members as three folds of two variants: each axis by itself, computed directly."""
    axes = {
        f"seed{index}": {"fold": index % 3, "stage": "ab"[index // 3], "seed": 42}
        for index in range(MEMBERS)
    }
    with EnsembleMoments(folder / "moments.h5") as moments:
        curve = score_by_axis(moments, axes, orders=3, seed=2)
        with pytest.raises(ValueError, match="axes of member seed5"):
            score_by_axis(moments, dict(list(axes.items())[:5]), orders=3, seed=2)
        alone = score_by_axis(
            moments, {name: {"seed": i} for i, name in enumerate(axes)}, orders=2, seed=2
        )
        whole = score_by_size(moments, orders=2, seed=2)
    assert set(curve["axis"]) == {"fold", "stage"}  # one seed, which is no axis to go along
    pd.testing.assert_frame_equal(alone.drop(columns="axis"), whole)
    part = curve.query("tier == 'oracle' and metric == 'single_trial_correlation'")
    folds, stages = (part[part["axis"] == axis] for axis in ("fold", "stage"))
    assert (folds["size"].max(), folds["order"].nunique()) == (3, 2 * 3)
    assert (stages["size"].max(), stages["order"].nunique()) == (2, 3 * 3)

    def score(subset: tuple[int, ...]) -> float:
        weights = np.zeros(MEMBERS)
        weights[list(subset)] = 1 / len(subset)
        values = [
            direct(folder, responses[animal], trials, weights)[0]
            for animal, trials in (("A", [0, 3, 6]), ("F", [0, 1, 3, 6]))
        ]
        return float(np.concatenate(values).mean())

    pools = {"fold": [(0, 1, 2), (3, 4, 5)], "stage": [(0, 3), (1, 4), (2, 5)]}
    for axis, found in (("fold", folds), ("stage", stages)):
        for size, rows in found.groupby("size"):
            possible = {
                subset: score(subset) for p in pools[axis] for subset in combinations(p, size)
            }
            near = np.abs(rows["score"].to_numpy()[:, None] - np.array(list(possible.values())))
            assert near.min(axis=1).max() < 1e-10
            if size == len(pools[axis][0]):  # every pool is there when all have joined
                assert (near.min(axis=0) < 1e-10).all()


@pytest.mark.parametrize(
    ("members", "weights", "message"),
    [
        ([], None, "members must be some of 0..5"),
        ([0, 6], None, "members must be some of 0..5"),
        ([-1], None, "members must be some of 0..5"),
        ([1, 1], None, "given twice"),
        ([1, 2], [1.0], "1 weights were given for 2 members"),
    ],
)
def test_impossible_subsets(folder, members, weights, message):
    moments = groups(folder, "A")["oracle", "movie"].single_trial
    with pytest.raises(ValueError, match=message):
        subset_scores(moments, members=members, weights=weights)


def test_the_mean_scores_like_a_member(folder):
    """By its own moments, per video, the mean scores as by the members' cross-moments."""
    by_video = member_scores(read_moments(folder / "mean.h5"))
    with EnsembleMoments(folder / "moments.h5") as moments:
        crossed = ensemble_scores(moments)
    keys = ["animal", "tier", "stimulus_type", "neuron_id"]
    ours, theirs = (rows.sort_values(keys).reset_index(drop=True) for rows in (by_video, crossed))
    assert list(ours.columns) == list(theirs.columns)
    for metric in METRICS:
        # The mean is rounded to float32, 6e-8 of its value.
        np.testing.assert_allclose(ours[metric], theirs[metric], rtol=0, atol=1e-6)
    for name in (*keys, "trials", "videos", "frames", "trials_left_out", "reason"):
        assert ours[name].astype(str).tolist() == theirs[name].astype(str).tolist()


def test_the_mean_is_scored_in_further_units(tmp_path, folder, responses):
    doubled = {
        animal: RecordedResponses(
            responses[animal]._recording, unit="later", precision=2.0 ** np.arange(12)[:, None]
        )
        for animal in IDS
    }
    build_ensemble(
        name="e",
        members=[folder / "seed0.h5", folder / "seed1.h5"],
        responses=responses,
        predictions=tmp_path / "predictions.h5",
        moments=tmp_path / "moments.h5",
        mean=tmp_path / "mean.h5",
        further={"later": doubled},
    )
    found = read_moments(tmp_path / "mean.h5")
    again = score_member(
        predictions=tmp_path / "predictions.h5", responses=responses, further={"later": doubled}
    )
    for ours, theirs in zip(found.in_units(), again.in_units(), strict=True):
        ours, theirs = member_scores(ours), member_scores(theirs)
        for metric in METRICS:
            # The file of the mean holds float16.
            np.testing.assert_allclose(ours[metric], theirs[metric], rtol=0, atol=5e-3)
    assert found.further["later"].attributes["score_unit"] == "later"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"score_unit": "other"}, "score_unit is 'raw' and 'other'"),
        ({"protocol": "competition"}, "protocol is 'open' and 'competition'"),
        ({"recording_digests": {"A": "x"}}, "recording_digests"),
        ({"member": "seed0"}, "member seed0 of toy is in the ensemble twice"),
        ({"trials": [0, 1]}, "only one of them has trials 2, 3, 4, 5, 6"),
        ({"ids": {"A": IDS["A"] + 1, "F": IDS["F"]}}, "neuron ids of animal A differ"),
        ({"ids": {"A": IDS["A"]}}, "animals"),
    ],
)
def test_members_that_differ_are_refused(tmp_path, responses, changes, message):
    members = [write_member(tmp_path / "a.h5", 0), write_member(tmp_path / "b.h5", 1, **changes)]
    output = tmp_path / "out"
    with pytest.raises(EnsembleError, match=message):
        build_ensemble(
            name="e",
            members=members,
            responses=responses,
            predictions=output / "predictions.h5",
            moments=output / "moments.h5",
            mean=output / "mean.h5",
        )
    assert not output.exists()


def test_failure_on_the_way_leaves_nothing(tmp_path, responses, monkeypatch):
    members = [write_member(tmp_path / f"{i}.h5", i) for i in range(2)]
    output = tmp_path / "out"
    broken = fake_responses("F")
    monkeypatch.setattr(broken, "read", lambda *_: np.full((FRAMES, 2), np.nan))
    with pytest.raises(ValueError):  # noqa: PT011 - any error will do, the files are the point
        build_ensemble(
            name="e",
            members=members,
            responses={"A": responses["A"], "F": broken},
            predictions=output / "predictions.h5",
            moments=output / "moments.h5",
            mean=output / "mean.h5",
        )
    assert list(output.iterdir()) == []


def test_no_members(tmp_path, responses):
    with pytest.raises(EnsembleError, match="at least one member"):
        build_ensemble(
            name="e",
            members=[],
            responses=responses,
            predictions=tmp_path / "p.h5",
            moments=tmp_path / "m.h5",
            mean=tmp_path / "mean.h5",
        )


def test_unreadable_moments(tmp_path, folder):
    with pytest.raises(MomentsError, match=r"none\.h5 cannot be read"):
        EnsembleMoments(tmp_path / "none.h5")
    with pytest.raises(MomentsError, match="no ensemble moments"):
        EnsembleMoments(folder / "seed0.h5")
