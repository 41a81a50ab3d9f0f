"""Where an archive is, and the receipt that says so: path, size, checksum, source, time.

The receipt is what the workflow tracks; the archive itself may be large, shared and read-only.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sensorium_models import files
from sensorium_models.recordings.archives import ArchiveError
from sensorium_models.recordings.sources import open_recording
from sensorium_models.settings import DirectorySource, NativeSource, Source


def locate(source: DirectorySource | NativeSource) -> Path:
    """The archive or folder that a recording is read from in place.

    Raises:
        ArchiveError: it is not there.
    """
    if not source.path.exists():
        raise ArchiveError(
            f"{source.path}: there is no such archive or folder; mend the path under recordings."
        )
    return source.path


def write_receipt(
    receipt: Path,
    animal: str,
    source: Source,
    archive: Path,
    published: Mapping[str, Any] | None = None,
    state: str | None = None,
) -> None:
    """Open the archive, take its checksum, and write the receipt.

    Args:
        state: what the workflow compares to see that another archive is wanted.
        published: what its publisher says of a downloaded archive, and how it came here.

    Raises:
        ArchiveError: the archive cannot be read.
    """
    with open_recording(archive) as opened:
        content = {
            "animal": animal,
            "archive": str(archive.resolve()),
            "folder": opened.folder,
            "checksum": opened.checksum(),
            "bytes": opened.uncompressed_bytes,
            "source": source.model_dump(mode="json"),
            "published": dict(published) if published else None,
            "state": state,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
        }
    files.write_json(receipt, content)


def checksum_of(receipt: Path) -> str:
    """The checksum that the archive of a receipt had when it was written.

    Raises:
        ArchiveError: the receipt is damaged.
    """
    return _noted(receipt, "checksum")


def archive_of(receipt: Path) -> Path:
    """The archive that a receipt names.

    Raises:
        ArchiveError: the archive is gone, or the receipt is damaged.
    """
    archive = Path(_noted(receipt, "archive"))
    if not archive.exists():
        raise ArchiveError(
            f"{archive}: was there when {receipt} was written and is gone; bring it back, or "
            "remove the receipt to obtain it again."
        )
    return archive


def _noted(receipt: Path, key: str) -> str:
    try:
        content = json.loads(receipt.read_text(encoding="utf-8"))
    except ValueError as error:
        content = error
    if not isinstance(content, dict) or not isinstance(content.get(key), str):
        raise ArchiveError(
            f"{receipt}: is no receipt that names its {key}. Remove it to have it written again."
        )
    return str(content[key])
