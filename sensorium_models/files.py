"""Writing files so that nobody ever sees half of one: temporary name, fsync, rename."""

import errno
import hashlib
import json
import os
import shutil
import socket
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

# Machines share a file system, but a process number means something on its own machine only.
_HOST = socket.gethostname().replace("/", "_")


class Closing(ABC):
    """What is open until `close`, or to the end of a `with` block."""

    @abstractmethod
    def close(self) -> None:
        """Let go of what is open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; move it there, synced to disk, if the body succeeds.

    The temporary file is removed when the body raises, so `path` is either the old content, the
    complete new one, or absent. What a killed process of this machine left of an earlier attempt is
    removed first. The temporary name keeps the suffix of `path`, because writers such
    as matplotlib and pandas choose their format by it.

    Raises:
        OSError: the folder cannot be written or the disk is full; `path` is untouched then.
    """
    path = Path(path)
    temporary = _temporary(path)
    try:
        yield temporary
        descriptor = os.open(temporary, os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
        _sync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` whose file never gets that name: it is removed after.

    What a killed process of this machine left of an earlier attempt is removed first.
    """
    temporary = _temporary(Path(path))
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(path)
    return path.with_name(f".{path.stem}.{_HOST}.{os.getpid()}.part{path.suffix}")


def remove_abandoned(path: Path) -> None:
    """Remove temporary files for `path` whose process, on this machine, is no more."""
    start, end = f".{path.stem}.{_HOST}.", f".part{path.suffix}"
    for entry in path.parent.glob(".*"):
        number = entry.name.removeprefix(start).removesuffix(end)
        if entry.name == f"{start}{number}{end}" and number.isdigit() and not is_alive(int(number)):
            entry.unlink(missing_ok=True)


def is_alive(process: int) -> bool:
    """Whether a process of this machine exists."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's
    return True


def sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal; it is never in memory as a whole."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_room(path: Path, needed: int) -> None:
    """Refuse before anything is written if the disk of `path` has less than `needed` bytes free.

    Raises:
        OSError: (ENOSPC) says how much is needed and free.
    """
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    free = shutil.disk_usage(folder).free
    if free < needed:
        full = OSError(
            f"{path} needs up to {needed:,} bytes, but {folder} has only {free:,} free. Free some"
            " space, or choose a folder on a larger disk in the configuration."
        )
        full.errno = errno.ENOSPC
        raise full


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` (UTF-8) atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Replace `path` by `content` as indented JSON, atomically."""
    write_text(path, json.dumps(content, indent=2, sort_keys=True) + "\n")


def _sync_folder(folder: Path) -> None:
    # Without this a crash just after the rename may bring the old directory entry back.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
