"""The running checkpoint of a training: all that is needed to go on bit for bit.

A file is a short header, a SHA-256 of what follows, and tensors with plain containers as
`torch.save` writes them (read back with `weights_only=True`: no code is ever executed). The one
before last is kept beside it as `<name>.previous`: a torn write costs minutes, not the training.
"""

import hashlib
import io
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sensorium_models import files

_MAGIC = b"sensorium checkpoint 1\n"
_DIGEST_BYTES = hashlib.sha256().digest_size


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
        buffer = io.BytesIO()
        torch.save({"configuration": self._configuration, "state": dict(state)}, buffer)
        payload = buffer.getbuffer()
        with files.replacing(self.path) as temporary:
            with temporary.open("wb") as file:
                file.write(_MAGIC + hashlib.sha256(payload).digest())
                file.write(payload)
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


def _read(path: Path) -> dict[str, Any] | None:
    # Checkpoints are some hundred MB at most, so reading one whole to verify it is affordable.
    raw = path.read_bytes()
    start = len(_MAGIC) + _DIGEST_BYTES
    digest, payload = raw[len(_MAGIC) : start], memoryview(raw)[start:]
    if not raw.startswith(_MAGIC) or hashlib.sha256(payload).digest() != digest:
        return None
    content: dict[str, Any] = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    return content
