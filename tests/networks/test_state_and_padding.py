"""The behavioural state as a sequence, padded frames, and batches of several animals."""

import dataclasses

import numpy as np
import pytest
import torch

from sensorium_models.configuration import ConfigurationError
from sensorium_models.networks import build
from sensorium_models.networks.encoder import Core, Readout
from sensorium_models.networks.inputs import AnimalInputs, padded_shape, select_rows, to_device

STATEFUL = __name__


class StatefulCore(Core):
    """Features: mean brightness plus the state of two frames ago, one channel each."""

    history_frames = 2
    takes_state = True

    def __init__(self, *, in_channels, frame_shape, state_channels, clip_frames=None):
        super().__init__()
        self.out_channels, self.out_shape = state_channels, (1, 1)
        self.frame_shape, self.clip_frames = frame_shape, clip_frames

    def forward(self, inputs, state):
        brightness = inputs[:, 0, 2:].mean(dim=(2, 3))  # (B, T')
        features = (state[:, :-2] + brightness[..., None]).transpose(1, 2)
        return features[..., None, None]


class StatefulReadout(Readout):
    """Every neuron reads all features plus the state of the same frame."""

    takes_state = True

    def __init__(self, *, facts, in_channels, in_shape, state_channels):
        super().__init__()
        assert state_channels == in_channels
        self.bias = torch.nn.Parameter(torch.arange(facts.neurons).float())

    def forward(self, features, shift, state):
        seen = features[..., 0, 0].transpose(1, 2) + state  # (B, T', S)
        return seen.sum(dim=2, keepdim=True) + self.bias


@pytest.fixture
def stateful(published_system):
    def make(**changes):
        settings = {
            "core": f"{STATEFUL}:StatefulCore",
            "core_settings": {"replace": True},
            "readout": f"{STATEFUL}:StatefulReadout",
            "readout_settings": {"replace": True},
            "shifter": None,
            "inputs": {
                "channels": ["video"],
                "state": ["behavior", "pupil_center"],
                "frame_padding": [20, 18],
            },
        }
        return published_system(**{**settings, **changes})

    return make


def rates_by_hand(clip, row, facts):
    """Of one row, (T - 2, N), in plain numpy."""
    scheme, frame = facts.normalisation, clip.frame[row]
    video = (clip.video[row, 0] - scheme.video.offset[frame]) * scheme.video.scale[frame]
    brightness = video.sum(axis=(1, 2)) / (20 * 18)  # the border counts as zero
    state = np.concatenate(
        [
            (getattr(clip, name)[row] - getattr(scheme, name).offset[frame])
            * getattr(scheme, name).scale[frame]
            for name in ("behavior", "pupil_center")
        ],
        axis=1,
    )
    drive = (state[:-2] + state[2:] + brightness[2:, None]).sum(axis=1)
    drive = drive[:, None] + np.arange(facts.neurons)
    return np.where(drive > 0, drive + 1, np.exp(drive))


def test_state_reaches_core_and_readout_normalised_and_aligned(stateful, make_facts, make_clip):
    build.check(stateful(), frame_shape=(12, 15), file="mine.yaml")
    facts = {"A": make_facts("A"), "B": make_facts("B", neurons=4)}
    encoder = build.build_encoder(stateful(), facts, seed=1).eval()
    assert encoder.core.frame_shape == (20, 18)
    assert encoder.clip_frames is None
    mixed = make_clip(("B", "A", "B"), first_frames=(3, 0, 20))
    features = encoder.core_features(to_device(mixed, "cpu"))
    for animal, rows in (("A", [1]), ("B", [2, 0])):
        rates = encoder.read(features, mixed, animal, rows).detach().numpy()
        for rate, row in zip(rates, rows, strict=True):
            # float32 sums of 360 pixels of up to 500
            expected = rates_by_hand(mixed, row, facts[animal])
            np.testing.assert_allclose(rate, expected, rtol=1e-4, atol=1e-4)


def test_video_lies_in_the_middle_and_behaviour_fills_the_plane(make_facts, make_clip):
    facts, clip = make_facts(), make_clip()
    plain, padded = (
        AnimalInputs(
            animal="A",
            normalisation=facts.normalisation,
            channels=["video", "behavior"],
            frame_padding=shape,
        )(clip)
        for shape in (None, (17, 20))
    )
    # 17 - 12 and 20 - 15 are odd: one row and column more below and to the right.
    inside = padded[..., 2:14, 2:17]
    torch.testing.assert_close(inside[:, 0], plain[:, 0])
    assert padded[:, 0].abs().sum() == pytest.approx(float(inside[:, 0].abs().sum()), rel=1e-5)
    assert (padded[:, 1:] == plain[:, 1:, :, :1, :1]).all()
    assert padded_shape((36, 64), (64, 64)) == (64, 64)
    assert padded_shape((36, 64), None) == (36, 64)


def test_responses_of_a_mixed_batch_keep_their_animals(make_facts, make_clip):
    alone = {"A": make_clip("A", clips=1), "B": make_clip("B", clips=1, neurons=4)}
    mixed = dataclasses.replace(
        make_clip(("A", "B")),
        responses=(alone["A"].responses[0], alone["B"].responses[0]),
        frame=np.concatenate([alone["A"].frame, alone["B"].frame]),
    )
    mixed = to_device(mixed, "cpu")
    assert all(isinstance(row, torch.Tensor) for row in mixed.responses)
    assert mixed.animal == ("A", "B")
    for row, animal in enumerate("AB"):
        facts = make_facts(animal, neurons=5 - row)
        inputs = AnimalInputs(animal=animal, normalisation=facts.normalisation, channels=["video"])
        torch.testing.assert_close(
            inputs.responses(select_rows(mixed, [row])), inputs.responses(alone[animal])
        )
        with pytest.raises(ValueError, match=f"animal {animal} were asked of a batch of A, B"):
            inputs.responses(mixed)


def test_a_modality_that_no_animal_has_leaves_the_state(stateful, make_facts, make_clip):
    lacking = ("behavior",)
    encoder = build.build_encoder(stateful(), {"A": make_facts(lacking=lacking)}, seed=1)
    assert encoder.core.out_channels == 2
    assert encoder.inputs["A"].state(make_clip(lacking=lacking)).shape == (2, 9, 2)
    facts = {"A": make_facts("A"), "B": make_facts("B", lacking=lacking)}
    with pytest.raises(ConfigurationError, match="behavior is missing in animal B"):
        build.build_encoder(stateful(), facts, seed=1)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"core_settings": {"replace": True, "clip_frames": 30}},
            "clip_frames: .* clips of 30 frames only, not 80",
        ),
        (
            {"inputs": {"frame_padding": [20, 14]}},
            "frame_padding: frames of 12 x 15 pixels do not fit into 20 x 14",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_any_job(stateful, changes, sentence):
    with pytest.raises(ConfigurationError, match=f"^mine.yaml: .*{sentence}"):
        build.check(stateful(**changes), frame_shape=(12, 15), file="mine.yaml")


def test_state_that_nothing_takes_is_refused(published_system):
    system = published_system(inputs={"state": ["behavior"]})
    with pytest.raises(ConfigurationError, match=r"inputs\.state: neither .* takes"):
        build.check(system, frame_shape=(36, 64), file="mine.yaml")
    with pytest.raises(ValueError, match="state must name each modality once"):
        published_system(inputs={"state": ["behavior", "behavior"]})
