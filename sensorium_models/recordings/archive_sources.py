"""Where the files of an archive are (zip or folder), and what the header of one array says.

Names and headers come from outside, so both are checked before anything is believed: no path leaves
the archive, no header asks for more memory than its file has, nothing is unpickled.
"""

import hashlib
import math
import re
import stat
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tokenize import TokenError
from typing import IO, Protocol

import numpy as np
from numpy.lib import format as npy

from sensorium_models.files import sha256

# Far above any real trial (26 MB); keeps a forged size from asking for all memory.
LARGEST_ARRAY_BYTES = 4 * 1024**3

COPY_AGAIN = "Download or copy the archive again."
WRITE_AGAIN = "Write it again with numpy.save, as numbers in the released layout."


class ArchiveError(ValueError):
    """An archive cannot be used as it is; the message says what, where and what to do."""


class HeaderError(ValueError):
    """What is wrong with the header of an array, to be said after the name of its file."""


@dataclass(frozen=True)
class ArrayHeader:
    """What the header of one .npy file says, checked against the size of its entry."""

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran_order: bool

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class Source(Protocol):
    """Where the files are: `sizes` maps names relative to the recording's folder to bytes."""

    folder: str
    sizes: dict[str, int]

    def open(self, name: str) -> IO[bytes]: ...
    def checksum(self) -> str: ...
    def close(self) -> None: ...


def open_source(path: Path) -> Source:
    """The files of a zip or of an unpacked folder.

    Raises:
        ArchiveError: it is neither, is damaged, or does not hold exactly one recording.
    """
    return _Folder(path) if path.is_dir() else _Zip(path)


def read_header(
    stream: IO[bytes], *, entry_bytes: int, kinds: str, largest: int = LARGEST_ARRAY_BYTES
) -> ArrayHeader:
    """Read the header of a .npy file of `entry_bytes`; the stream is then at its first number.

    Args:
        kinds: letters of the numpy kinds that are allowed, such as "biuf".
        largest: bytes that the array may have.

    Raises:
        HeaderError: not a .npy file, another kind, or numbers that are not as long as they should.
    """
    try:
        version = npy.read_magic(stream)
        if version == (1, 0):
            shape, fortran_order, dtype = npy.read_array_header_1_0(stream)
        elif version == (2, 0):
            shape, fortran_order, dtype = npy.read_array_header_2_0(stream)
        else:
            raise ValueError(f"format version {version} is not used for plain numbers")
    except (ValueError, TypeError, SyntaxError, KeyError, TokenError, RecursionError) as error:
        raise HeaderError(f"is not a readable .npy array ({error}). {WRITE_AGAIN}") from error
    if dtype.hasobject:
        raise HeaderError(
            "holds Python objects (dtype object), which are never loaded because unpickling"
            f" them could run any code. {WRITE_AGAIN}"
        )
    if dtype.kind not in kinds:
        wanted = "strings" if "U" in kinds else "real numbers"
        raise HeaderError(f"has dtype {dtype}, not {wanted}. {WRITE_AGAIN}")
    header = ArrayHeader(tuple(int(length) for length in shape), dtype, bool(fortran_order))
    if min(header.shape, default=0) < 0 or header.nbytes != entry_bytes - stream.tell():
        raise HeaderError(
            f"says shape {header.shape} and dtype {dtype}, which is {header.nbytes} bytes, but"
            f" {entry_bytes - stream.tell()} bytes follow its header. {COPY_AGAIN}"
        )
    if header.nbytes > largest:
        raise HeaderError(
            f"is {header.nbytes} bytes long; one array may have {largest} at most."
            " Cut the recording into shorter trials."
        )
    return header


def folder_checksum(root: Path, sizes: Mapping[str, int]) -> str:
    """SHA-256 over sorted names, sizes and contents of the files of a folder."""
    total = hashlib.sha256()
    for name in sorted(sizes):
        total.update(f"{name}\0{sizes[name]}\0{sha256(root / name)}\n".encode())
    return total.hexdigest()


class _Zip:
    """A zip file with one folder in it, the recording's; never unpacked."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError) as error:
            raise ArchiveError(
                f"{path} is not a complete zip file ({error}): probably its download was cut off."
                f" {COPY_AGAIN}"
            ) from error
        try:
            self.folder, self._entries = self._recording_folder()
        except BaseException:
            self._zip.close()
            raise
        self.sizes = {name: entry.file_size for name, entry in self._entries.items()}

    def open(self, name: str) -> IO[bytes]:
        return self._zip.open(self._entries[name])

    def checksum(self) -> str:
        return sha256(self._path)

    def close(self) -> None:
        self._zip.close()

    def _recording_folder(self) -> tuple[str, dict[str, zipfile.ZipInfo]]:
        tops = set()
        entries: dict[str, zipfile.ZipInfo] = {}
        for entry in self._zip.infolist():
            # The name as stored: zipfile itself cuts names at a zero byte and changes separators.
            stored = entry.orig_filename
            path = PurePosixPath(stored)
            if (
                path.is_absolute()
                or ".." in path.parts
                or "\\" in stored
                or "\0" in stored
                or re.match(r"[A-Za-z]:", stored)
            ):
                raise ArchiveError(
                    f"{self._path} holds an entry {stored!r} whose path leaves the archive's"
                    " folder. It was made wrongly or to do harm: get it from its publisher."
                )
            if not path.parts or path.parts[0] == "__MACOSX" or path.name.startswith("."):
                continue
            tops.add(path.parts[0])
            if entry.is_dir():
                continue
            if stat.S_ISLNK(entry.external_attr >> 16) or len(path.parts) == 1:
                raise ArchiveError(
                    f"{self._path} holds {stored!r}, which is a link or lies outside the"
                    " recording's folder. Zip the recording's folder, and only that, again."
                )
            name = str(path)
            if name in entries:
                raise ArchiveError(
                    f"{self._path} holds {stored!r} twice, so it is not clear which one counts."
                    " Zip the recording's folder again."
                )
            entries[name] = entry
        if len(tops) != 1:
            raise ArchiveError(
                f"{self._path} must hold exactly one folder, the recording's, but holds"
                f" {', '.join(sorted(tops)[:4]) or 'nothing'}. Zip the recording's folder again."
            )
        folder = tops.pop()
        inside = {name.removeprefix(f"{folder}/"): entry for name, entry in entries.items()}
        return folder, inside


class _Folder:
    """The recording's folder unpacked, or a folder that holds just it."""

    def __init__(self, path: Path) -> None:
        self._root = path if (path / "data").is_dir() else self._only_folder(path)
        self.folder = self._root.resolve().name
        files = (file for file in self._root.rglob("*") if file.is_file())
        self.sizes = {
            file.relative_to(self._root).as_posix(): file.stat().st_size
            for file in files
            if not file.name.startswith(".")
        }

    @staticmethod
    def _only_folder(path: Path) -> Path:
        folders = [folder for folder in sorted(path.iterdir()) if (folder / "data").is_dir()]
        if len(folders) != 1:
            raise ArchiveError(
                f"{path} is neither a recording's folder (with data/ and meta/ in it) nor holds"
                " exactly one. Give the folder of one recording."
            )
        return folders[0]

    def open(self, name: str) -> IO[bytes]:
        if name not in self.sizes:
            raise KeyError(name)
        return (self._root / name).open("rb")

    def checksum(self) -> str:
        return folder_checksum(self._root, self.sizes)

    def close(self) -> None:
        """Nothing stays open between reads of a folder."""
