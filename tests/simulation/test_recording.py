"""Archives as an independent reader sees them: layout, tiers, pairs, truth, determinism."""

import hashlib
import shutil
import subprocess
import sys
import tracemalloc
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sensorium_models import files
from sensorium_models.simulation import archive as archive_module
from sensorium_models.simulation import recording as recording_module
from sensorium_models.simulation.recording import SimulationSettings, write_recording
from sensorium_models.simulation.truth import best_scores, truth_path

FRAMES = {"movie": 300, "pink_noise": 324, "gaussian_dots": 315, "random_dots": 240, "gabor": 300}
MODALITIES = ("videos", "responses", "behavior", "pupil_center")
SMALL = SimulationSettings(
    neurons=24, training_trials=8, test_videos=2, repeats=2, none_trials=2, frame_shape=(18, 32)
)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_layout(pair):
    for animal in pair:
        reader, trials = animal.reader, len(animal.truth.tier)
        assert reader.folder.startswith("dynamic")
        assert any(name.startswith("__MACOSX/") for name in reader.names)
        assert f"{reader.folder}/config.json" in reader.names
        shapes = {"videos": (18, 32), "responses": (24,), "behavior": (2,), "pupil_center": (2,)}
        for name in MODALITIES:
            stored = [n for n in reader.names if n.startswith(f"{reader.folder}/data/{name}/")]
            assert len(stored) == trials
            for trial in range(trials):
                array = reader.array(f"data/{name}/{trial}")
                assert array.shape[:-1] == shapes[name]
                assert array.shape[-1] >= 324
                assert array.dtype == (np.uint8 if name == "videos" else np.float32)
        ids = reader.array("meta/neurons/unit_ids")
        assert len(ids) == 24
        assert np.all(np.diff(ids) >= 1)
        assert np.any(np.diff(ids) > 1)
        coordinates = reader.array("meta/neurons/cell_motor_coordinates")
        assert coordinates.shape == (24, 3)
        assert coordinates.dtype == np.int64
        assert set(coordinates[:, 2]) <= set(range(200, 450, 25))


def test_truth_is_not_in_the_archive(pair):
    for animal in pair:
        assert not [n for n in animal.reader.names if "truth" in n or "rate" in n]


def test_lengths_and_padding(pair):
    for animal in pair:
        for trial, kind in enumerate(animal.truth.stimulus_type):
            frames = animal.reader.valid_frames(trial)
            assert frames == animal.truth.frames[trial]
            if kind == "images":
                assert 305 <= frames <= 326
                assert frames not in FRAMES.values()
            else:
                assert frames == FRAMES[kind]
            assert not animal.reader.array(f"data/videos/{trial}")[..., frames:].any()


def test_tiers_and_repeats(pair):
    for animal in pair:
        tiers = animal.reader.tiers
        assert tiers.tolist() == animal.truth.tier.tolist()
        assert Counter(tiers.tolist()) == {
            "train": 8,
            "none": 2,
            "oracle": 4,
            "live_test_main": 4,
            "live_test_bonus": 4,
            "final_test_main": 4,
            "final_test_bonus": 8,
        }
        assert tiers.tolist() != sorted(tiers.tolist())
        shown = Counter(zip(tiers.tolist(), animal.truth.movie.tolist(), strict=True))
        assert all(n == (1 if tier in ("train", "none") else 2) for (tier, _), n in shown.items())


def test_repeats_show_the_same_pixels(pair):
    for animal in pair:
        for movie in set(animal.truth.movie):
            trials = np.flatnonzero(animal.truth.movie == movie)
            videos = [animal.reader.array(f"data/videos/{t}")[..., :300] for t in trials]
            assert all(np.array_equal(videos[0], video) for video in videos[1:])


def test_pair_shares_pixels_with_other_tiers(pair):
    public, withheld = pair
    tiers = [dict(zip(a.truth.movie, a.truth.tier, strict=True)) for a in pair]
    shared = set(tiers[0]) & set(tiers[1])
    assert sum(tiers[0][m] == "train" for m in shared) == 8
    for movie in shared:
        frames = [
            a.reader.array(f"data/videos/{np.flatnonzero(a.truth.movie == movie)[0]}") for a in pair
        ]
        assert np.array_equal(frames[0][..., :300], frames[1][..., :300])
        if movie.startswith("movie-test"):
            assert tiers[0][movie] != tiers[1][movie]
        if movie.startswith("movie-train"):
            assert tiers[0][movie] == tiers[1][movie] == "train"
    assert "pink_noise-bonus-0" in shared  # live in one animal, final in the other
    # Different movies differ.
    first, second = (public.reader.array(f"data/videos/{t}") for t in range(2))
    assert not np.array_equal(first, second)
    assert withheld.truth.pair == public.truth.pair


