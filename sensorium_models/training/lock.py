"""One training of a member at a time, whoever started it: a lock beside the checkpoint.

A scheduler may start a job while an older one of the same member still runs: its controller was
restarted, its status was lost, a node came back. The second waits. A lock whose holder is no more
(process, machine or SLURM job gone) is stale and taken over.
"""

import hashlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sensorium_models import files, slurm
from sensorium_models.progress import tell
from sensorium_models.training.feeding import TrainingError
from sensorium_models.training.process import StopSignal

HEARTBEAT_SECONDS = 60.0
# Where neither process nor job can be looked up, a lock of a silent holder is stale after this.
SILENCE_SECONDS = 15 * HEARTBEAT_SECONDS
_LOOK_SECONDS = 2.0


class MemberLock:
    """The lock at `path`, held by this process."""

    def __init__(self, path: Path, content: str) -> None:
        self._path = path
        self._content = content

    def check(self) -> None:
        """Called before a checkpoint is written.

        Raises:
            TrainingError: another training has taken over, since this one seemed dead.
        """
        if _content(self._path) != self._content:
            raise TrainingError(
                f"{self._path} is another training's now, which took this one for dead (a machine "
                "that was cut off?). This one ends and leaves the checkpoint to it."
            )


@contextmanager
def holding(
    path: Path, *, finished: Callable[[], bool], told: StopSignal | None = None
) -> Iterator[MemberLock | None]:
    """Hold the lock at `path`; wait while another training that lives holds it.

    Yields None if that one has brought the member to its end meanwhile, as `finished` tells.

    Raises:
        Preempted: while it waited, this process was told to stop.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    content = json.dumps(_own_identity())
    waited = said = False
    while not _created(path, content):
        holder = _content(path)
        if holder is None:
            continue
        alive = _lives(path, holder)
        if not alive and _taken_away(path, holder, content):
            continue
        if alive and not said:
            tell(f"{_sentence(path, holder)} Waiting until it ends.")
            said = True
        waited = True
        time.sleep(_LOOK_SECONDS)
        if told is not None:
            told.check()
    over = threading.Event()
    beating = threading.Thread(target=_beat, args=(path, content, over), daemon=True)
    beating.start()
    try:
        yield None if waited and finished() else MemberLock(path, content)
    finally:
        over.set()
        beating.join()
        _taken_away(path, content, content)


def _own_identity() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "machine": _machine(),
        "process": os.getpid(),
        "started": _started(os.getpid()),
        "job": slurm.own_job(),
        "cluster": os.environ.get("SLURM_CLUSTER_NAME"),
    }


def _lives(path: Path, content: str) -> bool:
    try:
        holder = json.loads(content)
        if holder["machine"] is not None and holder["machine"] == _machine():
            # The same boot and numbering of processes: the process itself can be looked up.
            return holder["started"] is not None and holder["started"] == _started(
                int(holder["process"])
            )
        if holder["machine"] is None and holder["host"] == socket.gethostname():
            return files.is_alive(int(holder["process"]))
        job = holder["job"]
        if job and holder["cluster"] == os.environ.get("SLURM_CLUSTER_NAME"):
            if job == slurm.own_job():
                return False  # an earlier life of this very job
            at_work = slurm.is_at_work(job)
            if at_work is not None:
                return at_work
    except (ValueError, KeyError, TypeError):
        pass  # torn, as a crash leaves it
    return _silence(path) < SILENCE_SECONDS


def _silence(path: Path) -> float:
    """Seconds since the holder's last sign of life, by the clock of the file system."""
    probe = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.clock")
    try:
        probe.touch()
        return probe.stat().st_mtime - path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")
    finally:
        probe.unlink(missing_ok=True)


def _beat(path: Path, content: str, over: threading.Event) -> None:
    while not over.wait(HEARTBEAT_SECONDS):
        try:
            if _content(path) == content:  # another's silence must not be broken
                os.utime(path)
        except OSError:
            continue  # the file system may be back at the next beat


def _created(path: Path, content: str) -> bool:
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return True


def _content(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None


def _taken_away(path: Path, content: str, own: str) -> bool:
    """Remove the lock of `content`, of the dead or `own`; False where another is about to do so.

    Between reading a lock and removing it, another process may have replaced it. Hence a lock is
    only ever removed by who has created the file that is named after its content; what a process
    left there that died in between is removed in the same way.
    """
    named = hashlib.sha256(content.encode()).hexdigest()[:8]
    right = path.with_name(f"{path.name}.{named}")
    if not _created(right, own):
        holder = _content(right)
        if holder is not None and not _lives(right, holder):
            _taken_away(right, holder, own)
        return False
    try:
        # Whole ones are all different; one that is just being written is like a torn one.
        torn = not content.endswith("}")
        if _content(path) == content and not (torn and _silence(path) < SILENCE_SECONDS):
            path.unlink(missing_ok=True)
    finally:
        right.unlink(missing_ok=True)
    return True


def _sentence(path: Path, content: str) -> str:
    try:
        holder = json.loads(content)
        job = f" (SLURM job {holder['job']})" if holder["job"] else ""
        return (
            f"{path}: process {holder['process']} on {holder['host']}{job} is training this member."
        )
    except (ValueError, KeyError, TypeError):
        return f"{path}: another process is training this member."


def _machine() -> str | None:
    """This boot of this machine and its numbering of processes, where Linux tells."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        numbering = Path("/proc/self/ns/pid").readlink()
    except OSError:
        return None
    return f"{socket.gethostname()} {boot} {numbering}"


def _started(process: int) -> str | None:
    """When a living process started, in ticks since boot: numbers of dead ones are given again."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]
