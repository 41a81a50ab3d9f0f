"""The encoder as a whole: published sizes, alignment, separation of animals, missing modalities."""

import dataclasses

import numpy as np
import pytest
import torch

from sensorium_models.configuration import ConfigurationError
from sensorium_models.networks.build import build_encoder

NEURONS = {
    **{"F": 7863, "G": 7908, "H": 8202, "I": 7939, "J": 8122},
    **{"A": 7440, "B": 7928, "C": 8285, "D": 7671, "E": 7495},
}


@pytest.mark.parametrize(
    ("animals", "expected"), [("FGHIJ", 5_707_743), ("FGHIJABCDE", 10_871_715)]
)
def test_published_number_of_parameters(published_system, make_facts, animals, expected):
    facts = {
        animal: make_facts(animal, neurons=NEURONS[animal], frame_shape=(36, 64), frames=1)
        for animal in animals
    }
    encoder = build_encoder(published_system(), facts, seed=42)
    assert sum(p.numel() for p in encoder.parameters()) == expected
    assert encoder.animals == tuple(animals)
    assert sum(p.numel() for p in encoder.core.parameters()) == 382_176
    assert sum(p.numel() for p in encoder.readouts["F"].parameters()) == 1_045_931
    assert sum(p.numel() for p in encoder.shifters["F"].parameters()) == 57


def test_published_shapes(published_system, make_facts, make_clip):
    facts = make_facts(neurons=3, frame_shape=(36, 64), frames=80)
    encoder = build_encoder(published_system(), {"A": facts}, seed=42).eval()
    clip = make_clip(clips=1, frames=80, neurons=3, frame_shape=(36, 64))
    with torch.no_grad():
        features = encoder.core_features(clip)
        rates = encoder.read(features, clip, "A")
    assert features.shape == (1, 128, 62, 18, 46)
    assert rates.shape == (1, 62, 3)
    assert encoder.history_frames == 18
    assert (rates > 0).all()


@pytest.mark.parametrize("name", ["factorized_baseline", "linear_nonlinear"])
def test_a_frame_moves_only_rates_within_the_history_after_it(
    published_system, make_facts, make_clip, name
):
    """Output k depends on input frames k..k + history: an impulse at i moves i - history..i."""
    if name == "factorized_baseline":
        system = published_system(name, core_settings={"channels": [2, 2, 2]})
    else:
        system = published_system(name)
    facts = make_facts(neurons=3, frame_shape=(36, 64), frames=60)
    encoder = build_encoder(system, {"A": facts}, seed=1).eval()
    history = encoder.history_frames
    clip = make_clip(clips=1, frames=46, neurons=3, frame_shape=(36, 64), first_frames=(0,))
    with torch.no_grad():
        before = encoder(clip)
        for impulse in (0, 20, 45):
            video = clip.video.copy()
            video[:, :, impulse] = 255 - video[:, :, impulse]
            after = encoder(dataclasses.replace(clip, video=video))
            moved = (after != before).any(dim=2)[0].nonzero().flatten()
            outputs = before.shape[1]
            expected = range(max(0, impulse - history), min(impulse, outputs - 1) + 1)
            assert moved.tolist() == list(expected)


def test_rates_equal_the_card_in_plain_numpy(small_system, make_facts, make_clip):
    """What surrounds core and readout: stacking, gaze of the last frames, ELU + 1, (B, T, N)."""
    facts = make_facts()
    encoder = build_encoder(small_system, {"A": facts}, seed=3).eval()
    clip = make_clip(frames=9)
    with torch.no_grad():
        features = encoder.core(encoder.inputs["A"](clip))
        pupil = facts.normalisation.pupil_center
        gaze = (clip.pupil_center - pupil.offset[clip.frame]) * pupil.scale[clip.frame]
        shift = encoder.shifters["A"](torch.from_numpy(gaze[:, -4:]))
        drive = encoder.readouts["A"](features, shift).double().numpy()
        rates = encoder(clip).numpy()
    assert encoder.history_frames == 5
    np.testing.assert_allclose(rates, np.where(drive > 0, drive, np.expm1(drive)) + 1, rtol=1e-5)


def test_same_seed_same_network_and_other_seed_another(small_system, make_facts):
    facts = {"A": make_facts("A"), "B": make_facts("B", neurons=4)}
    one, two, other = (build_encoder(small_system, facts, seed=s).state_dict() for s in (1, 1, 2))
    assert list(one) == list(two)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["readouts.B.sigma"], other["readouts.B.sigma"])
    assert {name.split(".")[0] for name in one} == {"core", "readouts", "shifters"}