def test_withheld_responses_are_zeros_and_kept_beside(pair):
    public, withheld = pair
    assert len(public.truth.withheld_trials) == 0
    hidden = set(withheld.truth.withheld_trials.tolist())
    for trial, tier in enumerate(withheld.reader.tiers):
        response = withheld.reader.array(f"data/responses/{trial}")
        if "test" in tier:
            assert trial in hidden
            assert np.array_equal(response, np.zeros_like(response))  # full length, no NaN
            true = withheld.truth.responses(trial)
            assert true.shape == (withheld.truth.frames[trial], 24)
            assert true.max() > 1e-3
        else:
            assert trial not in hidden
            assert np.nanmax(response) > 1e-3
            with pytest.raises(ValueError, match="not withheld"):
                withheld.truth.responses(trial)


def test_statistics_are_those_of_the_training_trials(pair):
    reader = pair[0].reader
    trials = np.flatnonzero(reader.tiers == "train")
    functions = {
        "mean": np.mean,
        "std": np.std,
        "median": np.median,
        "min": np.min,
        "max": np.max,
    }
    for name in MODALITIES:
        data = np.stack([reader.array(f"data/{name}/{t}").astype(np.float64) for t in trials])
        for statistic, function in functions.items():
            stored = reader.array(f"meta/statistics/{name}/all/{statistic}")
            assert stored.shape == data.shape[1:]
            assert np.isnan(stored[..., 300:]).all()
            expected = function(data[..., :300], axis=0)
            # Stored with 24 bits of mantissa.
            np.testing.assert_allclose(stored[..., :300], expected, rtol=1e-6, atol=1e-6)


def test_response_is_unbiased_about_its_expectation(pair):
    """Sums over trials of recorded minus expected response stay within their standard error."""
    animal = pair[0]
    sums, squares, products = [], 0.0, 0.0
    for trial, frames in enumerate(animal.truth.frames):
        response = animal.reader.array(f"data/responses/{trial}")[:, :frames].T.astype(float)
        expected = animal.truth.rates(trial).astype(float)
        sums.append((response - expected).sum(axis=0))
        centred = expected - expected.mean(axis=0)
        squares += np.sum(centred**2, axis=0)
        products += np.sum(centred * response, axis=0)
    total = np.array(sums)
    standard_error = total.std(axis=0, ddof=1) / np.sqrt(len(total))
    assert np.all(np.abs(total.mean(axis=0)) < 5 * standard_error)
    # Regression of response on expectation has slope one; 24 neurons give its standard error.
    slopes = products / squares
    assert abs(slopes.mean() - 1) < 4 * slopes.std(ddof=1) / np.sqrt(len(slopes))


def test_without_noise_the_response_is_the_truth(write):
    animal = write(
        "quiet", "public", replace(SMALL, response_noise=0.0, training_trials=2, repeats=1)
    )
    for trial, frames in enumerate(animal.truth.frames):
        response = animal.reader.array(f"data/responses/{trial}")[:, :frames].T
        expected = animal.truth.rates(trial)
        np.testing.assert_allclose(response, expected, rtol=1e-5, atol=1e-6)


def test_a_model_can_do_well_but_not_perfectly(pair):
    animal = pair[0]
    trials = np.flatnonzero(np.char.endswith(animal.truth.tier.astype(str), "_main"))
    frames = animal.truth.frames
    scores = best_scores(
        responses=[animal.reader.array(f"data/responses/{t}")[:, : frames[t]].T for t in trials],
        rates=[animal.truth.rates(int(t)) for t in trials],
        videos=animal.truth.movie[trials].tolist(),
    )
    assert 0.4 < np.median(scores.single_trial) < 0.7
    assert np.mean(scores.to_average) > np.mean(scores.single_trial)


def test_receptive_fields_follow_the_cortex(write):
    animal = write("map", "public", replace(SMALL, neurons=200, training_trials=1), {})
    place = animal.reader.array("meta/neurons/cell_motor_coordinates")[:, :2].astype(float)
    design = np.column_stack([place, np.ones(len(place))])
    fields = animal.truth.receptive_fields
    fitted = design @ np.linalg.lstsq(design, fields, rcond=None)[0]
    explained = 1 - np.var(fields - fitted, axis=0) / np.var(fields, axis=0)
    assert np.all(explained > 0.95)
    assert np.all(np.ptp(fields, axis=0) > 0.5 * np.array([32, 18]))


def test_same_settings_give_the_same_bytes(tmp_path):
    settings = replace(SMALL, training_trials=2, test_videos=1, repeats=1)

    def written(name: str, seed: int) -> tuple[str, str]:
        path = tmp_path / f"{name}.zip"
        write_recording(
            archive=path,
            folder="dynamic",
            animal="A",
            seed=seed,
            pair="one",
            role="withheld",
            settings=settings,
            bonus_types={"live_test_bonus": ["images"]},
        )
        return digest(path), digest(truth_path(path))

    first = written("first", 1)
    assert written("second", 1) == first
    assert written("third", 2)[0] != first[0]
    # Another process with another hash seed.
    script = (
        "from pathlib import Path\n"
        "from sensorium_models.simulation.recording import *\n"
        f"write_recording(archive=Path({str(tmp_path / 'other.zip')!r}), folder='dynamic', "
        f"animal='A', seed=1, pair='one', role='withheld', settings={settings!r}, "
        "bonus_types={'live_test_bonus': ['images']})\n"
    )
    root = Path(recording_module.__file__).parents[2]
    subprocess.run([sys.executable, "-c", script], check=True, cwd=root, capture_output=True)
    assert digest(tmp_path / "other.zip") == first[0]


