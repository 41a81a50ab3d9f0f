"""When a training writes its checkpoint: now and then, and when the process is told to stop.

Being told to stop while the network is evaluated counts too, because that may take minutes. Several
processes stop together: they agree between steps, and the first one writes.
"""

import time
from collections.abc import Callable

from lightning_fabric import Fabric

from sensorium_models.training.checkpoints import CheckpointFile
from sensorium_models.training.lock import MemberLock
from sensorium_models.training.process import Preempted, StopSignal
from sensorium_models.training.processes import any_process
from sensorium_models.training.state import Training


class _ToldToStop(Exception):
    """Leaves an evaluation."""


class Keeper:
    """Writes the checkpoint when it is time, and when the process is told to stop."""

    def __init__(
        self,
        training: Training,
        saved: CheckpointFile,
        told: StopSignal,
        *,
        lock: MemberLock,
        fabric: Fabric,
        minutes: float,
        stop: Callable[[str], None] | None,
    ) -> None:
        self._training = training
        self._saved = saved
        self._told = told
        self._lock = lock
        self._fabric = fabric
        self._seconds = 60 * minutes
        self._last = time.monotonic()
        self._stop = stop

    def begin(self) -> None:
        """Judge the untrained network; told to stop meanwhile, there is nothing to keep yet."""
        alone = self._fabric.world_size == 1
        self._training.begin(interrupt=self._told.check if alone else lambda: None)
        self._look()

    def after(self, what: str) -> None:
        """Called when `what` (step, epoch) has been done and before the next thing begins."""
        if self._stop is not None:
            self._stop(what)
        self._look()

    def _look(self) -> None:
        if any_process(self._fabric, self._told.received):
            self._save(self._training.state())
            # One that ends before the file is written would take the writing one with it.
            self._fabric.barrier()
            raise Preempted(warned=self._told.warned)
        if self._fabric.is_global_zero and time.monotonic() - self._last >= self._seconds:
            self._save(self._training.state())
            self._last = time.monotonic()

    def evaluated(self, evaluate: Callable[..., float]) -> float:
        """What `evaluate` says; told to stop meanwhile, the training will begin anew with it."""
        before = self._training.state()  # evaluating changes no tensor of it, once it has ended

        def interrupt() -> None:
            if self._stop is not None:
                self._stop("validation")
            # Several processes wait for one another's scores, so they stop after the epoch.
            if self._told.received and self._fabric.world_size == 1:
                raise _ToldToStop

        try:
            return evaluate(interrupt=interrupt)
        except _ToldToStop:
            self._save(before)
            raise Preempted(warned=self._told.warned) from None

    def _save(self, state: dict) -> None:
        if self._fabric.is_global_zero:
            self._lock.check()
            self._saved.save(state)
