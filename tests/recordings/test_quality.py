"""Facts of a recording, against plain computation, and the sentences about what is unusual."""

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from sensorium_models.recordings.quality import CHANNELS, Quality, measure, reliability
from sensorium_models.recordings.store import Recording, StoreError, Trials
from sensorium_models.recordings.unusual import unusual

TIERS = {
    "train": "train",
    "oracle": "select",
    "live_test_main": "test",
    "live_test_bonus": "test",
    "final_test_main": "test",
    "final_test_bonus": "test",
    "none": "unused",
}
FRAMES: dict[str, Any] = {"first_frame": 5, "cap_frames": 25, "drop_last_frames": 1}

Content = dict[str, Any]


def repeated(content: Content, *, tier: str = "oracle", noise: float = 0.5) -> Content:
    """All trials of `tier` show the first one's video; responses are a common signal and noise."""
    rng = np.random.default_rng(1)
    trials = np.flatnonzero(content["meta/trials/tiers.npy"] == tier)
    first = trials[0]
    signal = rng.gamma(1.0, 1.0, content[f"data/responses/{first}.npy"].shape)
    for trial in trials:
        for modality in ("videos", "behavior", "pupil_center"):
            # One length for all repeats, the behaviour of each its own.
            ended = np.isnan(content[f"data/videos/{first}.npy"][0, 0])
            if modality == "videos":
                content[f"data/videos/{trial}.npy"] = content[f"data/videos/{first}.npy"]
            else:
                values = rng.normal(50, 8, content[f"data/{modality}/{trial}.npy"].shape)
                values[:, ended] = np.nan
                content[f"data/{modality}/{trial}.npy"] = values
        responses = signal + noise * rng.gamma(1.0, 1.0, signal.shape)
        responses[:, ended] = np.nan
        content[f"data/responses/{trial}.npy"] = responses
    return content


def measured(recording: Recording, unit: str = "raw") -> Quality:
    return measure(recording, repeated_tiers=["oracle"], unit=unit, **FRAMES)


def said(quality: Quality, **types: list[str]) -> str:
    types = types or {
        "live_test_bonus": ["pink_noise"],
        "final_test_bonus": ["gaussian_dots", "random_dots"],
    }
    return "\n".join(unusual(quality, tiers=TIERS, stimulus_types=types))


@pytest.fixture
def store(
    make: Callable[..., Content],
    zipped: Callable[..., Path],
    prepare: Callable[..., Recording],
    tmp_path: Path,
) -> Callable[..., Recording]:
    """Write the store of an archive's content."""

    def write(content: Content | None = None, **changes: Any) -> Recording:
        archive = zipped(make() if content is None else content, tmp_path / "A.zip")
        return prepare(archive, tmp_path / "A.h5", **changes)

    return write


def test_reliability_is_the_leave_one_out_correlation(
    make: Callable[..., Content], store: Callable[..., Recording]
) -> None:
    recording = store(repeated(make()))
    quality = measured(recording)
    trials = recording.trials_of(["oracle"])
    length = min(int(recording.trials.frames[t]) for t in trials)
    stop = min(length, 25) - 1
    shown = np.stack([recording.read("responses", int(t), 5, stop) for t in trials])
    shown = shown.astype(np.float64)
    others = np.stack([np.delete(shown, k, axis=0).mean(axis=0) for k in range(len(shown))])
    expected = [
        np.corrcoef(shown[:, :, n].ravel(), others[:, :, n].ravel())[0, 1]
        for n in range(recording.neurons)
    ]
    np.testing.assert_allclose(quality.reliability, expected, rtol=1e-9)
    assert (quality.reliability_videos, quality.reliability_trials) == (1, len(trials))


def test_reliability_of_equal_repeats_is_one_and_of_constant_neurons_undefined(
    make: Callable[..., Content], store: Callable[..., Recording]
) -> None:
    content = repeated(make(), noise=0.0)
    for trial in range(len(content["meta/trials/tiers.npy"])):
        array = content[f"data/responses/{trial}.npy"]
        array[2, ~np.isnan(array[2])] = 0.25
    quality = measured(store(content))
    assert quality.reliability is not None
    assert np.isnan(quality.reliability[2])
    np.testing.assert_allclose(np.delete(quality.reliability, 2), 1.0, rtol=1e-6)
    assert quality.constant.tolist() == [n == 2 for n in range(quality.neurons)]
    assert f"1 of {quality.neurons} neurons was silent" in said(quality)


def test_reliability_needs_a_scored_frame_of_a_repeated_video(
    make: Callable[..., Content], store: Callable[..., Recording]
) -> None:
    recording = store(repeated(make()))
    groups = [[int(t) for t in recording.trials_of(["oracle"])]]
    late = {**FRAMES, "first_frame": 24}
    assert reliability(recording, groups, precision=np.ones((1, 7)), **late) is None
    quality = measured(store(make()))  # every video once
    assert quality.reliability is None
    assert "reliability is unknown" in said(quality)