def test_initial_rates_start_the_bias(small_system, published_system, make_facts):
    rates = np.array([0.1, 0.5, 1, 2, 0])
    facts = {"A": make_facts(initial_rates=rates)}
    baseline = build_encoder(small_system, facts, seed=1)
    np.testing.assert_allclose(baseline.readouts["A"].bias.detach(), rates)
    linear = build_encoder(published_system("linear_nonlinear"), facts, seed=1)
    np.testing.assert_allclose(
        torch.exp(linear.readouts["A"].bias).detach()[:4], rates[:4], rtol=1e-6
    )
    with pytest.raises(ValueError, match="animal A: initial rates must be finite"):
        build_encoder(small_system, {"A": make_facts(initial_rates=rates[:3])}, seed=1)


@pytest.mark.parametrize("name", ["factorized_baseline", "linear_nonlinear"])
def test_one_animals_batch_teaches_only_its_own_readout(
    small_system, published_system, make_facts, make_clip, name
):
    system = small_system if name == "factorized_baseline" else published_system(name)
    facts = {"A": make_facts("A"), "B": make_facts("B", neurons=4)}
    encoder = build_encoder(system, facts, seed=1).train()
    clip = make_clip("A", frames=20, first_frames=(0, 1))
    loss = encoder(clip).sum() + encoder.regularizer("A")
    loss.backward()
    for key, parameter in encoder.named_parameters():
        others = key.startswith(("readouts.B", "shifters.B"))
        learns = parameter.grad is not None and bool(parameter.grad.any())
        # Batch norm cancels what a constant added before it does, but for rounding.
        if not key.endswith(("spatial.bias", "temporal.bias")):
            assert learns != others, key


def test_evaluation_is_deterministic(small_system, make_facts, make_clip):
    encoder, clip = build_encoder(small_system, {"A": make_facts()}, seed=1), make_clip()
    with torch.no_grad():
        assert not torch.equal(encoder.train()(clip), encoder(clip))
        before = {name: value.clone() for name, value in encoder.state_dict().items()}
        assert torch.equal(encoder.eval()(clip), encoder(clip))
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())


def test_mixed_batches_read_like_batches_of_one_animal(small_system, make_facts, make_clip):
    facts = {"A": make_facts("A"), "B": make_facts("B", neurons=4)}
    encoder = build_encoder(small_system, facts, seed=1).eval()
    mixed = make_clip(("B", "A", "B"))
    with torch.no_grad():
        features = encoder.core_features(mixed)
        for animal, rows in (("A", [1]), ("B", [0, 2])):
            alone = dataclasses.replace(
                mixed,
                **{
                    name: getattr(mixed, name)[rows]
                    for name in ("video", "behavior", "pupil_center", "responses", "frame", "valid")
                },
                animal=(animal,) * len(rows),
            )
            torch.testing.assert_close(encoder.read(features, mixed, animal, rows), encoder(alone))
    with pytest.raises(ValueError, match=r"several animals \(A, B\)"):
        encoder(mixed)
    with pytest.raises(ValueError, match="no readout for animal C; it was built for A, B"):
        encoder(make_clip("C"))


def test_a_modality_that_no_animal_has_is_left_out(small_system, make_facts, make_clip):
    lacking = ("behavior", "pupil_center")
    encoder = build_encoder(small_system, {"A": make_facts(lacking=lacking)}, seed=1)
    assert encoder.shifters is None
    assert encoder.core.layers[0].spatial.in_channels == 1
    assert encoder(make_clip(lacking=lacking)).shape == (2, 4, 5)
    only_gaze = build_encoder(small_system, {"A": make_facts(lacking=("behavior",))}, seed=1)
    assert only_gaze.shifters is not None
    assert only_gaze.core.layers[0].spatial.in_channels == 1


@pytest.mark.parametrize("modality", ["behavior", "pupil_center"])
def test_a_modality_that_some_animals_lack_is_refused(small_system, make_facts, modality):
    facts = {"A": make_facts("A"), "B": make_facts("B", lacking=(modality,))}
    with pytest.raises(ConfigurationError, match=f"{modality} is missing in animal B"):
        build_encoder(small_system, facts, seed=1)


def test_animals_that_cannot_share_a_core_or_a_name_are_refused(small_system, make_facts):
    facts = {"A": make_facts("A"), "B": make_facts("B", frame_shape=(9, 9))}
    with pytest.raises(ConfigurationError, match=r"different sizes: A 12 x 15, B 9 x 9"):
        build_encoder(small_system, facts, seed=1)
    with pytest.raises(ConfigurationError, match="animal keys: this name is reserved"):
        build_encoder(small_system, {"keys": make_facts("keys")}, seed=1)
    with pytest.raises(ConfigurationError, match="no animal to build a readout for"):
        build_encoder(small_system, {}, seed=1)
