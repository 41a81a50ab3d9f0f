"""Released recordings, read in place: trials come straight out of the zip, which is never unpacked.

The layout is that of the SENSORIUM 2023 release (time is the LAST axis on disk). Whatever is wrong
with an archive ends in one `ArchiveError`, a sentence that says what, where and what to do.
"""

import hashlib
import math
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tokenize import TokenError
from types import TracebackType
from typing import IO, Protocol, Self

import numpy as np
from numpy.lib import format as npy

MODALITIES = ("video", "responses", "behavior", "pupil_center")
REQUIRED_MODALITIES = ("video", "responses")
PUBLISHED_STATISTICS = ("mean", "std", "min", "max")

_DISK_NAMES = {
    "video": "videos",
    "responses": "responses",
    "behavior": "behavior",
    "pupil_center": "pupil_center",
}
_TIERS = "meta/trials/tiers.npy"
_NEURON_IDS = "meta/neurons/unit_ids.npy"
_COORDINATES = "meta/neurons/cell_motor_coordinates.npy"

# Far above any real trial (26 MB); keeps a forged size from asking for all memory.
LARGEST_ARRAY_BYTES = 4 * 1024**3

_COPY_AGAIN = "Download or copy the archive again."
_WRITE_AGAIN = "Write it again with numpy.save, as numbers in the released layout."


class ArchiveError(ValueError):
    """An archive cannot be used as it is; the message says what, where and what to do."""


