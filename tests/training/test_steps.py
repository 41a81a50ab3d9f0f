"""What a batch adds to the gradient: the same in parts or recomputed; mixed and taught."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from sensorium_models.networks.build import build_encoder
from sensorium_models.networks.inputs import to_device
from sensorium_models.recordings.clips import Clip
from sensorium_models.recordings.store import Recording
from sensorium_models.systems import System
from sensorium_models.training.augmentation import boxes, mix_inputs, mix_responses
from sensorium_models.training.distillation import Teacher
from sensorium_models.training.facts import recorded_facts
from sensorium_models.training.failures import explained
from sensorium_models.training.feeding import TrainingError, member_trials, stream_seed
from sensorium_models.training.losses import TrialCounts
from sensorium_models.training.processes import make_fabric
from sensorium_models.training.sampling import make_feed
from sensorium_models.training.steps import Gradients

CAPS = {"A": None, "B": None}


class Bench:
    """A network of the laboratory, its batches, and what adds their gradients."""

    def __init__(self, laboratory: Any, system: System, teacher: Teacher | None = None) -> None:
        recordings = {animal: Recording(path) for animal, path in laboratory.stores.items()}
        trials = member_trials(laboratory.splits, "seed3", ["A", "B"])
        facts = recorded_facts(system, recordings, ["A", "B"])
        self.encoder = build_encoder(system, facts, seed=1).train()
        self.feed = make_feed(system.recipe, recordings, trials.train, caps=CAPS, seed=3)
        self.counts = {
            animal: TrialCounts(recording=20, training=10, training_of_all=20, animals=2)
            for animal in ("A", "B")
        }
        self.gradients = Gradients(
            self.encoder,
            recipe=system.recipe,
            counts=self.counts,
            fabric=make_fabric(torch.device("cpu"), system.recipe, processes=1),
            seed=3,
            teacher=teacher,
        )

    def batch(self) -> Clip:
        return self.feed.sampler.next_batch()

    def added(self, batch: Clip, step: int = 0) -> tuple[float, dict[str, torch.Tensor]]:
        """Loss and gradients of one batch alone."""
        self.encoder.zero_grad(set_to_none=True)
        loss = self.gradients.add(batch, step=step).item()
        return loss, {
            name: p.grad.clone()
            for name, p in self.encoder.named_parameters()
            if p.grad is not None
        }


def linear(shrunk: Any, **recipe: Any) -> System:
    """The linear control: no batch statistics, no noise."""
    return shrunk("linear_nonlinear", recipe=recipe, readout_settings={"history_frames": 2})


def without_noise(of_recipe: Any, recipe: str, **changes: Any) -> System:
    """A system whose readouts sample without noise, so that only rounding depends on the order."""
    system = of_recipe(recipe, **changes)
    readout = {**system.readout_settings, "sigma_range": 1e-9, "positions": "random"}
    return system.model_copy(update={"readout_settings": readout})


def close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        if name.endswith("sigma"):
            continue  # it multiplies the noise itself, so that other noise is another gradient
        # Sums of float32 in another order; biases before batch norm have no gradient but rounding.
        scale = float(values.abs().max())
        atol = 1e-4 * scale if not name.endswith(("spatial.bias", "temporal.bias")) else 1.0
        torch.testing.assert_close(found[name], values, rtol=1e-3, atol=atol, msg=name)


def test_parts_have_the_gradient_of_the_batch(laboratory: Any, shrunk: Any) -> None:
    parts, whole = (Bench(laboratory, linear(shrunk, clips_per_part=clips)) for clips in (3, None))
    batch = whole.batch()
    loss, expected = whole.added(batch)
    found_loss, found = parts.added(batch)
    assert found_loss == pytest.approx(loss, rel=1e-6)
    close(found, expected)


def test_batch_statistics_are_never_split_unasked(laboratory: Any, of_recipe: Any) -> None:
    with pytest.raises(TrainingError, match="Use recompute_activations: true instead, or set"):
        Bench(laboratory, of_recipe("dynamic_v1fm", clips_per_part=2))
    changes = {"clips_per_part": 2, "allow_inexact_split": True}
    Bench(laboratory, of_recipe("dynamic_v1fm", **changes))


def test_responses_below_zero_count_as_zero_where_the_recipe_says_so(
    laboratory: Any, shrunk: Any
) -> None:
    zero, keep = (
        Bench(laboratory, linear(shrunk, negative_responses=choice)) for choice in ("zero", "keep")
    )
    batch = keep.batch()
    recorded = np.asarray(batch.responses)
    below = dataclasses.replace(batch, responses=recorded - np.median(recorded))
    clamped = dataclasses.replace(batch, responses=np.maximum(below.responses, 0))
    loss, expected = keep.added(clamped)
    found_loss, found = zero.added(below)
    assert found_loss == loss
    assert all(torch.equal(found[name], values) for name, values in expected.items())
    assert keep.added(below)[0] != loss


@pytest.mark.parametrize("recipe", ["dynamic_v1fm", "dwiseneuro"])
def test_recomputing_changes_nothing(laboratory: Any, of_recipe: Any, recipe: str) -> None:
    again, once = (
        Bench(laboratory, of_recipe(recipe, recompute_activations=recompute, precision="float32"))
        for recompute in (True, False)
    )
    batch = once.batch()
    loss, expected = once.added(batch)
    found_loss, found = again.added(batch)
    assert found_loss == loss
    assert all(torch.equal(found[name], values) for name, values in expected.items())
    # Running statistics have seen the batch once.
    buffers = dict(once.encoder.named_buffers())
    for name, values in again.encoder.named_buffers():
        assert torch.equal(values, buffers[name]), name


def test_noise_follows_from_seed_step_and_animal(laboratory: Any, of_recipe: Any) -> None:
    bench = Bench(laboratory, of_recipe("dynamic_v1fm"))
    batch = bench.batch()
    first, _ = bench.added(batch, step=5)
    other, _ = bench.added(batch, step=6)
    torch.rand(17)
    again, _ = bench.added(batch, step=5)
    assert first == again != other


def test_mixed_animals_weigh_every_clip_alike(laboratory: Any, of_recipe: Any) -> None:
    system = without_noise(of_recipe, "dwiseneuro", cutmix=None, precision="float32")
    bench = Bench(laboratory, system)
    batch = bench.batch()
    assert set(batch.animal) == {"A", "B"}
    loss, found = bench.added(batch)
    # By hand: every clip's sum of p - y ln(p + 1e-8), over the number of clips.
    encoder = Bench(laboratory, system).encoder
    clip = to_device(batch, "cpu")
    features = encoder.core_features(clip)
    total = encoder.core.regularizer()
    for row, animal in enumerate(batch.animal):
        rates = encoder.read(features, clip, animal, [row])[0]
        inputs = encoder.inputs[animal]
        one = dataclasses.replace(clip, animal=(animal,), responses=(clip.responses[row],))
        one = dataclasses.replace(one, frame=clip.frame[[row]], valid=clip.valid[[row]])
        recorded = inputs.responses(one)[0, -len(rates) :]
        total = total + (rates - recorded * torch.log(rates + 1e-8)).sum() / len(batch.animal)
    total.backward()
    assert loss == pytest.approx(total.item(), rel=1e-5)
    expected = {n: p.grad for n, p in encoder.named_parameters() if p.grad is not None}
    close(found, expected)


def test_cutmix_reaches_inputs_and_targets(
    laboratory: Any, of_recipe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = of_recipe("dwiseneuro", cutmix={"probability": 1.0, "alpha": 1.0})
    bench = Bench(laboratory, system)
    batch = bench.batch()
    seen: dict[str, Any] = {"responses": []}

    def inputs(video: torch.Tensor, partner: torch.Tensor, cut: Any) -> torch.Tensor:
        seen["video"], seen["cut"] = (video, partner), cut
        return mix_inputs(video, partner, cut)

    def responses(first: torch.Tensor, second: torch.Tensor, cut: Any, size: Any) -> torch.Tensor:
        seen["responses"].append((cut, size))
        return mix_responses(first, second, cut, size)

    monkeypatch.setattr("sensorium_models.training.steps.mix_inputs", inputs)
    monkeypatch.setattr("sensorium_models.training.steps.mix_responses", responses)
    bench.added(batch, step=4)
    expected = boxes(
        system.recipe.cutmix,
        clips=len(batch.animal),
        frame_shape=(12, 14),
        random=np.random.default_rng([stream_seed(3, "cutmix"), 4]),
    )
    assert seen["cut"] == expected
    own = [[box for box, a in zip(expected, batch.animal, strict=True) if a == n] for n in "AB"]
    assert seen["responses"] == [(boxes_, (12, 14)) for boxes_ in own]
    assert not torch.equal(*seen["video"])


def test_a_teacher_tells_what_the_other_animals_would_do(laboratory: Any, of_recipe: Any) -> None:
    distillation = {"teacher": {"stage": "basic"}, "ratio": 0.36}
    changes = {"cutmix": None, "precision": "float32"}
    system = without_noise(of_recipe, "dwiseneuro", distillation=distillation, **changes)
    plain = without_noise(of_recipe, "dwiseneuro", **changes)
    teacher = Teacher(Bench(laboratory, plain).encoder)
    with torch.no_grad():
        for parameter in teacher.encoder.core.parameters():
            parameter.mul_(1.1)
    before = {name: values.clone() for name, values in teacher.encoder.state_dict().items()}
    taught = Bench(laboratory, system, teacher)
    batch = taught.batch()
    loss, found = taught.added(batch)
    # The teacher does not change, nor do its batch statistics.
    assert all(torch.equal(before[name], v) for name, v in teacher.encoder.state_dict().items())
    encoder = Bench(laboratory, plain).encoder
    clip = to_device(batch, "cpu")
    features, told = encoder.core_features(clip), teacher.encoder.core_features(clip).detach()
    total, clips = encoder.core.regularizer(), len(batch.animal)
    for row, own in enumerate(batch.animal):
        for animal in ("A", "B"):
            rates = encoder.read(features, clip, animal, [row])[0]
            if animal == own:
                one = dataclasses.replace(clip, animal=(own,), responses=(clip.responses[row],))
                one = dataclasses.replace(one, frame=clip.frame[[row]], valid=clip.valid[[row]])
                target = encoder.inputs[own].responses(one)[0, -len(rates) :]
                weight = 0.64 / clips
            else:
                target = teacher.encoder.read(told, clip, animal, [row])[0]
                weight = 0.36 / clips  # one other animal
            total = total + weight * (rates - target * torch.log(rates + 1e-8)).sum()
    total.backward()
    assert loss == pytest.approx(total.item(), rel=1e-5)
    close(found, {n: p.grad for n, p in encoder.named_parameters() if p.grad is not None})


class Small(torch.nn.Module):
    """A core for whose batches there is memory up to a number of clips."""

    def __init__(self, core: Any, clips: int) -> None:
        super().__init__()
        self.core, self.clips = core, clips
        for name in ("out_channels", "out_shape", "history_frames", "regularizer"):
            setattr(self, name, getattr(core, name))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if len(inputs) > self.clips:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return self.core(inputs)


@pytest.mark.parametrize(
    ("clips", "advice"),
    [
        (2, r"would fit with recipe: \{clips_per_part: 2\}"),
        (1, r"would fit with recipe: \{clips_per_part: 1\}"),
        (0, "Not even single clips"),
    ],
)
def test_too_little_memory_says_what_would_fit(
    laboratory: Any, shrunk: Any, clips: int, advice: str
) -> None:
    bench = Bench(laboratory, linear(shrunk))
    bench.encoder.core = Small(bench.encoder.core, clips)
    batch = bench.batch()
    message = r"Memory is too small for a batch of 4 clips of 16 frames \(animal A\)\. .*" + advice
    with (
        pytest.raises(TrainingError, match=message),
        explained(bench.gradients, batch, step=0, encoder=bench.encoder),
    ):
        bench.gradients.add(batch, step=0)
    assert bench.gradients.clips_per_part is None


def test_memory_for_batch_statistics_is_sought_in_recomputing(
    laboratory: Any, of_recipe: Any
) -> None:
    bench = Bench(laboratory, of_recipe("dynamic_v1fm"))
    advice = (
        r"recipe: \{clips_per_part: 2, recompute_activations: true, allow_inexact_split: true\}"
    )
    bench.encoder.core = Small(bench.encoder.core, 2)
    batch = bench.batch()
    with (
        pytest.raises(TrainingError, match=advice),
        explained(bench.gradients, batch, step=0, encoder=bench.encoder),
    ):
        bench.gradients.add(batch, step=0)


def test_other_errors_stay_what_they_are(laboratory: Any, shrunk: Any) -> None:
    bench = Bench(laboratory, linear(shrunk))
    with (
        pytest.raises(RuntimeError, match="something else"),
        explained(bench.gradients, bench.batch(), step=0, encoder=bench.encoder),
    ):
        raise RuntimeError("something else")
