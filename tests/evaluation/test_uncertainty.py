"""Intervals and comparisons from stored moments: the right score, the right videos, in pairs."""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sensorium_models.evaluation.leaderboard import leaderboard
from sensorium_models.evaluation.moments import AnimalMoments, Moments
from sensorium_models.evaluation.moments_file import MomentsError, read_moments, write_moments
from sensorium_models.evaluation.scores import METRICS, member_scores
from sensorium_models.evaluation.uncertainty import (
    COMPARISON_COLUMNS,
    INTERVAL_COLUMNS,
    NO_VIDEO,
    SystemMoments,
    uncertainty,
    write_table,
)

ANIMALS = {"A": 6, "B": 4, "C": 5}
VIDEOS = {
    ("final_test_main", "movie"): ["m0", "m1", "m2"],
    ("final_test_bonus", "gabor"): ["g0", "g1"],
    ("final_test_bonus", "images"): ["i0", "i1"],
}
REPEATS, FRAMES = 2, 30


def write_member(
    path: Path,
    *,
    system: str,
    member: str,
    error: float,
    seed: int = 0,
    left_out: Collection[str] = (),
    withheld: bool = False,
    **changes: str,
) -> Path:
    """Moments of a member whose predictions are the true rates with some error."""
    attributes = {
        "protocol": "open",
        "training_set": "clean",
        "system": system,
        "member": member,
        "score_unit": "raw",
        "frame_convention": "all",
    } | changes
    moments = Moments(attributes)
    for number, (animal, neurons) in enumerate(ANIMALS.items()):
        truth, noise = np.random.default_rng(number), np.random.default_rng([seed, number])
        content = moments.animals[animal] = AnimalMoments(np.arange(neurons))
        trial = 0
        for (tier, stimulus_type), videos in VIDEOS.items():
            for video in videos:
                rate = truth.normal(size=(FRAMES, neurons))
                repeats = {}
                for _ in range(REPEATS):
                    response = rate + truth.normal(size=rate.shape)
                    repeats[trial] = rate + error * noise.normal(size=rate.shape), response
                    trial += 1
                if withheld or video in left_out:
                    for excluded in repeats:
                        content.exclude(
                            tier=tier,
                            stimulus_type=stimulus_type,
                            trial=excluded,
                            reason="responses withheld" if withheld else "trained on",
                        )
                else:
                    content.add_video(
                        tier=tier, stimulus_type=stimulus_type, video=video, repeats=repeats
                    )
    write_moments(path, moments)
    return path


@pytest.fixture(scope="module")
def systems(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SystemMoments]:
    folder = tmp_path_factory.mktemp("moments")

    def write(system: str, member: str, error: float, seed: int) -> Path:
        path = folder / f"{system}-{member}.h5"
        return write_member(path, system=system, member=member, error=error, seed=seed)

    good = [write("good", f"seed{seed}", 0.8, seed) for seed in (1, 2)]
    return {
        "good": SystemMoments(write("good", "ensemble", 0.6, 3), good),
        "bad": SystemMoments(write("bad", "ensemble", 2.0, 4), [write("bad", "seed4", 2.0, 4)]),
    }


@pytest.fixture(scope="module")
def tables(systems: dict[str, SystemMoments]) -> tuple[pd.DataFrame, pd.DataFrame]:
    return uncertainty(systems, resamples=60, seed=1, level=0.9)


def row_of(table: pd.DataFrame, **values: str) -> pd.Series:
    chosen = table
    for key, value in values.items():
        chosen = chosen[chosen[key] == value]
    assert len(chosen) == 1
    return chosen.iloc[0]


def test_scores_are_those_of_the_leaderboard(systems, tables) -> None:
    intervals, _ = tables
    assert list(intervals.columns) == INTERVAL_COLUMNS
    assert len(intervals) == 2 * 2 * 2 * len(METRICS)  # systems, estimates, tiers
    boards = {
        path: leaderboard(member_scores(read_moments(path))).set_index("tier")
        for moments in systems.values()
        for path in (moments.ensemble, *moments.members)
    }
    for name, moments in systems.items():
        for tier in ("final_test_main", "final_test_bonus"):
            for metric in METRICS:
                at = {"system": name, "tier": tier, "metric": metric}
                found = row_of(intervals, estimate="ensemble", **at)
                expected = boards[moments.ensemble].loc[tier, metric]
                assert found["score"] == pytest.approx(expected, abs=1e-12)
                found = row_of(intervals, estimate="members", **at)
                scores = [boards[path].loc[tier, metric] for path in moments.members]
                assert found["score"] == pytest.approx(np.mean(scores), abs=1e-12)
                assert found["members"] == len(scores)
                if len(scores) > 1:
                    assert found["members_sd"] == pytest.approx(np.std(scores, ddof=1))
                else:
                    assert pd.isna(found["members_sd"])
                assert found["lower"] < found["score"] < found["upper"]
    main = row_of(
        intervals,
        system="good",
        estimate="ensemble",
        tier="final_test_main",
        metric="single_trial_correlation",
    )
    assert (main["animals"], main["videos"], main["neurons"]) == (3, 9, 15)
    assert (main["resampled"], main["degrees_of_freedom"]) == ("animals, videos, neurons", 2)
    assert (main["level"], main["resamples"], main["score_unit"]) == (0.9, 60, "raw")