@dataclass(frozen=True)
class ArrayHeader:
    """What the header of one .npy file says, checked against the size of its entry."""

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran_order: bool

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class Archive:
    """One animal's released recording: a zip file or the same folder unpacked. Read-only.

    `folder` is the recording's folder name, `tiers` (trials,) its tiers, `modalities` those of
    `MODALITIES` that it has, `neuron_ids` (N,) int64, `coordinates` (N, 3) float64 in micrometres
    or None, `frame_shape` (H, W), `uncompressed_bytes` the size of its arrays. Opening checks names
    and metadata; `read` checks the array that it reads.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise ArchiveError(
                f"There is no archive at {self.path}. Run the download stage, or correct the folder"
                " of archives in the configuration."
            )
        self._source: _Source = _Folder(self.path) if self.path.is_dir() else _Zip(self.path)
        try:
            self.folder = self._source.folder
            self.tiers = self._read_tiers()
            self.modalities = self._find_modalities()
            self.neuron_ids = self._read_neuron_ids()
            self.coordinates = self._read_coordinates()
            self.frame_shape = self._read_frame_shape()
        except BaseException:
            self.close()
            raise

    @property
    def uncompressed_bytes(self) -> int:
        return sum(size for name, size in self._source.sizes.items() if name.endswith(".npy"))

    def header(self, modality: str, trial: int) -> ArrayHeader:
        """The checked header of one array, without reading its numbers."""
        name = _trial_name(modality, trial)
        with self._reading(name) as stream:
            header = self._read_header(stream, name)
        self._check_shape(header, modality, trial)
        return header

    def first_row(self, modality: str, trial: int) -> tuple[ArrayHeader, np.ndarray | None]:
        """Header and first row, (T,): one pixel, neuron or channel over time; a few kB of the file.

        The row is None where time is not the fastest axis on disk (Fortran order).
        """
        name = _trial_name(modality, trial)
        with self._reading(name) as stream:
            header = self._read_header(stream, name)
            self._check_shape(header, modality, trial)
            if header.fortran_order:
                return header, None
            frames = header.shape[-1]
            content = stream.read(frames * header.dtype.itemsize)
            return header, np.frombuffer(content, dtype=header.dtype, count=frames)

    def read(self, modality: str, trial: int) -> np.ndarray:
        """One array as it is on disk, time last: (H, W, T), (N, T) or (2, T). Not writable.

        Raises:
            ArchiveError: the file is missing or damaged, not numeric, or has the wrong shape.
        """
        name = _trial_name(modality, trial)
        header, array = self._read_array(name)
        self._check_shape(header, modality, trial)
        return array

    def published_statistics(self, modality: str) -> dict[str, np.ndarray] | None:
        """The publisher's statistics `all` of one modality, per frame index, time last as on disk.

        Keys are those of mean, std, min, max that the archive has; None where it has none.
        """
        expected = self._leading_shape(modality)
        found: dict[str, np.ndarray] = {}
        for key in PUBLISHED_STATISTICS:
            name = f"meta/statistics/{_DISK_NAMES[modality]}/all/{key}.npy"
            if name not in self._source.sizes:
                continue
            _, array = self._read_array(name)
            if array.ndim != len(expected) + 1 or array.shape[:-1] != expected:
                raise self._error(
                    name,
                    f"has shape {array.shape}, but a statistic of {modality} per frame index has"
                    f" {_shape_words((*expected, 'T'))}. Remove {key}.npy or compute it again.",
                )
            found[key] = array
        return found or None

    def checksum(self) -> str:
        """SHA-256 of the zip file; of an unpacked folder over sorted names, sizes and contents."""
        return self._source.checksum()

    def where(self, modality: str, trial: int) -> str:
        """How an error names one array: archive, trial, modality and file."""
        return f"{self.path}: trial {trial}, {modality} ({_trial_name(modality, trial)})"

    def close(self) -> None:
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # What the archive says about itself, in the order in which it is opened.

    def _read_tiers(self) -> np.ndarray:
        self._require(_TIERS, "It lists the tier of every trial.")
        _, tiers = self._read_array(_TIERS, kinds="US")
        if tiers.ndim != 1 or len(tiers) == 0:
            raise self._error(
                _TIERS, f"has shape {tiers.shape}, not one tier per trial. {_WRITE_AGAIN}"
            )
        return tiers.astype(str)

    def _find_modalities(self) -> tuple[str, ...]:
        trials = set(range(len(self.tiers)))
        present = []
        for modality in MODALITIES:
            pattern = re.compile(rf"data/{_DISK_NAMES[modality]}/(0|[1-9][0-9]*)\.npy")
            matches = map(pattern.fullmatch, self._source.sizes)
            found = {int(match.group(1)) for match in matches if match}
            if not found and modality not in REQUIRED_MODALITIES:
                continue
            if missing := trials - found:
                raise ArchiveError(
                    f"{self.where(modality, min(missing))}: the file is missing"
                    f" ({len(missing)} of {len(trials)} trials have no {modality}). {_COPY_AGAIN}"
                )
            if extra := found - trials:
                raise ArchiveError(
                    f"{self.where(modality, min(extra))}: {_TIERS} lists only {len(trials)} trials,"
                    " so this one has no tier. Add its tier or remove its files."
                )
            present.append(modality)
        return tuple(present)

    def _read_neuron_ids(self) -> np.ndarray:
        self._require(_NEURON_IDS, "It numbers the neurons: one distinct integer for each.")
        _, ids = self._read_array(_NEURON_IDS)
        if ids.ndim != 1 or len(ids) == 0:
            raise self._error(_NEURON_IDS, f"has shape {ids.shape}, not (N,). {_WRITE_AGAIN}")
        whole = ids.astype(np.int64) if np.isfinite(ids).all() else np.zeros(0, np.int64)
        if not np.array_equal(whole, ids) or len(np.unique(whole)) != len(whole):
            raise self._error(
                _NEURON_IDS,
                "does not hold one distinct integer per neuron. Number the neurons anew.",
            )
        return whole

    def _read_coordinates(self) -> np.ndarray | None:
        if _COORDINATES not in self._source.sizes:
            return None
        _, coordinates = self._read_array(_COORDINATES)
        if coordinates.shape != (len(self.neuron_ids), 3):
            raise self._error(
                _COORDINATES,
                f"has shape {coordinates.shape}, but {_NEURON_IDS} lists {len(self.neuron_ids)}"
                f" neurons with x, y, z each. {_WRITE_AGAIN}",
            )
        return coordinates.astype(np.float64)

    def _read_frame_shape(self) -> tuple[int, int]:
        name = _trial_name("video", 0)
        with self._reading(name) as stream:
            header = self._read_header(stream, name)
        if len(header.shape) != 3 or 0 in header.shape:
            raise self._error(name, f"has shape {header.shape}, not (H, W, T). {_WRITE_AGAIN}")
        return header.shape[0], header.shape[1]

    # Arrays: header first, numbers only when header, shape and entry size agree.

    def _read_array(self, name: str, kinds: str = "biuf") -> tuple[ArrayHeader, np.ndarray]:
        with self._reading(name) as stream:
            header = self._read_header(stream, name, kinds)
            content = stream.read(header.nbytes)
            # One more read makes zipfile compare the checksum of the whole entry.
            if len(content) != header.nbytes or stream.read(1):
                raise self._error(name, f"does not hold what its header says. {_COPY_AGAIN}")
        array = np.frombuffer(content, dtype=header.dtype)
        if header.fortran_order:
            return header, array.reshape(header.shape[::-1]).T
        return header, array.reshape(header.shape)

    def _read_header(self, stream: IO[bytes], name: str, kinds: str = "biuf") -> ArrayHeader:
        size = self._source.sizes[name]
        try:
            version = npy.read_magic(stream)
            if version == (1, 0):
                shape, fortran_order, dtype = npy.read_array_header_1_0(stream)
            elif version == (2, 0):
                shape, fortran_order, dtype = npy.read_array_header_2_0(stream)
            else:
                raise ValueError(f"format version {version} is not used for plain numbers")
        except (ValueError, TypeError, SyntaxError, KeyError, TokenError, RecursionError) as error:
            raise self._error(
                name, f"is not a readable .npy array ({error}). {_WRITE_AGAIN}"
            ) from error
        if dtype.hasobject:
            raise self._error(
                name,
                "holds Python objects (dtype object), which are never loaded because unpickling"
                f" them could run any code. {_WRITE_AGAIN}",
            )
        if dtype.kind not in kinds:
            wanted = "strings" if "U" in kinds else "real numbers"
            raise self._error(name, f"has dtype {dtype}, not {wanted}. {_WRITE_AGAIN}")
        header = ArrayHeader(tuple(int(length) for length in shape), dtype, bool(fortran_order))
        if min(header.shape, default=0) < 0 or header.nbytes != size - stream.tell():
            raise self._error(
                name,
                f"says shape {header.shape} and dtype {dtype}, which is {header.nbytes} bytes, but"
                f" {size - stream.tell()} bytes follow its header. {_COPY_AGAIN}",
            )
        if header.nbytes > LARGEST_ARRAY_BYTES:
            raise self._error(
                name,
                f"is {header.nbytes} bytes long; one array may have {LARGEST_ARRAY_BYTES} at most."
                " Cut the recording into shorter trials.",
            )
        return header

    def _check_shape(self, header: ArrayHeader, modality: str, trial: int) -> None:
        expected = self._leading_shape(modality)
        shape = header.shape
        if len(shape) == len(expected) + 1 and shape[:-1] == expected and shape[-1] > 0:
            return
        source = {
            "video": "the frame size of trial 0",
            "responses": f"the {len(self.neuron_ids)} neurons of {_NEURON_IDS}",
        }.get(modality, "two channels")
        raise ArchiveError(
            f"{self.where(modality, trial)}: the shape is {shape}, but"
            f" {_shape_words((*expected, 'T'))} is needed to agree with {source}."
            " Correct the file or remove the trial from the recording."
        )

    def _leading_shape(self, modality: str) -> tuple[int, ...]:
        if modality == "video":
            return self.frame_shape
        return (len(self.neuron_ids),) if modality == "responses" else (2,)

    # Names, opening, errors.

    def _require(self, name: str, purpose: str) -> None:
        if name not in self._source.sizes:
            raise self._error(name, f"is missing. {purpose} {_COPY_AGAIN}")

    def _error(self, name: str, problem: str) -> ArchiveError:
        trial = re.fullmatch(r"data/(\w+)/(\d+)\.npy", name)
        if trial:
            modality = next(key for key, value in _DISK_NAMES.items() if value == trial.group(1))
            return ArchiveError(f"{self.where(modality, int(trial.group(2)))}: the file {problem}")
        return ArchiveError(f"{self.path}: {name} {problem}")

    @contextmanager
    def _reading(self, name: str) -> Iterator[IO[bytes]]:
        try:
            with self._source.open(name) as stream:
                yield stream
        except ArchiveError:
            raise
        except KeyError as error:
            raise self._error(name, f"is missing. {_COPY_AGAIN}") from error
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            NotImplementedError,  # a compression method that Python cannot undo
            RuntimeError,  # an encrypted entry
            OSError,
        ) as error:
            raise self._error(name, f"cannot be read ({error}). {_COPY_AGAIN}") from error


def open_archive(path: Path) -> Archive:
    """Open a zip file or an unpacked folder; use it as a context manager.

    Raises:
        ArchiveError: there is no such archive, it is damaged, or laid out in another way.
    """
    return Archive(path)


class _Source(Protocol):
    """Where the files are: `sizes` maps names relative to the recording's folder to bytes."""

    folder: str
    sizes: dict[str, int]

    def open(self, name: str) -> IO[bytes]: ...
    def checksum(self) -> str: ...
    def close(self) -> None: ...


class _Zip:
    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError) as error:
            raise ArchiveError(
                f"{path} is not a complete zip file ({error}): probably its download was cut off."
                f" {_COPY_AGAIN}"
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
        with self._path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

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
        total = hashlib.sha256()
        for name in sorted(self.sizes):
            with (self._root / name).open("rb") as stream:
                content = hashlib.file_digest(stream, "sha256").hexdigest()
            total.update(f"{name}\0{self.sizes[name]}\0{content}\n".encode())
        return total.hexdigest()

    def close(self) -> None:
        """Nothing stays open between reads of a folder."""


def _trial_name(modality: str, trial: int) -> str:
    return f"data/{_DISK_NAMES[modality]}/{trial}.npy"


def _shape_words(shape: tuple[int | str, ...]) -> str:
    return "(" + ", ".join(map(str, shape)) + ")"
