"""Checking a system before any job, and members on disk."""

import json

import numpy as np
import pytest
import torch

from sensorium_models.networks import build
from sensorium_models.recordings.statistics import Statistics
from sensorium_models.study import ConfigurationError


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


class StoredRecording:
    """Stands for a recording store: statistics and the facts that a network needs."""

    neurons, frame_shape = 5, (12, 15)
    modalities = ("video", "responses", "behavior", "pupil_center")

    def __init__(self, path):
        self.animal, self.digest = path.stem, f"digest of {path.stem}"
        self.coordinates = np.random.default_rng(len(self.animal)).normal(size=(5, 3))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def statistics(self, source, modality, *, per_frame):
        shape = {"video": self.frame_shape, "responses": (5,)}.get(modality, (2,))
        shape = (30, *shape) if per_frame else shape
        random = np.random.default_rng(len(modality))
        mean, std = random.normal(size=shape), random.uniform(0.5, 2, shape)
        return Statistics(mean=mean, std=std, min=mean - 1, max=mean + 1)


@pytest.fixture
def member(small_system, tmp_path, monkeypatch):
    """A stored member of animals A and B and its network."""
    monkeypatch.setattr(build, "Recording", StoredRecording)
    recordings = {animal: tmp_path / f"{animal}.h5" for animal in "AB"}
    facts = {
        animal: build.animal_facts(StoredRecording(path), small_system)
        for animal, path in recordings.items()
    }
    encoder = build.build_encoder(small_system, facts, seed=5)
    for name, buffer in encoder.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            torch.nn.init.uniform_(buffer, 0.5, 2)
    folder = tmp_path / "seed5"
    build.save_weights(folder / "weights.safetensors", encoder)
    record = {
        "system": small_system.model_dump(mode="json"),
        "animals": ["A", "B"],
        "recordings": {animal: f"digest of {animal}" for animal in "AB"},
    }
    (folder / "run.json").write_text(json.dumps(record))
    return folder, recordings, encoder


def test_a_member_comes_back_as_it_was_saved(member, make_clip):
    folder, recordings, encoder = member
    random = torch.random.get_rng_state()
    loaded = build.load_encoder(folder, recordings)
    assert torch.equal(random, torch.random.get_rng_state())
    assert not loaded.training
    for animal in "AB":
        clip = make_clip(animal)
        with torch.no_grad():
            assert torch.equal(loaded(clip), encoder.eval()(clip))


def test_a_member_can_be_loaded_for_some_of_its_animals(member, make_clip):
    folder, recordings, encoder = member
    loaded = build.load_encoder(folder, {"B": recordings["B"]})
    assert loaded.animals == ("B",)
    with torch.no_grad():
        assert torch.equal(loaded(make_clip("B")), encoder.eval()(make_clip("B")))
    with pytest.raises(ValueError, match=r"knows animals A, B, none of which is among .*C"):
        build.load_encoder(folder, {"C": recordings["A"]})


def test_another_recording_of_the_animal_is_refused(member):
    folder, recordings, _ = member
    with pytest.raises(ValueError, match=r"another recording of animal A .digest digest of A."):
        build.load_encoder(folder, {**recordings, "A": recordings["B"]})


def test_damaged_members_are_named(member):
    folder, recordings, encoder = member
    weights = folder / "weights.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(good[: len(good) // 2])
    with pytest.raises(ValueError, match=r"weights\.safetensors cannot be read"):
        build.load_encoder(folder, recordings)

    del encoder.readouts["B"]
    build.save_weights(weights, encoder)
    with pytest.raises(ValueError, match=r"does not fit .*lacks readouts\.B\.bias"):
        build.load_encoder(folder, recordings)

    encoder.readouts["B"] = encoder.readouts["A"]
    encoder.extra = torch.nn.Linear(1, 1)
    build.save_weights(weights, encoder)
    with pytest.raises(ValueError, match=r"has an unknown extra\.bias"):
        build.load_encoder(folder, recordings)

    (folder / "run.json").write_text('{"system": {}}')
    with pytest.raises(ValueError, match=r"run\.json lacks animals, recordings"):
        build.load_encoder(folder, recordings)
    (folder / "run.json").unlink()
    with pytest.raises(ValueError, match="does not exist; is this the folder of a finished member"):
        build.load_encoder(folder, recordings)


def test_facts_follow_the_recording_and_the_system(small_system, tmp_path):
    recording = StoredRecording(tmp_path / "A.h5")
    facts = build.animal_facts(recording, small_system)
    std = recording.statistics("published", "responses", per_frame=True).std
    np.testing.assert_allclose(facts.normalisation.responses.scale, 1 / std, rtol=1e-6)
    assert not facts.normalisation.responses.offset.any()
    assert (facts.neurons, facts.has_behavior, facts.frame_shape) == (5, True, (12, 15))
    raw = small_system.model_copy(update={"response_unit": "raw"})
    scale = build.animal_facts(recording, raw).normalisation.responses.scale
    np.testing.assert_array_equal(scale, np.ones((1, 5)))
