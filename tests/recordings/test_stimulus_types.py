"""Stimulus types from pixels and from the study's table.

Two syntheses of all six types: that of the simulation, and a second one written apart from it with
other parameters (speeds, sizes, directions, hard edges, dead leaves instead of 1/f textures).
"""

from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy.ndimage import gaussian_filter, map_coordinates

from sensorium_models.recordings import stimulus_types
from sensorium_models.recordings.store import Recording, Trials
from sensorium_models.simulation import schedule
from sensorium_models.simulation import stimuli as simulated
from sensorium_models.simulation.recording import SimulationSettings, write_recording
from sensorium_models.simulation.truth import Truth, truth_path

SHAPE = (36, 64)
CONTRASTS = (0.2, 0.5, 1.0)
LOW_CONTRASTS = (0.02, 0.05, 0.1)  # a few grey levels: the type may be in doubt, never another
NOISES = (0.0, 5.0, 15.0)
SHIFTS = (-40.0, 0.0, 30.0)
Y, X = np.mgrid[: SHAPE[0], : SHAPE[1]].astype(float)
Generator = np.random.Generator


def shown_as(
    rng: Generator, clip: np.ndarray, contrast: float, noise: float, shift: float
) -> np.ndarray:
    """Around grey 127 with less contrast, moved up or down, with noise, as whole grey levels."""
    levels = 127 + (clip.astype(np.float32) - 127) * np.float32(contrast) + np.float32(shift)
    if noise:
        levels += np.float32(noise) * rng.standard_normal(levels.shape, dtype=np.float32)
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def conditions(rng: Generator) -> list[tuple[float, float, float]]:
    """All contrasts with all noises, each with a shift."""
    return [(c, n, float(rng.choice(SHIFTS))) for c in CONTRASTS for n in NOISES]


# The second synthesis.


def gabors(
    rng: Generator,
    *,
    wavelength: tuple[float, float] = (6, 20),
    hz: tuple[float, float] = (0.5, 6),
    window: tuple[float, float] = (6, 40),
    directions: int = 8,
    centred: bool = True,
) -> np.ndarray:
    cy, cx = (18, 32) if centred else (rng.uniform(9, 27), rng.uniform(14, 50))
    envelope = np.exp(-((Y - cy) ** 2 + (X - cx) ** 2) / 2 / rng.uniform(*window) ** 2)
    blocks = []
    for _ in range(12):
        angle = rng.integers(directions) * 2 * np.pi / directions
        along = (X * np.cos(angle) + Y * np.sin(angle)) / rng.uniform(*wavelength)
        time = np.arange(25)[:, None, None] * rng.uniform(*hz) / 30 + rng.uniform()
        blocks.append(127 + 127 * envelope * np.cos(2 * np.pi * (along - time)))
    return np.concatenate(blocks)


def pink_noise(
    rng: Generator,
    *,
    speed: tuple[float, float] = (0.3, 2.5),
    width_degrees: float = 20,
    directions: int = 12,
) -> np.ndarray:
    fy, fx = np.fft.fftfreq(96)[:, None], np.fft.rfftfreq(96)[None]
    radius = np.hypot(fy, fx)
    radius[0, 0] = np.inf
    segments = []
    for _ in range(12):
        angle = rng.integers(directions) * 2 * np.pi / directions
        off = (np.arctan2(fy, fx) - angle + np.pi / 2) % np.pi - np.pi / 2
        gain = np.exp(-0.5 * (off / np.deg2rad(width_degrees)) ** 2 - (radius / 0.3) ** 2) / radius
        spectrum = gain * (rng.normal(size=gain.shape) + 1j * rng.normal(size=gain.shape))
        way = np.arange(27)[:, None, None] * rng.uniform(*speed)
        phase = np.exp(-2j * np.pi * way * (fx * np.cos(angle) + fy * np.sin(angle)))
        texture = np.fft.irfft2(spectrum * phase, s=(96, 96))[:, : SHAPE[0], : SHAPE[1]]
        segments.append(127 + 45 * texture / texture.std())
    return np.concatenate(segments)


def gaussian_dots(
    rng: Generator,
    *,
    radius: tuple[float, float] = (2.2, 7),
    polarity: tuple[int, ...] = (-1, 1),
) -> np.ndarray:
    stills = []
    for _ in range(35):
        distance = (Y - rng.uniform(0, SHAPE[0])) ** 2 + (X - rng.uniform(0, SHAPE[1])) ** 2
        profile = np.exp(-distance / 2 / rng.uniform(*radius) ** 2)
        stills.append(127 + 127 * rng.choice(polarity) * profile)
    return np.repeat(stills, 9, axis=0)


