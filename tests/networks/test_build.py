"""Checking a system before any job, and what a network is told of a recording."""

import numpy as np
import pytest

from sensorium_models.configuration import ConfigurationError
from sensorium_models.networks import build


@pytest.mark.parametrize("name", ["factorized_baseline", "linear_nonlinear"])
def test_shipped_systems_pass(published_system, name):
    build.check(published_system(name), frame_shape=(36, 64), file=f"{name}.yaml")


@pytest.mark.parametrize("positions", ["cortex", "random", "response_triggered_average"])
def test_every_choice_of_positions_passes(published_system, positions):
    system = published_system(readout_settings={"positions": positions})
    build.check(system, frame_shape=(36, 64), file="f.yaml")


MISTAKES = {
    "module": (
        {"core": "no_such_module:Core"},
        "core: no_such_module:Core: module no_such_module cannot be imported",
    ),
    "class": (
        {"core": "sensorium_models.networks.cores.pixels:Pixel"},
        "has no class Pixel; it has PixelCore",
    ),
    "unknown": (
        {"core_settings": {"kernel": 3}},
        "core_settings: unknown key kernel; .*FactorizedCore takes channels, spatial_kernels",
    ),
    "reserved": (
        {"core_settings": {"in_channels": 3}},
        "core_settings: unknown key in_channels",
    ),
    "missing": (
        {"readout_settings": {"replace": True, "positions": "cortex"}},
        "readout_settings: position_hidden_units is missing",
    ),
    "invalid": (
        {"readout_settings": {"positions": "retina"}},
        "readout_settings: positions must be one of cortex, random",
    ),
    "type": (
        {"core_settings": {"batch_norm_momentum": "high"}},
        "core_settings: .*not supported between",
    ),
    "kernel too large": (
        {"core_settings": {"spatial_kernels": [11, 5, 27]}},
        "core_settings: layer 2 has a spatial kernel of 27",
    ),
    "shifter": (
        {"shifter_settings": {"hidden_units": -1}},
        "shifter_settings: hidden_units",
    ),
    "clip": (
        {"recipe": {"clip_frames": 18}},
        "recipe.clip_frames: 18 frames are no longer than the history of 18 frames.* at least 19",
    ),
    "validation": (
        {"recipe": {"validation": {"frames": "clips", "skip_frames": 79}}},
        "recipe.validation.skip_frames: skipping 79 of 80 frames",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_end_in_a_sentence_that_names_file_and_key(published_system, mistake):
    changes, sentence = MISTAKES[mistake]
    with pytest.raises(ConfigurationError, match=f"^mine.yaml: (?s:.*){sentence}"):
        build.check(published_system(**changes), frame_shape=(36, 64), file="mine.yaml")


def test_shifting_a_readout_without_positions_is_refused(published_system):
    system = published_system(
        "linear_nonlinear",
        shifter="sensorium_models.networks.shifters:MLPShifter",
        shifter_settings={"hidden_units": 5, "hidden_layers": 2},
    )
    with pytest.raises(ConfigurationError, match="no positions to shift; remove shifter"):
        build.check(system, frame_shape=(36, 64), file="mine.yaml")


def test_a_core_that_breaks_its_promise_is_refused(published_system, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "promising.py").write_text(
        "from sensorium_models.networks.encoder import Core\n"
        "class Wrong(Core):\n"
        "    history_frames = 0\n"
        "    def __init__(self, *, in_channels, frame_shape):\n"
        "        super().__init__()\n"
        "        self.out_channels, self.out_shape = in_channels, frame_shape\n"
        "    def forward(self, x):\n"
        "        return x[:, :, 1:]\n"
        "class Failing(Wrong):\n"
        "    def forward(self, x):\n"
        "        return x @ x\n"
        "class Silent:\n"
        "    def __init__(self, *, in_channels, frame_shape): ...\n"
    )
    empty = {"replace": True}
    for name, sentence in (
        ("Wrong", r"promise predictions of shape \(2, 80, 3\).*but give \(2, 79, 3\)"),
        ("Failing", "a clip of 80 frames of 36 x 64 pixels fails with"),
        ("Silent", "promising:Silent lacks the attribute out_channels"),
    ):
        system = published_system(core=f"promising:{name}", core_settings=dict(empty), shifter=None)
        with pytest.raises(ConfigurationError, match=sentence):
            build.check(system, frame_shape=(36, 64), file="mine.yaml")


def test_facts_follow_the_recording_and_the_system(small_system, stored_recording, tmp_path):
    recording = stored_recording(tmp_path / "A.h5")
    facts = build.animal_facts(recording, small_system)
    std = recording.statistics("published", "responses", per_frame=True).std
    np.testing.assert_allclose(facts.normalisation.responses.scale, 1 / std, rtol=1e-6)
    assert not facts.normalisation.responses.offset.any()
    assert (facts.neurons, facts.has_behavior, facts.frame_shape) == (5, True, (12, 15))
    raw = small_system.model_copy(update={"response_unit": "raw"})
    scale = build.animal_facts(recording, raw).normalisation.responses.scale
    np.testing.assert_array_equal(scale, np.ones((1, 5)))
