"""How a benchmark prints what it measured: beside its target, and how busy the machine was."""

import os


def report(name: str, value: str, target: str = "", met: bool | None = None) -> None:
    """One line: what, how much, what it should be and whether it is."""
    verdict = "" if met is None else ("reached" if met else "MISSED")
    print(f"{name:<58} {value:>16}  {target:<22} {verdict}", flush=True)


def machine() -> str:
    """How busy this machine is: timings on a busy one are low."""
    load = os.getloadavg()[0]
    return f"{os.cpu_count()} cores, load {load:.1f} while measuring"
