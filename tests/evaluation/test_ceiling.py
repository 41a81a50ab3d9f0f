"""Ceilings: small cases by hand, direct computation, and simulated truth."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensorium_models.evaluation.ceiling import (
    CEILINGS,
    RepeatStatistics,
    ceilings,
    relative_scores,
)
from sensorium_models.evaluation.ceiling_file import AnimalRepeats, read_repeats, write_repeats
from sensorium_models.evaluation.leaderboard import leaderboard
from sensorium_models.evaluation.moments import AnimalMoments, GroupMoments, Moments
from sensorium_models.evaluation.moments_file import MomentsError
from sensorium_models.evaluation.scores import LABELS, member_scores

KEY = ("final_test_main", "movie")


def joined(videos: list[np.ndarray]) -> RepeatStatistics:
    """Statistics of videos given as (repeats, frames, N)."""
    result = RepeatStatistics.empty(videos[0].shape[2])
    for video in videos:
        result.add(RepeatStatistics.of_video(list(video)))
    return result


def group_of(videos: list[np.ndarray], predictions: list[np.ndarray]) -> GroupMoments:
    moments = AnimalMoments(np.arange(videos[0].shape[2]))
    trial = 0
    for number, (video, predicted) in enumerate(zip(videos, predictions, strict=True)):
        repeats = {trial + i: (predicted[i], response) for i, response in enumerate(video)}
        trial += len(video)
        moments.add_video(tier=KEY[0], stimulus_type=KEY[1], video=f"v{number}", repeats=repeats)
    return moments.groups()[KEY]


def test_by_hand() -> None:
    # One neuron, two frames, two repeats: (0, 4) and (2, 6). Means 1 and 5, between them
    # variance 4 (ddof 0); between repeats 2 at each frame (ddof 1), 1 with ddof 0.
    video = np.array([[0.0, 4.0], [2.0, 6.0]])[..., None]
    found = {name: float(values[0]) for name, values in ceilings(joined([video])).items()}
    # The other repeat predicts each: pairs (2,0) (6,4) (0,2) (4,6), means 3 and 3.
    # Products: (-1)(-3) + 3*1 + (-3)(-1) + 1*3 = 12; squares 1+9+9+1 = 20 each.
    assert found["oracle_jackknife"] == pytest.approx(12 / 20, rel=1e-7)
    assert found["oracle_conservative"] == pytest.approx(4 / np.sqrt(4 * 5))
    # Total variance of 0, 4, 2, 6 with ddof 1: 20 / 3.
    assert found["explainable_variance"] == pytest.approx((20 / 3 - 2) / (20 / 3))
    # Sahani & Linden: P(mean) = 4, P of each repeat = 4: (2 * 4 - 4) / 1.
    assert found["signal_power"] == pytest.approx(4)
    assert found["ceiling_to_average"] == pytest.approx(1)
    assert found["ceiling_single_trial"] == pytest.approx(np.sqrt(4 / 5))


def test_relative_scores_by_hand() -> None:
    video = np.array([[0.0, 4.0], [2.0, 6.0]])[..., None]
    predicted = np.array([[1.0, 3.0], [1.0, 3.0]])[..., None]
    found = relative_scores(group_of([video], [predicted]), joined([video]))
    # Mean response (1, 5), prediction (1, 3): covariance 2, variance 1, signal power 4.
    assert found["normalised_correlation"][0] == pytest.approx(1.0)
    # Errors -1, 1, 1, 3: mean square 3; noise 2; explainable 20/3 - 2.
    assert found["feve"][0] == pytest.approx(1 - (3 - 2) / (20 / 3 - 2))


@given(seed=st.integers(0, 10_000), repeats=st.integers(2, 6), frames=st.integers(2, 9))
def test_one_video_has_the_power_of_sahani_and_linden(seed: int, repeats: int, frames: int) -> None:
    video = np.random.default_rng(seed).gamma(0.5, size=(repeats, frames, 3)) + 5
    of_mean = video.mean(axis=0).var(axis=0)
    of_repeats = video.var(axis=1).mean(axis=0)
    expected = (repeats * of_mean - of_repeats) / (repeats - 1)
    np.testing.assert_allclose(joined([video]).signal_power(), expected, rtol=0, atol=1e-12)


@given(seed=st.integers(0, 10_000), counts=st.lists(st.integers(2, 5), min_size=1, max_size=4))
def test_the_sums_are_those_of_the_plain_computation(seed: int, counts: list[int]) -> None:
    random = np.random.default_rng(seed)
    videos = [random.gamma(0.5, size=(count, 7, 4)) for count in counts]
    found = ceilings(joined(videos))
    others = [(video.sum(axis=0) - video) / (len(video) - 1) for video in videos]
    single, other = (
        np.concatenate([v.reshape(-1, 4) for v in parts]) for parts in (videos, others)
    )
    for neuron in range(4):
        plain = np.corrcoef(single[:, neuron], other[:, neuron])[0, 1]
        # The released correlation adds 1e-8 to each deviation.
        spread = min(single[:, neuron].std(), other[:, neuron].std())
        assert found["oracle_jackknife"][neuron] == pytest.approx(plain, abs=1e-10 + 4e-8 / spread)
    noise = np.concatenate([video.var(axis=0, ddof=1) for video in videos]).mean(axis=0)
    total = single.var(axis=0, ddof=1)
    np.testing.assert_allclose(found["explainable_variance"], (total - noise) / total, rtol=1e-9)
    means = np.concatenate([video.mean(axis=0) for video in videos]).var(axis=0)
    biased = np.concatenate([video.var(axis=0) for video in videos]).mean(axis=0)
    expected = means / np.sqrt(means * (means + biased))
    np.testing.assert_allclose(found["oracle_conservative"], expected, rtol=1e-9)


def test_simulated_truth_is_recovered() -> None:
    """A known signal under known noise: power, ceilings and a perfect model's normalised score."""
    random = np.random.default_rng(1)
    neurons, frames, noise = 200, 250, 1.5
    signals = [random.normal(size=(frames, neurons)) for _ in range(6)]
    counts = [7, 10, 8, 10, 9, 10]
    videos = [
        signal + noise * random.normal(size=(count, frames, neurons))
        for signal, count in zip(signals, counts, strict=True)
    ]
    power = np.concatenate(signals).var(axis=0)
    statistics = joined(videos)
    points, trials = 6 * frames, sum(counts) * frames
    # The mean's noise has variance noise^2 / 9 or so per point; its cross term with the signal
    # dominates: sd 2 sqrt(power) noise / 3 / sqrt(points). Averaged over 200 neurons: five sigma.
    error = 2 * noise / 3 / np.sqrt(points * neurons)
    assert abs((statistics.signal_power() - power).mean()) < 5 * error
    found = ceilings(statistics)
    expected = np.sqrt(power / (power + noise**2))
    deviation = found["ceiling_single_trial"] - expected
    # d sqrt(p/v) ~ dp / (2 sqrt(p v)) plus the error of the variance itself, of the same order.
    assert abs(deviation.mean()) < 5 * (error + 2 * noise**2 / np.sqrt(trials * neurons))
    perfect = group_of(
        videos,
        [np.repeat(signal[None], count, 0) for signal, count in zip(signals, counts, strict=True)],
    )
    scores = relative_scores(perfect, statistics)
    assert abs(scores["normalised_correlation"].mean() - 1) < 0.01
    assert abs(scores["feve"].mean() - 1) < 0.01


