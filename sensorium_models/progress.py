"""Progress of long work: a bar on a terminal, a line now and then in a log file."""

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")

# A log is read afterwards, so it gets about one line in this many seconds instead of a redrawn bar.
LOG_INTERVAL_SECONDS = 10.0


def track(
    items: Iterable[Item], description: str, *, unit: str = "it", total: int | None = None
) -> Iterator[Item]:
    """Yield `items`, showing how far along they are and how long the rest will take.

    On a terminal this is a bar that disappears when done; elsewhere (a log file of the workflow)
    it is one plain line every ten seconds and one at the end.
    """
    terminal = sys.stderr.isatty()
    yield from tqdm(
        items,
        desc=description,
        unit=unit,
        total=total,
        file=sys.stderr,
        leave=not terminal,
        dynamic_ncols=terminal,
        ascii=not terminal,
        mininterval=0.2 if terminal else LOG_INTERVAL_SECONDS,
        maxinterval=LOG_INTERVAL_SECONDS,
    )