def random_dots(
    rng: Generator,
    *,
    dots: int = 60,
    radius: float = 1.6,
    speed: tuple[float, float] = (0.2, 2),
    coherence: float = 0.7,
    colours: tuple[int, ...] = (-1, 1),
) -> np.ndarray:
    """Hard-edged dots that cover one another, each replaced after ten frames on average."""
    place = rng.uniform(0, 1, (dots, 2)) * SHAPE
    colour = rng.choice(colours, dots)
    clip = []
    for _ in range(4):
        angle = np.full(dots, rng.uniform(0, 2 * np.pi))
        stray = rng.uniform(size=dots) > coherence
        angle[stray] = rng.uniform(0, 2 * np.pi, stray.sum())
        step = np.stack([np.sin(angle), np.cos(angle)], axis=1) * rng.uniform(*speed)
        for _ in range(60):
            reborn = rng.uniform(size=dots) < 0.1
            place[reborn] = rng.uniform(0, 1, (reborn.sum(), 2)) * SHAPE
            place = (place + step) % SHAPE
            distance = np.hypot(Y - place[:, 0, None, None], X - place[:, 1, None, None])
            covered = np.clip(radius + 0.5 - distance, 0, 1)
            nearest = covered.argmax(axis=0)
            clip.append(127 + 127 * covered.max(axis=0) * colour[nearest])
    return np.array(clip)


def dead_leaves(rng: Generator, leaves: int = 300) -> np.ndarray:
    """Discs of all sizes that hide one another: edges and the 1/f spectrum of natural scenes."""
    y, x = np.mgrid[:100, :128]
    level = rng.uniform(20, 120)
    image = np.full(y.shape, level)
    for radius in 2 / np.sqrt(rng.uniform(0.002, 1, leaves)):
        inside = (y - rng.uniform(0, 100)) ** 2 + (x - rng.uniform(0, 128)) ** 2 < radius**2
        image[inside] = level * np.exp(0.7 * rng.normal())
    return gaussian_filter(image, 1.0)


def movie(rng: Generator, *, speed: float = 0.7, cuts: int = 3) -> np.ndarray:
    """Scenes under a wandering camera, with a bright or dark thing that crosses each of them."""
    bounds = [0, *sorted(rng.integers(20, 280, rng.integers(0, cuts + 1)).tolist()), 300]
    clip = []
    for start, stop in pairwise(bounds):
        scene, centre, velocity = dead_leaves(rng), np.array([32.0, 32.0]), rng.normal(size=2)
        thing, way = rng.uniform(0, 1, 2) * SHAPE, rng.normal(size=2) * speed
        size, level = rng.uniform(4, 10), rng.uniform(0, 200)
        for _ in range(stop - start):
            velocity = 0.95 * velocity + 0.3 * rng.normal(size=2)
            centre = np.clip(centre + speed * velocity, 0, 63)
            frame = map_coordinates(scene, [Y + centre[0], X + centre[1]], order=1)
            thing = thing + way
            frame[np.hypot(Y - thing[0], X - thing[1]) < size] = level
            clip.append(frame)
    return np.array(clip)


def images(
    rng: Generator, *, shown: tuple[int, int] = (14, 17), grey: tuple[int, int] = (12, 18)
) -> np.ndarray:
    clip = []
    for _ in range(10):
        image = dead_leaves(rng)[None, 32:68, 32:96]
        clip.append(np.repeat(image, rng.integers(shown[0], shown[1] + 1), axis=0))
        clip.append(np.full((rng.integers(grey[0], grey[1] + 1), *SHAPE), 127.0))
    return np.concatenate(clip)


