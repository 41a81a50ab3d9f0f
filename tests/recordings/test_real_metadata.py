"""The study's table of animals against the metadata of the ten real animals, where they are.

The metadata (github.com/bryanlimy/ViV1T-closed-loop) hold neurons, trials, stimulus types and
repeats, assigned there by hand, but no tiers; trials per tier are those of the published counts.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import yaml

from sensorium_models.recordings.stimulus_types import STIMULUS_TYPES
from sensorium_models.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = Settings.model_validate(yaml.safe_load((ROOT / "config.yaml").read_text()))
TIERS = (
    "train",
    "oracle",
    "live_test_main",
    "live_test_bonus",
    "final_test_main",
    "final_test_bonus",
)
MAIN_TIERS = ("oracle", "live_test_main", "final_test_main")
# Trials per tier, in that order, as third parties counted them in the released archives.
TRIALS_OF_TIER = {
    "A": (350, 59, 56, 59, 58, 138),
    "B": (352, 60, 58, 59, 57, 118),
    "C": (355, 58, 58, 80, 59, 119),
    "D": (356, 59, 60, 59, 60, 120),
    "E": (351, 60, 57, 58, 60, 137),
    "F": (348, 58, 56, 58, 57, 134),
    "G": (329, 56, 53, 57, 56, 131),
    "H": (354, 60, 60, 58, 59, 120),
    "I": (359, 60, 60, 80, 60, 120),
    "J": (354, 59, 60, 60, 60, 119),
}
TRIALS = dict(zip("ABCDEFGHIJ", (740, 720, 740, 720, 739, 711, 682, 711, 739, 712), strict=True))
UNUSED = {"A": 20, "B": 16, "C": 11, "D": 6, "E": 16}
PAIRS = ("AF", "BJ", "CG", "DH", "EI")

animals = pytest.mark.parametrize("animal", sorted(SETTINGS.recordings))


@pytest.fixture(scope="module")
def folder() -> Path:
    shared = Path(os.environ.get("SENSORIUM_SHARED", ROOT.parent / "shared"))
    folder = shared / "data" / "sensorium_2023_metadata"
    if not (folder / "mouseA.npz").is_file():
        pytest.skip(f"no metadata of real animals in {folder} (set SENSORIUM_SHARED)")
    return folder


def metadata(folder: Path, animal: str) -> dict[str, np.ndarray]:
    with np.load(folder / f"mouse{animal}.npz", allow_pickle=False) as stored:
        return {key: stored[key] for key in ("coordinates_um", "stimulus_type_id", "video_id")}


def repeats_of(found: dict[str, np.ndarray], kind: str) -> np.ndarray:
    """How often each video of a type was shown."""
    shown = found["video_id"][found["stimulus_type_id"] == STIMULUS_TYPES.index(kind)]
    return np.unique(shown, return_counts=True)[1]


@animals
def test_neurons_and_trials(animal: str, folder: Path) -> None:
    found = metadata(folder, animal)
    assert len(found["coordinates_um"]) == SETTINGS.recordings[animal].neurons
    assert len(found["stimulus_type_id"]) == TRIALS[animal]
    assert int((found["stimulus_type_id"] == -1).sum()) == UNUSED.get(animal, 0)
    assert sum(TRIALS_OF_TIER[animal]) + UNUSED.get(animal, 0) == TRIALS[animal]


@animals
def test_types_of_tiers(animal: str, folder: Path) -> None:
    """The table lists the types that were shown, each in the one tier whose trials it fills."""
    found = metadata(folder, animal)
    table = SETTINGS.recordings[animal].stimulus_types
    listed = [kind for kinds in table.values() for kind in kinds]
    shown = {STIMULUS_TYPES[index] for index in np.unique(found["stimulus_type_id"]) if index > 0}
    assert sorted(listed) == sorted(shown)
    trials = dict(zip(TIERS, TRIALS_OF_TIER[animal], strict=True))
    for tier in ("live_test_bonus", "final_test_bonus"):
        ids = [STIMULUS_TYPES.index(kind) for kind in table[tier]]
        assert int(np.isin(found["stimulus_type_id"], ids).sum()) == trials[tier]


@animals
def test_repeats(animal: str, folder: Path) -> None:
    found = metadata(folder, animal)
    trials = dict(zip(TIERS, TRIALS_OF_TIER[animal], strict=True))
    movies = repeats_of(found, "movie")
    assert int((movies == 1).sum()) == trials["train"]
    main = movies[movies > 1]
    assert len(main) == 18
    assert main.min() >= 7
    assert main.max() <= 10
    assert int(main.sum()) == sum(trials[tier] for tier in TIERS if tier in MAIN_TIERS)
    for kinds in SETTINGS.recordings[animal].stimulus_types.values():
        for kind in kinds:
            shown = repeats_of(found, kind)
            # Matching pixels left one odd repeat of an image sequence as a video of its own.
            shown = shown[shown > 1] if kind == "images" else shown
            assert len(shown) == (8 if kind == "random_dots" else 6)
            assert shown.max() <= 10


@pytest.mark.parametrize("pair", PAIRS)
def test_pairs(pair: str, folder: Path) -> None:
    """One released and one competition animal, which saw nearly the same videos."""
    released, competition = (SETTINGS.recordings[animal] for animal in pair)
    assert (released.test_responses, competition.test_responses) == ("public", "withheld")
    kinds = [
        {t for types in r.stimulus_types.values() for t in types} for r in (released, competition)
    ]
    shown = []
    for animal in pair:
        found = metadata(folder, animal)
        shown.append({STIMULUS_TYPES[i] for i in np.unique(found["stimulus_type_id"]) if i > 0})
    assert kinds == shown