def test_a_video_shown_once_leaves_relative_scores_as_they_are() -> None:
    """Nothing is known of its noise: neither the score nor what bounds it may contain it."""
    videos = {"v0": np.array([[0.0, 4.0], [2.0, 6.0]]), "once": np.array([[90.0, -50.0]])}
    predicted = {"v0": np.array([[1.0, 3.0]] * 2), "once": np.array([[90.0, -50.0]])}
    moments, statistics = AnimalMoments(np.arange(1)), {}
    for first, (name, video) in enumerate(videos.items()):
        pairs = zip(predicted[name][..., None], video[..., None], strict=True)
        trials = {10 * first + i: pair for i, pair in enumerate(pairs)}
        moments.add_video(tier=KEY[0], stimulus_type=KEY[1], video=name, repeats=trials)
        statistics[*KEY, name] = RepeatStatistics.of_video(list(video[..., None]))
    rows = member_scores(
        Moments(dict.fromkeys(LABELS, "-"), {"A": moments}),
        repeats={"A": AnimalRepeats(np.arange(1), statistics)},
    )
    # As in test_relative_scores_by_hand, where the repeated video is alone.
    assert rows["normalised_correlation"].tolist() == pytest.approx([1.0])
    assert rows["feve"].tolist() == pytest.approx([1 - (3 - 2) / (20 / 3 - 2)])
    assert rows["videos"].tolist() == [2]  # both count for the correlations
    whole = moments.groups()[KEY]
    with pytest.raises(ValueError, match="on 2 videos cannot be judged by the repeats of 1"):
        relative_scores(whole, statistics[*KEY, "v0"])


