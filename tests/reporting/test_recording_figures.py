"""Figures of what was recorded: what they show, at all sizes, and what they say without data."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sensorium_models.reporting import composition, example_trial, stimulus_frames, style
from sensorium_models.reporting.page import SECTIONS
from tests.layout import assert_tidy, saved

pytestmark = pytest.mark.slow

ROLES = {
    "train": "train",
    "oracle": "select",
    "live_test_main": "test",
    "live_test_bonus": "test",
    "final_test_main": "test",
    "final_test_bonus": "test",
    "none": "unused",
}
# Trials of an animal of the release (specs/dataset.md, section 4).
COUNTS = {"train": 350, "oracle": 59, "live_test_main": 56, "live_test_bonus": 59}
COUNTS |= {"final_test_main": 58, "final_test_bonus": 138, "none": 20}


def _composition(animal: str, counts: dict[str, int], *, withheld: bool) -> Any:
    rows = [
        (
            tier,
            ["gaussian_dots", "random_dots"][trial % 2] if "bonus" in tier else "movie",
            300,
            withheld and "test" in tier,
        )
        for tier, count in counts.items()
        for trial in range(count)
    ]
    columns = ["tier", "stimulus_type", "frames", "withheld"]
    return composition.Composition(animal, 7_440, 30.0, pd.DataFrame(rows, columns=columns))


@pytest.mark.parametrize("animals", [1, 10])
def test_composition_counts_the_trials_of_every_tier(animals: int) -> None:
    recordings = [_composition(a, COUNTS, withheld=a > "E") for a in "ABCDEFGHIJ"[:animals]]
    drawing = composition.draw(recordings, tiers=ROLES, simulated=False)
    axes = drawing.figure.axes[0]
    words = [text.get_text() for text in axes.texts]
    assert words.count("350") == animals
    assert words.count("69") == 2 * animals  # the final bonus tier, two types
    assert "20" not in words  # what serves nothing is not shown
    bars = [patch.get_width() for patch in axes.patches]
    assert sum(bars) == pytest.approx(animals * 720 * 300 / 30 / 60)
    assert f"{animals} recordings ({7440 * animals:,} neurons)" in drawing.caption
    assert ("Crossed" in drawing.caption) == (animals == 10)
    assert drawing.section in SECTIONS
    assert_tidy(drawing.figure)


def test_composition_of_a_withheld_tier_is_crossed() -> None:
    drawing = composition.draw(
        [_composition("F", {"train": 5, "final_test_main": 4}, withheld=True)],
        tiers=ROLES,
        simulated=True,
    )
    strokes = [line for line in drawing.figure.axes[0].get_lines() if line.get_linewidth() == 0.7]
    assert len(strokes) == 2
    (low, high) = strokes[0].get_xdata()
    assert high - low == pytest.approx(4 * 300 / 30 / 60)
    assert "simulated" in drawing.caption


def test_composition_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to compose"):
        composition.draw([], tiers=ROLES, simulated=False)
    with pytest.raises(ValueError, match="nothing to compose"):
        composition.draw(
            [_composition("A", {"none": 3}, withheld=False)], tiers=ROLES, simulated=False
        )


def _stimulus(kind: str, *, shape: tuple[int, int] = (36, 64)) -> stimulus_frames.StimulusFrames:
    rng = np.random.default_rng(2)
    frames = rng.integers(0, 255, (6, *shape)).astype(np.uint8)
    return stimulus_frames.StimulusFrames(kind, "A", "train", 3, frames, np.arange(6) * 1.7)


@pytest.mark.parametrize("kinds", [["movie"], list(style.STIMULUS_LABELS)])
def test_stimuli_are_shown_one_type_to_a_row(kinds: list[str], tmp_path: Path) -> None:
    drawing = stimulus_frames.draw([_stimulus(kind) for kind in kinds], simulated=False)
    images = [axes.get_images()[0] for axes in drawing.figure.axes]
    assert len(images) == 6 * len(kinds)
    assert {image.get_clim() for image in images} == {(0, 255)}
    for kind in kinds:
        assert f"{style.STIMULUS_LABELS[kind]}: animal A, tier train, trial 3" in drawing.caption
    assert_tidy(drawing.figure)
    saved(drawing, tmp_path)


def test_stimuli_of_unknown_type_are_said_to_be_missing() -> None:
    drawing = stimulus_frames.draw([], simulated=True)
    assert "no trial of this study has a known type" in drawing.caption


def test_a_frame_that_shows_something_stands_for_each_part() -> None:
    # Ten frames of grey with one picture in the middle of each part: that one is shown.
    video = np.full((60, 4, 4), 127, dtype=np.uint8)
    pictures = np.arange(6) * 10 + 5
    video[pictures, ::2] = 255
    np.testing.assert_array_equal(stimulus_frames._contrasted(video), pictures)
    np.testing.assert_array_equal(stimulus_frames._contrasted(video[:1]), [0])


def _trial(*, neurons: int = 40, **changes: Any) -> example_trial.ExampleTrial:
    rng = np.random.default_rng(4)
    frames = 300
    facts: dict[str, Any] = {
        "animal": "A",
        "tier": "train",
        "trial": 2,
        "stimulus_type": "movie",
        "frame_rate_hz": 30.0,
        "video": rng.integers(0, 255, (frames, 36, 64)).astype(np.uint8),
        "channels": {
            "pupil size": 40 + rng.normal(0, 5, frames).cumsum() / 10,
            "running speed": np.zeros(frames),
            "horizontal pupil position": 150 + rng.normal(0, 1, frames),
            "vertical pupil position": 120 + rng.normal(0, 1, frames),
        },
        "responses": rng.exponential(1.0, (frames, neurons)),
    }
    return example_trial.ExampleTrial(**{**facts, **changes})


@pytest.mark.parametrize("neurons", [1, 40, 8000])
def test_example_of_any_number_of_neurons(neurons: int, tmp_path: Path) -> None:
    drawing = example_trial.draw(_trial(neurons=neurons), simulated=False)
    assert f"n = {neurons:,} neurons" in drawing.caption
    assert_tidy(drawing.figure)
    pdf, png = saved(drawing, tmp_path)
    assert len(pdf) < 1_000_000
    assert len(png) < 2_000_000


def test_example_without_behaviour_says_what_is_missing() -> None:
    drawing = example_trial.draw(_trial(channels={}), simulated=True)
    assert "Not recorded: pupil size, running speed, horizontal pupil position" in drawing.caption
    assert_tidy(drawing.figure)


def test_example_without_a_public_trial_says_so() -> None:
    assert "No example" in example_trial.draw(None, simulated=False).caption


def test_neurons_that_vary_together_lie_together() -> None:
    rng = np.random.default_rng(0)
    common = rng.normal(0, 1, 200)
    signs = np.array([1, -1, 1, -1, 1, 1, 0])
    responses = 5 + signs * common[:, None] + 0.1 * rng.normal(0, 1, (200, 7))
    responses[:, 6] = 3.0  # never changes
    activity, order = example_trial.ordered_activity(responses)
    assert set(order[:4]) == {0, 2, 4, 5}
    assert order[4] == 6
    assert set(order[5:]) == {1, 3}
    np.testing.assert_allclose(activity[:4].std(axis=1), 1.0)
    np.testing.assert_array_equal(activity[4], 3.0)


def test_recording_figures_come_before_the_sheets(made: SimpleNamespace) -> None:
    drawings = [
        example_trial.draw(_trial(), simulated=False),
        stimulus_frames.draw([_stimulus("movie")], simulated=False),
        composition.draw([_composition("A", COUNTS, withheld=False)], tiers=ROLES, simulated=False),
    ]
    assert {drawing.section for drawing in drawings} == {"recordings"}
    assert [drawing.order for drawing in drawings] == [-5, -4, -3]
