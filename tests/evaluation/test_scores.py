"""From prediction files and recordings to score rows and the leaderboard."""

import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from sensorium_models.evaluation.leaderboard import leaderboard, read_leaderboard, track_of
from sensorium_models.evaluation.moments import AnimalMoments
from sensorium_models.evaluation.moments_file import read_moments, write_moments
from sensorium_models.evaluation.responses import RecordedResponses, scoring_plan
from sensorium_models.evaluation.scores import (
    SCHEMA,
    add_in_units,
    member_scores,
    score_member,
    write_scores,
)
from sensorium_models.predictions import PredictionWriter

IDS = np.array([1, 3])
START, FRAMES = 2, 12
# tier, type, video number, frames, responses public
TRIALS = [
    ("train", "movie", 0, FRAMES, True),
    ("oracle", "movie", 1, FRAMES, True),
    ("final_test_bonus", "gabor", 2, FRAMES, True),
    ("oracle", "movie", 1, FRAMES, True),
    ("final_test_bonus", "images", 3, FRAMES, True),
    ("live_test_main", "movie", 4, FRAMES, False),
    ("oracle", "movie", 5, FRAMES - 3, True),
]


class FakeRecording:
    """The part of a recording that scoring reads, in memory."""

    def __init__(self, animal: str, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.animal, self.digest, self.neuron_ids = animal, f"digest {animal}", IDS
        tiers, types, videos, frames, public = zip(*TRIALS, strict=True)
        self.trials = SimpleNamespace(
            tier=np.array(tiers),
            stimulus_type=np.array(types),
            video=np.array(videos),
            video_id=np.array([f"content {video}" for video in videos]),
            frames=np.array(frames),
            first_response_frame=np.where(public, 0, -1),
        )
        self.responses = [rng.gamma(0.5, size=(n, 2)).astype(np.float32) for n in frames]

    def read(self, modality: str, trial: int, start: int, stop: int) -> np.ndarray:
        assert modality == "responses"
        assert self.trials.first_response_frame[trial] >= 0, "withheld responses were read"
        return self.responses[trial][start:stop]


def direct_correlation(response: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """specs/metrics.md section 2, steps 2 and 3, in float64: (frames, N) -> (N,)."""
    response, prediction = response.astype(np.float64), prediction.astype(np.float64)
    z_response = (response - response.mean(axis=0)) / (response.std(axis=0, ddof=0) + 1e-8)
    z_prediction = (prediction - prediction.mean(axis=0)) / (prediction.std(axis=0, ddof=0) + 1e-8)
    return (z_response * z_prediction).mean(axis=0)


PRECISION = np.linspace(0.5, 2, FRAMES)[:, None] * np.array([1.0, 3.0])


@pytest.fixture
def responses() -> dict[str, RecordedResponses]:
    return {
        animal: RecordedResponses(FakeRecording(animal, seed), unit="odd", precision=PRECISION)
        for seed, animal in enumerate("AF")
    }


def prediction_of(animal: str, trial: int) -> np.ndarray:
    """(frames, N), exact in float16."""
    rng = np.random.default_rng([ord(animal), trial])
    frames = TRIALS[trial][3] - START
    return rng.gamma(0.5, size=(frames, 2)).astype(np.float16).astype(np.float32)


def write_predictions(path: Path, *, member: str = "seed1", animals: str = "AF", **changes) -> Path:
    attributes = {
        "protocol": "open",
        "training_set": "clean",
        "system": "toy",
        "member": member,
        "score_unit": "odd",
        "first_scored_frame": START,
        "frame_convention": "frames 2..T-1 of a trial of T",
        "recording_digests": {animal: f"digest {animal}" for animal in animals},
        "fingerprint": "f",
    } | changes
    with PredictionWriter(path, **attributes) as writer:
        for animal in animals:
            for trial in range(1, len(TRIALS)):
                writer.add(animal, IDS, trial, prediction_of(animal, trial))
    return path


def test_scores_agree_with_the_direct_way(tmp_path: Path, responses):
    path = write_predictions(tmp_path / "p.h5")
    rows = member_scores(score_member(predictions=path, responses=responses))
    assert list(rows.columns) == SCHEMA.names
    recording = FakeRecording("F", 1)
    # precision by ABSOLUTE frame: the row of scored frame i is START + i
    scored = {
        trial: recording.responses[trial][START:]
        * PRECISION[START : len(recording.responses[trial])]
        for trial in (1, 3, 6)
    }
    predicted = {trial: prediction_of("F", trial) for trial in (1, 3, 6)}
    single = direct_correlation(
        *(np.concatenate(list(parts.values())) for parts in (scored, predicted))
    )
    averaged = direct_correlation(
        *(
            np.concatenate([(parts[1] + parts[3].astype(np.float64)) / 2, parts[6]])
            for parts in (scored, predicted)
        )
    )
    found = rows[(rows["animal"] == "F") & (rows["tier"] == "oracle")]
    assert found["neuron_id"].tolist() == [1, 3]
    np.testing.assert_allclose(found["single_trial_correlation"], single, atol=1e-12)
    np.testing.assert_allclose(found["correlation_to_average"], averaged, atol=1e-12)
    assert (found[["trials", "videos", "frames"]].to_numpy() == [3, 2, 10 + 10 + 7]).all()
    assert found["reason"].isna().all()
    assert set(found["score_unit"]) == {"odd"}
    assert set(found["frame_convention"]) == {"frames 2..T-1 of a trial of T"}


def test_unit_with_one_precision_for_all_frames():
    recording = FakeRecording("A")
    found = RecordedResponses(recording, unit="one", precision=np.array([[2.0, 3.0]]))
    np.testing.assert_array_equal(found.read(1, 2, 5), recording.responses[1][2:5] * [2.0, 3.0])


PER_NEURON = np.array([[2.0, 0.5]])


def test_the_same_predictions_are_scored_in_further_units(tmp_path: Path, responses):
    path = write_predictions(tmp_path / "p.h5")
    other = {
        animal: RecordedResponses(FakeRecording(animal, seed), unit="even", precision=PER_NEURON)
        for seed, animal in enumerate("AF")
    }
    left_out = {"A": [6]}
    moments = score_member(
        predictions=path, responses=responses, left_out=left_out, further={"even": other}
    )
    write_moments(tmp_path / "m.h5", moments)
    read = read_moments(tmp_path / "m.h5")
    plain = score_member(predictions=path, responses=responses, left_out=left_out)
    pd.testing.assert_frame_equal(member_scores(read), member_scores(plain))
    assert list(read.animals) == ["A", "F"]

    rows = member_scores(read.further["even"])
    assert set(rows["score_unit"]) == {"even"}
    assert set(rows["member"]) == {"seed1"}
    # As if the network had predicted raw rates and all had been divided per neuron only.
    recording = FakeRecording("F", 1)
    trials = (1, 3, 6)
    raw = [recording.responses[trial][START:] for trial in trials]
    predicted = [
        prediction_of("F", trial) / PRECISION[START : START + len(values)]
        for trial, values in zip(trials, raw, strict=True)
    ]
    expected = direct_correlation(np.concatenate(raw), np.concatenate(predicted))
    found = rows[(rows["animal"] == "F") & (rows["tier"] == "oracle")]
    np.testing.assert_allclose(found["single_trial_correlation"], expected, atol=1e-12)
    score_unit = member_scores(read).query("animal == 'F' and tier == 'oracle'")
    changed = np.abs(expected - score_unit["single_trial_correlation"].to_numpy(dtype=float))
    assert (changed > 1e-3).all()  # the unit does matter
    # What is left out is left out in every unit.
    same = ["animal", "tier", "neuron_id", "trials", "videos", "trials_left_out", "reason"]
    pd.testing.assert_frame_equal(rows[same], member_scores(read)[same])


def test_a_further_unit_needs_no_second_copy_of_a_videos_repeats() -> None:
    frames, neurons, start = 96, 2000, 4
    random = np.random.default_rng(0)
    precision = random.uniform(0.5, 2, (start + frames, neurons))
    units = [
        SimpleNamespace(unit=name, factor_to=lambda other, first, stop: precision[first:stop])
        for name in ("one", "other")
    ]
    repeats = {
        trial: tuple(random.gamma(0.5, size=(2, length, neurons)).astype(np.float32))
        for trial, length in enumerate([frames] * 9 + [frames - 5])
    }

    def peak_of(count: int) -> tuple[int, list[AnimalMoments]]:
        found = [AnimalMoments(np.arange(neurons)) for _ in range(count)]
        tracemalloc.start()
        add_in_units(found, units[:count], start, ("oracle", "movie", "v"), repeats)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak, found

    (one, _), (two, found) = peak_of(1), peak_of(2)
    copy = sum(values.nbytes for signals in repeats.values() for values in signals)
    assert two - one < copy / 5  # of which a block of neurons and the sums are some
    # The same, to the last bit, as if all had been multiplied beforehand.
    factor = precision[start:]
    multiplied = {
        trial: tuple(values * factor[: len(values)] for values in signals)
        for trial, signals in repeats.items()
    }
    expected = AnimalMoments(np.arange(neurons))
    expected.add_video(tier="oracle", stimulus_type="movie", video="v", repeats=multiplied)
    for name in ("single_trial", "repeat_average"):
        ours, theirs = (
            getattr(moments.videos["oracle", "movie", "v"], name)
            for moments in (found[1], expected)
        )
        np.testing.assert_array_equal(ours.mean, theirs.mean)
        np.testing.assert_array_equal(ours.products, theirs.products)
    # A factor that is no number is found as a value that is none would be.
    units[0].factor_to = lambda *_: np.where(np.arange(neurons) == 3, np.nan, 1)[None]
    with pytest.raises(ValueError, match=r"the prediction of trial 0 .* not finite"):
        add_in_units(
            [AnimalMoments(np.arange(neurons)) for _ in units],
            units,
            start,
            ("oracle", "movie", "v"),
            repeats,
        )


def test_moments_in_further_units_are_merged_too(tmp_path: Path, responses):
    other = {
        animal: RecordedResponses(FakeRecording(animal, seed), unit="even", precision=PER_NEURON)
        for seed, animal in enumerate("AF")
    }
    whole = score_member(
        predictions=write_predictions(tmp_path / "p.h5"),
        responses=responses,
        further={"even": other},
    )
    halves = [
        score_member(
            predictions=write_predictions(
                tmp_path / f"{animal}.h5",
                animals=animal,
                recording_digests={a: f"digest {a}" for a in "AF"},
            ),
            responses=responses,
            further={"even": other},
        )
        for animal in "AF"
    ]
    halves[0].merge(halves[1])
    pd.testing.assert_frame_equal(
        member_scores(halves[0].further["even"]), member_scores(whole.further["even"])
    )
    with pytest.raises(ValueError, match="different further units"):
        halves[0].merge(score_member(predictions=tmp_path / "F.h5", responses=responses))


def test_withheld_tier_has_one_row_without_value(tmp_path: Path, responses):
    path = write_predictions(tmp_path / "p.h5")
    rows = member_scores(score_member(predictions=path, responses=responses))
    withheld = rows[rows["tier"] == "live_test_main"]
    assert withheld["animal"].tolist() == ["A", "F"]
    assert set(withheld["reason"]) == {"responses withheld"}
    assert withheld[["neuron_id", "single_trial_correlation"]].isna().all(axis=None)
    assert (withheld["trials"] == 0).all()


def test_trials_trained_on_are_left_out_and_counted(tmp_path: Path, responses):
    path = write_predictions(tmp_path / "p.h5")
    moments = score_member(
        predictions=path, responses=responses, left_out={"A": [6, np.int64(2)], "F": []}
    )
    rows = member_scores(moments).set_index(["animal", "tier", "stimulus_type"]).sort_index()
    oracle = rows.loc["A", "oracle", "movie"]
    assert (oracle[["trials", "videos", "trials_left_out"]].to_numpy() == [2, 1, 1]).all()
    gone = rows.loc["A", "final_test_bonus", "gabor"]
    assert gone["reason"] == "every video was trained on"
    assert np.isnan(gone["single_trial_correlation"])
    assert gone["trials_left_out"] == 1
    assert len(rows.loc["F", "final_test_bonus", "gabor"]) == 2


def test_repeats_of_a_video_are_planned_together(responses):
    plan = scoring_plan([6, 1, 3, 5], responses["A"], left_out=[])
    assert plan.scored == {("oracle", "movie"): {"content 1": [1, 3], "content 5": [6]}}
    assert plan.excluded == {5: ("live_test_main", "movie", "responses withheld")}
    with pytest.raises(ValueError, match="only 7 trials"):
        scoring_plan([7], responses["A"], left_out=[])


def test_what_does_not_belong_together_is_refused(tmp_path: Path, responses):
    good = write_predictions(tmp_path / "p.h5")
    with pytest.raises(ValueError, match="no recording was given for animal F"):
        score_member(predictions=good, responses={"A": responses["A"]})
    bad = write_predictions(tmp_path / "u.h5", score_unit="raw")
    with pytest.raises(ValueError, match="unit 'raw', the responses are in 'odd'"):
        score_member(predictions=bad, responses=responses)
    bad = write_predictions(tmp_path / "d.h5", recording_digests={"A": "old", "F": "digest F"})
    with pytest.raises(ValueError, match="digest old, the one given now has digest A"):
        score_member(predictions=bad, responses=responses)
    responses["A"].neuron_ids = IDS + 1
    with pytest.raises(ValueError, match="other neuron ids"):
        score_member(predictions=good, responses=responses)


def test_unit_that_ends_before_the_trial_is_refused(responses):
    late = RecordedResponses(FakeRecording("A"), unit="odd", precision=PRECISION[:5])
    with pytest.raises(ValueError, match=r"animal A, trial 1 cannot be scored in unit 'odd'"):
        late.read(1, START, 6)


def test_a_folder_of_scores_reads_as_one_table(tmp_path: Path, responses):
    folder = tmp_path / "scores"
    for index, left_out in enumerate(({}, {"A": [1, 3, 6], "F": [1, 3, 6]})):
        path = write_predictions(tmp_path / "p.h5", member=f"seed{index}")
        moments = score_member(predictions=path, responses=responses, left_out=left_out)
        write_moments(tmp_path / "m.h5", moments)
        rows = member_scores(read_moments(tmp_path / "m.h5"))
        write_scores(folder / f"seed{index}.parquet", rows)
        pd.testing.assert_frame_equal(
            pd.read_parquet(folder / f"seed{index}.parquet").astype(str), rows.astype(str)
        )
    table = pd.read_parquet(folder)
    assert set(table["member"]) == {"seed0", "seed1"}
    assert table["neuron_id"].dtype == "Int64"
    ranked = table.groupby(["tier", "member"])["single_trial_correlation"].mean()
    assert np.isnan(ranked["oracle", "seed1"])
    assert np.isfinite(ranked["oracle", "seed0"])


def rows_from(values: dict[tuple[str, str, str, str], list[float]]) -> pd.DataFrame:
    """Score rows from (member, animal, tier, type) -> value per neuron."""
    parts = []
    for (member, animal, tier, stimulus_type), numbers in values.items():
        parts.append(
            pd.DataFrame(
                {
                    "protocol": "open",
                    "training_set": "clean",
                    "system": "toy",
                    "member": member,
                    "animal": animal,
                    "neuron_id": list(range(len(numbers))) or [pd.NA],
                    "tier": tier,
                    "stimulus_type": stimulus_type,
                    "single_trial_correlation": numbers or [np.nan],
                    "correlation_to_average": [2 * n for n in numbers] or [np.nan],
                    "trials": 4 if numbers else 0,
                    "videos": 2,
                    "frames": 10,
                    "trials_left_out": 0 if numbers else 3,
                    "reason": None if numbers else "every video was trained on",
                    "score_unit": "odd",
                    "frame_convention": "all",
                    "normalised_correlation": [3 * n for n in numbers] or [np.nan],
                    "feve": [-n for n in numbers] or [np.nan],
                    "reliable": [n > 0.25 for n in numbers] or [pd.NA],
                }
            ).astype({"neuron_id": "Int64", "reliable": "boolean"})
        )
    return pd.concat(parts, ignore_index=True)


def test_leaderboard_by_hand():
    rows = rows_from(
        {
            ("seed1", "A", "live_test_main", "movie"): [0.1, 0.3],
            ("seed1", "B", "live_test_main", "movie"): [0.8],
            ("seed2", "A", "live_test_main", "movie"): [0.5, 0.6],
            ("seed2", "B", "live_test_main", "movie"): [],
            ("seed1", "A", "final_test_bonus", "gabor"): [0.2, 0.4],
            ("seed1", "A", "final_test_bonus", "images"): [0.6, 0.8],
            ("seed1", "B", "final_test_bonus", "images"): [0.1],
            ("seed1", "B", "oracle", "movie"): [],
            ("seed1", "A", "my_tier", "movie"): [0.9],
        }
    )
    board = leaderboard(rows)
    assert board["tier"].tolist() == [
        "live_test_main",
        "live_test_main",
        "final_test_bonus",
        "oracle",
        "my_tier",
    ]
    assert board["track"].tolist() == ["main", "main", "bonus", "oracle", "my_tier"]
    second, first, bonus, oracle, own = (
        board.iloc[index] for index in (1, 0, 2, 3, 4)
    )  # best first: seed2 has 0.55, seed1 0.4
    assert (first["member"], second["member"]) == ("seed2", "seed1")
    assert second["single_trial_correlation"] == pytest.approx(1.2 / 3)
    assert second["correlation_to_average"] == pytest.approx(2.4 / 3)
    assert second["single_trial_correlation_animal_mean"] == pytest.approx((0.2 + 0.8) / 2)
    assert (second["neurons"], second["trials"], second["animals"]) == (3, 8, "A B")
    assert (first["animals"], first["trials_left_out"], first["neurons"]) == ("A", 3, 2)
    assert bonus["single_trial_correlation"] == pytest.approx((0.3 + 0.5) / 2)
    assert bonus["single_trial_correlation_animal_mean"] == pytest.approx((0.3 + 0.4) / 2)
    assert bonus["single_trial_correlation_types_pooled"] == pytest.approx(2.1 / 5)
    assert (bonus["neurons"], bonus["stimulus_types"]) == (3, "gabor images")
    # Only the neurons above 0.25 are reliable, the others are counted.
    assert second["normalised_correlation"] == pytest.approx(3 * (0.3 + 0.8) / 2)
    assert second["feve"] == pytest.approx(-(0.3 + 0.8) / 2)
    assert (second["rows_reliable"], second["rows_not_reliable"]) == (2, 1)
    assert np.isnan(oracle["single_trial_correlation"])
    assert (oracle["rows_reliable"], oracle["rows_not_reliable"]) == (0, 0)
    assert oracle["reason"] == "every video was trained on"
    assert pd.isna(own["reason"])


def test_leaderboard_of_written_scores(tmp_path: Path, responses):
    path = write_predictions(tmp_path / "p.h5")
    rows = member_scores(score_member(predictions=path, responses=responses))
    write_scores(tmp_path / "scores" / "s.parquet", rows)
    pd.testing.assert_frame_equal(
        leaderboard(pd.read_parquet(tmp_path / "scores")), leaderboard(rows)
    )


def test_files_are_read_one_member_at_a_time_to_the_same_leaderboard(
    tmp_path: Path, responses, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = []
    for system in ("toy", "another"):
        members = []
        for member, left_out in (("seed2", {}), ("seed1", {"A": [6]}), ("gone", {"A": range(7)})):
            path = write_predictions(tmp_path / "p.h5", member=member, system=system)
            moments = score_member(predictions=path, responses=responses, left_out=left_out)
            members.append(member_scores(moments))
        files.append(tmp_path / f"{system}.parquet")
        write_scores(files[-1], pd.concat(members))
    whole = pd.concat(map(pd.read_parquet, files))
    expected = leaderboard(whole)
    seen = []
    monkeypatch.setattr(
        "sensorium_models.evaluation.leaderboard.leaderboard",
        lambda rows: (seen.append(len(rows)), leaderboard(rows))[1],
    )
    pd.testing.assert_frame_equal(read_leaderboard(files), expected, check_exact=True)
    assert len(seen) == 6
    assert sum(seen) == len(whole)
    with pytest.raises(ValueError, match="no score rows"):
        read_leaderboard([])


def test_empty_leaderboard_is_an_error():
    with pytest.raises(ValueError, match="no score rows"):
        leaderboard(rows_from({("s", "A", "oracle", "movie"): [1.0]}).iloc[:0])


def test_tracks():
    assert [track_of(t) for t in ("oracle", "final_test_main", "test")] == [
        "oracle",
        "main",
        "test",
    ]