def test_reliability_counts_the_videos_that_entered(
    make: Callable[..., Content], store: Callable[..., Recording]
) -> None:
    """The repeated video of the second tier ends before its first scored frame, number 5."""
    content = repeated(repeated(make()), tier="live_test_main")
    for trial in np.flatnonzero(content["meta/trials/tiers.npy"] == "live_test_main"):
        for modality in ("videos", "responses", "behavior", "pupil_center"):
            content[f"data/{modality}/{trial}.npy"][..., 5:] = np.nan
    recording = store(content)
    tiers = ["oracle", "live_test_main"]
    for first_frame, videos in ((5, 1), (2, 2), (24, 0)):
        quality = measure(
            recording, repeated_tiers=tiers, unit="raw", **{**FRAMES, "first_frame": first_frame}
        )
        assert quality.reliability_videos == videos
        assert quality.reliability_trials == 3 * videos
        assert (quality.reliability is None) == (videos == 0)


def test_responses_and_behaviour_are_those_of_the_store(
    make: Callable[..., Content], store: Callable[..., Recording]
) -> None:
    recording = store(repeated(make()))
    quality = measured(recording)
    trials = range(len(recording.trials))
    responses = np.concatenate([recording.read("responses", t) for t in trials])
    np.testing.assert_allclose(quality.mean_response, responses.mean(axis=0), rtol=1e-5)
    assert quality.lowest_response == responses.min()
    speed = np.concatenate([recording.read("behavior", t)[:, 1] for t in trials])
    np.testing.assert_array_equal(quality.channels["running speed"], speed)
    assert quality.padded_frames == 33
    assert set(quality.channels) == {name for names in CHANNELS.values() for name in names}


def test_withheld_responses_are_not_read(competition: Recording) -> None:
    quality = measured(competition)
    tested = quality.trials["tier"].str.contains("test")
    assert quality.trials["withheld"].tolist() == tested.tolist()
    assert np.isfinite(quality.mean_response).all()


def test_a_recording_as_released_has_nothing_unusual(
    make: Callable[..., Content], store: Callable[..., Recording]
) -> None:
    quality = measured(store(repeated(make())))
    trials = quality.trials.astype({"video": np.int64})
    lengths = {"movie": 300, "pink_noise": 324, "gaussian_dots": 315, "random_dots": 240}
    trials["stimulus_type"] = ["movie"] * len(trials)
    trials.loc[trials["tier"] == "live_test_bonus", "stimulus_type"] = "pink_noise"
    trials.loc[trials["tier"] == "final_test_bonus", "stimulus_type"] = "random_dots"
    trials["pixel_type"] = trials["stimulus_type"]
    trials["frames"] = [lengths[kind] for kind in trials["stimulus_type"]]
    tested = ~trials["tier"].isin(["train", "none"])
    trials.loc[tested, "video"] = [
        1000 + list(TIERS).index(tier) for tier in trials.loc[tested, "tier"]
    ]
    trials = trials.loc[trials.index.repeat(1 + 3 * tested)].reset_index(drop=True)
    assert said(replace(quality, trials=trials)) == ""

    def changed(column: str, rows: Any, value: Any) -> str:
        other = trials.copy()
        other.loc[rows, column] = value
        return said(replace(quality, trials=other))

    training = trials.index[trials["tier"] == "train"]
    assert "1 trial of type movie has fewer frames than the usual 300" in changed(
        "frames", training[0], 250
    )
    assert (
        f"{len(training)} of {len(training)} trials of tier train do not last as long as movie"
        f" (10 s) in the release: trial {training[0]} has 600 frames, 20.00 s at 30 Hz; most would"
        " fit at 60 Hz."
    ) in changed("frames", training, 600)
    assert "do not last" not in changed("frames", training[: len(training) // 2], 250)
    assert "1 video was shown in more than one tier." in changed("video", training[0], 1001)
    assert "1 video of tier train was shown more than once" in changed("video", training[:2], 5000)
    assert "Few repeats of a video: 3 in oracle" in said(
        replace(
            quality,
            trials=trials.drop(trials.index[trials["tier"] == "oracle"][3:]).reset_index(),
        )
    )
    bonus = trials.index[trials["tier"] == "live_test_bonus"]
    assert "2 trials of tier live_test_bonus (such as trial" in changed(
        "stimulus_type", bonus[:2], "gabor"
    )
    only = f"1 trial of tier live_test_bonus (such as trial {bonus[3]})"
    types = ["pixel_type", "stimulus_type"]
    doubts = {
        ("gabor", "unknown"): "the frames show gabor, which the study's table does not list there",
        ("unknown", "pink_noise"): "the frames fit no type clearly; by the study's table and the"
        " length it is pink_noise.",
        ("unknown", "unknown"): "neither the frames nor the study's table with the length tell",
    }
    for shown, doubt in doubts.items():
        other = trials.copy()
        other.loc[bonus[3], types] = shown
        assert f"{only}: {doubt}" in said(replace(quality, trials=other))
    # A tier for which the study's table lists nothing shows movies.
    empty = {"live_test_bonus": [], "final_test_bonus": ["random_dots"]}
    assert "showed pink_noise, where the study's table has movie." in said(
        replace(quality, trials=trials), **empty
    )
    repeats = trials.index[trials["tier"] == "oracle"]
    assert "Repeats of 1 video differ in length" in changed("frames", repeats[0], 303)
    assert "Pupil size is constant within 1 of" in changed("constant pupil size", training[0], True)
    assert "No trial is of tier oracle" in said(
        replace(quality, trials=trials[trials["tier"] != "oracle"])
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"coordinates": None}, "positions of the cells are unknown"),
        ({"negative_share": 0.01, "lowest_response": -2.0}, "1 % of all response values are neg"),
        ({"missing_share": 0.5}, "50 % of all response values are missing"),
        ({"channels": {}}, "Running speed was not recorded"),
        (
            {"channels": {}, "unused_devices": ("treadmill",)},
            "Running speed was recorded but is not used",
        ),
        ({"masked_trials": (3, 5)}, "2 trials (such as trial 3) were left out"),
        ({"channels": {"pupil size": np.full(9, 3.0)}}, "Pupil size is constant throughout"),
        (
            {"channels": {"pupil size": np.array([1.0, np.nan])}},
            "Pupil size is missing in 50 % of all frames",
        ),
        ({"reliability": np.full(7, -0.1)}, "no better than chance in 100 % of the neurons"),
    ],
)
def test_what_is_unusual_is_said(recording: Recording, change: dict[str, Any], words: str) -> None:
    assert words in said(replace(measured(recording), **change))


