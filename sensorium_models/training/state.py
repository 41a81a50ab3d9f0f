"""The training of one member as it stands: network, optimiser, schedule, batches, history.

What one step, one epoch and a restart do is here; `loop` says in which order. The step is that of
the card of the factorized baseline, section 8: gradients of one batch of every animal are summed.
"""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch

from sensorium_models.networks.build import build_encoder
from sensorium_models.networks.inputs import AnimalInputs, to_device
from sensorium_models.recordings.several_animals import AnimalCycle
from sensorium_models.recordings.store import Recording
from sensorium_models.systems import System
from sensorium_models.training.facts import recorded_facts, starting_facts, usable_caps
from sensorium_models.training.feeding import (
    ReadAhead,
    TrainingError,
    Trials,
    random_clips,
    stream_seed,
)
from sensorium_models.training.losses import PoissonLoss
from sensorium_models.training.records import machine, peak_memory
from sensorium_models.training.schedules import PlateauRounds
from sensorium_models.training.validation import ClipObjective, Objective, WholeTrialObjective


class Training:
    """Everything that changes while a member trains, and what is done with it."""

    def __init__(
        self,
        *,
        system: System,
        seed: int,
        recordings: Mapping[str, Recording],
        trials: Trials,
        device: torch.device,
        scored: tuple[int, int | None, int],
        fresh: bool,
    ) -> None:
        """`fresh`: not to be restored, so the network needs its starting rates and positions."""
        recipe = system.recipe
        first_frame, cap_frames, drop_last_frames = scored
        facts = recorded_facts(system, recordings, trials.animals)
        caps = usable_caps(facts, cap_frames)
        streams: dict[str, Any] = {"recipe": recipe, "caps": caps, "seed": seed}
        if fresh:
            facts = starting_facts(
                system,
                facts,
                recordings=recordings,
                trials=trials.train,
                clips=random_clips(recordings, trials.train, purpose="initial rates", **streams),
                caps=caps,
            )
        self.encoder = build_encoder(system, facts, seed=seed).to(device).train()
        # The readouts' noise has a stream of its own, whatever building the network drew.
        torch.manual_seed(stream_seed(seed, "noise"))
        self._loss = PoissonLoss(recipe.loss)
        self._optimizer = torch.optim.AdamW(
            self.encoder.parameters(),
            lr=recipe.optimizer.learning_rate,
            betas=recipe.optimizer.betas,
            eps=recipe.optimizer.epsilon,
            weight_decay=recipe.optimizer.weight_decay,
        )
        self.schedule = PlateauRounds(recipe.schedule, learning_rate=recipe.optimizer.learning_rate)
        cycle = AnimalCycle(random_clips(recordings, trials.train, purpose="train", **streams))
        self.steps_per_epoch = cycle.rounds_per_epoch
        self._batches = ReadAhead(cycle, device=device)
        skipped = max(recipe.validation.skip_frames, self.encoder.history_frames)
        self._objective: Objective
        if recipe.validation.frames == "clips":
            self._objective = ClipObjective(
                self.encoder,
                device=device,
                clips=random_clips(
                    recordings, trials.select, purpose="select", sequential=True, **streams
                ),
                frames=recipe.clip_frames - skipped,
            )
        else:
            self._objective = WholeTrialObjective(
                self.encoder,
                device=device,
                system=system,
                recordings=recordings,
                trials=trials.select,
                caps=caps,
                first_frame=max(first_frame, skipped),
                drop_last_frames=drop_last_frames,
            )
        self._recording_trials = {a: len(recordings[a].trials) for a in trials.animals}
        self._device = device
        self._seed = seed
        self.best: dict[str, torch.Tensor] = {}
        self.history: list[dict[str, Any]] = []
        self.step = 0  # steps taken in this epoch
        self._loss_sum = 0.0  # of this epoch
        self._epoch_frames = 0
        self._epoch_seconds = 0.0
        self._frames_seen = 0
        self._started = time.monotonic()
        self._earlier_seconds = 0.0  # of the processes before this one
        self._earlier_memory: dict[str, float] = {}
        self._machines = [machine()]

    def close(self) -> None:
        """Stop reading ahead."""
        self._batches.close()

    def begin(self) -> None:
        """Judge the untrained network: the first to be beaten."""
        started = time.monotonic()
        self.schedule.begin(self.evaluate())
        self._keep_best()
        self._log(
            round=1,
            learning_rate=self.schedule.learning_rate,
            train_loss=None,
            objective=self.schedule.best,
            frames_per_second=None,
            seconds=time.monotonic() - started,
        )

    def take_step(self) -> None:
        """One batch of every animal in turn, gradients summed, then one step of the optimiser.

        Raises:
            TrainingError: a loss is not finite; the step is not taken.
        """
        started = time.monotonic()
        losses, trials = [], []
        for _ in self._recording_trials:
            batch = self._batches.next_batch()
            animal = batch.animal[0]
            clip = to_device(batch, self._device)
            rates = self.encoder(clip)  # (B, T_out, N), the last T_out frames of the clip
            frames = rates.shape[1]
            inputs = cast(AnimalInputs, self.encoder.inputs[animal])
            loss = self._loss(
                rates,
                inputs.responses(clip)[:, -frames:],
                recording_trials=self._recording_trials[animal],
                valid=None if batch.valid.all() else cast(Any, clip.valid)[:, -frames:],
            )
            loss = loss + self.encoder.regularizer(animal)  # once for every batch, as published
            loss.backward()
            losses.append(loss.detach())
            trials.append((animal, batch.trial.tolist()))
            self._epoch_frames += batch.frame.size
        values = torch.stack(losses).tolist()
        for value, (animal, rows) in zip(values, trials, strict=True):
            if not math.isfinite(value):
                raise TrainingError(
                    f"The loss became {value} in epoch {self.schedule.epoch + 1}, step "
                    f"{self.step + 1}, at animal {animal}, trials {', '.join(map(str, rows))}, "
                    f"with learning rate {self.schedule.learning_rate:g}. The last checkpoint is "
                    "kept. Look at these trials, or lower recipe.optimizer.learning_rate and train "
                    "from the start."
                )
        for group in self._optimizer.param_groups:
            group["lr"] = self.schedule.learning_rate
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self._loss_sum += sum(values)
        self._epoch_seconds += time.monotonic() - started

    def evaluate(self, *, interrupt: Callable[[], None] = lambda: None) -> float:
        """The objective of the network as it is now; `interrupt` may raise in between."""
        return self._objective(interrupt=interrupt)

    def end_epoch(self, *, objective: float) -> None:
        """Keep the network, go back to the best one, or finish, as the schedule says."""
        row = {
            "round": self.schedule.round,
            "learning_rate": self.schedule.learning_rate,
            "train_loss": self._loss_sum / (self.step * len(self._recording_trials)),
            "objective": objective,
            "frames_per_second": self._epoch_frames / max(self._epoch_seconds, 1e-9),
            "seconds": self._epoch_seconds,
        }
        verdict = self.schedule.judge(objective)
        if verdict.improved:
            self._keep_best()
        if verdict.reload_best:
            # Weights and batch statistics; the optimiser's moments stay, as published.
            self.encoder.load_state_dict(self.best)
        self._log(**row)
        self._frames_seen += self._epoch_frames
        self.step = self._epoch_frames = 0
        self._loss_sum = self._epoch_seconds = 0.0

    def state(self) -> dict[str, Any]:
        """Everything that `restore` needs. Tensors are the live ones: save them before going on."""
        cuda = self._device.type == "cuda"
        return {
            "encoder": self.encoder.state_dict(),
            "best": self.best,
            "optimizer": self._optimizer.state_dict(),
            "schedule": self.schedule.state(),
            "batches": self._batches.state(),
            "objective": self._objective.state(),
            "random": torch.get_rng_state(),
            "random_gpu": torch.cuda.get_rng_state(self._device) if cuda else None,
            "history": self.history,
            "step": self.step,
            "loss_sum": self._loss_sum,
            "epoch_frames": self._epoch_frames,
            "epoch_seconds": self._epoch_seconds,
            "frames_seen": self._frames_seen,
            "seconds": self._seconds(),
            "memory": self._memory(),
            "machines": self._machines,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.encoder.load_state_dict(state["encoder"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.best = state["best"]
        self.schedule.restore(state["schedule"])
        self._batches.restore(state["batches"])
        self._objective.restore(state["objective"])
        torch.set_rng_state(state["random"])
        if self._device.type == "cuda" and state["random_gpu"] is not None:
            torch.cuda.set_rng_state(state["random_gpu"], self._device)
        self.history = list(state["history"])
        self.step = state["step"]
        self._loss_sum = state["loss_sum"]
        self._epoch_frames = state["epoch_frames"]
        self._epoch_seconds = state["epoch_seconds"]
        self._frames_seen = state["frames_seen"]
        self._earlier_seconds = state["seconds"]
        self._earlier_memory = state["memory"]
        self._machines = [*state["machines"], machine()]

    def report(self) -> dict[str, Any]:
        """What the member's record says of the training itself."""
        return {
            "seed": self._seed,
            "parameters": sum(p.numel() for p in self.encoder.parameters()),
            "frames_seen": self._frames_seen,
            "epochs": self.schedule.epoch,
            "steps": self.schedule.epoch * self.steps_per_epoch,
            "best_epoch": self.schedule.best_epoch,
            "best_objective": self.schedule.best,
            "finished_because": self.schedule.reason,
            "wall_seconds": self._seconds(),
            "peak_memory_mb": self._memory(),
            "machines": self._machines,  # one for every time the training was started
        }

    def _keep_best(self) -> None:
        self.best = {
            name: values.detach().to("cpu", copy=True)
            for name, values in self.encoder.state_dict().items()
        }

    def _log(self, **row: Any) -> None:
        self.history.append({"epoch": self.schedule.epoch, "best": self.schedule.best, **row})

    def _seconds(self) -> float:
        return self._earlier_seconds + time.monotonic() - self._started

    def _memory(self) -> dict[str, float]:
        now = peak_memory(self._device)
        return {kind: max(mb, self._earlier_memory.get(kind, 0.0)) for kind, mb in now.items()}