VARIANTS: dict[str, tuple[str, Callable[[Generator], np.ndarray]]] = {
    "gabors": ("gabor", gabors),
    "slow and wide gabors": (
        "gabor",
        lambda rng: gabors(rng, wavelength=(20, 34), hz=(0.3, 1), window=(12, 30), directions=4),
    ),
    "small gabors aside": (
        "gabor",
        lambda rng: gabors(rng, wavelength=(6, 12), window=(7, 9), directions=16, centred=False),
    ),
    "pink noise": ("pink_noise", pink_noise),
    "slow narrow pink noise": (
        "pink_noise",
        lambda rng: pink_noise(rng, speed=(0.1, 0.6), width_degrees=8, directions=4),
    ),
    "fast wide pink noise": (
        "pink_noise",
        lambda rng: pink_noise(rng, speed=(1, 4), width_degrees=30),
    ),
    "Gaussian dots": ("gaussian_dots", gaussian_dots),
    "large black dots": (
        "gaussian_dots",
        lambda rng: gaussian_dots(rng, radius=(5, 9), polarity=(-1,)),
    ),
    "random dots": ("random_dots", random_dots),
    "few black random dots": (
        "random_dots",
        lambda rng: random_dots(rng, dots=40, radius=2.5, colours=(-1,)),
    ),
    "many coherent random dots": (
        "random_dots",
        lambda rng: random_dots(rng, dots=120, radius=1.2, speed=(0.1, 0.4), coherence=1),
    ),
    "dead leaves": ("movie", movie),
    "fast dead leaves": ("movie", lambda rng: movie(rng, speed=2.0, cuts=8)),
    "still images": ("images", images),
    "images with long grey": ("images", lambda rng: images(rng, shown=(15, 15), grey=(18, 22))),
}


# The simulation's own clips: the right type from the pixels alone, in every condition.


def demo_movies() -> list[tuple[int, str, schedule.Movie]]:
    """Every clip of the recordings of the demo but training movies, of which the first few."""
    demo = yaml.safe_load((Path(__file__).parents[2] / "config" / "demo.yaml").read_text())
    found = set()
    for recording in demo["recordings"].values():
        source, types = recording["source"], recording["stimulus_types"]
        movies = [schedule.Movie("movie", "train", index) for index in range(3)]
        movies += [schedule.Movie("movie", "test", index) for index in range(6)]
        movies += [
            schedule.Movie(kind, "bonus", index)
            for tier in types.values()
            for kind in tier
            for index in range(2)
        ]
        found |= {(source["seed"], source["pair"], movie) for movie in movies}
    return sorted(found, key=str)