def test_negative_and_missing_modalities_from_an_archive(
    make: Callable[..., Content], store: Callable[..., Recording]
) -> None:
    content = make(modalities=("videos", "responses"))
    first = content["data/responses/0.npy"]
    first[0, 0] = -1.0
    content["data/responses/1.npy"][0, 0] = -1e-8  # rounding, as in the release
    quality = measured(store(content))
    assert quality.negative_share == pytest.approx(
        1 / (quality.neurons * quality.trials["frames"].sum()), rel=1e-9
    )
    words = said(quality)
    assert "down to -1, as" in words
    assert "Horizontal pupil position was not recorded" in words
    assert quality.padded_frames == 33


def test_padding_is_unknown_without_published_statistics(
    make: Callable[..., Content], store: Callable[..., Recording]
) -> None:
    assert measured(store(make(statistics=False))).padded_frames is None


def test_memory_does_not_grow_with_the_responses() -> None:
    """Four times the trials need no more than their behaviour and their rows more."""

    def peak(trials: int) -> int:
        frames, neurons = 100, 800
        recording = SimpleNamespace(
            animal="A",
            frame_rate_hz=30.0,
            neurons=neurons,
            modalities=("video", "responses", "behavior", "pupil_center"),
            coordinates=None,
            masked_trials=(),
            unused_devices=(),
            trials=Trials(
                first_frame=np.arange(trials) * frames,
                frames=np.full(trials, frames),
                first_response_frame=np.arange(trials) * frames,
                tier=np.array(["oracle"] * trials),
                video=np.arange(trials) // 4,
                video_id=np.array([""] * trials),
                signature=np.array([str(trial // 4) for trial in range(trials)]),
                perceptual_hash=np.array(["0"] * trials),
                pixel_type=np.array(["movie"] * trials),
                stimulus_type=np.array(["movie"] * trials),
            ),
            read=lambda modality, trial, start=0, stop=frames: (
                np.random.default_rng(trial)
                .random((stop - start, neurons if modality == "responses" else 2))
                .astype(np.float32)
            ),
        )
        recording.statistics = Mock(side_effect=StoreError("none"))
        tracemalloc.start()
        try:
            measured(recording)  # type: ignore[arg-type]
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(4)  # what is imported and cached once
    few, many = peak(8), peak(32)
    behaviour = 24 * 100 * 4 * 4 * 2  # four channels, float32, once by trial and once joined
    assert many < few + behaviour + 24 * 2000  # and the rows of the table
    assert many - few < 0.1 * 24 * 100 * 800 * 4
