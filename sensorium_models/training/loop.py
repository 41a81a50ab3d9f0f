"""The training of one member, from its split to its weights and record.

`train_member` is the recipe, top to bottom; `state` has its steps. A training may be killed at any
moment: started again it goes on from its checkpoint, on the CPU bit for bit.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from sensorium_models import files
from sensorium_models.networks.devices import repeatable, resolved_device
from sensorium_models.networks.members import save_weights
from sensorium_models.provenance import environment
from sensorium_models.recordings.store import Recording
from sensorium_models.systems import System
from sensorium_models.training.checkpoints import CheckpointFile
from sensorium_models.training.feeding import member_trials
from sensorium_models.training.keeper import Keeper
from sensorium_models.training.process import listening
from sensorium_models.training.records import EpochDisplay, write_history
from sensorium_models.training.state import Training


def train_member(
    *,
    system: System,
    member: str,
    axes: Mapping[str, int | str],
    training_set: str,
    recordings: Mapping[str, Path],
    splits: pd.DataFrame | Path,
    output: Path,
    checkpoint: Path,
    device: str,
    threads: int,
    first_scored_frame: int,
    cap_frames: int | None,
    drop_last_frames: int,
    record: Mapping[str, Any],
    checkpoint_minutes: float = 10.0,
    stop: Callable[[str], None] | None = None,
) -> None:
    """Train one member and write `weights.safetensors`, `history.csv`, `run.json` to `output`.

    Goes on from `checkpoint` where there is one, and removes it when done.

    Args:
        system: architecture and recipe.
        member, axes: its name and its value on each axis; `seed` decides everything random.
        recordings: recording store of each animal, in the order in which animals take turns.
        splits: the split of this system and training set, or its file.
        output: the member's folder.
        checkpoint: a file outside `output` (the workflow deletes the outputs of a failed job).
        device: cpu, cuda, cuda:1, ..., or auto.
        threads: CPU threads; the same number gives the same bits.
        first_scored_frame, cap_frames, drop_last_frames: frames of a trial that count in scores.
        record: more to store in `run.json`.
        checkpoint_minutes: least time between two checkpoints.
        stop: for tests; called with what was just done (step, validation, epoch), may raise.

    Raises:
        TrainingError: the split does not serve, or the loss is no longer finite.
        CheckpointError: the checkpoint is that of another configuration.
        Preempted: a signal asked the process to stop; the checkpoint is written.
    """
    place = resolved_device(device)
    scored = (first_scored_frame, cap_frames, drop_last_frames)
    with ExitStack() as stack:
        stack.enter_context(repeatable(place, threads=threads))
        handles = {
            animal: stack.enter_context(Recording(path)) for animal, path in recordings.items()
        }
        trials = member_trials(splits, member, list(recordings))
        identity = {
            "system": system.trained_by(),
            "member": member,
            "axes": dict(axes),
            "training_set": training_set,
            "animals": trials.animals,
            "trials": trials.digests(),
            "recordings": {animal: handles[animal].digest for animal in trials.animals},
            "scored_frames": list(scored),
            # A checkpoint of other code must not go on: one member, one version of the code.
            "sources": record.get("fingerprint", {}).get("content", {}).get("sources"),
        }
        saved = CheckpointFile(checkpoint, configuration=identity)
        state = saved.load()
        training = Training(
            system=system,
            seed=int(axes["seed"]),
            recordings=handles,
            trials=trials,
            device=place,
            scored=scored,
            fresh=state is None,
        )
        stack.callback(training.close)
        told = stack.enter_context(listening())
        keeper = Keeper(training, saved, told, minutes=checkpoint_minutes, stop=stop)
        display = stack.enter_context(
            EpochDisplay(f"{system.name} {member}", epochs=system.recipe.schedule.max_epochs)
        )
        if state is None:
            training.begin()
            display.epoch(training.history[-1])
        else:
            training.restore(state)
            display.resume(training.schedule.epoch)

        while not training.schedule.finished:
            while training.step < training.steps_per_epoch:
                training.take_step()
                display.step(training.step, training.steps_per_epoch)
                keeper.after("step")
            training.end_epoch(objective=keeper.evaluated())
            display.epoch(training.history[-1])
            keeper.after("epoch")

        training.encoder.load_state_dict(training.best)
        save_weights(output / "weights.safetensors", training.encoder)
        write_history(output / "history.csv", training.history)
        # Last, because its presence says that the member is complete.
        own = {
            **identity,
            "system": system.model_dump(mode="json"),
            "device": str(place),
            "threads": threads,
            "environment": environment(),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            **training.report(),
        }
        files.write_json(output / "run.json", {**record, **own})
        saved.remove()
