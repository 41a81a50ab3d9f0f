"""An archive from G-Node GIN: what the repository says it is, and the archive itself, verified.

Large files are git-annex content there: git holds pointers, and the content is served at
`/<repository>/raw/<commit>/<file>`. Two things that the server's source (G-Node/gogs,
`internal/route/repo/download.go`) tells: it sends the whole file, whatever range is asked for, and
it may answer with a captcha page instead.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sensorium_models.progress import tell
from sensorium_models.recordings import annex, transfer
from sensorium_models.recordings.patience import DownloadError, Patience
from sensorium_models.settings import GinSource


def obtain(source: GinSource, archive: Path, *, patience: Patience | None = None) -> dict[str, Any]:
    """Make sure that `archive` is the file that `source` names; download it if it is not here.

    An archive that is here already is verified, and never replaced.

    Returns:
        For the receipt: commit, file, git-annex key, size in bytes, checksum, the address that it
        was downloaded from (None if it was here), start and end.

    Raises:
        DownloadError: it cannot be looked up or downloaded, or the archive that is here is another
            file than the published one.
    """
    patience = patience or Patience()
    started = _now()
    file = source.file or archive.name
    if source.commit == "master":
        tell(
            f"Warning: {source.repository} is not pinned, so what is downloaded may change. Write "
            "the commit of this animal's receipt into the configuration."
        )
    repository = f"{source.server.rstrip('/')}/{source.repository}"
    pointer = annex.look_up(f"{repository}.git", source.commit, file, patience=patience)
    tell(f"{file} at commit {pointer.commit} is {pointer.key.text}.")
    address = None
    if archive.exists():
        _check(archive, pointer, repository)
        tell(f"{archive} is here already and verified.")
    else:
        addresses = [f"{repository}/raw/{pointer.commit}/{file}"]
        addresses += [f"{mirror.rstrip('/')}/{archive.name}" for mirror in source.mirrors]
        address = transfer.fetch(addresses, archive, pointer.key, patience=patience)
    return {
        "repository": repository,
        "commit": pointer.commit,
        "file": file,
        "key": pointer.key.text,
        "bytes": pointer.key.size,
        "checksum": f"{pointer.key.algorithm}:{pointer.key.checksum}",
        "address": address,
        "started": started,
        "finished": _now(),
    }


def _check(archive: Path, pointer: annex.Pointer, repository: str) -> None:
    key, size = pointer.key, archive.stat().st_size
    checksum = key.checksum_of(archive) if size == key.size else None
    if checksum == key.checksum:
        return
    here = f"{size} bytes" + (f", {key.algorithm} {checksum}" if checksum else "")
    raise DownloadError(
        f"{archive}: is not what {repository} has at commit {pointer.commit}: here {here}, "
        f"there {key.size} bytes, {key.algorithm} {key.checksum}. Either it was published anew or "
        "the one here is damaged. Nothing was fetched over it: move it away to download the "
        "published one, or pin the commit that it came from."
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