def test_memory_does_not_grow_with_the_recording(tmp_path, monkeypatch):
    monkeypatch.setattr(archive_module, "BLOCK_BYTES", 1_000_000)
    monkeypatch.setattr(recording_module, "REFERENCE_MOVIES", 1)

    def peak(trials: int) -> int:
        settings = replace(
            SMALL, neurons=400, training_trials=trials, test_videos=1, repeats=1, behavior=False
        )
        tracemalloc.start()
        write_recording(
            archive=tmp_path / "a.zip",
            folder="dynamic",
            animal="A",
            seed=1,
            pair="one",
            role="public",
            settings=settings,
            bonus_types={},
        )
        _, highest = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return highest

    trial_bytes = 400 * 324 * 4 + 18 * 32 * 324
    assert peak(11) - peak(1) < 2 * trial_bytes  # ten more trials cost less than two


def test_missing_modalities_and_dtypes(write):
    settings = replace(
        SMALL,
        training_trials=1,
        behavior=False,
        pupil_center=False,
        video_dtype="float64",
        response_dtype="float64",
        padded_frames=1,
    )
    animal = write("bare", "withheld", settings)
    assert not [n for n in animal.reader.names if "behavior" in n or "pupil" in n]
    for trial, frames in enumerate(animal.truth.frames):
        video = animal.reader.array(f"data/videos/{trial}")
        assert video.dtype == np.float64
        assert np.isnan(video[..., frames:]).all()
        assert animal.reader.valid_frames(trial) == frames
        assert video.shape[-1] == animal.truth.frames.max()
    # Nothing but the stimulus moves the rates then, up to the timing of the scan.
    movie = next(m for m in animal.truth.movie if m.startswith("movie-test"))
    first, second = (
        animal.truth.rates(int(t)) for t in np.flatnonzero(animal.truth.movie == movie)
    )
    assert np.corrcoef(first.ravel(), second.ravel())[0, 1] > 0.9


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*arguments, **keywords):
        raise OSError("No space left on device")

    monkeypatch.setattr(TrainingFrames := archive_module.TrainingFrames, "statistics", fail)
    assert TrainingFrames is recording_module.TrainingFrames
    with pytest.raises(OSError, match="No space"):
        write_recording(
            archive=tmp_path / "a.zip",
            folder="dynamic",
            animal="A",
            seed=1,
            pair="one",
            role="public",
            settings=replace(SMALL, training_trials=1, test_videos=1, repeats=1),
            bonus_types={},
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"neurons": 0}, "neurons is 0"),
        ({"video_dtype": "int8"}, "video_dtype"),
        ({"frame_shape": (4, 4)}, "frame_shape"),
        ({"truth_rates": "float8"}, "truth_rates"),
        ({"mean_rate_hz": 0.0}, "mean_rate_hz"),
        ({"random_dots_videos": 0}, "random_dots_videos"),
    ],
)
def test_settings_that_make_no_sense(change, message):
    with pytest.raises(ValueError, match=message):
        SimulationSettings(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"role": "hidden"}, "role"),
        ({"seed": -1}, "seed"),
        ({"folder": "../x"}, "folder"),
        ({"bonus_types": {"oracle": ["gabor"]}}, "bonus tiers"),
        ({"bonus_types": {"live_test_bonus": ["movie"]}}, "bonus_types"),
        (
            {
                "role": "withheld",
                "settings": SimulationSettings(behavior=False, pupil_center=False),
            },
            "how long",
        ),
    ],
)
def test_arguments_that_make_no_sense(tmp_path, change, message):
    arguments = {
        "archive": tmp_path / "a.zip",
        "folder": "dynamic",
        "animal": "A",
        "seed": 1,
        "pair": "one",
        "role": "public",
        "settings": SMALL,
        "bonus_types": {},
    }
    with pytest.raises(ValueError, match=message):
        write_recording(**(arguments | change))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("role", ["public", "withheld"])
def test_room_is_asked_for_before_writing(
    role: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(files, "check_room", lambda path, needed: asked.append(needed))
    arguments = {
        "archive": tmp_path / "A.zip",
        "folder": "dynamic1-1-1-Video-a",
        "animal": "A",
        "seed": 1,
        "pair": "one",
        "role": role,
        "settings": replace(SMALL, neurons=150, video_dtype="float32", compression_level=0),
        "bonus_types": {"live_test_bonus": ["gabor"], "final_test_bonus": ["images"]},
    }
    write_recording(**arguments)
    written = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert written < asked[0] < 2 * written + 4_000_000
    monkeypatch.undo()
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=asked[0] - 1))
    (tmp_path / "A.zip").unlink()
    with pytest.raises(OSError, match=r"A\.zip needs up to .* Free some space"):
        write_recording(**arguments)
    assert not (tmp_path / "A.zip").exists()
