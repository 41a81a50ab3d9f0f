"""What every system must keep, for each file in config/systems: tiny widths, real structure.

A new system needs no line here, unless it is too large to be tried in seconds (`TINY`), promises
more than that its rates belong to the last frames of a clip (`SEES`), or has published counts.
"""

import dataclasses
from fnmatch import fnmatch

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sensorium_models.configuration import REPOSITORY, Origin
from sensorium_models.networks import build
from sensorium_models.networks.construction import resolve
from sensorium_models.networks.inputs import to_device
from sensorium_models.networks.members import save_weights
from sensorium_models.systems import load_system

SYSTEMS = sorted(file.stem for file in (REPOSITORY / "config" / "systems").glob("*.yaml"))
FRAME = (36, 64)

# Settings that make a system small; depth, kernels and everything odd about it stay.
_TINY_ATTENTION = {
    "channels": 8,
    "heads": 2,
    "head_channels": 4,
    "feedforward_channels": 6,
    "spatial_blocks": 2,
    "temporal_blocks": 2,
}
TINY = {
    "factorized_baseline": {"core_settings": {"channels": [4, 5, 6]}},
    "gru_baseline": {"core_settings": {"features": 1}},
    "dwiseneuro": {
        "core_settings": {
            "channels": [4, 6],
            "strides": [2, 2],
            "expansion": 2,
            "cortex_channels": [12, 12, 16],
            "drop_path": 0.99,  # some path is dropped: only so do the biases of its end learn
        },
        "readout_settings": {"dropout": 0.1},  # not all of so few features at once
    },
    "dynamic_v1fm": {
        "core_settings": {
            "window": [4, 3, 3],
            "embedding": 8,
            "heads": 2,
            "blocks": 2,
            "mlp_hidden": 6,
        }
    },
    "viv1t": {"core_settings": _TINY_ATTENTION},
    "viv1t_2025": {"core_settings": {**_TINY_ATTENTION, "registers": 3}},
}

# Which input frames a rate may depend on: its own and the history before it ("history"), all before
# it ("past"), or the whole clip ("clip", nothing to be tested).
SEES = {
    "factorized_baseline": "history",
    "linear_nonlinear": "history",
    "gru_baseline": "past",
    "dwiseneuro": "clip",
    "dynamic_v1fm": "clip",
    "viv1t": "clip",
    "viv1t_2025": "past",
}

# Trainable parameters of the core, of the readout of 7,863 neurons, of a shifter, and of networks
# of all ten animals and of F-J (model cards).
COUNTS = {
    "factorized_baseline": (382_176, 1_045_931, 57, 10_871_715, 5_707_743),
    "gru_baseline": (44_152 + 1_991_040, 542_699, 57, 7_478_139, 4_798_583),
    "viv1t": (2_916_074, 933_563, 57, 12_278_365, None),
    "viv1t_2025": (3_787_042, 920_123, 57, 13_014_933, None),
    "dwiseneuro": (3_673_404 + 5_402_624, 16_113_336, 0, 170_656_070, None),
    "dynamic_v1fm": (2_273_488, 3_452_885, 354, 36_906_001, None),
}
NEURONS = {
    **{"F": 7863, "G": 7908, "H": 8202, "I": 7939, "J": 8122},
    **{"A": 7440, "B": 7928, "C": 8285, "D": 7671, "E": 7495},
}


def trainable(module):
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


@pytest.fixture
def tiny(published_system, make_facts):
    """The tiny encoder of a system for animals A and B, in evaluation mode."""

    def make(name, *, seed=1):
        system = published_system(name, **TINY.get(name, {}))
        facts = {
            animal: make_facts(animal, neurons=neurons, frame_shape=FRAME, frames=300)
            for animal, neurons in (("A", 5), ("B", 4))
        }
        return build.build_encoder(system, facts, seed=seed).eval()

    return make


@pytest.fixture
def clip_for(make_clip):
    """Clips as short as a system allows, eight predicted frames or more."""

    def make(encoder, animals="A", **settings):
        frames = encoder.clip_frames or encoder.history_frames + 8
        return make_clip(animals, frames=frames, frame_shape=FRAME, **settings)

    return make


def data_loss(encoder, clip, animal="A"):
    """The Poisson loss of one animal's batch, without penalties."""
    rates = encoder(clip)
    recorded = encoder.inputs[animal].responses(clip)[:, -rates.shape[1] :]
    return (rates - recorded * torch.log(rates + 1e-8)).sum()


