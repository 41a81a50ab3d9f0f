"""Where an archive is, and the receipt that says so: path, size, checksum, source, time.

The receipt is what the workflow tracks; the archive itself may be large, shared and read-only.
"""

import json
from datetime import UTC, datetime
from pathlib import Path

from sensorium_models import files
from sensorium_models.recordings.archives import ArchiveError, open_archive
from sensorium_models.settings import Recording, Source

_GIN = "https://gin.g-node.org"


def locate(recording: Recording, archives: Path) -> Path:
    """The archive of a recording that is on this machine already.

    Raises:
        ArchiveError: it is not there; the message says where it should be and where to get it.
    """
    source = recording.source
    if source.kind == "directory":
        if not source.path.exists():
            raise ArchiveError(
                f"{source.path}: there is no such archive or folder; mend the path under "
                "recordings."
            )
        return source.path
    archive = archives / f"{recording.folder}.zip"
    if not archive.is_file():
        place = f"{_GIN}/{source.repository}" if source.kind == "gin" else "its simulation"
        raise ArchiveError(
            f"{archive}: is not there. Download {recording.folder}.zip from {place} "
            "into the folder of archives, or point archives: to where it is."
        )
    return archive


def write_receipt(receipt: Path, animal: str, source: Source, archive: Path) -> None:
    """Open the archive, take its checksum, and write the receipt.

    Raises:
        ArchiveError: the archive cannot be read.
    """
    with open_archive(archive) as opened:
        content = {
            "animal": animal,
            "archive": str(archive.resolve()),
            "folder": opened.folder,
            "checksum": opened.checksum(),
            "bytes": opened.uncompressed_bytes,
            "source": source.model_dump(mode="json"),
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
        }
    files.write_json(receipt, content)


def archive_of(receipt: Path) -> Path:
    """The archive that a receipt names.

    Raises:
        ArchiveError: the archive is gone.
    """
    archive = Path(json.loads(receipt.read_text(encoding="utf-8"))["archive"])
    if not archive.exists():
        raise ArchiveError(
            f"{archive}: was there when {receipt} was written and is gone; bring it back, or "
            "remove the receipt to obtain it again."
        )
    return archive
