"""Members on disk: what is saved comes back, and damaged or foreign members are refused."""

import json

import pytest
import torch

from sensorium_models.networks import members
from sensorium_models.networks.build import animal_facts, build_encoder


@pytest.fixture
def member(small_system, stored_recording, tmp_path, monkeypatch):
    """A stored member of animals A and B and its network."""
    monkeypatch.setattr(members, "Recording", stored_recording)
    recordings = {animal: tmp_path / f"{animal}.h5" for animal in "AB"}
    facts = {
        animal: animal_facts(stored_recording(path), small_system)
        for animal, path in recordings.items()
    }
    encoder = build_encoder(small_system, facts, seed=5)
    for name, buffer in encoder.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            torch.nn.init.uniform_(buffer, 0.5, 2)
    folder = tmp_path / "seed5"
    members.save_weights(folder / "weights.safetensors", encoder)
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
    loaded = members.load_encoder(folder, recordings)
    assert torch.equal(random, torch.random.get_rng_state())
    assert not loaded.training
    for animal in "AB":
        clip = make_clip(animal)
        with torch.no_grad():
            assert torch.equal(loaded(clip), encoder.eval()(clip))


def test_a_member_can_be_loaded_for_some_of_its_animals(member, make_clip):
    folder, recordings, encoder = member
    loaded = members.load_encoder(folder, {"B": recordings["B"]})
    assert loaded.animals == ("B",)
    with torch.no_grad():
        assert torch.equal(loaded(make_clip("B")), encoder.eval()(make_clip("B")))
    with pytest.raises(ValueError, match=r"knows animals A, B, none of which is among .*C"):
        members.load_encoder(folder, {"C": recordings["A"]})


def test_another_recording_of_the_animal_is_refused(member):
    folder, recordings, _ = member
    with pytest.raises(ValueError, match=r"another recording of animal A .digest digest of A."):
        members.load_encoder(folder, {**recordings, "A": recordings["B"]})


def test_damaged_members_are_named(member):
    folder, recordings, encoder = member
    weights = folder / "weights.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(good[: len(good) // 2])
    with pytest.raises(ValueError, match=r"weights\.safetensors cannot be read"):
        members.load_encoder(folder, recordings)

    del encoder.readouts["B"]
    members.save_weights(weights, encoder)
    with pytest.raises(ValueError, match=r"does not fit .*lacks readouts\.B\.bias"):
        members.load_encoder(folder, recordings)

    encoder.readouts["B"] = encoder.readouts["A"]
    encoder.extra = torch.nn.Linear(1, 1)
    members.save_weights(weights, encoder)
    with pytest.raises(ValueError, match=r"has an unknown extra\.bias"):
        members.load_encoder(folder, recordings)

    (folder / "run.json").write_text('{"system": ')
    with pytest.raises(ValueError, match=r"run\.json: is no valid record .*train it again"):
        members.load_encoder(folder, recordings)
    (folder / "run.json").write_text('{"system": {}}')
    with pytest.raises(ValueError, match=r"run\.json lacks animals, recordings"):
        members.load_encoder(folder, recordings)
    (folder / "run.json").unlink()
    with pytest.raises(ValueError, match="does not exist; is this the folder of a finished member"):
        members.load_encoder(folder, recordings)
