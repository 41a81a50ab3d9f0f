"""One large file over HTTP: resumable, verified against its git-annex key, mirrors in order.

What has arrived lies beside the archive under a name that carries the key, so that a file that was
changed by its publisher never continues another one. The archive's own name is given to a file
whose size and checksum were read back from the disk, and to no other.
"""

import fcntl
import glob
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from io import FileIO
from pathlib import Path

import requests
import urllib3

from sensorium_models.progress import meter, tell
from sensorium_models.recordings.annex import AnnexKey
from sensorium_models.recordings.patience import DownloadError, Patience

_PIECE_BYTES = 1 << 18
_BUSY = {408, 425, 429}  # and every 5xx: asking again later may help
_CORRUPT_DELIVERIES = 2


def partial_of(archive: Path, key: AnnexKey) -> Path:
    """Where the bytes of an unfinished download are kept."""
    return archive.with_name(f"{archive.name}.{key.text}.part")


def fetch(addresses: Sequence[str], archive: Path, key: AnnexKey, *, patience: Patience) -> str:
    """Download `archive` from the first address that gives the file which `key` describes.

    Goes on from what an earlier run left. Every address is asked again after interruptions until
    `patience.tries` tries in a row brought nothing new.

    Returns:
        The address that gave the last byte.

    Raises:
        DownloadError: no address gave the file, the disk is full, or another process is at it. What
            has arrived stays for the next run.
    """
    partial = partial_of(archive, key)
    try:
        archive.parent.mkdir(parents=True, exist_ok=True)
        with _opened(partial) as file:
            _check_disk(file, partial, key)
            address = _Transfer(file, partial, key, patience).from_first_of(addresses)
            if archive.exists():
                raise DownloadError(
                    f"{archive}: appeared during its download; nothing was put over it."
                )
            partial.rename(archive)
        for other in archive.parent.glob(f"{glob.escape(archive.name)}.*.part"):
            tell(f"{other} is left of another version of this file; nothing needs it any more.")
    except OSError as error:
        raise DownloadError(
            f"{partial}: cannot be written ({error.strerror or error}). What has arrived stays; "
            "free or choose another disk (archives: in the configuration) and run again to go on."
        ) from error
    return address


class _Refused(Exception):
    """This address will not give the file; the message follows the address."""


class _Interrupted(Exception):
    """This address did not give all of the file this time."""

    def __init__(self, reason: str, asked_s: float = 0.0) -> None:
        super().__init__(reason)
        self.asked_s = asked_s


