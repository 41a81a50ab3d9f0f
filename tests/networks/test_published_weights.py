"""Checkpoints in the original naming: the cards' tables, the round trip, and every fault named."""

import dataclasses
import pickle

import numpy as np
import pytest
import torch

from sensorium_models.configuration import REPOSITORY
from sensorium_models.networks import build
from sensorium_models.networks.published import (
    load_published,
    published_tensors,
    read_checkpoint,
    write_checkpoint,
)
from sensorium_models.networks.published_names.naming import mouse_letter

FOLDERS = {
    "F": "dynamic29515-10-12-Video-9b4f6a1a067fe51e15306b9628efea20",
    "A": "dynamic29156-11-10-Video-8744edeac3b4d1ce16b680916b5267ce",
}
# Key of each animal in the original; where it is the folder, the name is long.
KEYS = {
    "factorized_baseline": FOLDERS,
    "gru_baseline": FOLDERS,
    "viv1t": {"F": "F", "A": "A"},
    "viv1t_2025": {"F": "F", "A": "A"},
    "dwiseneuro": {"F": "0", "A": "5"},
}
# Tables of tensors of the model cards: shapes for 7,863 neurons, {K} an animal's key.
TABLES = {
    "factorized_baseline": {
        "core.features.layer0.conv_spatial.weight": (32, 3, 1, 11, 11),
        "core.features.layer0.conv_temporal.bias": (32,),
        "core.features.layer0.norm.num_batches_tracked": (),
        "core.features.layer1.conv_spatial_1.weight": (64, 32, 1, 5, 5),
        "core.features.layer2.conv_temporal_2.weight": (128, 128, 5, 1, 1),
        "core.features.layer2.norm.running_var": (128,),
        "readout.{K}.sigma": (1, 7863, 2, 2),
        "readout.{K}._features": (1, 128, 1, 7863),
        "readout.{K}.bias": (7863,),
        "readout.{K}.source_grid": (7863, 2),
        "readout.{K}.mu_transform.0.weight": (30, 2),
        "readout.{K}.mu_transform.2.bias": (2,),
        "shifter.{K}.mlp.0.weight": (5, 2),
        "shifter.{K}.mlp.4.bias": (2,),
        "core._input_weight_regularizer.laplace.filter": (1, 1, 3, 3),
        "core.temporal_regularizer.laplace.filter": (1, 1, 3),
    },
    "gru_baseline": {
        "core.features.layer0.hermite_conv.coeffs": (45, 3, 8),
        "core.features.layer0.hermite_conv.rotate_hermite.H": (45, 18, 18),
        "core.features.layer0.hermite_conv.rotate_hermite.Rs.7": (45, 45),
        "core.features.layer3.hermite_conv.coeffs": (28, 64, 8),
        "core.features.layer3.hermite_conv.rotate_hermite.H": (28, 14, 14),
        "core.features.layer3.norm.batch_norm.running_mean": (8,),
        "core.features.layer3.norm.batch_norm.num_batches_tracked": (),
        "core._input_weights_regularizer.laplace.filter": (1, 1, 3, 3),
        "gru_module.gru.reset_gate_input.weight": (64, 64, 9, 9),
        "gru_module.gru.out_gate_hidden.bias": (64,),
        "readout.{K}._features": (1, 64, 1, 7863),
    },
    "viv1t": {
        "core.vivit.tokenizer.spatial_pos_embedding": (1, 1, 435, 112),
        "core.vivit.tokenizer.temporal_pos_embedding": (1, 276, 1, 112),
        "core.vivit.tokenizer.tokenizer.1.weight": (6125,),
        "core.vivit.tokenizer.tokenizer.2.weight": (112, 6125),
        "core.vivit.tokenizer.tokenizer.3.bias": (112,),
        "core.vivit.spatial_transformer.blocks.2.fused_linear.weight": (1720, 112),
        "core.vivit.temporal_transformer.blocks.4.attn_out.weight": (112, 528),
        "core.vivit.temporal_transformer.blocks.0.ff_out.2.weight": (112, 136),
        "core.vivit.temporal_transformer.blocks.0.norm.bias": (112,),
        "core.vivit.temporal_transformer.blocks.0.scale": (),
        "core.vivit.temporal_transformer.blocks.0.drop_path2.keep_prob": (),
        "core.vivit.reg_scale": (),
        "shifters.{K}.mlp.2.weight": (5, 5),
        "readouts.{K}.sigma": (1, 7863, 2, 2),
        "readouts.{K}.features": (1, 112, 7863),
        "readouts.{K}.state_encoder.0.weight": (112, 4),
        "readouts.{K}.state_encoder.1.weight": (112,),
        "readouts.{K}.state_encoder.4.bias": (112,),
    },
    "viv1t_2025": {
        "core.tokenizer.tokenizer.norm.weight": (3185,),
        "core.tokenizer.tokenizer.linear.weight": (112, 3185),
        "core.tokenizer.norm.bias": (112,),
        "core.vivit.reg_s_tokens": (24, 112),
        "core.vivit.reg_t_tokens": (24, 112),
        "core.vivit.spatial_transformer.blocks.13.fused_linear.weight": (704, 112),
        "core.vivit.temporal_transformer.blocks.13.ff_out.2.weight": (112, 224),
        "core.vivit.temporal_transformer.blocks.0.rotary_position_embedding.inv_freq": (40,),
        "core.vivit.temporal_transformer.blocks.0.rotary_position_embedding.scale": (40,),
        "readouts.{K}.features": (1, 112, 7863),
    },
    "dwiseneuro": {
        "core.stem.0.weight": (64, 5, 1, 1, 1),
        "core.stem.1.bn.running_mean": (64,),
        "core.blocks.0.inv_freq": (11,),
        "core.blocks.16.inv_freq": (43,),
        "core.blocks.1.conv_pw.0.weight": (448, 64, 1, 1, 1),
        "core.blocks.1.spat_covn_dw.0.weight": (448, 1, 1, 3, 3),
        "core.blocks.1.temp_covn_dw.0.weight": (448, 1, 5, 1, 1),
        "core.blocks.1.temp_covn_dw.1.bn.bias": (448,),
        "core.blocks.1.se.conv_reduce.weight": (14, 448, 1, 1, 1),
        "core.blocks.1.se.conv_expand.bias": (448,),
        "core.blocks.7.conv_pwl.0.weight": (128, 448, 1, 1, 1),
        "core.blocks.7.bn_sc.bn.weight": (128,),
        "core.blocks.17.conv_pwl.0.weight": (256, 1792, 1, 1, 1),
        "cortex.layers.0.conv.weight": (1024, 128, 1),
        "cortex.layers.2.bn.bn.weight": (4096,),
        "cortex.layers.2.bn_sc.bn.weight": (4096,),
        "readouts.{K}.layer.1.weight": (7864, 2048, 1),
        "readouts.{K}.layer.1.bias": (7864,),
    },
}
TABLES["dynamic_v1fm"] = {
    "core.patch_embedding.proj.weight": (224, 1, 2, 2, 2),
    "core.patch_embedding.norm.bias": (224,),
    "core.transformer.blocks.0.mha.relative_position_bias_table": (2535, 4),
    "core.transformer.blocks.3.mha.relative_position_index": (392, 392),
    "core.transformer.blocks.3.mha.qkv.weight": (672, 224),
    "core.transformer.blocks.3.mha.proj.bias": (224,),
    "core.transformer.blocks.3.mlp.linear1.0.weight": (976, 224),
    "core.transformer.blocks.3.mlp.dwconv.0.conv.weight": (488, 1, 3, 3, 3),
    "core.transformer.blocks.3.mlp.linear2.0.weight": (224, 488),
    "core.transformer.blocks.3.b-mlp.model.0.weight": (112, 4),
    "core.transformer.blocks.3.b-mlp.model.3.bias": (112,),
    "core.transformer.drop_path.keep_prop": (),
    "readout.{K}.sigma": (1, 7863, 2, 2),
    "readout.{K}._features": (1, 224, 1, 7863),
    "readout.{K}._features2": (1, 224, 1, 3931),
    "readout.{K}._features16": (1, 224, 1, 491),
    "readout.{K}.mu_transform.0.weight": (32, 2),
    "readout.{K}.up_refine2.0.weight": (32, 1, 1),
    "readout.{K}.up_refine16.0.bias": (256,),
    "readout.{K}.up_refine16.2.weight": (1, 256, 1),
    "readout.{K}.fusion_block5.module.2.weight": (5, 5),
    "shifter.{K}.mlp.0.weight": (16, 2),
}
KEYS["dynamic_v1fm"] = FOLDERS
# The fusion networks are those of adaptive fusion.
CHANGES = {"dynamic_v1fm": {"readout_settings": {"fusion": "adaptive"}}}
# A system joins as soon as its file is there.
PUBLISHED = [n for n in TABLES if (REPOSITORY / "config" / "systems" / f"{n}.yaml").exists()]