@pytest.mark.parametrize("name", SYSTEMS)
def test_builds_from_its_file_at_full_size(name):
    system = load_system(name, folders=[], members={}, origin=Origin([], {}))
    build.check(system, frame_shape=FRAME, file=f"{name}.yaml", first_scored_frame=50)


@pytest.mark.parametrize("name", COUNTS)
def test_published_number_of_parameters(published_system, make_facts, name):
    core, readout, shifter, ten, five = COUNTS[name]

    system = published_system(name)
    facts = {
        animal: make_facts(animal, neurons=neurons, frame_shape=FRAME, frames=1)
        for animal, neurons in NEURONS.items()
    }
    encoder = build.build_encoder(system, {"F": facts["F"]}, seed=1)
    assert trainable(encoder.core) == core
    assert trainable(encoder.readouts) == readout
    assert (trainable(encoder.shifters) if encoder.shifters else 0) == shifter
    # Readouts one after the other: all ten of the largest network take 700 MB.
    given = {
        "in_channels": encoder.core.out_channels,
        "in_shape": encoder.core.out_shape,
        **system.readout_settings,
    }
    if getattr(encoder.readouts["F"], "takes_state", False):
        given["state_channels"] = 2 * len(system.inputs.state)
    kind = resolve(system.readout)
    readouts = {animal: trainable(kind(facts=known, **given)) for animal, known in facts.items()}
    for animals, total in (("ABCDEFGHIJ", ten), ("FGHIJ", five)):
        expected = core + sum(readouts[a] for a in animals) + shifter * len(animals)
        assert total in (None, expected)


