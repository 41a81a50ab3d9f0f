"""A published checkpoint becomes a member that predicts as its network did."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from sensorium_models import inference
from sensorium_models.finished import OUTPUTS
from sensorium_models.networks.build import animal_facts, build_encoder
from sensorium_models.networks.members import load_encoder
from sensorium_models.networks.published import write_checkpoint
from sensorium_models.recordings.store import Recording
from sensorium_models.training.importing import import_member

FOLDERS = {"A": "dynamic29156-11-10-Video-8744", "B": "dynamic29228-2-10-Video-8744"}


@pytest.fixture
def published(laboratory, shrunk, tmp_path):
    """A network and its checkpoint in the original naming."""
    system = shrunk(readout_settings={"positions": "cortex"})
    facts = {}
    for animal, path in laboratory.stores.items():
        with Recording(path) as recording:
            facts[animal] = animal_facts(recording, system)
    encoder = build_encoder(system, facts, seed=7).eval()
    for name, values in encoder.state_dict().items():
        if name.endswith(("running_mean", "running_var")):
            torch.nn.init.uniform_(values, 0.5, 2)
    write_checkpoint(tmp_path / "published.pt", encoder, folders=FOLDERS)
    return system, encoder, tmp_path / "published.pt"


def imported(laboratory, system, checkpoint, output):
    import_member(
        system=system,
        member="seed3",
        axes={"seed": 3},
        training_set="clean",
        checkpoint=checkpoint,
        recordings=laboratory.stores,
        folders=FOLDERS,
        splits=laboratory.splits,
        output=output,
        record={"fingerprint": {"digest": "abc"}},
    )


def test_an_imported_member_predicts_as_the_published_network(laboratory, published, tmp_path):
    system, encoder, checkpoint = published
    folder = tmp_path / "member"
    imported(laboratory, system, checkpoint, folder)
    assert all((folder / name).exists() for name in OUTPUTS)
    assert pd.read_csv(folder / "history.csv").empty
    record = json.loads((folder / "run.json").read_text())
    assert record["animals"] == ["A", "B"]
    assert record["imported_from"]["path"] == str(checkpoint)
    assert len(record["imported_from"]["sha256"]) == 64
    assert record["fingerprint"] == {"digest": "abc"}
    loaded = load_encoder(folder, laboratory.stores)
    for animal, path in laboratory.stores.items():
        with Recording(path) as recording:
            rates = [
                inference.predict_trial(network, recording, 0, system=system, cap_frames=None)
                for network in (loaded, encoder)
            ]
        np.testing.assert_array_equal(rates[0], rates[1])
        assert rates[0].shape[1] == {"A": 9, "B": 5}[animal]


def test_a_checkpoint_that_does_not_fit_makes_no_member(laboratory, published, tmp_path):
    system, _, checkpoint = published
    folder = tmp_path / "member"
    wider = system.model_copy(
        update={"core_settings": {**system.core_settings, "channels": [4, 7]}}
    )
    with pytest.raises(ValueError, match=r"published\.pt does not fit .*layer1\.conv_spatial_1"):
        imported(laboratory, wider, checkpoint, folder)
    assert not (folder / "run.json").exists()
