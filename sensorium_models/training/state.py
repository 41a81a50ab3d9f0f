"""The training of one member as it stands: network, optimiser, schedule, batches, history.

What one step, one epoch and a restart do is here; `loop` says in which order, `steps` what a batch
adds to the gradient. A step sums the gradients of its batches (all animals in turn: card of the
factorized baseline, section 8).
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from lightning_fabric import Fabric

from sensorium_models.networks.build import build_encoder
from sensorium_models.networks.encoder import Encoder
from sensorium_models.recordings.several_animals import AnimalCycle
from sensorium_models.recordings.store import Recording
from sensorium_models.systems import System
from sensorium_models.training.averages import MovingAverage, copied, judged
from sensorium_models.training.distillation import Teacher
from sensorium_models.training.facts import (
    learned_cap,
    recorded_facts,
    starting_facts,
    trial_counts,
    usable_caps,
)
from sensorium_models.training.failures import (
    check_finite,
    check_gradient,
    enough_memory,
    explained,
    judging_advice,
)
from sensorium_models.training.feeding import ReadAhead, Trials
from sensorium_models.training.judging import make_objective
from sensorium_models.training.optimizers import (
    Clipper,
    build_optimizer,
    fill_missing_gradients,
    rates,
    set_rate,
    trained,
)
from sensorium_models.training.plateau import make_schedule
from sensorium_models.training.processes import (
    OwnShare,
    gathered,
    own_animals,
    share_statistics,
    sum_gradients,
    summed,
)
from sensorium_models.training.sampling import make_feed
from sensorium_models.training.schedules import Schedule
from sensorium_models.training.steps import Gradients
from sensorium_models.training.usage import Usage


class Training:
    """Everything that changes while a member trains, and what is done with it."""

    def __init__(
        self,
        *,
        system: System,
        seed: int,
        recordings: Mapping[str, Recording],
        trials: Trials,
        fabric: Fabric,
        scored: tuple[int, int | None, int],
        fresh: bool,
        teacher: Teacher | None = None,
        data_workers: int = 0,
    ) -> None:
        """`fresh`: not to be restored, so the network needs its starting rates and positions."""
        recipe = system.recipe
        self._fabric, self._recipe, self._seed = fabric, recipe, seed
        self._precision = fabric.strategy.precision
        facts = recorded_facts(system, recordings, trials.animals)
        caps = usable_caps(facts, learned_cap(system, scored[1]))
        if fresh:
            facts = starting_facts(
                system, facts, recordings=recordings, trials=trials.train, caps=caps, seed=seed
            )
        self.encoder: Encoder = build_encoder(system, facts, seed=seed).to(fabric.device).train()
        if recipe.compile:
            cast(Any, self.encoder.core).compile()
        self._gradients = Gradients(
            self.encoder,
            recipe=recipe,
            counts=trial_counts(recordings, trials.train),
            fabric=fabric,
            seed=seed,
            teacher=teacher,
        )
        self._optimizer = build_optimizer(recipe.optimizer, recipe.schedule, self.encoder)
        self._trained = trained(self._optimizer)
        self._clipper = Clipper(recipe.clipping)
        self._average: MovingAverage | None = None
        if recipe.moving_average is not None:
            self._average = MovingAverage(self.encoder, decay=recipe.moving_average.decay)
        feed = make_feed(recipe, recordings, trials.train, caps=caps, seed=seed)
        self.steps_per_epoch = feed.steps_per_epoch
        self._own = own_animals(fabric, trials.animals)
        self._batches_per_step, sampler = feed.batches_per_step, feed.sampler
        if fabric.world_size > 1:
            sampler = OwnShare(cast(AnimalCycle, sampler), self._own)
            self._batches_per_step = len(self._own)
        self._batches = ReadAhead(sampler, device=fabric.device, workers=data_workers)
        self.schedule: Schedule = make_schedule(
            recipe.schedule,
            learning_rate=recipe.optimizer.learning_rate,
            steps_per_epoch=feed.steps_per_epoch,
        )
        self._objective = make_objective(
            self.encoder,
            system=system,
            seed=seed,
            recordings=recordings,
            trials=trials.select,
            caps=caps,
            scored=scored,
            device=fabric.device,
        )
        self._judging_advice = judging_advice(
            system,
            whole_trials=recipe.validation.frames == "whole_trials",
            undivided=self.encoder.undivided,
        )
        if fabric.world_size > 1:
            self._objective.own = self._own
            self._objective.collect = lambda scores: gathered(fabric, scores)
        self._usage = Usage(fabric.device, processes=fabric.world_size)
        self.best: dict[str, torch.Tensor] = {}
        self.history: list[dict[str, Any]] = []
        self.step = 0  # steps taken in this epoch
        self._epoch = dict.fromkeys(("loss", "batches", "frames", "seconds", "waiting"), 0.0)
        self._seen = {"clips": 0, "frames": 0}

    def close(self) -> None:
        """Stop reading ahead."""
        self._batches.close()

    def begin(self, *, interrupt: Callable[[], None] = lambda: None) -> None:
        """Judge the untrained network: the first to be beaten; `interrupt` as for `evaluate`."""
        started = time.monotonic()
        objective = self.evaluate(interrupt=interrupt)
        self.schedule.begin(objective)
        self._keep_best()
        self._log(
            round=1,
            learning_rate=self.schedule.rate(0),
            train_loss=None,
            objective=objective,
            frames_per_second=None,
            seconds=time.monotonic() - started,
            waiting_seconds=None,
        )

    def take_step(self) -> None:
        """Add up the gradients of the step's batches, then one step of the optimiser.

        Raises:
            TrainingError: a loss or the gradient is not finite, or memory is too small; the step is
                not taken.
        """
        started = time.monotonic()
        number = self.schedule.epoch * self.steps_per_epoch + self.step
        set_rate(self._optimizer, self.schedule.rate(number))
        losses, batches, waited = [], [], 0.0
        for _ in range(self._batches_per_step):
            asked = time.monotonic()
            batch = self._batches.next_batch()
            waited += time.monotonic() - asked
            with explained(self._gradients, batch, step=number, encoder=self.encoder):
                losses.append(self._gradients.add(batch, step=number))
            batches.append(batch)
        values = torch.stack(losses).tolist()
        when = f"epoch {self.schedule.epoch + 1}, step {self.step + 1}"
        check_finite(values, batches, when=when, rates=rates(self._optimizer))
        norm = self._collect_gradients()
        if norm is not None:
            check_gradient(norm, batches, when=when, rates=rates(self._optimizer))
        self._improve()
        counted = (
            sum(values),
            len(values),
            sum(len(batch.animal) for batch in batches),
            sum(batch.frame.size for batch in batches),
        )
        total, count, clips, frames = summed(self._fabric, counted)
        self.step += 1
        for key, value in (
            ("loss", total),
            ("batches", count),
            ("frames", frames),
            ("seconds", time.monotonic() - started),
            ("waiting", waited),
        ):
            self._epoch[key] += value
        self._seen["clips"] += int(clips)
        self._seen["frames"] += int(frames)

    def evaluate(self, *, interrupt: Callable[[], None] = lambda: None) -> float:
        """The objective of the network as it is now; `interrupt` may raise in between."""
        with (
            judged(self.encoder, self._optimizer, self._average),
            enough_memory("to judge the network", self._judging_advice),
        ):
            return self._objective(interrupt=interrupt)

    def end_epoch(self, *, objective: float) -> None:
        """Keep the network, go back to the best one, or finish, as the schedule says."""
        epoch = self._epoch
        row = {
            "round": self.schedule.round,
            "learning_rate": self.schedule.rate(
                self.schedule.epoch * self.steps_per_epoch + self.step - 1
            ),
            "train_loss": epoch["loss"] / epoch["batches"],
            "objective": objective,
            "frames_per_second": epoch["frames"] / max(epoch["seconds"], 1e-9),
            "seconds": epoch["seconds"],
            "waiting_seconds": epoch["waiting"],
        }
        verdict = self.schedule.judge(objective)
        if verdict.improved:
            self._keep_best()
        if verdict.reload_best:
            # Weights and batch statistics; the optimiser's moments stay, as published.
            self.encoder.load_state_dict(self.best)
        self._log(**row)
        self.step = 0
        self._epoch = dict.fromkeys(epoch, 0.0)

    def state(self) -> dict[str, Any]:
        """Everything that `restore` needs. Tensors are the live ones: save them before going on.

        No generator is in it: all noise follows from seed and step.
        """
        return {
            "encoder": self.encoder.state_dict(),
            "best": self.best,
            "average": None if self._average is None else self._average.weights,
            "optimizer": self._optimizer.state_dict(),
            "precision": self._precision.state_dict(),
            "clipper": self._clipper.state(),
            "schedule": self.schedule.state(),
            "batches": self._batches.state(),
            "objective": self._objective.state(),
            "history": self.history,
            "step": self.step,
            "epoch": dict(self._epoch),
            "seen": dict(self._seen),
            "usage": self._usage.report(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.encoder.load_state_dict(state["encoder"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._precision.load_state_dict(state["precision"])
        self._clipper.restore(state["clipper"])
        if self._average is not None:
            self._average.restore(state["average"])
        self.best = state["best"]
        self.schedule.restore(state["schedule"])
        self._batches.restore(state["batches"])
        self._objective.restore(state["objective"])
        self.history = list(state["history"])
        self.step = state["step"]
        self._epoch = dict(state["epoch"])
        self._seen = dict(state["seen"])
        self._usage.restore(state["usage"])

    def report(self) -> dict[str, Any]:
        """What the member's record says of the training itself."""
        return {
            "seed": self._seed,
            "parameters": sum(p.numel() for p in self.encoder.parameters()),
            "clips_seen": self._seen["clips"],
            "frames_seen": self._seen["frames"],
            "frames_per_second": self._frames_per_second(),
            "epochs": self.schedule.epoch,
            "steps": self.schedule.epoch * self.steps_per_epoch,
            "best_epoch": self.schedule.best_epoch,
            "best_objective": self.schedule.best,
            "finished_because": self.schedule.reason,
            **self._usage.report(),
        }

    def _frames_per_second(self) -> float | None:
        """Frames that were learned from, over the time of all steps; restarts and judging apart."""
        epochs = [row for row in self.history if row["frames_per_second"] is not None]
        seconds = sum(row["seconds"] for row in epochs)
        frames = sum(row["frames_per_second"] * row["seconds"] for row in epochs)
        return frames / seconds if seconds else None

    def _collect_gradients(self) -> float | None:
        """Make the gradients those of the step; their norm, if the step is sure to be taken."""
        sum_gradients(self._fabric, self._trained)
        if self._recipe.optimizer.missing_gradients == "zero":
            fill_missing_gradients(self._trained)
        # A scaler of gradients skips a step along one that is not finite, and scales less.
        may_skip = getattr(self._precision, "scaler", None) is not None
        if may_skip and self._recipe.clipping is None:
            return None
        self._precision.unscale_gradients(self._optimizer)
        norm = self._clipper(self._trained)
        return None if may_skip else norm

    def _improve(self) -> None:
        """One step of the optimiser along the gradients, which are used up."""
        self._precision.optimizer_step(self._optimizer)
        self._optimizer.zero_grad(set_to_none=True)
        share_statistics(self._fabric, self.encoder, animals=len(self.encoder.animals))
        if self._average is not None:
            self._average.update()

    def _keep_best(self) -> None:
        with judged(self.encoder, self._optimizer, self._average):
            self.best = copied(self.encoder, "cpu")

    def _log(self, **row: Any) -> None:
        self.history.append({"epoch": self.schedule.epoch, "best": self.schedule.best, **row})
