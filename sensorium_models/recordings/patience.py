"""How long a download waits for a server that is slow, busy or away, and how often it asks."""

import time
from collections.abc import Callable
from dataclasses import dataclass


class DownloadError(ValueError):
    """Something cannot be downloaded; the message says what, from where and what to do."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """Waits double from `first_wait_s` to `longest_wait_s`; `tries` in a row may bring nothing new.

    `timeout_s` is how long a connection may be silent. A server may ask for a longer wait, which is
    granted up to `longest_asked_wait_s`.
    """

    tries: int = 10
    first_wait_s: float = 1.0
    longest_wait_s: float = 120.0
    longest_asked_wait_s: float = 3600.0
    timeout_s: float = 60.0
    sleep: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        if self.tries < 1 or self.timeout_s <= 0 or self.first_wait_s < 0:
            raise ValueError(f"Patience needs at least one try and a positive timeout, not {self}.")

    def wait(self, failures: int, asked_s: float = 0.0) -> None:
        """Wait after `failures` fruitless tries in a row, and no less than the server asked for."""
        own = min(self.first_wait_s * 2 ** max(failures - 1, 0), self.longest_wait_s)
        self.sleep(max(own, min(asked_s, self.longest_asked_wait_s)))