def test_a_perfect_model_explains_all_where_repeats_and_noise_are_unequal() -> None:
    random = np.random.default_rng(6)
    neurons, frames = 200, 250
    signals = [random.normal(size=(frames, neurons)) for _ in range(2)]
    counts, noises = [2, 10], [3.0, 0.5]
    videos = [
        signal + noise * random.normal(size=(count, frames, neurons))
        for signal, count, noise in zip(signals, counts, noises, strict=True)
    ]
    predictions = [np.repeat(s[None], c, 0) for s, c in zip(signals, counts, strict=True)]
    feve = relative_scores(group_of(videos, predictions), joined(videos))["feve"]
    # Per point of the noisy video error and noise differ by 9 (chi2_1 - chi2_1), sd 18, out of 12
    # repeats; the explainable variance is 1, known to a fifth. Over all neurons: five sigma.
    sigma = 18 * np.sqrt(frames) / (sum(counts) * frames) / np.sqrt(neurons)
    assert abs(feve.mean() - 1) < 5 * sigma * 1.2


def test_slow_drift_is_no_signal() -> None:
    """An offset of every repeat makes no frame differ from another."""
    random = np.random.default_rng(2)
    signal = random.normal(size=(40, 300))
    drift = 3 * random.normal(size=(10, 1, 300))
    video = signal + drift + 0.1 * random.normal(size=(10, 40, 300))
    power = joined([video]).signal_power()
    np.testing.assert_allclose(power.mean(), signal.var(axis=0).mean(), rtol=0.01)


def test_what_cannot_be_known_is_not_a_number() -> None:
    once = joined([np.ones((1, 5, 2))])
    assert once.videos_without_repeats == 1
    assert all(np.isnan(values).all() for values in ceilings(once).values())
    silent = joined([np.zeros((3, 5, 2))])
    found = ceilings(silent)
    assert (found["oracle_jackknife"] == 0).all()  # as the released correlation has it
    assert np.isnan(found["explainable_variance"]).all()
    random = np.random.default_rng(3)
    video = random.normal(size=(4, 50, 2)) + np.sin(np.arange(50.0))[:, None]
    constant = relative_scores(group_of([video], [np.ones((4, 50, 2))]), joined([video]))
    assert (constant["normalised_correlation"] == 0).all()


def test_unequal_repeats_are_cut_to_the_shortest() -> None:
    random = np.random.default_rng(4)
    repeats = [random.normal(size=(frames, 2)) for frames in (9, 7, 8)]
    cut = RepeatStatistics.of_video([repeat[:7] for repeat in repeats])
    found = RepeatStatistics.of_video(repeats)
    np.testing.assert_array_equal(found.noise, cut.noise)
    assert found.points == 7


def test_rows_of_a_member_hold_the_ceilings_of_its_own_videos(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    rates = random.gamma(0.5, size=(3, 20, 2))
    videos = {f"v{i}": list(rates[i] + 0.1 * random.normal(size=(3, 20, 2))) for i in range(3)}
    statistics = {(*KEY, name): RepeatStatistics.of_video(v) for name, v in videos.items()}
    write_repeats(tmp_path / "ceilings.h5", {"A": AnimalRepeats(np.arange(2), statistics)})
    repeats = read_repeats(tmp_path / "ceilings.h5")
    moments = AnimalMoments(np.arange(2))
    for number, name in enumerate(("v0", "v2")):  # v1 was trained on
        trials = {
            3 * number + i: (response + 1, response) for i, response in enumerate(videos[name])
        }
        moments.add_video(tier=KEY[0], stimulus_type=KEY[1], video=name, repeats=trials)
    labels = dict.fromkeys(LABELS, "-")
    rows = member_scores(Moments(labels, {"A": moments}), repeats=repeats, reliable_variance=0.999)
    expected = ceilings(joined([np.stack(videos[name]) for name in ("v0", "v2")]))
    for name in CEILINGS:
        np.testing.assert_allclose(rows[name], expected[name], rtol=1e-12)
    # Each prediction is off by one: as good a correlation as can be, and a poor FEVE.
    assert (rows["feve"] < 0.5).all()
    assert not rows["reliable"].any()
    board = leaderboard(rows).iloc[0]
    assert (board["rows_reliable"], board["rows_not_reliable"]) == (0, 2)
    with pytest.raises(ValueError, match="other neurons or videos"):
        member_scores(Moments(labels, {"B": moments}), repeats=repeats)
    with pytest.raises(MomentsError, match="Make the ceilings again"):
        read_repeats(tmp_path / "none.h5")