def test_every_clip_of_the_demo_in_every_condition() -> None:
    wrong = []
    shown = Counter[str]()
    for number, (seed, pair, movie_shown) in enumerate(demo_movies()):
        kind = movie_shown.stimulus_type
        shown[kind] += 1
        clip = simulated.render(kind, schedule.movie_generator(seed, pair, movie_shown), SHAPE)
        rng = np.random.default_rng(number)
        # Every noise, each at another contrast.
        for index, noise in enumerate(NOISES):
            contrast, shift = CONTRASTS[(index + number) % 3], float(rng.choice(SHIFTS))
            said = stimulus_types.type_from_pixels(shown_as(rng, clip, contrast, noise, shift))
            if said != kind:
                wrong.append((pair, movie_shown.name, contrast, noise, shift, said))
        contrast, noise = LOW_CONTRASTS[number % 3], NOISES[number // 3 % 3]
        said = stimulus_types.type_from_pixels(shown_as(rng, clip, contrast, noise, 0.0))
        if said not in (kind, "unknown"):
            wrong.append((pair, movie_shown.name, contrast, noise, 0.0, said))
    assert wrong == []
    assert set(shown) == set(simulated.STIMULUS_TYPES)


@pytest.mark.parametrize("shape", [(18, 32), (30, 50), (72, 128)])
@pytest.mark.parametrize("kind", simulated.STIMULUS_TYPES)
def test_other_frame_sizes(kind: str, shape: tuple[int, int]) -> None:
    clip = simulated.render(kind, np.random.default_rng(5), shape)
    rng = np.random.default_rng(6)
    for contrast, noise in ((1.0, 0.0), (0.5, 5.0), (1.0, 15.0), (0.2, 0.0)):
        assert stimulus_types.type_from_pixels(shown_as(rng, clip, contrast, noise, 0.0)) == kind


def test_float_frames_say_the_same_as_whole_grey_levels() -> None:
    clip = simulated.render("gabor", np.random.default_rng(7), SHAPE)
    assert stimulus_types.type_from_pixels(clip.astype(np.float64)) == "gabor"
    assert stimulus_types.type_from_pixels(clip / np.float32(255)) == "unknown"  # no grey levels


# Other parameters than the simulation's: never another type, and hardly ever in doubt.


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_are_never_taken_for_another_type(name: str) -> None:
    kind, synthesise = VARIANTS[name]
    said = Counter[str]()
    rng = np.random.default_rng(32)
    clip = synthesise(rng)
    for contrast, noise, shift in conditions(rng):
        said[stimulus_types.type_from_pixels(shown_as(rng, clip, contrast, noise, shift))] += 1
    assert set(said) <= {kind, "unknown"}
    assert said[kind] >= 7  # of 9
    for contrast in LOW_CONTRASTS:
        for noise in NOISES:
            faint = stimulus_types.type_from_pixels(shown_as(rng, clip, contrast, noise, 0.0))
            assert faint in (kind, "unknown"), (contrast, noise)


STRANGE: dict[str, Callable[[Generator], np.ndarray]] = {
    "nothing": lambda rng: np.full((300, *SHAPE), 90.0),
    "flicker": lambda rng: np.broadcast_to(
        127 + 100 * np.sin(np.arange(300) / 5)[:, None, None], (300, *SHAPE)
    ),
    "white noise": lambda rng: 127 + 40 * rng.normal(size=(300, *SHAPE)),
    "checkerboards": lambda rng: np.kron(
        127 + 100 * rng.choice([-1, 1], (300, 9, 16)), np.ones((1, 4, 4))
    ),
    "checkerboards of nine frames": lambda rng: np.kron(
        127 + 100 * rng.choice([-1, 1], (35, 9, 16)), np.ones((9, 4, 4))
    ),
    "a dot in every frame": lambda rng: gaussian_dots(rng)[::9][rng.integers(0, 35, 300)],
    "a plaid": lambda rng: (
        127
        + 60 * np.cos(X / 3 - np.arange(300)[:, None, None] / 4)
        + 60 * np.cos(Y / 3 - np.arange(300)[:, None, None] / 4)
    ),
    "one long grating": lambda rng: (
        127 + 100 * np.cos(X / 3 - np.arange(300)[:, None, None] / 4) + 0 * Y
    ),
    "stills without grey": lambda rng: np.concatenate(
        [np.repeat(dead_leaves(rng)[None, 32:68, 32:96], 30, axis=0) for _ in range(10)]
    ),
    "a short clip": lambda rng: movie(rng)[:100],
    "tiny frames": lambda rng: movie(rng)[:, :8, :8],
}


@pytest.mark.parametrize("name", STRANGE)
def test_what_fits_no_description_is_unknown(name: str) -> None:
    rng = np.random.default_rng(41)
    clip = STRANGE[name](rng)
    for noise in NOISES:
        assert stimulus_types.type_from_pixels(shown_as(rng, clip, 1.0, noise, 0.0)) == "unknown"


# The study's table and the length.


@pytest.mark.parametrize(
    ("frames", "candidates", "expected"),
    [
        (300, (), "movie"),
        (307, (), "movie"),
        (324, ("pink_noise",), "pink_noise"),
        (298, ("gabor",), "gabor"),
        (315, ("gaussian_dots", "random_dots"), "gaussian_dots"),
        (240, ("gaussian_dots", "random_dots"), "random_dots"),
        (300, ("random_dots", "gabor"), "gabor"),
        (324, ("pink_noise", "gaussian_dots"), "pink_noise"),
        (324, ("pink_noise", "images"), "pink_noise"),
        (305, ("pink_noise", "images"), "images"),
        (315, ("gabor", "images"), "images"),
        (403, ("random_dots", "images"), "images"),
        (288, ("gaussian_dots", "random_dots"), "unknown"),
        (300, ("movie", "gabor"), "unknown"),
        # One candidate is no reason to believe in it: its length must be that of the trial.
        (300, ("random_dots",), "unknown"),
        (240, ("random_dots",), "random_dots"),
        (315, ("pink_noise",), "pink_noise"),  # some frames short
        (300, ("pink_noise",), "unknown"),
        (324, (), "unknown"),
        (600, (), "unknown"),
        (90, (), "unknown"),
        (310, ("images",), "images"),
        (414, ("images",), "images"),
        (240, ("images",), "unknown"),
        (240, ("gabor", "images"), "unknown"),
        (300, ("unknown",), "unknown"),
    ],
)
def test_stimulus_type_by_length(frames: int, candidates: tuple[str, ...], expected: str) -> None:
    """What decides where the pixels leave the type open."""
    tier = "final_test_bonus"
    assert stimulus_types.stimulus_type("unknown", frames, tier, candidates) == expected


def test_stimulus_type_of_unused_trials_and_of_a_typing_error() -> None:
    assert stimulus_types.stimulus_type("unknown", 300, "none", ()) == "unknown"
    with pytest.raises(ValueError, match="'noise' of tier 'live_test_bonus' is not known"):
        stimulus_types.stimulus_type("unknown", 300, "live_test_bonus", ["noise"])


@pytest.mark.parametrize(
    ("by_pixels", "frames", "candidates", "expected"),
    [
        ("movie", 300, (), "movie"),
        ("gabor", 300, (), "unknown"),
        ("gabor", 315, ("gabor", "images"), "gabor"),  # pixels before lengths
        ("images", 300, ("gabor", "images"), "images"),
        ("movie", 324, ("pink_noise",), "unknown"),
        ("random_dots", 315, ("gaussian_dots", "pink_noise"), "unknown"),
    ],
)
def test_the_table_restricts_what_the_pixels_propose(
    by_pixels: str, frames: int, candidates: tuple[str, ...], expected: str
) -> None:
    assert stimulus_types.stimulus_type(by_pixels, frames, "any", candidates) == expected


def trials(rows: list[tuple[str, int, str, str]]) -> Trials:
    tier, video, by_pixels, chosen = zip(*rows, strict=True)
    none = np.zeros(len(rows), dtype=np.int64)
    text = np.array([""] * len(rows))
    return Trials(
        first_frame=none,
        frames=none,
        first_response_frame=none,
        tier=np.array(tier),
        video=np.array(video),
        video_id=text,
        signature=text,
        perceptual_hash=text,
        stimulus_type=np.array(chosen),
        pixel_type=np.array(by_pixels),
    )


def test_disagreement_and_doubt_are_said() -> None:
    notes = stimulus_types.type_notes(
        trials(
            [
                ("train", 0, "movie", "movie"),
                ("live_test_bonus", 1, "gabor", "unknown"),
                ("live_test_bonus", 1, "gabor", "unknown"),
                ("live_test_bonus", 2, "unknown", "pink_noise"),
                ("final_test_bonus", 3, "unknown", "unknown"),
                ("none", -1, "gabor", "unknown"),
            ]
        )
    )
    assert len(notes) == 3
    assert "1 trial of tier final_test_bonus (first: 4): neither the frames nor" in notes[0]
    assert "2 trials of tier live_test_bonus (first: 1): the frames show gabor, which" in notes[1]
    assert "1 trial of tier live_test_bonus (first: 3)" in notes[2]
    assert "by the study's table and the length it is pink_noise" in notes[2]


# Whole recordings.


@pytest.mark.parametrize(
    "bonus",
    [
        {"live_test_bonus": ["images"], "final_test_bonus": ["pink_noise", "gaussian_dots"]},
        {"live_test_bonus": ["random_dots"], "final_test_bonus": ["gabor", "images"]},
    ],
    ids=["B", "C"],
)
def test_store_of_a_simulated_recording(
    bonus: dict[str, list[str]], prepare: Callable[..., Recording], tmp_path: Path
) -> None:
    archive = tmp_path / "A.zip"
    write_recording(
        archive=archive,
        folder="dynamic1-1-1-Video-simulated",
        animal="A",
        seed=11,
        pair="one",
        role="public",
        settings=SimulationSettings(
            neurons=3, training_trials=4, test_videos=2, repeats=2, frame_shape=(18, 32)
        ),
        bonus_types=bonus,
    )
    with Truth(truth_path(archive)) as truth:
        kinds, names = np.array(truth.stimulus_type), np.array(truth.movie)
    recording = prepare(archive, tmp_path / "A.h5", stimulus_types=bonus)
    trials = recording.trials
    used = trials.tier != "none"
    assert (trials.pixel_type == kinds).all()
    assert (trials.stimulus_type[used] == kinds[used]).all()
    assert set(trials.stimulus_type[~used]) == {"unknown"}
    assert stimulus_types.type_notes(trials) == []
    # Repeats, and only they, have one number and one id.
    for labels in (trials.video[used], trials.video_id[used]):
        pairs = set(zip(labels.tolist(), names[used].tolist(), strict=True))
        assert len(pairs) == len(set(labels.tolist())) == len(set(names[used].tolist()))
    # A table that names the wrong types is not followed in silence.
    swapped = {"live_test_bonus": bonus["final_test_bonus"][:1], "final_test_bonus": []}
    wrong: Any = prepare(archive, tmp_path / "wrong.h5", stimulus_types=swapped)
    assert set(wrong.trials.stimulus_type[wrong.trials_of(["live_test_bonus"])]) == {"unknown"}
    assert any(
        f"show {bonus['live_test_bonus'][0]}" in n for n in stimulus_types.type_notes(wrong.trials)
    )
    assert wrong.digest == recording.digest