@pytest.fixture
def small_encoder(published_system, make_facts):
    """The published network for a few neurons of F and A, with weights that `seed` decides."""

    def make(name, *, seed=1, neurons=5, animals="FA", facts_seed=0):
        facts = {
            animal: make_facts(
                animal, neurons=neurons, frame_shape=(36, 64), frames=300, seed=facts_seed
            )
            for animal in animals
        }
        encoder = build.build_encoder(
            published_system(name, **CHANGES.get(name, {})), facts, seed=seed
        )
        encoder.eval()
        random = torch.Generator().manual_seed(seed)
        for key, values in encoder.state_dict().items():
            if "running" in key:  # batch statistics as after some training
                values.copy_(torch.rand(values.shape, generator=random) + 0.5)
        return encoder

    return make


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_and_shapes_are_those_of_the_card(small_encoder, name):
    encoder = small_encoder(name, neurons=7863, animals="F")
    tensors = published_tensors(encoder, folders=FOLDERS)
    for template, shape in TABLES[name].items():
        assert tuple(tensors[template.format(K=KEYS[name]["F"])].shape) == shape, template
    ours = sum(t.numel() for t in encoder.state_dict().values())
    theirs = sum(t.numel() for key, t in tensors.items())
    assert theirs >= ours  # nothing is lost; constants come on top