def test_a_difference_is_judged_on_the_same_resamples(tables) -> None:
    intervals, comparisons = tables
    assert list(comparisons.columns) == COMPARISON_COLUMNS
    assert len(comparisons) == 2 * 2 * len(METRICS)
    at = {"tier": "final_test_main", "metric": METRICS[0], "estimate": "ensemble"}
    found = row_of(comparisons, **at)
    good, bad = (row_of(intervals, system=name, **at) for name in ("good", "bad"))
    assert (found["system"], found["other"]) == ("good", "bad")
    assert (found["score"], found["other_score"]) == (good["score"], bad["score"])
    assert found["difference"] == pytest.approx(good["score"] - bad["score"], abs=1e-15)
    assert found["lower"] > 0  # plainly better
    # Animals and videos that are hard for one are hard for the other.
    apart = np.hypot(good["standard_error"], bad["standard_error"])
    assert found["standard_error"] < apart


def test_a_system_does_not_differ_from_itself(systems, tables) -> None:
    _, comparisons = uncertainty(
        {"one": systems["good"], "other": systems["good"]}, resamples=20, seed=1, level=0.95
    )
    assert (comparisons[["difference", "lower", "upper", "standard_error"]] == 0).all(axis=None)
    again = uncertainty(systems, resamples=60, seed=1, level=0.9)
    for first, second in zip(tables, again, strict=True):
        pd.testing.assert_frame_equal(first, second)


def test_what_one_was_trained_on_is_left_out_for_the_other_too(tmp_path: Path) -> None:
    paths = {
        name: write_member(
            tmp_path / f"{name}.h5", system=name, member="m", error=1.0, left_out=left_out
        )
        for name, left_out in (("all", ()), ("less", ("m1",)), ("cut", ("m1",)))
    }
    kept = write_member(
        tmp_path / "kept.h5", system="none", member="m", error=1.0, left_out=("m0", "m2")
    )
    systems = {name: SystemMoments(path, [path]) for name, path in paths.items()}
    systems["none"] = SystemMoments(kept, [kept, paths["cut"]])
    intervals, comparisons = uncertainty(systems, resamples=20, seed=0, level=0.95)
    at = {"tier": "final_test_main", "metric": METRICS[0], "estimate": "ensemble"}
    whole = row_of(intervals, system="all", **at)
    pair = row_of(comparisons, system="all", other="less", **at)
    assert (whole["videos"], pair["videos"]) == (9, 6)
    # The same predictions: on what both are scored on, there is no difference.
    assert (pair["difference"], pair["standard_error"]) == (0, 0)
    assert pair["score"] == row_of(intervals, system="less", **at)["score"] != whole["score"]
    # Members that no video is left to, each scored on others.
    nothing = row_of(intervals, system="none", **(at | {"estimate": "members"}))
    assert nothing["reason"] == NO_VIDEO
    assert pd.isna(nothing["score"])
    assert nothing["videos"] == 0


def test_withheld_tiers_have_no_interval_and_say_why(tmp_path: Path) -> None:
    path = write_member(tmp_path / "a.h5", system="a", member="m", error=1.0, withheld=True)
    intervals, comparisons = uncertainty(
        {"a": SystemMoments(path, [path])}, resamples=5, seed=0, level=0.95
    )
    assert set(intervals["tier"]) == {"final_test_main", "final_test_bonus"}
    assert set(intervals["reason"]) == {NO_VIDEO}
    assert comparisons.empty
    write_table(tmp_path / "out.parquet", comparisons)
    assert list(pd.read_parquet(tmp_path / "out.parquet").columns) == COMPARISON_COLUMNS


def test_an_ensemble_of_several_systems_has_no_members(systems) -> None:
    joint = systems | {"joint": SystemMoments(systems["good"].ensemble)}
    intervals, comparisons = uncertainty(joint, resamples=5, seed=0, level=0.95)
    assert set(intervals[intervals["system"] == "joint"]["estimate"]) == {"ensemble"}
    of_members = comparisons[comparisons["estimate"] == "members"]
    assert set(of_members["other"]) == {"bad"}


def test_what_cannot_be_compared_is_refused(tmp_path: Path, systems) -> None:
    other = write_member(
        tmp_path / "o.h5", system="o", member="m", error=1.0, score_unit="per_neuron_train"
    )
    with pytest.raises(ValueError, match="different score_unit are never compared"):
        uncertainty(systems | {"o": SystemMoments(other)}, resamples=5, seed=0, level=0.95)
    with pytest.raises(ValueError, match="no system"):
        uncertainty({}, resamples=5, seed=0, level=0.95)
    with pytest.raises(MomentsError, match=r"none\.h5 cannot be read"):
        uncertainty({"a": SystemMoments(tmp_path / "none.h5")}, resamples=5, seed=0, level=0.95)
