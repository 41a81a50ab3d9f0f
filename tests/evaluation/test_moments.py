"""Moments per video: any order, any pieces, any processes, through files, one answer."""

import pickle
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensorium_models.evaluation.correlation import correlation
from sensorium_models.evaluation.moments import AnimalMoments, Moments
from sensorium_models.evaluation.moments_file import (
    MomentsError,
    largest_bytes,
    read_moments,
    write_moments,
)

IDS = np.array([1, 3, 4])
KEY = ("oracle", "movie")


def direct_correlation(response: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """specs/metrics.md section 2, steps 2 and 3, in float64: (frames, N) -> (N,)."""
    response, prediction = response.astype(np.float64), prediction.astype(np.float64)
    z_response = (response - response.mean(axis=0)) / (response.std(axis=0, ddof=0) + 1e-8)
    z_prediction = (prediction - prediction.mean(axis=0)) / (prediction.std(axis=0, ddof=0) + 1e-8)
    return (z_response * z_prediction).mean(axis=0)


def direct_scores(trials: list[dict]) -> tuple[np.ndarray, np.ndarray]:
    """Both correlations with everything in memory (sections 2 and 3)."""
    videos: dict[str, list[dict]] = {}
    for trial in trials:
        videos.setdefault(trial["video"], []).append(trial)
    averages = {"response": [], "prediction": []}
    for repeats in videos.values():
        shortest = min(len(repeat["response"]) for repeat in repeats)
        for name, parts in averages.items():
            cut = [repeat[name][:shortest].astype(np.float64) for repeat in repeats]
            parts.append(np.mean(cut, axis=0))
    return (
        direct_correlation(
            np.concatenate([trial["response"] for trial in trials]),
            np.concatenate([trial["prediction"] for trial in trials]),
        ),
        direct_correlation(*(np.concatenate(averages[n]) for n in ("response", "prediction"))),
    )


def trials_of(seed: int, *, offset: float = 0.0) -> list[dict]:
    """Nine trials of three videos; repeats of unequal length, response related to prediction."""
    rng = np.random.default_rng(seed)
    trials = []
    for trial in range(9):
        frames = int(rng.integers(8, 15))
        prediction = (rng.gamma(0.5, size=(frames, 3)) + offset).astype(np.float32)
        response = (prediction + rng.gamma(0.3, size=(frames, 3))).astype(np.float32)
        trials.append(
            {
                "tier": "oracle",
                "stimulus_type": "movie",
                "video": f"v{trial % 3}",
                "trial": trial,
                "response": response,
                "prediction": prediction,
            }
        )
    return trials


def scores(moments: AnimalMoments, **options) -> tuple[np.ndarray, np.ndarray]:
    group = moments.groups(**options)[KEY]
    return correlation(group.single_trial), correlation(group.repeat_average)


def gathered(trials: list[dict]) -> AnimalMoments:
    moments = AnimalMoments(IDS)
    for trial in trials:
        moments.add_trial(**trial)
    return moments


def test_by_hand():
    """Two neurons, one video twice; neuron 1 follows the average perfectly, not the trials."""
    moments = AnimalMoments(np.array([5, 9]))
    prediction = np.array([[0.0, 1.0], [1.0, 2.0], [2.0, 3.0]])
    noise = np.array([[0.0, 1.0], [0.0, -1.0], [0.0, 1.0]])
    for trial, sign in ((0, 1), (1, -1)):
        moments.add_trial(
            tier="oracle",
            stimulus_type="movie",
            video="v",
            trial=trial,
            response=prediction + sign * noise,
            prediction=prediction,
        )
    single, averaged = scores(moments)
    # neuron 1 single trials: covariance 2/3, variances 2/3 (prediction) and 2/3 + 1 (response)
    np.testing.assert_allclose(single, [1, (2 / 3) / np.sqrt(2 / 3 * 5 / 3)], atol=3e-8)
    np.testing.assert_allclose(averaged, [1, 1], atol=3e-8)
    group = moments.groups()[KEY]
    assert (group.trials, group.videos, group.frames) == (2, 1, 6)


@given(
    seed=st.integers(0, 10_000),
    offset=st.sampled_from([0.0, 1.0, 100.0]),
    processes=st.integers(1, 3),
    through_files=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_any_order_pieces_and_processes_give_one_answer(
    seed, offset, processes, through_files, tmp_path_factory
):
    trials = trials_of(seed, offset=offset)
    pieces = []
    rng = np.random.default_rng(seed)
    for trial in trials:
        cut = int(rng.integers(0, len(trial["response"])))
        for start, stop in ((0, cut), (cut, len(trial["response"]))):
            if stop > start:
                part = {name: trial[name][start:stop] for name in ("response", "prediction")}
                pieces.append({**trial, **part, "start": start})
    workers = [Moments({"member": "a"}, {"A": AnimalMoments(IDS)}) for _ in range(processes)]
    for index in rng.permutation(len(pieces)):
        workers[rng.integers(processes)].animals["A"].add_trial(**pieces[index])
    if through_files:
        path = tmp_path_factory.mktemp("moments") / "m.h5"
        for index, worker in enumerate(workers):
            write_moments(path, worker)
            workers[index] = read_moments(path)
    total = pickle.loads(pickle.dumps(workers[0]))
    for worker in workers[1:]:
        total.merge(worker)
    total.animals["A"].finish()
    expected = direct_scores(trials)
    in_order = scores(gathered(trials))
    for found, reference, direct in zip(
        scores(total.animals["A"]), in_order, expected, strict=True
    ):
        np.testing.assert_allclose(found, reference, rtol=0, atol=1e-12)
        np.testing.assert_allclose(found, direct, rtol=0, atol=1e-12)


def test_a_video_can_be_left_out_afterwards():
    trials = trials_of(3)
    found = scores(gathered(trials), without={"v1"})
    expected = direct_scores([trial for trial in trials if trial["video"] != "v1"])
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_excluded_trials_are_counted_by_group():
    moments = gathered(trials_of(0))
    moments.exclude(tier="oracle", stimulus_type="movie", trial=20, reason="trained on")
    moments.exclude(
        tier="live_test_main", stimulus_type="movie", trial=21, reason="responses withheld"
    )
    groups = moments.groups()
    assert groups[KEY].trials_left_out == 1
    withheld = groups["live_test_main", "movie"]
    assert (withheld.trials_withheld, withheld.trials, withheld.frames) == (1, 0, 0)


def test_round_trip_is_exact_and_repeatable(tmp_path: Path):
    moments = Moments({"member": "seed1", "recording_digests": {"A": "x"}})
    moments.animals["A"] = gathered(trials_of(0))
    moments.animals["B"] = gathered(trials_of(1))
    moments.animals["B"].finish()
    moments.animals["C"] = AnimalMoments(IDS)
    moments.animals["A"].exclude(tier="t", stimulus_type="ü", trial=4, reason="trained on")
    write_moments(tmp_path / "a.h5", moments)
    again = read_moments(tmp_path / "a.h5")
    assert again.attributes == moments.attributes
    assert again.animals["A"].excluded == moments.animals["A"].excluded
    for animal in "AB":
        np.testing.assert_array_equal(
            scores(again.animals[animal]), scores(moments.animals[animal])
        )
    assert again.animals["C"].groups() == {}
    write_moments(tmp_path / "b.h5", again)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_unreadable_files(tmp_path: Path):
    with pytest.raises(MomentsError, match=r"none\.h5 cannot be read"):
        read_moments(tmp_path / "none.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(MomentsError, match="no moments file"):
        read_moments(tmp_path / "other.h5")


def test_failed_write_leaves_nothing(tmp_path: Path):
    moments = Moments({"member": object()}, {"A": gathered(trials_of(0))})
    with pytest.raises(TypeError):
        write_moments(tmp_path / "a.h5", moments)
    assert list(tmp_path.iterdir()) == []


def test_a_trial_counts_once():
    trials = trials_of(0)
    moments = gathered(trials)
    before = scores(moments)
    with pytest.raises(ValueError, match=r"of trial 2 .* were added twice"):
        moments.add_trial(**trials[2])
    np.testing.assert_array_equal(scores(moments), before)
    with pytest.raises(ValueError, match="were added twice"):
        moments.merge(gathered(trials[2:3]))


def test_a_trial_is_not_scored_in_one_part_and_left_out_of_another():
    trials = trials_of(0)
    left_out = gathered(trials[:2])
    left_out.exclude(tier="oracle", stimulus_type="movie", trial=2, reason="trained on")
    scored = gathered(trials[2:4])
    for one, other in ((left_out, scored), (scored, left_out)):
        with pytest.raises(ValueError, match=r"trial 2 was scored .* \(trained on\); score both"):
            one.merge(other)
    left_out.merge(gathered(trials[3:4]))  # whose trial 2 is neither
    assert left_out.scored() == {0, 1, 3}


@pytest.mark.parametrize("name", ["response", "prediction"])
def test_values_that_are_not_finite_are_refused(name):
    trial = trials_of(0)[0]
    trial[name][1, 1] = np.nan
    moments = AnimalMoments(IDS)
    with pytest.raises(ValueError, match=rf"the {name} of trial 0 \(tier oracle, video v0\)"):
        moments.add_trial(**trial)
    assert moments.groups() == {}


def test_other_mistakes_are_sentences():
    trials = trials_of(0)
    moments = gathered(trials[:3])
    with pytest.raises(ValueError, match=r"must both be \(frames, 3 neurons\)"):
        moments.add_trial(**{**trials[4], "response": np.zeros((4, 2))})
    with pytest.raises(ValueError, match="different neurons"):
        moments.merge(AnimalMoments(IDS + 1))
    moments.finish()
    with pytest.raises(ValueError, match="after its video was finished"):
        moments.add_trial(**trials[3])
    with pytest.raises(ValueError, match="merge first"):
        moments.merge(gathered(trials[3:4]))
    with pytest.raises(ValueError, match="differ in member, unit"):
        Moments({"member": "a", "unit": "x"}).merge(Moments({"member": "b"}))


def test_memory_of_a_test_tier():
    """60 trials of 250 frames and 2,000 neurons, repeats together: far below what they occupy."""
    rng = np.random.default_rng(0)
    response = rng.gamma(0.5, size=(250, 2000)).astype(np.float32)
    prediction = response[::-1].copy()
    moments = AnimalMoments(np.arange(2000))
    tracemalloc.start()
    for trial in range(60):
        moments.add_trial(
            tier="oracle",
            stimulus_type="movie",
            video=f"v{trial % 6}",  # the worst order: all videos are open until the end
            trial=trial,
            response=response,
            prediction=prediction,
        )
    moments.finish()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # 6 videos x 2 signals x 250 x 2,000 x 8 bytes = 48 MB of frame sums; all data are 240 MB
    assert peak < 100e6


@pytest.mark.parametrize(("neurons", "videos"), [(2, 1), (3000, 1), (3000, 12)])
def test_the_room_of_a_file_is_known_before_it_is_written(tmp_path, neurons, videos):
    rng = np.random.default_rng(0)

    def of_one_unit() -> Moments:
        moments = AnimalMoments(np.arange(neurons))
        for trial in range(10 * videos):
            frames = rng.uniform(size=(2, 4, neurons))
            moments.add_trial(
                tier="final_test_bonus",
                stimulus_type="gaussian_dots",
                video=f"{trial // 10:032x}",
                trial=trial,
                response=frames[0],
                prediction=frames[1],
            )
        for entry in moments.videos.values():
            entry.finish()
        return Moments({"member": "seed42"}, {"A": moments})

    written = of_one_unit()
    written.further["raw"] = of_one_unit()
    write_moments(tmp_path / "m.h5", written)
    bound = largest_bytes(neurons=neurons, videos=videos, units=2)
    size = (tmp_path / "m.h5").stat().st_size
    assert size <= bound <= 1.1 * size + 100_000  # for names and tables, however small