@pytest.mark.parametrize("name", PUBLISHED)
def test_round_trip_through_the_original_naming(small_encoder, tmp_path, name):
    encoder, other = small_encoder(name, seed=1), small_encoder(name, seed=2)
    path = tmp_path / "checkpoint.pt"
    write_checkpoint(path, encoder, folders=FOLDERS)
    tensors = read_checkpoint(path)
    assert {key.split(".")[1] for key in tensors if key.startswith("readout")} == set(
        KEYS[name].values()
    )
    load_published(other, tensors, folders=FOLDERS, where=str(path))
    state = encoder.state_dict()
    for key, value in other.state_dict().items():
        assert torch.equal(value, state[key]), key
    exported = published_tensors(other, folders=FOLDERS)
    assert exported.keys() == tensors.keys()
    assert all(torch.equal(exported[key], tensors[key]) for key in tensors)


@pytest.mark.parametrize("name", PUBLISHED)
def test_wrappers_and_other_animals_do_not_matter(small_encoder, tmp_path, name):
    """A checkpoint of two animals serves a study of one; parallel training and compilation too."""
    encoder = small_encoder(name)
    tensors = published_tensors(encoder, folders=FOLDERS)
    wrapped = {
        "module." + key.replace("core.", "core._orig_mod.", 1): value
        for key, value in tensors.items()
    }
    torch.save({"epoch": 3, "best": np.float64(0.2), "model": wrapped}, tmp_path / "c.pt")
    alone = small_encoder(name, seed=2, animals="F")
    load_published(
        alone,
        read_checkpoint(tmp_path / "c.pt"),
        folders={"F": FOLDERS["F"]},
        where="c.pt",
    )
    state = encoder.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in alone.state_dict().items())


