"""The running checkpoint of a training: all that is needed to go on bit for bit.

A file is a short header, a SHA-256 of what follows, and tensors with plain containers as
`torch.save` writes them (read back with `weights_only=True`: no code is ever executed). The one
before last is kept beside it as `<name>.previous`: a torn write costs minutes, not the training.
Files reach gigabytes (DwiseNeuro: 3.4 GB), so they are written and read piece by piece.
"""

import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch

from sensorium_models import files

_MAGIC = b"sensorium checkpoint 1\n"
_DIGEST_BYTES = hashlib.sha256().digest_size
_PIECE_BYTES = 1 << 20


class CheckpointError(ValueError):
    """A checkpoint that must not be continued; the message says why and what to do."""


class CheckpointFile:
    """The checkpoint of one member at `path`, tied to the `configuration` that it belongs to."""

    def __init__(self, path: Path, *, configuration: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.previous = self.path.with_name(self.path.name + ".previous")
        self._configuration = flattened(configuration)

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the checkpoint atomically; the old one becomes the previous one.

        Args:
            state: tensors, numbers, strings, None, and lists, tuples and dicts of them.

        Raises:
            OSError: the disk is full or the folder cannot be written; the old files are intact.
        """
        with files.replacing(self.path) as temporary:
            with temporary.open("wb") as file:
                file.write(_MAGIC + bytes(_DIGEST_BYTES))
                writer = _Hashing(file)
                content = {"configuration": self._configuration, "state": dict(state)}
                torch.save(content, cast(BinaryIO, writer))
                file.seek(len(_MAGIC))
                file.write(writer.digest())
            # The old file moves only once the new one is complete: at any moment at least one of
            # the names holds a whole checkpoint.
            if self.path.exists():
                self.path.replace(self.previous)

    def load(self) -> dict[str, Any] | None:
        """The newest whole state, on the CPU, or None where there is none.

        A torn or foreign file is reported on standard error and set aside for the older one.

        Raises:
            CheckpointError: the checkpoint belongs to another configuration.
        """
        for path in (self.path, self.previous):
            if not path.is_file():
                continue
            content = _read(path)
            if content is None:
                print(
                    f"{path} is not a whole checkpoint (torn or foreign); "
                    "it is set aside and the one before it is used if there is one.",
                    file=sys.stderr,
                )
                # Left in place it would replace the good previous file at the next save.
                path.rename(path.with_name(path.name + ".unreadable"))
                continue
            self._check(path, content["configuration"])
            state: dict[str, Any] = content["state"]
            return state
        return None

    def remove(self) -> None:
        """Delete the checkpoint and what was set aside; the member is done."""
        for path in (self.path, self.previous):
            path.unlink(missing_ok=True)
            path.with_name(path.name + ".unreadable").unlink(missing_ok=True)
        # What a process left that was killed while it wrote.
        for part in self.path.parent.glob(f".{self.path.stem}.*.part{self.path.suffix}"):
            part.unlink(missing_ok=True)

    def _check(self, path: Path, found: Mapping[str, Any]) -> None:
        missing = object()
        keys = sorted(
            key
            for key in {*found, *self._configuration}
            if found.get(key, missing) != self._configuration.get(key, missing)
        )
        if keys:
            changes = "; ".join(
                f"{key}: {found.get(key, 'absent')!r} there, "
                f"{self._configuration.get(key, 'absent')!r} now"
                for key in keys[:10]
            )
            more = f"; and {len(keys) - 10} more" if len(keys) > 10 else ""
            raise CheckpointError(
                f"{path} belongs to another configuration ({changes}{more}). Restore these "
                "settings to go on, or delete the file to train from the start."
            )


def flattened(configuration: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one mapping with dotted keys, so that differences can be named."""
    flat: dict[str, Any] = {}
    for key, value in configuration.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat.update(flattened(value, f"{name}."))
        else:
            flat[name] = list(value) if isinstance(value, tuple) else value
    return flat


class _Hashing:
    """Writes to a file and takes the digest of what is written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()

    def write(self, piece: Any) -> int:
        self._digest.update(piece)
        return self._file.write(piece)

    def flush(self) -> None:
        self._file.flush()

    def digest(self) -> bytes:
        return self._digest.digest()


def _read(path: Path) -> dict[str, Any] | None:
    with path.open("rb") as file:
        header = file.read(len(_MAGIC) + _DIGEST_BYTES)
        if not header.startswith(_MAGIC):
            return None
        digest = hashlib.sha256()
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
        if digest.digest() != header[len(_MAGIC) :]:
            return None
        file.seek(len(header))
        content: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        return content
