"""Batches of a system as its training makes them, and the two sides that compute their gradient."""

import argparse
import dataclasses
import importlib
import json
from typing import Any
from unittest import mock

PLAIN = {
    "factorized_baseline": "plain_baselines",
    "gru_baseline": "plain_baselines",
    "dwiseneuro": "plain_dwiseneuro",
    "dynamic_v1fm": "plain_dynamic_v1fm",
    "viv1t": "plain_viv1t",
    "viv1t_2025": "plain_viv1t",
}
ANIMALS = 10  # of a member of Table 2


class Batches:
    """Batches of a system, its untrained network, and the loss and gradient of a batch."""

    def __init__(self, options: argparse.Namespace) -> None:
        import torch

        from sensorium_models.configuration import Origin
        from sensorium_models.networks.build import animal_facts, build_encoder
        from sensorium_models.recordings.store import Recording
        from sensorium_models.systems import System, load_system, with_changes
        from sensorium_models.training.facts import trial_counts, usable_caps
        from sensorium_models.training.feeding import ReadAhead
        from sensorium_models.training.processes import make_fabric
        from sensorium_models.training.sampling import make_feed
        from sensorium_models.training.steps import Gradients

        shipped = load_system(options.system, folders=[], members={}, origin=Origin([], {}))
        recipe: dict[str, Any] = {"precision": options.precision}
        if options.clips:
            recipe["clips_per_batch"] = options.clips
        if options.frames:
            recipe["clip_frames"] = options.frames
        for change in options.set:
            key, value = change.split("=")
            recipe[key] = json.loads(value)
        # As the file stands, without what an axis of the members changes.
        own = shipped.model_dump()
        self.system = System.model_validate(with_changes(own, {"recipe": recipe}))
        recording = Recording(options.store)
        animal = recording.animal
        trials = {animal: recording.trials_of(["train"])}
        facts = {animal: animal_facts(recording, self.system)}
        self.device = torch.device(options.device)
        self.encoder = build_encoder(self.system, facts, seed=1).train()
        self._without_noise(torch)
        self.encoder.to(self.device)
        caps = usable_caps(facts, 300)
        settings = self.system.recipe
        feed = make_feed(settings, {animal: recording}, trials, caps=caps, seed=1)
        self.batches = ReadAhead(feed.sampler)
        mixed = settings.batches == "mixed_animals"
        batches = feed.steps_per_epoch * feed.batches_per_step * (1 if mixed else ANIMALS)
        self.batches_at_most = batches * settings.schedule.max_epochs
        self.counts = trial_counts({animal: recording}, trials)
        self.gradients = Gradients(
            self.encoder,
            recipe=settings,
            counts=self.counts,
            fabric=make_fabric(self.device, settings, processes=1),
            seed=1,
            teacher=None,
        )
        self.rates: list[Any] = []

    def ours(self, clip: Any) -> float:
        """Add the gradient of a batch as a training does, but for CutMix."""
        return float(self.gradients.add(dataclasses.replace(clip, partner=None), step=0))

    def exact(self, clip: Any) -> float:
        """Add the gradient of a batch by the plain transcription, in float64."""
        import torch

        drawn: Any = torch.randn

        def same_noise(*size: Any, dtype: Any = None, **keywords: Any) -> Any:
            return drawn(*size, dtype=torch.float32, **keywords).to(dtype)

        self.encoder.double()
        # The loss and the noise are float32 by their own code, which is the same in both sides.
        with (
            mock.patch.object(torch, "randn", same_noise),
            mock.patch.object(torch.Tensor, "float", torch.Tensor.double),
        ):
            return self.plain(clip)

    def plain(self, clip: Any) -> float:
        """Add the gradient of a batch by the plain transcription."""
        import torch

        from sensorium_models.networks.inputs import to_device
        from sensorium_models.training.feeding import stream_seed
        from sensorium_models.training.losses import PoissonLoss

        animal = clip.animal[0]
        torch.manual_seed(stream_seed(1, f"noise/0/{animal}"))
        clip = to_device(dataclasses.replace(clip, partner=None), self.device)
        side: Any = importlib.import_module(PLAIN[self.system.name])
        rates = side.rates(self.encoder, clip)
        self.rates = [rates.detach()]
        recorded = self.encoder.inputs[animal].responses(clip)[:, -rates.shape[1] :]
        if self.system.recipe.negative_responses == "zero":
            recorded = recorded.clamp(min=0)
        loss_of = PoissonLoss(self.system.recipe.loss)
        if self.system.recipe.batches == "mixed_animals":
            loss = loss_of.by_clip(rates, recorded).mean()
        else:
            loss = loss_of(rates, recorded, counts=self.counts[animal])
        loss = loss + self.encoder.regularizer(animal)
        loss.backward()
        return float(loss.detach())

    def _without_noise(self, torch: Any) -> None:
        """What is the same in both sides: no dropout, and weights that no longer are all alike."""
        from sensorium_models.networks.cores.attention import BlockSettings

        for part in self.encoder.modules():
            for name in ("probability", "patch_dropout"):
                if isinstance(getattr(part, name, None), float):
                    setattr(part, name, 0.0)
            if isinstance(settings := getattr(part, "settings", None), BlockSettings):
                rates = ("attention_dropout", "feedforward_dropout", "drop_path")
                part.settings = dataclasses.replace(settings, **dict.fromkeys(rates, 0.0))
            if isinstance(part, torch.nn.modules.dropout._DropoutNd):
                part.p = 0.0
        for name, values in self.encoder.named_parameters():
            if name.startswith("readouts.") and name.endswith(".features"):
                torch.nn.init.normal_(values, std=1 / len(values))

        def kept(module: Any, given: Any, rates: Any) -> None:
            self.rates.append(rates.detach())

        self.encoder.output.register_forward_hook(kept)