def test_every_fault_is_named_and_nothing_is_changed(small_encoder):
    encoder = small_encoder("gru_baseline")
    good = published_tensors(encoder, folders=FOLDERS)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    key = f"readout.{FOLDERS['F']}.bias"
    faults = {
        "lacks gru_module.gru.out_gate_hidden.bias": {"gru_module.gru.out_gate_hidden.bias": None},
        r"has an unknown core\.attention\.weight": {"core.attention.weight": torch.zeros(2)},
        rf"has an unknown readout\.{FOLDERS['A']}\.scale": {
            f"readout.{FOLDERS['A']}.scale": torch.zeros(1)
        },
        rf"has {key} of shape \(6,\) instead of \(5,\)": {key: torch.zeros(6)},
        rf"has {key} with values that are not finite": {key: torch.full((5,), torch.nan)},
        "laplace.filter of shape": {
            "core._input_weights_regularizer.laplace.filter": torch.zeros(3)
        },
        "the neurons of animal F are not those of the recording": {
            f"readout.{FOLDERS['F']}.source_grid": torch.zeros(5, 2)
        },
    }
    for sentence, change in faults.items():
        tensors = {k: v for k, v in {**good, **change}.items() if v is not None}
        with pytest.raises(ValueError, match=f"^c.pt.*{sentence}"):
            load_published(encoder, tensors, folders=FOLDERS, where="c.pt")
    assert all(torch.equal(before[k], v) for k, v in encoder.state_dict().items())


class Explosive:
    """Would run code if it were unpickled."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('code of a checkpoint was run')",))


def test_code_in_a_checkpoint_is_never_run(tmp_path):
    for name, content in (
        ("pickle.pt", lambda path: path.write_bytes(pickle.dumps(Explosive(), protocol=2))),
        ("torch.pt", lambda path: torch.save({"model": Explosive()}, path)),
        ("cut.pt", lambda path: path.write_bytes(b"PK\x03\x04 and no more")),
        ("empty.pt", lambda path: path.write_bytes(b"")),
    ):
        content(tmp_path / name)
        with pytest.raises(ValueError, match=f"{name} cannot be read as a checkpoint of tensors"):
            read_checkpoint(tmp_path / name)
    with pytest.raises(ValueError, match="cannot be read"):
        read_checkpoint(tmp_path / "missing.pt")
    torch.save({"epoch": 3}, tmp_path / "log.pt")
    with pytest.raises(ValueError, match="epoch hold no tensor"):
        read_checkpoint(tmp_path / "log.pt")
    torch.save([torch.zeros(2)], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="holds list, not tensors by name"):
        read_checkpoint(tmp_path / "list.pt")


def test_only_the_ten_mice_have_published_readouts(small_encoder):
    assert mouse_letter(FOLDERS["A"]) == "A"
    encoder = small_encoder("viv1t", animals="F")
    folders = {"F": "dynamic12345-1-1-Video"}
    with pytest.raises(ValueError, match="dynamic12345-1-1-Video is none of the ten"):
        published_tensors(encoder, folders=folders)


def test_a_network_without_published_names_is_refused(published_system, make_facts):
    system = published_system("linear_nonlinear")
    facts = dataclasses.replace(make_facts("F"))
    encoder = build.build_encoder(system, {"F": facts}, seed=1)
    with pytest.raises(ValueError, match="no published names for the core PixelCore"):
        published_tensors(encoder, folders=FOLDERS)
