"""The process around a training: how it is told to stop.

SLURM announces the end of a job by a signal; the loop looks for it between steps and writes its
checkpoint. Then the job goes back into the queue, or, where SLURM does not allow that, ends with a
status that makes the workflow start it again.
"""

import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.queues import SimpleQueue
from types import FrameType

from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from sensorium_models import slurm
from sensorium_models.progress import tell

# BSD's "temporary failure": the workflow starts a job again that ends with this status.
PREEMPTED = 75
# Warnings that the job's time is nearly up. SLURM sends one to every process of the job,
# Snakemake's included: SIGURG is ignored by all that do not ask for it, SIGUSR1 would end them.
_WARNINGS = (signal.SIGURG, signal.SIGUSR1)
_SIGNALS = (signal.SIGTERM, signal.SIGINT, *_WARNINGS)
# SLURM ends a job within seconds of putting it back into the queue.
_REQUEUE_SECONDS = 600.0


class Preempted(SystemExit):
    """The process was told to stop; its checkpoint is written and it can go on later.

    `warned`: by a warning that the job's time is nearly up. Otherwise somebody ended the job.
    """

    def __init__(self, *, warned: bool = False) -> None:
        super().__init__(PREEMPTED)
        self.warned = warned


class StopSignal:
    """Whether a signal to stop has arrived, and whether as a warning that time is nearly up."""

    def __init__(self) -> None:
        self.received = False
        self.warned = False

    def note(self, number: int) -> None:
        """One has arrived; the first one tells why."""
        if not self.received:
            self.received = True
            self.warned = number in _WARNINGS

    def check(self) -> None:
        """Leave what has not yet brought anything to keep.

        Raises:
            Preempted: a signal has arrived.
        """
        if self.received:
            raise Preempted(warned=self.warned)


def await_next_life() -> None:
    """Put the job back into SLURM's queue and wait for its end; returns where SLURM refuses."""
    if slurm.requeue_own_job():
        tell(
            "The time of this job is nearly up; it goes on from its checkpoint when SLURM lets it."
        )
        time.sleep(_REQUEUE_SECONDS)


@contextmanager
def listening(stop: StopSignal | None = None, *, shared: bool = False) -> Iterator[StopSignal]:
    """Note the first signal to stop instead of dying of it; a second one kills as usual.

    `stop`: where it is noted. `shared`: one of several processes that train together. The same
    signal may reach it twice, from outside and handed on (`forwarding`), so that no further one
    kills.
    """
    stop = stop or StopSignal()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # Python delivers signals to the main thread only
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def note(number: int, frame: FrameType | None) -> None:
        stop.note(number)
        if not shared:
            for each in _SIGNALS:
                signal.signal(each, before[each])

    for number in _SIGNALS:
        signal.signal(number, note)
    try:
        yield stop
    finally:
        for number in _SIGNALS:
            signal.signal(number, before[number])


# By way of it a process tells the one that started it of the error that it ends with.
Errors = SimpleQueue


@contextmanager
def forwarding(active: bool, stop: StopSignal | None = None) -> Iterator[Errors | None]:
    """Hand signals to stop on to the processes that this one has started, and end as they do.

    The first one is noted in `stop`. Yields what these processes are to report their errors to
    (`reporting`), None if not `active`.
    """
    if not active:
        yield None
        return
    errors: Errors = multiprocessing.get_context("spawn").SimpleQueue()
    told = stop or StopSignal()

    def hand_on(number: int, frame: FrameType | None) -> None:
        told.note(number)
        for child in multiprocessing.active_children():
            if child.pid is not None:
                os.kill(child.pid, number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, hand_on) for number in _SIGNALS}
    try:
        yield errors
    except (ProcessExitedException, ProcessRaisedException) as error:
        # One that fails takes the others with it, and any of them may be the first to be noticed.
        if not errors.empty():
            raise errors.get() from None
        # One that was still starting has died of the signal itself.
        ends = (PREEMPTED, *(-number for number in _SIGNALS))
        if isinstance(error, ProcessExitedException) and error.exit_code in ends:
            raise Preempted(warned=told.warned) from None
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def reporting(errors: Errors | None) -> Iterator[None]:
    """Report an error that a person can mend to the process that started this one, as it is."""
    try:
        yield
    except (ValueError, OSError) as error:
        if errors is not None:
            errors.put(error if _travels(error) else ValueError(str(error)))
        raise


def _travels(error: Exception) -> bool:
    try:
        return str(pickle.loads(pickle.dumps(error))) == str(error)
    except Exception:  # whatever its class does with what it is given
        return False