@pytest.mark.parametrize("name", SYSTEMS)
def test_rates_are_of_the_last_frames_and_see_only_what_they_may(
    tiny, clip_for, published_system, name
):
    encoder = tiny(name)
    divides = published_system(name).inference == "whole_trial" and not encoder.undivided
    assert not divides or SEES.get(name, "history") == "history"
    clip = clip_for(encoder, clips=1, first_frames=(0,))
    frames = clip.frame.shape[1]
    with torch.no_grad():
        before = encoder(clip)
        assert before.shape == (1, frames - encoder.history_frames, 5)
        assert torch.isfinite(before).all()
        assert (before >= 0).all()
        for impulse in (0, frames // 2, frames - 1):
            changed = {
                name: getattr(clip, name).copy() for name in ("video", "behavior", "pupil_center")
            }
            changed["video"][:, :, impulse] = 255 - changed["video"][:, :, impulse]
            changed["behavior"][:, impulse] += 1
            changed["pupil_center"][:, impulse] += 1
            after = encoder(dataclasses.replace(clip, **changed))
            moved = (after != before).any(dim=2)[0].nonzero().flatten() + encoder.history_frames
            assert len(moved)
            if name in SEES and SEES[name] != "clip":
                first = max(impulse, encoder.history_frames)
                assert int(moved[0]) == first
                if SEES[name] == "history":
                    last = min(impulse + encoder.history_frames, frames - 1)
                    assert moved.tolist() == list(range(first, last + 1))


@pytest.mark.parametrize("name", SYSTEMS)
def test_evaluation_is_deterministic_and_changes_nothing(tiny, clip_for, name):
    encoder = tiny(name)
    clip = clip_for(encoder)
    state = {key: value.clone() for key, value in encoder.state_dict().items()}
    with torch.no_grad():
        assert torch.equal(encoder(clip), encoder(clip))
    assert all(torch.equal(state[key], value) for key, value in encoder.state_dict().items())


@pytest.mark.parametrize("name", SYSTEMS)
def test_batches_of_several_animals_read_like_batches_of_one(tiny, clip_for, name):
    encoder = tiny(name)
    mixed = clip_for(encoder, ("B", "A"))
    with torch.no_grad():
        features = encoder.core_features(to_device(mixed, "cpu"))
        for row, animal in enumerate(mixed.animal):
            alone = clip_for(encoder, ("B", "A"))
            alone = dataclasses.replace(
                alone,
                **{
                    field: getattr(alone, field)[[row]]
                    for field in ("video", "behavior", "pupil_center", "frame", "valid", "trial")
                },
                responses=None,
                animal=(animal,),
            )
            rates = encoder.read(features, mixed, animal, [row])
            # Sums of float32 in another order.
            torch.testing.assert_close(rates, encoder(alone), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SYSTEMS)
def test_saved_weights_bring_the_same_network_back(tiny, clip_for, tmp_path, name):
    encoder, other = tiny(name, seed=1), tiny(name, seed=2)
    save_weights(tmp_path / "weights.safetensors", encoder)
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    clip = clip_for(encoder, "B", neurons=4)
    with torch.no_grad():
        assert torch.equal(encoder(clip), other(clip))


@pytest.mark.parametrize("name", SYSTEMS)
def test_what_learns_from_a_batch(tiny, clip_for, published_system, name):
    """All of its own animal's network but what the file lists; nothing of other animals."""
    encoder = tiny(name).double().train()
    listed = published_system(name).no_gradient
    for seed in (1, 2):  # dropout may hit a small layer whole
        data_loss(encoder, clip_for(encoder, seed=seed)).backward()
    sizes = {
        key: 0.0 if p.grad is None else float(p.grad.abs().max())
        for key, p in encoder.named_parameters()
        if p.requires_grad
    }
    # In double precision what cancels is 1e-16 of what does not.
    least = 1e-11 * max(sizes.values())
    for key, size in sizes.items():
        of_others = key.startswith(("readouts.B", "shifters.B"))
        if of_others:
            assert size == 0, key
        elif any(fnmatch(key, pattern) for pattern in listed):
            assert size <= least, f"{key} learns, although the file says it does not"
        else:
            assert size > least, f"{key} gets no gradient; list it under no_gradient, and why"
    for pattern in listed:
        assert any(fnmatch(key, pattern) for key in sizes), f"no parameter is named {pattern}"


@pytest.mark.parametrize("name", SYSTEMS)
def test_low_precision_is_close_to_full_precision(tiny, clip_for, name):
    encoder = tiny(name)
    clip = clip_for(encoder)
    with torch.no_grad():
        full = encoder(clip)
        with torch.autocast("cpu", torch.bfloat16):
            features = encoder.core_features(clip)
        low = encoder.read(features.float(), clip, "A")
    # A bfloat16 has 8 bits: each of some ten roundings in a row adds 1/256 of what is rounded.
    error = (low - full).square().mean().sqrt() / full.square().mean().sqrt()
    assert error < 10 / 256


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_few_steps_beat_the_start(tiny, clip_for, name):
    encoder = tiny(name).train()
    clip = clip_for(encoder)
    optimizer = torch.optim.Adam([p for p in encoder.parameters() if p.requires_grad], lr=0.003)
    start = data_loss(encoder.eval(), clip).item()
    for _ in range(8):
        optimizer.zero_grad()
        data_loss(encoder.train(), clip).backward()
        optimizer.step()
    assert data_loss(encoder.eval(), clip).item() < start


EXAMPLE_YAML = """\
extends: linear_nonlinear
title: Mean brightness
core: brightness:BrightnessCore
core_settings: {gain: 0.01}
readout: brightness:BrightnessReadout
readout_settings: {}
members: {seed: [1, 2]}
"""
EXAMPLE_MODULE = """\
import torch
from sensorium_models.networks.encoder import Core, Readout

class BrightnessCore(Core):
    history_frames = 0

    def __init__(self, *, in_channels, frame_shape, gain):
        super().__init__()
        self.out_channels, self.out_shape, self.gain = in_channels, (1, 1), gain

    def forward(self, x):
        return self.gain * x.mean(dim=(3, 4), keepdim=True)

class BrightnessReadout(Readout):
    takes_shift = False

    def __init__(self, *, facts, in_channels, in_shape):
        super().__init__()
        self.weights = torch.nn.Parameter(torch.ones(in_channels, facts.neurons))
        self.bias = torch.nn.Parameter(torch.zeros(facts.neurons))

    def forward(self, features, shift=None):
        return features[..., 0, 0].transpose(1, 2) @ self.weights + self.bias
"""


def test_a_system_of_ones_own_needs_one_file_and_one_module(
    tmp_path, monkeypatch, make_facts, make_clip
):
    assert len(EXAMPLE_YAML.splitlines() + EXAMPLE_MODULE.splitlines()) <= 34
    (tmp_path / "brightness.yaml").write_text(EXAMPLE_YAML)
    (tmp_path / "brightness.py").write_text(EXAMPLE_MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    system = load_system("brightness", folders=[tmp_path], members={}, origin=Origin([], {}))
    build.check(system, frame_shape=FRAME, file="brightness.yaml")
    assert list(system.member_axes()) == ["seed1", "seed2"]
    encoder = build.build_encoder(system, {"A": make_facts(initial_rates=np.ones(5))}, seed=1)
    clip = make_clip()
    scheme = make_facts().normalisation.video
    video = (clip.video[:, 0] - scheme.offset[clip.frame]) * scheme.scale[clip.frame]
    expected = np.exp(0.01 * video.mean(axis=(2, 3)))[..., None].repeat(5, axis=2)
    np.testing.assert_allclose(encoder(clip).detach(), expected, rtol=1e-5)
