"""The training of one member, from its split to its weights and record.

`train_member` starts its processes, `_train` is the recipe, top to bottom; `state` has its steps. A
training may be killed at any moment: started again it goes on from its checkpoint, on the CPU bit
for bit.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from lightning_fabric import Fabric

from sensorium_models import files
from sensorium_models.finished import is_whole
from sensorium_models.networks.devices import repeatable, resolved_device
from sensorium_models.networks.members import save_weights
from sensorium_models.provenance import environment
from sensorium_models.recordings.splits import read_splits, trial_digests
from sensorium_models.recordings.store import Recording
from sensorium_models.systems import System
from sensorium_models.training.checkpoints import CheckpointFile
from sensorium_models.training.distillation import load_teacher, teacher_identity
from sensorium_models.training.failures import (
    compiling,
    enough_memory,
    holding_advice,
    judging_advice,
)
from sensorium_models.training.feeding import TrainingError, keep_learned, member_trials
from sensorium_models.training.judging import compared
from sensorium_models.training.keeper import Keeper
from sensorium_models.training.lock import MemberLock, holding
from sensorium_models.training.process import (
    Errors,
    Preempted,
    StopSignal,
    await_next_life,
    forwarding,
    listening,
    reporting,
)
from sensorium_models.training.processes import make_fabric
from sensorium_models.training.records import EpochDisplay, Events, write_events, write_history
from sensorium_models.training.state import Training

# Room to ask for, in copies of the weights: two checkpoints of weights, best weights, average and
# two moments of the optimiser each, and the member's own.
CHECKPOINT_WEIGHTS = 11


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
    score_unit: str,
    compared_tiers: Sequence[str],
    record: Mapping[str, Any],
    teacher: Path | None = None,
    processes: int = 1,
    data_workers: int = 0,
    checkpoint_minutes: float = 10.0,
    stop: Callable[[str], None] | None = None,
) -> None:
    """Train one member; write `weights.safetensors`, `history.csv`, `run.json`, events to `output`.

    Goes on from `checkpoint` where there is one, and removes it when done. While another process
    trains this member it waits, and does nothing if that one finishes it.

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
        score_unit, compared_tiers: unit and tiers of the comparison between systems.
        record: more to store in `run.json`.
        teacher: folder of the finished member to learn from, where the recipe distils.
        processes: that train together, one per GPU; they are started here.
        data_workers: processes that read clips; 0 is a thread. They change no result.
        checkpoint_minutes: least time between two checkpoints.
        stop: for tests; called with what was just done (step, validation, epoch), may raise.

    Raises:
        TrainingError: the split does not serve, the loss is no longer finite, memory is too small.
        CheckpointError: the checkpoint is that of another configuration.
        OSError: the disk has no room for the checkpoints.
        Preempted: a signal asked the process to stop; the checkpoint is written. Where SLURM warned
            that the job's time is nearly up, the job is put back into its queue first.
    """
    system = system.of_member(axes)
    if (teacher is None) != (system.recipe.distillation is None):
        raise TrainingError(
            f"Member {member} of {system.name} "
            + ("learns from no teacher, but one is given." if teacher else "needs its teacher.")
        )
    place = resolved_device(device)
    fabric = make_fabric(place, system.recipe, processes=processes)
    try:
        with ExitStack() as stack:
            told = StopSignal()
            if processes == 1:
                stack.enter_context(listening(told))
            errors = stack.enter_context(forwarding(processes > 1, told))
            own = partial(_is_finished, output, record)
            path = checkpoint.with_name(f"{checkpoint.name}.lock")
            lock = stack.enter_context(holding(path, finished=own, told=told))
            if lock is None:
                return
            fabric.launch(
                _train,  # type: ignore[arg-type]
                system=system,
                member=member,
                axes=axes,
                training_set=training_set,
                recordings=recordings,
                splits=splits if isinstance(splits, pd.DataFrame) else read_splits(splits),
                output=output,
                checkpoint=checkpoint,
                lock=lock,
                threads=threads,
                scored=(first_scored_frame, cap_frames, drop_last_frames),
                score_unit=score_unit,
                compared_tiers=compared_tiers,
                record=record,
                teacher=teacher,
                data_workers=data_workers,
                checkpoint_minutes=checkpoint_minutes,
                stop=stop,
                told=told,
                errors=errors,
            )
    except Preempted as stopped:
        if stopped.warned:
            await_next_life()
        raise


def _is_finished(output: Path, record: Mapping[str, Any]) -> bool:
    """Whether `output` holds the whole member that would be trained."""
    try:
        present = json.loads((output / "run.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return False
    return is_whole(output) and present["fingerprint"]["digest"] == record["fingerprint"]["digest"]


def _train(
    fabric: Fabric,
    *,
    system: System,
    member: str,
    axes: Mapping[str, int | str],
    training_set: str,
    recordings: Mapping[str, Path],
    splits: pd.DataFrame,
    output: Path,
    checkpoint: Path,
    lock: MemberLock,
    threads: int,
    scored: tuple[int, int | None, int],
    score_unit: str,
    compared_tiers: Sequence[str],
    record: Mapping[str, Any],
    teacher: Path | None,
    data_workers: int,
    checkpoint_minutes: float,
    stop: Callable[[str], None] | None,
    told: StopSignal,
    errors: Errors | None,
) -> None:
    with ExitStack() as stack:
        stack.enter_context(reporting(errors))
        stack.enter_context(compiling(system.recipe.compile))
        held = enough_memory("for what this training holds", holding_advice(system))
        stack.enter_context(held)
        if fabric.world_size > 1:
            stack.enter_context(listening(told, shared=True))
        exact = repeatable(
            fabric.device, threads=threads, deterministic=system.recipe.deterministic
        )
        stack.enter_context(exact)
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
            "trials": trial_digests(splits, member),
            "recordings": {animal: handles[animal].digest for animal in trials.animals},
            "scored_frames": list(scored),
            "teacher": None if teacher is None else teacher_identity(teacher),
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
            fabric=fabric,
            scored=scored,
            fresh=state is None,
            teacher=load_teacher(teacher, recordings, animals=trials.animals, fabric=fabric)
            if teacher is not None
            else None,
            data_workers=data_workers,
        )
        stack.callback(training.close)
        keeper = Keeper(
            training,
            saved,
            told,
            lock=lock,
            fabric=fabric,
            minutes=checkpoint_minutes,
            stop=stop,
        )
        display = stack.enter_context(
            EpochDisplay(
                f"{system.name} {member}",
                epochs=system.recipe.schedule.max_epochs,
                shown=fabric.is_global_zero,
            )
        )
        if state is None:
            weights = sum(t.nbytes for t in training.encoder.state_dict().values())
            files.check_room(checkpoint, CHECKPOINT_WEIGHTS * weights)
            keeper.begin()
            display.epoch(training.history[-1])
        else:
            training.restore(state)
            display.resume(training.schedule.epoch)
        del state  # as large as the network's weights several times over
        # They follow the training beside its checkpoint, since `output` is made when it is done.
        events = Events(
            checkpoint.with_name(f"{checkpoint.name}.events"),
            training.history,
            written=fabric.is_global_zero,
        )
        stack.callback(events.close)

        while not training.schedule.finished:
            while training.step < training.steps_per_epoch:
                training.take_step()
                display.step(training.step, training.steps_per_epoch)
                keeper.after("step")
            training.end_epoch(objective=keeper.evaluated(training.evaluate))
            display.epoch(training.history[-1])
            events.add(training.history[-1])
            keeper.after("epoch")

        training.encoder.load_state_dict(training.best)
        if not fabric.is_global_zero:
            return
        undivided = training.encoder.undivided
        advice = judging_advice(system, whole_trials=True, undivided=undivided)
        with enough_memory("to compare the member with others", advice):
            comparison = compared(
                training.encoder,
                system=system,
                recordings=handles,
                trials=trials,
                tiers=compared_tiers,
                scored=scored,
                unit=score_unit,
                device=fabric.device,
                evaluated=keeper.evaluated,
            )
        lock.check()
        save_weights(output / "weights.safetensors", training.encoder)
        keep_learned(output, splits, member, teacher)
        write_history(output / "history.csv", training.history)
        write_events(output / "events", training.history)
        # Last, because its presence says that the member is complete.
        own = {
            **identity,
            "system": system.model_dump(mode="json"),
            "device": str(fabric.device),
            "processes": fabric.world_size,
            "threads": threads,
            "environment": environment(),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "unlearned_oracle": comparison,
            **training.report(),
        }
        files.write_json(output / "run.json", {**record, **own})
        events.remove()
        saved.remove()
