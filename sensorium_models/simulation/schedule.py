"""Which movie is shown in which trial and tier: nominal, or as in a real recording's metadata.

Tiers, repeats and the sharing of movies between two animals of a pair follow the SENSORIUM 2023
release: training movies are training movies in both animals, those of the three natural test tiers
(`oracle`, live, final) change their tier from one animal to its partner.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sensorium_models.simulation.stimuli import STIMULUS_TYPES

ROLES = ("public", "withheld")
MAIN_TEST_TIERS = ("oracle", "live_test_main", "final_test_main")
BONUS_TIERS = ("live_test_bonus", "final_test_bonus")
WITHHELD_TIERS = ("live_test_main", "live_test_bonus", "final_test_main", "final_test_bonus")
"""Tiers whose responses an animal of role `withheld` does not release."""


@dataclass(frozen=True)
class Movie:
    """One clip; with the seed of the study and the name of the pair it determines the pixels."""

    stimulus_type: str
    group: str  # train, test, bonus or none
    index: int

    @property
    def name(self) -> str:
        return f"{self.stimulus_type}-{self.group}-{self.index}"


@dataclass(frozen=True)
class Presentation:
    """One trial."""

    tier: str
    movie: Movie


def movie_generator(seed: int, pair: str, movie: Movie) -> np.random.Generator:
    """Random numbers of a movie: the same in both animals of a pair, in any process."""
    return np.random.default_rng([seed, zlib.crc32(pair.encode()), zlib.crc32(movie.name.encode())])


def main_test_tiers(seed: int, pair: str, role: str, movies_per_tier: int) -> list[str]:
    """Tier of each of the 3 x `movies_per_tier` natural test movies of a pair.

    No movie has the same tier in both animals; the movies of one tier go to both other tiers as
    evenly as their number allows, so e.g. oracle movies of the withheld animal are test movies of
    the public one.
    """
    rng = np.random.default_rng([seed, zlib.crc32(pair.encode()), 1])
    order = rng.permutation(3 * movies_per_tier)
    tiers = [""] * len(order)
    for place, movie in enumerate(order):
        tier, rank = divmod(place, movies_per_tier)
        if role == "withheld":
            tier = (tier + (1 if rank < movies_per_tier // 2 else 2)) % 3
        tiers[int(movie)] = MAIN_TEST_TIERS[tier]
    return tiers


def nominal_schedule(
    *,
    seed: int,
    pair: str,
    role: str,
    training_trials: int,
    test_videos: int,
    random_dots_videos: int,
    repeats: int,
    none_trials: int,
    bonus_types: Mapping[str, Sequence[str]],
    order: np.random.Generator,
) -> list[Presentation]:
    """Build the trials of an animal from counts and shuffle them with `order`."""
    trials = [Presentation("train", Movie("movie", "train", i)) for i in range(training_trials)]
    trials += [Presentation("none", Movie("movie", "none", i)) for i in range(none_trials)]
    for index, tier in enumerate(main_test_tiers(seed, pair, role, test_videos)):
        trials += [Presentation(tier, Movie("movie", "test", index))] * repeats
    for tier in BONUS_TIERS:
        for stimulus_type in bonus_types.get(tier, ()):
            videos = random_dots_videos if stimulus_type == "random_dots" else test_videos
            for index in range(videos):
                movie = Movie(stimulus_type, "bonus", index)
                trials += [Presentation(tier, movie)] * repeats
    return [trials[int(i)] for i in order.permutation(len(trials))]


def recorded_schedule(
    *,
    seed: int,
    pair: str,
    role: str,
    stimulus_type_id: np.ndarray,
    video_id: np.ndarray,
    bonus_types: Mapping[str, Sequence[str]],
) -> list[Presentation]:
    """Build the trials of a real recording from type and video of each trial, in its order.

    A movie seen once is a training movie; the repeated ones are spread over the three natural test
    tiers as in `main_test_tiers`. Type -1 is an unused trial, 0..5 index `STIMULUS_TYPES`.

    Raises:
        ValueError: the number of repeated movies is no multiple of three, or the metadata hold a
            type that no bonus tier lists, or a bonus tier lists a type that they do not hold.
    """
    tier_of_type = {t: tier for tier, types in bonus_types.items() for t in types}
    present = {STIMULUS_TYPES[int(i)] for i in np.unique(stimulus_type_id) if i > 0}
    if present != set(tier_of_type):
        raise ValueError(
            f"The metadata hold the stimulus types {sorted(present)}, the bonus tiers list "
            f"{sorted(tier_of_type)}; give this animal's own types to its bonus tiers."
        )
    ids, counts = np.unique(video_id[stimulus_type_id == 0], return_counts=True)
    repeated = ids[counts > 1].tolist()
    if len(repeated) % 3:
        raise ValueError(
            f"The metadata hold {len(repeated)} repeated movies, which cannot be spread evenly "
            "over the tiers oracle, live_test_main and final_test_main."
        )
    test_tiers = main_test_tiers(seed, pair, role, len(repeated) // 3)
    bonus_ids = {
        t: np.unique(video_id[stimulus_type_id == STIMULUS_TYPES.index(t)]).tolist()
        for t in tier_of_type
    }
    trials = []
    seen = {"train": 0, "none": 0}
    for type_id, video in zip(stimulus_type_id.tolist(), video_id.tolist(), strict=True):
        stimulus_type = STIMULUS_TYPES[max(type_id, 0)]
        if type_id > 0:
            movie = Movie(stimulus_type, "bonus", bonus_ids[stimulus_type].index(video))
            trials.append(Presentation(tier_of_type[stimulus_type], movie))
        elif type_id == 0 and video in repeated:
            index = repeated.index(video)
            trials.append(Presentation(test_tiers[index], Movie("movie", "test", index)))
        else:
            tier = "none" if type_id < 0 else "train"
            trials.append(Presentation(tier, Movie("movie", tier, seen[tier])))
            seen[tier] += 1
    return trials