class _Transfer:
    """The bytes of one file on their way to the disk."""

    def __init__(self, file: FileIO, partial: Path, key: AnnexKey, patience: Patience) -> None:
        self._file = file
        self._partial = partial
        self._key = key
        self._patience = patience
        self._show: Callable[[int], None] = lambda position: None

    @property
    def _arrived(self) -> int:
        return os.fstat(self._file.fileno()).st_size

    def from_first_of(self, addresses: Sequence[str]) -> str:
        refusals = []
        if self._arrived > self._key.size or (self._complete and not self._verified()):
            self._file.truncate(0)
        description = self._partial.name.split(".", 1)[0]
        with (
            requests.Session() as session,
            meter(description, total=self._key.size, done=self._arrived) as self._show,
        ):
            for address in addresses:
                if self._arrived:
                    tell(f"{self._arrived} bytes are here already; going on from {address}.")
                try:
                    self._all_from(address, session)
                    return address
                except _Refused as refusal:
                    refusals.append(f"{address} {refusal}")
                    tell(f"{refusals[-1]}.")
        raise DownloadError(
            f"{self._partial}: could not be completed from any address. {'; '.join(refusals)}. "
            "What has arrived stays, and the next run goes on from it; other places to download "
            "from can be listed as mirrors of the source."
        )

    def _all_from(self, address: str, session: requests.Session) -> None:
        """Ask `address` until the file is complete and right."""
        furthest, fruitless, corrupt = self._arrived, 0, 0
        while True:
            interruption = None
            if not self._complete:
                try:
                    self._rest_from(address, session)
                except _Interrupted as error:
                    interruption = error
            if self._complete:
                if self._verified():
                    return
                # Which of its bytes are wrong cannot be known.
                self._file.truncate(0)
                corrupt, furthest = corrupt + 1, 0
                if corrupt == _CORRUPT_DELIVERIES:
                    raise _Refused(f"gave a file with another checksum {corrupt} times")
                interruption = _Interrupted("the checksum of what arrived is wrong; starting anew")
            reason = interruption or _Interrupted("the connection ended early")
            fruitless = 0 if self._arrived > furthest else fruitless + 1
            furthest = max(furthest, self._arrived)
            if fruitless == self._patience.tries:
                raise _Refused(f"brought nothing new {fruitless} times in a row ({reason})")
            tell(f"{address}: {reason}; {self._arrived} of {self._key.size} bytes are here.")
            self._patience.wait(fruitless, reason.asked_s)

    def _rest_from(self, address: str, session: requests.Session) -> None:
        """One request for what is missing, written as it comes."""
        have = self._arrived
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
        timeout = self._patience.timeout_s
        try:
            with session.get(address, headers=headers, stream=True, timeout=timeout) as response:
                position = self._start(response, have)
                self._write(response, position)
                if "Content-Length" not in response.headers and not self._complete and not position:
                    # Perhaps not the file at all: nothing of it can be told from a web page.
                    self._file.truncate(0)
        except (
            # Whatever is wrong with an address, or with the one that it redirects to: neither
            # library wraps all of it.
            ValueError,
            requests.exceptions.TooManyRedirects,
        ) as error:
            raise _Refused(f"cannot be asked ({_brief(error)})") from error
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise _Refused(f"cannot be trusted ({_brief(error)})") from error
            raise _Interrupted(_brief(error)) from error

    def _start(self, response: requests.Response, have: int) -> int:
        """Which byte the body of a response begins with; refuses any that is not of the file."""
        status, headers = response.status_code, response.headers
        if status in _BUSY or status >= 500:
            asked_s = _seconds(headers.get("Retry-After", ""))
            raise _Interrupted(f"answers {status} {response.reason}", asked_s)
        if status not in (200, 206):
            raise _Refused(f"answers {status} {response.reason}")
        if headers.get("Content-Encoding", "identity") != "identity":
            raise _Refused("compresses the file on its way, which was not asked for")
        if headers.get("Content-Type", "").startswith("text/html"):
            raise _Refused("answers with a web page (a login, a captcha?) instead of the file")
        position, size = 0, headers.get("Content-Length", "")
        if status == 206:
            part = re.fullmatch(
                r"bytes ([0-9]+)-[0-9]+/([0-9]+|\*)", headers.get("Content-Range", "")
            )
            if part is None or _whole(part[1]) != have:
                raise _Refused("answers with another part of the file than was asked for")
            position, size = have, part[2]
        elif have:
            tell("The server cannot go on in the middle of a file, so this begins at the start.")
        if _whole(size) not in (None, self._key.size):
            raise _Refused(
                f"offers {size} bytes where the key says {self._key.size}; the server may not have "
                "the content"
            )
        return position

    def _write(self, response: requests.Response, position: int) -> None:
        # A server without ranges sends again what is here already; it is written over itself, so
        # that another interruption loses nothing.
        self._file.seek(position)
        # read1 hands on what has arrived; other ways to read lose a piece with each interruption.
        while piece := response.raw.read1(_PIECE_BYTES, decode_content=False):
            position += len(piece)
            if position > self._key.size:
                self._file.truncate(0)
                raise _Refused(f"sends more than the {self._key.size} bytes of the key")
            rest = memoryview(piece)
            while rest:
                rest = rest[self._file.write(rest) :]
            self._show(position)

    @property
    def _complete(self) -> bool:
        return self._arrived == self._key.size

    def _verified(self) -> bool:
        tell(f"Checking {self._key.algorithm} of {self._partial.name}.")
        os.fsync(self._file.fileno())
        return self._key.describes(self._partial)


@contextmanager
def _opened(partial: Path) -> Iterator[FileIO]:
    """The partial file, made if need be, for this process alone."""
    descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DownloadError(
                f"{partial}: another process is downloading this archive; wait for it."
            ) from error
        except OSError:
            tell(f"{partial}: this file system has no locks; let only one process download it.")
        yield file


def _check_disk(file: FileIO, partial: Path, key: AnnexKey) -> None:
    missing = key.size - os.fstat(file.fileno()).st_size
    free = shutil.disk_usage(partial.parent).free
    if missing > free:
        raise DownloadError(
            f"{partial.parent}: {missing / 1e9:.1f} GB are still to come and {free / 1e9:.1f} GB "
            "are free. Free some, or choose another disk (archives: in the configuration)."
        )


def _whole(number: str) -> int | None:
    """The number of a header; None where it is none, which is as if the header were absent."""
    # Not isdigit(), which takes digits that int() does not; 20 digits hold every file and wait.
    return int(number) if re.fullmatch(r"[0-9]{1,20}", number.strip()) else None


def _seconds(retry_after: str) -> float:
    """What a Retry-After header asks for: seconds or a date (RFC 9110, section 10.2.3)."""
    if (asked := _whole(retry_after)) is not None:
        return float(asked)
    try:
        date = parsedate_to_datetime(retry_after)
        if date.tzinfo is None:
            date = date.replace(tzinfo=UTC)
        return max(0.0, (date - datetime.now(UTC)).total_seconds())
    except (ValueError, OverflowError):
        return 0.0


def _brief(error: Exception) -> str:
    """The innermost reason of a chain of wrapped exceptions, without addresses of objects."""
    while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    reason = getattr(error, "reason", None)
    if isinstance(reason, Exception):
        return _brief(reason)
    return re.sub(r"<[^>]*>(: )?", "", str(error)).strip() or type(error).__name__
