"""The process around a training: how it is told to stop.

SLURM announces the end of a job by a signal; the loop looks for it between steps, writes its
checkpoint and ends with a status that makes the workflow start the job again.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from torch.multiprocessing import ProcessExitedException

# BSD's "temporary failure": the workflow starts a job again that ends with this status.
PREEMPTED = 75
_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class Preempted(SystemExit):
    """The process was told to stop; its checkpoint is written and it can go on later."""

    def __init__(self) -> None:
        super().__init__(PREEMPTED)


class StopSignal:
    """Whether SIGTERM, SIGUSR1 or SIGINT has arrived since `listening` began."""

    def __init__(self) -> None:
        self.received = False


@contextmanager
def listening() -> Iterator[StopSignal]:
    """Note the first signal to stop instead of dying of it; a second one kills as usual."""
    stop = StopSignal()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # Python delivers signals to the main thread only
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def note(number: int, frame: FrameType | None) -> None:
        stop.received = True
        for each in _SIGNALS:
            signal.signal(each, before[each])

    for number in _SIGNALS:
        signal.signal(number, note)
    try:
        yield stop
    finally:
        for number in _SIGNALS:
            signal.signal(number, before[number])


@contextmanager
def forwarding(active: bool) -> Iterator[None]:
    """Hand signals to stop on to the processes that this one has started, and end as they do."""
    if not active or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def hand_on(number: int, frame: FrameType | None) -> None:
        for child in multiprocessing.active_children():
            if child.pid is not None:
                os.kill(child.pid, number)

    for number in _SIGNALS:
        signal.signal(number, hand_on)
    try:
        yield
    except ProcessExitedException as error:
        if error.exit_code == PREEMPTED:
            raise Preempted from None
        raise
    finally:
        for number in _SIGNALS:
            signal.signal(number, before[number])
