"""Released recordings, read in place: trials come straight out of the zip, which is never unpacked.

The layout is that of the SENSORIUM 2023 release (time is the LAST axis on disk). Whatever is wrong
with an archive ends in one `ArchiveError`, a sentence that says what, where and what to do.
"""

import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from sensorium_models.files import Closing
from sensorium_models.recordings import MODALITIES
from sensorium_models.recordings.archive_sources import (
    COPY_AGAIN,
    WRITE_AGAIN,
    ArchiveError,
    ArrayHeader,
    HeaderError,
    open_source,
    read_header,
)

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


class Archive(Closing):
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
        self._source = open_source(self.path)
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
        expected = self.leading_shape(modality)
        found: dict[str, np.ndarray] = {}
        for key in PUBLISHED_STATISTICS:
            name = f"meta/statistics/{_DISK_NAMES[modality]}/all/{key}.npy"
            if name not in self._source.sizes:
                continue
            _, array = self._read_array(name)
            if array.ndim != len(expected) + 1 or array.shape[:-1] != expected or array.size == 0:
                raise self._error(
                    name,
                    f"has shape {array.shape}, but a statistic of {modality} per frame index has"
                    f" {_shape_words((*expected, 'T'))}. Remove {key}.npy or compute it again.",
                )
            found[key] = array
        return found or None

    def leading_shape(self, modality: str) -> tuple[int, ...]:
        """Shape of one frame of a modality: (H, W), (N,) or (2,)."""
        if modality == "video":
            return self.frame_shape
        return (len(self.neuron_ids),) if modality == "responses" else (2,)

    def checksum(self) -> str:
        """SHA-256 of the zip file; of an unpacked folder over sorted names, sizes and contents."""
        return self._source.checksum()

    def where(self, modality: str, trial: int) -> str:
        """How an error names one array: archive, trial, modality and file."""
        return f"{self.path}: trial {trial}, {modality} ({_trial_name(modality, trial)})"

    def close(self) -> None:
        self._source.close()

    # What the archive says about itself, in the order in which it is opened.

    def _read_tiers(self) -> np.ndarray:
        self._require(_TIERS, "It lists the tier of every trial.")
        _, tiers = self._read_array(_TIERS, kinds="US")
        if tiers.ndim != 1 or len(tiers) == 0:
            raise self._error(
                _TIERS, f"has shape {tiers.shape}, not one tier per trial. {WRITE_AGAIN}"
            )
        try:
            return tiers.astype(str)
        except UnicodeDecodeError as error:
            raise self._error(
                _TIERS, f"holds a name that is no plain text ({error}). {WRITE_AGAIN}"
            ) from error

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
                    f" ({len(missing)} of {len(trials)} trials have no {modality}). {COPY_AGAIN}"
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
            raise self._error(_NEURON_IDS, f"has shape {ids.shape}, not (N,). {WRITE_AGAIN}")
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
                f" neurons with x, y, z each. {WRITE_AGAIN}",
            )
        return coordinates.astype(np.float64)

    def _read_frame_shape(self) -> tuple[int, int]:
        name = _trial_name("video", 0)
        with self._reading(name) as stream:
            header = self._read_header(stream, name)
        if len(header.shape) != 3 or 0 in header.shape:
            raise self._error(name, f"has shape {header.shape}, not (H, W, T). {WRITE_AGAIN}")
        return header.shape[0], header.shape[1]

    # Arrays: header first, numbers only when header, shape and entry size agree.

    def _read_array(self, name: str, kinds: str = "biuf") -> tuple[ArrayHeader, np.ndarray]:
        with self._reading(name) as stream:
            header = self._read_header(stream, name, kinds)
            content = stream.read(header.nbytes)
            # One more read makes zipfile compare the checksum of the whole entry.
            if len(content) != header.nbytes or stream.read(1):
                raise self._error(name, f"does not hold what its header says. {COPY_AGAIN}")
        array = np.frombuffer(content, dtype=header.dtype)
        if header.fortran_order:
            return header, array.reshape(header.shape[::-1]).T
        return header, array.reshape(header.shape)

    def _read_header(self, stream: IO[bytes], name: str, kinds: str = "biuf") -> ArrayHeader:
        try:
            return read_header(stream, entry_bytes=self._source.sizes[name], kinds=kinds)
        except HeaderError as error:
            raise self._error(name, str(error)) from error

    def _check_shape(self, header: ArrayHeader, modality: str, trial: int) -> None:
        expected = self.leading_shape(modality)
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

    # Names, opening, errors.

    def _require(self, name: str, purpose: str) -> None:
        if name not in self._source.sizes:
            raise self._error(name, f"is missing. {purpose} {COPY_AGAIN}")

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
            raise self._error(name, f"is missing. {COPY_AGAIN}") from error
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            NotImplementedError,  # a compression method that Python cannot undo
            RuntimeError,  # an encrypted entry
            OSError,
        ) as error:
            raise self._error(name, f"cannot be read ({error}). {COPY_AGAIN}") from error


def open_archive(path: Path) -> Archive:
    """Open a zip file or an unpacked folder; use it as a context manager.

    Raises:
        ArchiveError: there is no such archive, it is damaged, or laid out in another way.
    """
    return Archive(path)


def _trial_name(modality: str, trial: int) -> str:
    return f"data/{_DISK_NAMES[modality]}/{trial}.npy"


def _shape_words(shape: tuple[int | str, ...]) -> str:
    return "(" + ", ".join(map(str, shape)) + ")"
