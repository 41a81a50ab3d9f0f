"""The bootstrap: small cases by hand, plain computation, and coverage on simulated truth."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensorium_models.evaluation.bootstrap import (
    Draws,
    Interval,
    ResampledScore,
    summed_correlations,
)
from sensorium_models.evaluation.correlation import correlation
from sensorium_models.evaluation.streaming import JointMoments


@given(
    seed=st.integers(0, 1000),
    counts=st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), min_size=1, max_size=3),
)
def test_correlations_are_those_of_the_repeated_videos(seed: int, counts: list[list[int]]) -> None:
    rng = np.random.default_rng(seed)
    counts = [row if any(row) else [1, 0, 0] for row in counts]
    videos = [
        JointMoments.of([rng.gamma(0.5, size=(frames, 70)) + 3 for _ in range(2)])
        for frames in (5, 9, 7)
    ]
    neurons = rng.integers(0, 3, size=(len(counts), 70))
    expected = []
    for row, of_neurons in zip(counts, neurons, strict=True):
        joined = JointMoments.empty(2, 70)
        for video, times in zip(videos, row, strict=True):
            for _ in range(times):
                joined.add(video)
        expected.append(float(correlation(joined) @ of_neurons))
    found = summed_correlations(videos, np.array(counts), neurons)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)


def test_a_constant_prediction_correlates_with_nothing() -> None:
    rng = np.random.default_rng(0)
    videos = [
        JointMoments.of([np.full((8, 2), 0.1), rng.normal(size=(8, 2)) + 100]) for _ in range(3)
    ]
    found = summed_correlations(videos, np.ones((1, 3)), np.ones((1, 2)))
    assert abs(found[0]) < 1e-6


def test_draws_hold_what_they_should() -> None:
    videos = {"A": {"movie": 4}, "B": {"movie": 3, "gabor": 1}, "C": {"movie": 2}}
    neurons = {"A": 5, "B": 7, "C": 6}
    draws, again = (Draws(videos, neurons, resamples=20, seed=3) for _ in range(2))
    assert draws.resampled == ("animals", "videos", "neurons")
    assert draws.freedom == 2
    per_resample = sum(np.bincount(draws.resample_of(animal), minlength=21) for animal in videos)
    # Three animals in the sample itself and in every resample.
    assert per_resample.tolist() == [3] * 21
    for animal, types in videos.items():
        times = len(draws.resample_of(animal))
        np.testing.assert_array_equal(draws.neurons_of(animal), again.neurons_of(animal))
        assert (draws.neurons_of(animal)[0] == 1).all()
        assert (draws.neurons_of(animal).sum(axis=1) == neurons[animal]).all()
        for stimulus_type, count in types.items():
            chosen = draws.videos_of(animal, stimulus_type)
            assert chosen.shape == (times, count)
            assert (chosen[0] == 1).all()
            assert (chosen.sum(axis=1) == count).all()
    assert (draws.videos_of("B", "gabor") == 1).all()
    assert not (draws.videos_of("A", "movie") == 1).all()


def test_levels_with_too_few_units_are_held_as_they_are() -> None:
    few = Draws({"A": {"movie": 2}, "B": {"movie": 2}}, {"A": 9, "B": 9}, resamples=9, seed=0)
    assert (few.resampled, few.freedom) == (("videos", "neurons"), 2)
    assert few.resample_of("A").tolist() == list(range(10))
    once = Draws({"A": {"movie": 1}, "B": {"movie": 1}}, {"A": 2, "B": 4}, resamples=9, seed=0)
    assert (once.resampled, once.freedom) == (("neurons",), 4)
    alone = Draws({"A": {"movie": 1}}, {"A": 1}, resamples=9, seed=0)
    assert (alone.resampled, alone.freedom) == ((), 0)
    nothing = alone.interval(np.full(10, 0.5), level=0.95)
    assert nothing.value == 0.5
    assert np.isnan([nothing.standard_error, nothing.lower, nothing.upper]).all()
    with pytest.raises(ValueError, match="at least two resamples"):
        Draws({"A": {"movie": 1}}, {"A": 1}, resamples=1, seed=0)


def test_the_interval_of_three_animals_by_hand() -> None:
    """Animals of one neuron and one video have nothing below them to draw."""
    resamples = 20_000
    draws = Draws(
        {a: {"movie": 1} for a in "ABC"}, dict.fromkeys("ABC", 1), resamples=resamples, seed=1
    )
    score = ResampledScore(resamples)
    for animal, value in zip("ABC", (1.0, 2.0, 6.0), strict=True):
        resample = draws.resample_of(animal)
        score.add("movie", resample, np.full(len(resample), value), neurons=1)
    values = score.values()
    assert values[0] == 3
    found = draws.interval(values, level=0.95)
    # Standard deviation of 1, 2, 6 with ddof 1 is sqrt(7); of their mean, sqrt(7 / 3).
    # A standard deviation of B values is known to about 1 / sqrt(2 B): four of these.
    assert found.standard_error == pytest.approx(np.sqrt(7 / 3), rel=4 / np.sqrt(2 * resamples))
    # Student's t with two degrees of freedom: 4.30265.
    assert found.upper - 3 == pytest.approx(4.30265 * found.standard_error, rel=1e-5)
    assert 3 - found.lower == pytest.approx(found.upper - 3)


def test_types_are_averaged_over_those_that_a_resample_holds() -> None:
    score = ResampledScore(2)
    score.add("gabor", np.array([0, 1]), np.array([2.0, 4.0]), neurons=2)
    score.add("images", np.array([0, 2, 2]), np.array([3.0, 6.0, 0.0]), neurons=1)
    # (1 + 3) / 2; only gabor: 4 / 2; only images, twice: (6 + 0) / 2.
    assert score.values().tolist() == [2.0, 2.0, 3.0]


@dataclass(frozen=True)
class World:
    """Standard deviations of log noise between animals, videos and neurons, and the sizes.

    `types` are the stimulus types of every animal, or of one animal after the other, as in a bonus
    tier; noise doubles from one type to the next.
    """

    animals: int
    videos: int
    between_animals: float
    between_videos: float
    between_neurons: float
    neurons: int = 12
    frames: int = 15
    types: tuple[str, ...] = ("0",)

    def types_of(self, animal: int) -> list[str]:
        return list(self.types[animal % len(self.types)])

    def study(self, rng: np.random.Generator) -> Mapping[str, dict[str, list[list[JointMoments]]]]:
        """By animal and type, of two systems the moments of its videos, both as good as they go."""
        found: dict[str, dict[str, list[list[JointMoments]]]] = {}
        for animal in range(self.animals):
            of_animal = self.between_animals * rng.normal(size=(2, 1, 1))
            of_neurons = self.between_neurons * rng.normal(size=(1, 1, self.neurons))
            for shown in self.types_of(animal):
                systems: list[list[JointMoments]] = [[], []]
                for _ in range(self.videos):
                    of_video = self.between_videos * rng.normal(size=(2, 1, 1))
                    signal = rng.normal(size=(self.frames, self.neurons))
                    response = signal + rng.normal(size=signal.shape)
                    error = 2 ** int(shown) * np.exp(of_animal + of_neurons + of_video)
                    predicted = signal + error * rng.normal(size=(2, *signal.shape))
                    for system, values in zip(systems, predicted, strict=True):
                        system.append(JointMoments.of([values, response]))
                found.setdefault(f"{animal}", {})[shown] = systems
        return found


def intervals(world: World, rng: np.random.Generator, *, seed: int) -> list[Interval]:
    """Of one simulated study: of the first system's score, and of the difference of the two."""
    study = world.study(rng)
    draws = Draws(
        {animal: dict.fromkeys(types, world.videos) for animal, types in study.items()},
        dict.fromkeys(study, world.neurons),
        resamples=150,
        seed=seed,
    )
    values = []
    for system in (0, 1):
        score = ResampledScore(draws.resamples)
        for animal, types in study.items():
            for shown, systems in types.items():
                counts = draws.videos_of(animal, shown), draws.neurons_of(animal)
                sums = summed_correlations(systems[system], *counts)
                score.add(shown, draws.resample_of(animal), sums, neurons=world.neurons)
        values.append(score.values())
    compared = (values[0], values[0] - values[1])
    return [draws.interval(values, level=0.95) for values in compared]


