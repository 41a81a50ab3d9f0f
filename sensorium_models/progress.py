"""Progress of long work: a bar on a terminal, a line now and then in a log file."""

import fcntl
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")

# A log is read afterwards, so it gets a line now and then instead of a redrawn bar.
LOG_INTERVAL_SECONDS = 10.0

_terminal: TextIO | None = None


@contextmanager
def bars_on(descriptor: int) -> Iterator[None]:
    """Show the bars of trainings on the terminal behind `descriptor`, if it is one.

    For jobs whose standard error goes to a log. Bars of several jobs would overwrite each other:
    the first that asks has the terminal until it ends, the others have their logs.
    """
    global _terminal
    with ExitStack() as stack:
        # No terminal, one that cannot be opened, or another job's: no bars.
        with suppress(OSError):
            # A description of its own: jobs inherit the one of the run, and with it any lock.
            path = Path(os.ttyname(descriptor))
            stream = stack.enter_context(path.open("w", encoding="utf-8"))
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _terminal = stream
        try:
            yield
        finally:
            _terminal = None


def terminal() -> TextIO | None:
    """Where a bar can be drawn: the terminal of the job, else standard error if it is one."""
    return _terminal or (sys.stderr if sys.stderr.isatty() else None)


def track(
    items: Iterable[Item], description: str, *, unit: str = "it", total: int | None = None
) -> Iterator[Item]:
    """Yield `items`, showing how far along they are and how long the rest will take.

    On a terminal this is a bar that disappears when done; elsewhere (a log file of the workflow)
    it is one plain line every ten seconds and one at the end.
    """
    yield from _bar(items, desc=description, unit=unit, total=total)


@contextmanager
def meter(description: str, *, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Yield a function that shows how many of `total` bytes are there, at what rate, how long yet.

    Args:
        done: bytes that were there before; they do not count as transferred now.
    """
    with _bar(None, desc=description, unit="B", total=total, initial=done, unit_scale=True) as bar:

        def show(position: int) -> None:
            bar.update(position - bar.n)

        yield show


def _bar(items: Iterable[Any] | None, **how: Any) -> "tqdm[Any]":
    terminal = sys.stderr.isatty()
    return tqdm(
        items,
        file=sys.stderr if terminal else _Lines(sys.stderr),
        leave=not terminal,
        dynamic_ncols=terminal,
        ascii=not terminal,
        mininterval=0.2 if terminal else LOG_INTERVAL_SECONDS,
        maxinterval=LOG_INTERVAL_SECONDS,
        **how,
    )


class _Lines:
    """Turns every redrawing of a bar into a line of its own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        line = text.strip("\r\n ")
        if line:
            self._stream.write(f"{line}\n")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def tell(sentence: str) -> None:
    """Say something in the job's log."""
    print(sentence, file=sys.stderr, flush=True)
