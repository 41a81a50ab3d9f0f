"""Normalisation schemes against the card's formulas, element by element, and cases done by hand."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensorium_models.recordings.normalisation import (
    SCHEMES,
    SCORE_UNITS,
    Affine,
    Normalisation,
    normalisation,
    response_precision,
    score_precision,
)
from sensorium_models.recordings.statistics import Statistics
from sensorium_models.recordings.store import Recording, StoreError

# float32 offset and scale, and one subtraction and product: a few rounding errors of 6e-8.
FLOAT32 = 1e-6


def test_one_percent_rule_by_hand() -> None:
    # mean of 4, 0.02, 1.98, 2 (NaN left out) is 2, so the threshold is 0.02; equal is not above.
    std = np.array([[4.0, 0.02], [1.98, 2.0], [np.nan, np.nan]])
    expected = [[1 / 4, 1 / 0.02], [1 / 1.98, 1 / 2], [1 / 0.02, 1 / 0.02]]
    np.testing.assert_allclose(response_precision(std), expected, rtol=1e-7)


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(st.floats(0, 1e6, allow_subnormal=False), st.just(float("nan"))),
        min_size=1,
        max_size=30,
    )
)
def test_precision_is_positive_and_bounded(values: list[float]) -> None:
    std = np.array(values)
    reached = std[~np.isnan(std)]
    if not reached.size or not 0.01 * reached.mean() > 1e-30:
        return
    precision = response_precision(std)
    threshold = 0.01 * reached.mean()
    assert np.isfinite(precision).all()
    assert (precision > 0).all()
    assert precision.max() <= 1 / threshold * (1 + 1e-6)
    for value, result in zip(std, precision, strict=True):
        expected = 1 / value if value > threshold else 1 / threshold
        assert result == pytest.approx(expected, rel=1e-6)


def test_precision_without_any_variation_is_refused() -> None:
    for std in (np.zeros((3, 2)), np.full((3, 2), np.nan)):
        with pytest.raises(ValueError, match="No neuron's response varied"):
            response_precision(std)


@pytest.mark.parametrize("source", ["published", "train"])
def test_per_frame_schemes(source: Any, recording: Recording) -> None:
    scheme = normalisation(f"per_frame_{source}", recording)
    statistics = {m: recording.statistics(source, m, per_frame=True) for m in recording.modalities}
    assert scheme.frames is not None
    assert scheme.frames <= recording.trials.frames.max()
    threshold = 0.01 * np.nanmean(statistics["responses"].std)
    for trial in recording.trials_of(["train", "oracle"]):
        frames = min(int(recording.trials.frames[trial]), scheme.frames)
        frame = np.arange(frames)
        raw = {m: recording.read(m, trial, 0, frames).astype(float) for m in recording.modalities}
        mean = {m: value.mean[:frames] for m, value in statistics.items()}
        std = {m: value.std[:frames] for m, value in statistics.items()}
        expected = {
            "video": (raw["video"] - mean["video"]) / std["video"],
            "behavior": raw["behavior"] / std["behavior"],
            "pupil_center": (raw["pupil_center"] - mean["pupil_center"]) / std["pupil_center"],
            "responses": np.where(
                std["responses"] > threshold,
                raw["responses"] / std["responses"],
                raw["responses"] / threshold,
            ),
        }
        for modality, values in expected.items():
            result = getattr(scheme, modality).apply(raw[modality].astype(np.float32), frame)
            assert result.dtype == np.float32
            size = np.abs(values).max() + np.abs(mean[modality] / std[modality]).max()
            np.testing.assert_allclose(result, values, atol=FLOAT32 * size, rtol=0)


def test_frames_end_at_the_first_undefined_statistic(
    make: Any, zipped: Any, prepare: Any, tmp_path: Path
) -> None:
    content = make()
    content["meta/statistics/behavior/all/std.npy"][1, 17:] = np.nan
    content["meta/statistics/responses/all/std.npy"][:, 9:] = np.nan  # never shortens
    recording = prepare(zipped(content, tmp_path / "A.zip"), tmp_path / "A.h5")
    scheme = normalisation("per_frame_published", recording)
    assert scheme.frames == 17
    assert scheme.behavior is not None
    assert (
        len(scheme.video.offset) == len(scheme.behavior.scale) == len(scheme.responses.scale) == 17
    )
    std = content["meta/statistics/responses/all/std.npy"]
    np.testing.assert_allclose(scheme.responses.scale[9:], 1 / (0.01 * np.nanmean(std)), rtol=1e-6)


def test_frames_that_one_trial_reached_have_no_spread(
    make: Any, zipped: Any, prepare: Any, tmp_path: Path
) -> None:
    recording = prepare(zipped(make(), tmp_path / "A.zip"), tmp_path / "A.h5")
    lengths = np.sort(recording.trials.frames[recording.trials_of(["train"])])
    assert normalisation("per_frame_train", recording).frames == lengths[-2]


def test_inputs_that_never_vary_become_zero(
    make: Any, zipped: Any, prepare: Any, tmp_path: Path
) -> None:
    """A grey border and a dead channel: the kit would divide by zero."""
    content = make(video_dtype="uint8")
    for trial in range(len(content["meta/trials/tiers.npy"])):
        content[f"data/videos/{trial}.npy"][:, :2] = 128
        content[f"data/behavior/{trial}.npy"] = np.full((2, 33), 3.0)
    recording = prepare(zipped(content, tmp_path / "A.zip"), tmp_path / "A.h5")
    for scheme in (normalisation(name, recording) for name in ("per_frame_train", "global_train")):
        frame = np.arange(5)
        assert scheme.behavior is not None
        assert not scheme.behavior.apply(recording.read("behavior", 0, 0, 5), frame).any()
        video = scheme.video.apply(recording.read("video", 0, 0, 5).astype(np.float32), frame)
        assert np.isfinite(video).all()
    per_frame = normalisation("per_frame_train", recording)
    assert per_frame.frames is not None
    assert not per_frame.video.scale[:, :, :2].any()


def test_global_scheme_standardises_the_training_tier(recording: Recording) -> None:
    scheme = normalisation("global_train", recording)
    assert scheme.frames is None
    trials = recording.trials_of(["train"])
    together = {
        m: np.concatenate([recording.read(m, t) for t in trials]).astype(np.float64)
        for m in recording.modalities
    }
    frame = np.zeros(len(together["video"]), dtype=np.int64)
    video = scheme.video.apply(together["video"], frame)
    assert video.mean() == pytest.approx(0, abs=1e-6)
    assert video.std() == pytest.approx(1, rel=1e-6)
    assert scheme.behavior is not None
    assert scheme.pupil_center is not None
    behavior = scheme.behavior.apply(together["behavior"], frame)
    np.testing.assert_allclose(behavior.std(axis=0), 1, rtol=1e-6)
    np.testing.assert_allclose(
        behavior.mean(axis=0) / together["behavior"].mean(axis=0),
        1 / together["behavior"].std(axis=0),
        rtol=1e-6,
    )
    pupil = scheme.pupil_center.apply(together["pupil_center"], frame)
    np.testing.assert_allclose(pupil.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(pupil.std(axis=0), 1, rtol=1e-6)
    np.testing.assert_allclose(
        scheme.responses.scale[0], 1 / together["responses"].std(axis=0), rtol=1e-6
    )


@pytest.fixture(scope="session")
def released(
    make: Any, zipped: Any, prepare: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Recording]:
    """An archive with one nearly silent neuron, and its recording."""
    folder = tmp_path_factory.mktemp("cards")
    content = make(seed=11)
    for trial in range(len(content["meta/trials/tiers.npy"])):
        content[f"data/responses/{trial}.npy"][3] *= 1e-4
    return content, prepare(zipped(content, folder / "A.zip"), folder / "A.h5")


def stacked(content: dict[str, Any], name: str, frames: int) -> np.ndarray:
    """Training trials (trials, ..., frames) of an archive, NaN where padded."""
    trials = np.flatnonzero(content["meta/trials/tiers.npy"] == "train")
    arrays = [content[f"data/{name}/{trial}.npy"][..., :frames] for trial in trials]
    return np.stack(arrays).astype(np.float64)


def assert_maps_as(
    scheme: Normalisation, recording: Recording, expected: dict[str, Any], sizes: dict[str, float]
) -> None:
    """`expected` formulas take raw float64 frames (T, ...) and frame indices (T,)."""
    for trial in recording.trials_of(["train", "oracle"])[:6]:
        frames = int(recording.trials.frames[trial])
        frames = frames if scheme.frames is None else min(frames, scheme.frames)
        frame = np.arange(frames)
        for modality, formula in expected.items():
            raw = recording.read(modality, trial, 0, frames)
            result = getattr(scheme, modality).apply(raw.astype(np.float32), frame)
            right = formula(raw.astype(np.float64), frame)
            # Cancellation in x - offset leaves the rounding of the larger of the two, scaled.
            limit = FLOAT32 * (np.abs(right).max() + sizes.get(modality, 0.0))
            np.testing.assert_allclose(result, right, atol=limit, rtol=FLOAT32)


@pytest.mark.filterwarnings("ignore:Degrees of freedom:RuntimeWarning")
def test_viv1t_is_its_card(released: Any) -> None:
    """Card A1: statistics of `train` over trials per frame index, the odd min-max of the video."""
    content, recording = released
    scheme = normalisation("viv1t", recording)
    lengths = np.sort(recording.trials.frames[recording.trials_of(["train"])])
    assert scheme.frames == lengths[-2]  # beyond, one trial alone has no range
    frames = scheme.frames
    video, behavior, pupil, responses = (
        np.moveaxis(stacked(content, name, frames), -1, 1)
        for name in ("videos", "behavior", "pupil_center", "responses")
    )
    mean, std = np.nanmean(video, axis=0), np.nanstd(video, axis=0)
    # Two trials, one of them black: standard deviation and mean agree, the card divides by 0.
    same = np.isclose(std, mean, rtol=1e-7, atol=0)
    assert same.any()
    scale = np.where(same, 0, 1 / np.where(same, 1, std - mean))
    low, high = {}, {}
    for name, values in (("behavior", behavior), ("pupil_center", pupil)):
        low[name], high[name] = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
    spread = np.nanstd(np.moveaxis(stacked(content, "responses", 33), -1, 1), axis=0)
    threshold = 0.01 * np.nanmean(spread)
    spread = np.nanstd(responses, axis=0)
    assert (spread[:, 3] < threshold).all()
    precision = np.where(spread > threshold, 1 / np.maximum(spread, 1e-9), 1 / threshold)
    assert_maps_as(
        scheme,
        recording,
        {
            "video": lambda x, t: (x - mean[t]) * scale[t],
            "behavior": lambda x, t: (
                (x - low["behavior"][t]) / (high["behavior"][t] - low["behavior"][t])
            ),
            "pupil_center": lambda x, t: (
                (x - low["pupil_center"][t]) / (high["pupil_center"][t] - low["pupil_center"][t])
            ),
            "responses": lambda x, t: x * precision[t],
        },
        {
            "video": float(255 * np.abs(scale).max()),
            "behavior": float((high["behavior"] / (high["behavior"] - low["behavior"])).max()),
            "pupil_center": float(
                (high["pupil_center"] / (high["pupil_center"] - low["pupil_center"])).max()
            ),
        },
    )


def test_viv1t_scales_behaviour_to_zero_and_one(recording: Recording) -> None:
    scheme = normalisation("viv1t", recording)
    assert scheme.frames is not None
    for modality in ("behavior", "pupil_center"):
        seen = np.full((len(recording.trials_of(["train"])), scheme.frames, 2), np.nan)
        for row, trial in enumerate(recording.trials_of(["train"])):
            frames = min(int(recording.trials.frames[trial]), scheme.frames)
            raw = recording.read(modality, trial, 0, frames)
            seen[row, :frames] = getattr(scheme, modality).apply(raw, np.arange(frames))
        np.testing.assert_allclose(np.nanmin(seen, axis=0), 0, atol=1e-5)
        np.testing.assert_allclose(np.nanmax(seen, axis=0), 1, atol=1e-5)


def test_global_scheme_is_the_card_of_viv1t_2025(released: Any) -> None:
    """Card B: over trials and time; one mean and standard deviation for all pixels; with eps."""
    content, recording = released
    eps = np.finfo(np.float32).eps
    scheme = normalisation("global_train", recording)
    video = stacked(content, "videos", 33)
    pairs = {name: stacked(content, name, 33) for name in ("behavior", "pupil_center")}
    mean, std = np.nanmean(video), np.nanstd(video)
    pair_std = {name: np.nanstd(values, axis=(0, 2)) for name, values in pairs.items()}
    pair_mean = {name: np.nanmean(values, axis=(0, 2)) for name, values in pairs.items()}
    spread = np.nanstd(stacked(content, "responses", 33), axis=(0, 2))
    threshold = 0.01 * spread.mean()
    assert spread[3] < threshold
    precision = np.where(spread > threshold, 1 / spread, 1 / threshold)
    np.testing.assert_allclose(
        score_precision("per_neuron_train", recording)[0], precision, rtol=FLOAT32
    )
    assert_maps_as(
        scheme,
        recording,
        {
            "video": lambda x, t: (x - mean) / (std + eps),
            "behavior": lambda x, t: x / pair_std["behavior"],
            "pupil_center": lambda x, t: (
                (x - pair_mean["pupil_center"]) / (pair_std["pupil_center"] + eps)
            ),
            "responses": lambda x, t: x * precision,
        },
        {"video": 255 / std, "pupil_center": float((100 / pair_std["pupil_center"]).max())},
    )


def test_identity_scheme(recording: Recording) -> None:
    scheme = normalisation("none", recording)
    frame = np.arange(6)
    for modality in recording.modalities:
        raw = recording.read(modality, 1, 0, 6).astype(np.float32)
        np.testing.assert_array_equal(getattr(scheme, modality).apply(raw, frame), raw)


def test_score_units(recording: Recording) -> None:
    shapes = {}
    for unit in SCORE_UNITS:
        precision = score_precision(unit, recording)
        assert precision.dtype == np.float32
        assert (precision > 0).all()
        shapes[unit] = precision.shape
    assert shapes["raw"] == shapes["per_neuron_train"] == (1, 7)
    assert shapes["per_frame_published"] == (33, 7)
    assert (score_precision("raw", recording) == 1).all()
    pooled = recording.statistics("train", "responses", per_frame=False)
    np.testing.assert_allclose(
        score_precision("per_neuron_train", recording)[0], 1 / pooled.std, rtol=1e-6
    )
    np.testing.assert_array_equal(
        score_precision("per_frame_train", recording)[:5],
        normalisation("per_frame_train", recording).responses.scale[:5],
    )


def test_missing_modalities_and_statistics(
    make: Any, zipped: Any, prepare: Any, tmp_path: Path
) -> None:
    content = make(modalities=("videos", "responses"), statistics=False)
    recording = prepare(zipped(content, tmp_path / "A.zip"), tmp_path / "A.h5")
    for name in ("per_frame_train", "global_train", "none"):
        scheme = normalisation(name, recording)
        assert scheme.behavior is None
        assert scheme.pupil_center is None
    with pytest.raises(StoreError, match=r"no published statistics of video.*per_frame_train"):
        normalisation("per_frame_published", recording)


def test_one_training_trial_has_no_per_frame_spread(
    make: Any, zipped: Any, prepare: Any, tmp_path: Path
) -> None:
    recording = prepare(zipped(make(train=1), tmp_path / "A.zip"), tmp_path / "A.h5")
    with pytest.raises(ValueError, match=r"defined for no frame index.*global_train"):
        normalisation("per_frame_train", recording)
    assert normalisation("global_train", recording).frames is None


def test_unknown_names_are_refused(recording: Recording) -> None:
    with pytest.raises(ValueError, match=f"no normalisation scheme 'zscore'.*{SCHEMES[0]}"):
        normalisation("zscore", recording)
    with pytest.raises(ValueError, match="no score unit 'counts'"):
        score_precision("counts", recording)


def test_affine_refuses_different_shapes() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        Affine(np.zeros((1, 2), np.float32), np.ones((3, 2), np.float32))


def test_blank_frames_inside_do_not_end_the_scheme() -> None:
    """Every trial begins with the same grey frame: no spread there, but the scheme goes on."""
    rng = np.random.default_rng(0)
    video = rng.uniform(1, 2, (6, 2, 3))
    video[0] = 0
    arrays = {"video": video, "responses": rng.uniform(1, 2, (6, 4))}

    def statistics(source: str, modality: str, *, per_frame: bool) -> Statistics:
        value = arrays[modality]
        return Statistics(mean=value, std=value, min=value, max=value)

    fake: Any = SimpleNamespace(animal="A", modalities=tuple(arrays), statistics=statistics)
    scheme = normalisation("per_frame_train", fake)
    assert scheme.frames == 6
    assert not scheme.video.scale[0].any()