STUDIES = 200


@pytest.fixture(scope="module")
def coverage() -> Callable[[World], list[float]]:
    """How often the 95 % intervals of a score and of a difference hold what repeats settle to."""

    def covered(world: World) -> list[float]:
        rng = np.random.default_rng(11)
        found = [intervals(world, rng, seed=study) for study in range(STUDIES)]
        shares = []
        for pair in zip(*found, strict=True):
            # The two systems are equally good, and no study's mean is known better than by all.
            truth = np.mean([interval.value for interval in pair])
            shares.append(float(np.mean([i.lower <= truth <= i.upper for i in pair])))
        return shares

    return covered


# Of 200 intervals, each holding the truth with probability 0.95: three standard deviations.
TOLERANCE = 3 * np.sqrt(0.95 * 0.05 / STUDIES)


@pytest.mark.parametrize(
    "world",
    [
        World(5, 4, between_animals=0.6, between_videos=0.0, between_neurons=0.3),
        World(1, 6, between_animals=0.0, between_videos=0.5, between_neurons=0.3),
        World(2, 5, between_animals=0.0, between_videos=0.5, between_neurons=0.0),
        World(5, 3, 0.6, 0.0, 0.3, types=("01",)),
        World(1, 4, 0.0, 0.5, 0.3, types=("012",)),
    ],
    ids=[
        "animals differ",
        "one animal",
        "two animals alike",
        "two types",
        "three types, one animal",
    ],
)
def test_intervals_hold_the_truth_as_often_as_they_say(
    coverage: Callable[[World], list[float]], world: World
) -> None:
    for share in coverage(world):
        assert abs(share - 0.95) < TOLERANCE


def test_intervals_are_wide_rather_than_narrow_where_animals_are_alike(
    coverage: Callable[[World], list[float]],
) -> None:
    world = World(4, 4, between_animals=0.0, between_videos=0.5, between_neurons=0.3)
    for share in coverage(world):
        assert share > 0.95 - TOLERANCE


def test_intervals_hold_where_animals_saw_different_types(
    coverage: Callable[[World], list[float]],
) -> None:
    """As in the final bonus tier; a resample may then lack a type, so intervals may be wide."""
    for share in coverage(World(5, 3, 0.6, 0.0, 0.3, types=("01", "12", "20"))):
        assert share > 0.95 - TOLERANCE
