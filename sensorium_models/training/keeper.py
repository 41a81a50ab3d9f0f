"""When a training writes its checkpoint: now and then, and when the process is told to stop.

Being told to stop while the network is evaluated counts too, because that may take minutes.
"""

import time
from collections.abc import Callable

from sensorium_models.training.checkpoints import CheckpointFile
from sensorium_models.training.process import Preempted, StopSignal
from sensorium_models.training.state import Training


class Keeper:
    """Writes the checkpoint when it is time, and when the process is told to stop."""

    def __init__(
        self,
        training: Training,
        saved: CheckpointFile,
        told: StopSignal,
        *,
        minutes: float,
        stop: Callable[[str], None] | None,
    ) -> None:
        self._training = training
        self._saved = saved
        self._told = told
        self._seconds = 60 * minutes
        self._last = time.monotonic()
        self._stop = stop

    def after(self, what: str) -> None:
        """Called when `what` (step, epoch) has been done and before the next thing begins."""
        if self._stop is not None:
            self._stop(what)
        if self._told.received:
            self._saved.save(self._training.state())
            raise Preempted
        if time.monotonic() - self._last >= self._seconds:
            self._saved.save(self._training.state())
            self._last = time.monotonic()

    def evaluated(self) -> float:
        """The objective; told to stop meanwhile, the training will begin anew with evaluating."""
        before = self._training.state()  # evaluating changes no tensor of it

        def interrupt() -> None:
            if self._stop is not None:
                self._stop("validation")
            if self._told.received:
                self._saved.save(before)
                raise Preempted

        return self._training.evaluate(interrupt=interrupt)
