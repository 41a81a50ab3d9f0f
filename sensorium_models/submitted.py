"""Submissions read back, from wherever they come, and everything at which the server would stumble.

They are untrusted files: whatever is wrong with one is a `SubmissionError` or a listed problem that
names the file and says what to do. Layout and names: `submission`.
"""

import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.compute as pc  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from sensorium_models.submission import (
    COLUMNS,
    UPLOAD_LIMIT_BYTES,
    UPLOADS,
    ExpectedAnimal,
    SubmissionError,
)

_TIERS = {name: tier for parts in UPLOADS.values() for tier, name in parts.items()}
_AGAIN = "Copy or write it again."
_ZIP_START = (b"PK\x03\x04", b"PK\x05\x06")  # of a file with members, of an empty one
_ENCRYPTED = 1  # in the flags of a member


@dataclass(frozen=True)
class SubmittedTrial:
    """One row of a submission; `prediction` is (neurons, frames), as the server has it."""

    folder: str
    trial: int
    neuron_ids: np.ndarray
    prediction: np.ndarray


def problems_of(path: Path, animals: Mapping[str, ExpectedAnimal]) -> list[str]:
    """Everything in a submission at which the server would stumble, as sentences; empty if none.

    Reads any submission, whoever wrote it: a zip file of `UPLOADS` or one of its Parquet files.
    """
    found: list[str] = []
    expected = {known.folder: known for known in animals.values()}
    try:
        with _tables(path) as tables:
            if strange := sorted(set(tables) - set(_TIERS)):
                found.append(f"{path}: {', '.join(strange)} is none of {', '.join(_TIERS)}.")
            whole = [set(parts.values()) for parts in UPLOADS.values()]
            if zipfile.is_zipfile(path) and set(tables) not in whole:
                found.append(
                    f"{path}: holds {', '.join(sorted(tables)) or 'nothing'}; an upload holds "
                    + " or ".join(" and ".join(sorted(names)) for names in whole)
                    + "."
                )
            for name, table in tables.items():
                if name in _TIERS:
                    try:
                        found += _problems_of_tier(name, _TIERS[name], table, expected)
                    except SubmissionError as error:
                        found.append(str(error))
    except SubmissionError as error:
        found.append(str(error))
    if path.is_file() and path.stat().st_size > UPLOAD_LIMIT_BYTES:
        found.append(f"{path}: is larger than {UPLOAD_LIMIT_BYTES / 1e9:.0f} GB.")
    return found


def submitted_trials(path: Path) -> Iterator[tuple[str, SubmittedTrial]]:
    """(tier, row) of every trial in a submission, one at a time.

    Raises:
        SubmissionError: it cannot be read, or a file or column is not as it should be.
    """
    with _tables(path) as tables:
        for name, table in tables.items():
            if name not in _TIERS:
                raise SubmissionError(f"{path}: {name} is none of {', '.join(_TIERS)}.")
            for row in _rows(name, table):
                yield _TIERS[name], row


@contextmanager
def _tables(path: Path) -> Iterator[dict[str, Path]]:
    """Parquet files of a submission by name; a zip file's are unpacked one beside the other."""
    if not path.is_file():
        raise SubmissionError(f"{path}: there is no such file.")
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            if file.read(4) in _ZIP_START:
                raise SubmissionError(f"{path}: is a zip file whose end is missing. {_AGAIN}")
        yield {path.name: path}
        return
    with tempfile.TemporaryDirectory() as name, _opened(path) as archive:
        folder = Path(name)
        tables = {}
        unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > 4 * UPLOAD_LIMIT_BYTES:
            raise SubmissionError(f"{path}: would unpack to {unpacked / 1e9:.0f} GB; refused.")
        if unpacked > (free := shutil.disk_usage(folder).free):
            raise SubmissionError(
                f"{path}: unpacks to {unpacked:,} bytes, but {folder.parent} has only {free:,} "
                "free. Set TMPDIR to a folder on a larger disk."
            )
        for number, entry in enumerate(archive.infolist()):
            # The name inside only labels: where it would point to is never written.
            target = folder / str(number)
            with target.open("wb") as write:
                write.writelines(_blocks(path, archive, entry))
            tables[entry.filename] = target
        yield tables


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except Exception as error:  # which one depends on what of it is broken
        raise SubmissionError(
            f"{path}: is a damaged zip file ({_line(error)}). {_AGAIN}"
        ) from error


def _blocks(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Iterator[bytes]:
    """Content of a member, piece by piece."""
    where = f"{path}: {entry.filename}"
    if entry.flag_bits & _ENCRYPTED:
        raise SubmissionError(f"{where} is encrypted. Zip it again, without a password.")
    try:
        with archive.open(entry) as read:
            while block := read.read(2**22):
                yield block
    except NotImplementedError as error:
        raise SubmissionError(
            f"{where} cannot be unpacked ({_line(error)}). Zip it again, stored or deflated."
        ) from error
    # Which error it is depends on where the file is broken, and on its compression.
    except Exception as error:
        raise SubmissionError(f"{where} is damaged ({_line(error)}). {_AGAIN}") from error


def _rows(name: str, table: Path) -> Iterator[SubmittedTrial]:
    # Which error it is depends on where the file is damaged.
    try:
        file = pq.ParquetFile(table)
        columns = file.schema_arrow.names
    except Exception as error:
        raise SubmissionError(f"{name}: is no Parquet file ({_line(error)}). {_AGAIN}") from error
    with file:
        if missing := [column for column in COLUMNS if column not in columns]:
            raise SubmissionError(f"{name}: lacks the column {', '.join(missing)}.")
        batches = file.iter_batches(batch_size=1, columns=list(COLUMNS))
        number = 0
        while True:
            where = f"{name}: is damaged at row {number}"
            try:
                batch = next(batches, None)
            except Exception as error:
                raise SubmissionError(f"{where} ({_line(error)}). {_AGAIN}") from error
            if batch is None:
                return
            yield _row(f"{name}: row {number}", name, batch)
            number += 1


def _row(where: str, name: str, batch: pa.RecordBatch) -> SubmittedTrial:
    mouse, trial, prediction, ids = (batch.column(c)[0] for c in COLUMNS)
    try:
        where = f"{name}: mouse {mouse.as_py()}, trial {trial.as_py()}"
        number = str(trial.as_py()).removesuffix(".npy")  # the README's form: '1.npy'
        return SubmittedTrial(
            str(mouse.as_py()), int(number), _ids(where, ids), _matrix(where, prediction)
        )
    except (TypeError, ValueError, pa.ArrowException) as error:
        if isinstance(error, SubmissionError):
            raise
        raise SubmissionError(
            f"{where}: cannot be read ({_line(error)}); prediction is a list of a list of numbers "
            "for every neuron, neuron_ids a list of whole numbers, trial_indices a whole number."
        ) from error


def _ids(where: str, ids: pa.Scalar) -> np.ndarray:
    """(N,) of a list of integers."""
    if not _is_list(ids.type) or not pa.types.is_integer(ids.type.value_type):
        raise TypeError(f"neuron_ids is {ids.type}")
    if not ids.is_valid or ids.values.null_count:
        raise SubmissionError(f"{where}: a neuron id is missing. Write the id of every neuron.")
    return np.asarray(ids.values, dtype=np.int64)


def _matrix(where: str, prediction: pa.Scalar) -> np.ndarray:
    """(N, frames) float32 of a list of lists of numbers, of whatever kind of list."""
    numbers = prediction.type
    for _ in range(2):
        if not _is_list(numbers):
            raise TypeError(f"prediction is {prediction.type}")
        numbers = numbers.value_type
    if not (pa.types.is_floating(numbers) or pa.types.is_integer(numbers)):
        raise TypeError(f"prediction is {prediction.type}")
    neurons = prediction.values if prediction.is_valid else None
    if neurons is None or not len(neurons):
        raise SubmissionError(f"{where}: its prediction is empty. Write a list for every neuron.")
    if neurons.null_count:
        lacking = int(np.flatnonzero(np.asarray(neurons.is_null()))[0])
        raise SubmissionError(
            f"{where}: the prediction of {neurons.null_count} neurons is missing, the first at "
            f"place {lacking}. Write a number for every scored frame."
        )
    lengths = np.unique(np.asarray(pc.list_value_length(neurons)))
    if len(lengths) != 1:
        raise SubmissionError(f"{where}: its neurons have unequal numbers of frames.")
    # What float32 cannot hold becomes infinite, and is found to be so.
    with np.errstate(over="ignore"):
        values = np.asarray(neurons.flatten(), dtype=np.float32)
    return values.reshape(len(neurons), -1)


def _is_list(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def _problems_of_tier(
    name: str, tier: str, table: Path, expected: Mapping[str, ExpectedAnimal]
) -> list[str]:
    found: list[str] = []
    seen: set[tuple[str, int]] = set()
    wanted = {
        (folder, trial): frames
        for folder, known in expected.items()
        for trial, frames in known.trials.get(tier, {}).items()
    }
    for row in _rows(name, table):
        key = (row.folder, row.trial)
        where = f"{name}: mouse {row.folder}, trial {row.trial}"
        if key in seen:
            found.append(f"{where}: is there twice.")
        seen.add(key)
        if key not in wanted:
            found.append(f"{where}: is no trial of tier {tier}.")
            continue
        ids = expected[row.folder].neuron_ids
        shape = (len(ids), wanted[key])
        if not np.array_equal(row.neuron_ids, ids):
            found.append(f"{where}: neuron_ids differ from the recording's.")
        if row.prediction.shape != shape:
            found.append(
                f"{where}: prediction is {row.prediction.shape}, not {shape} (neurons, frames)."
            )
        if not np.isfinite(row.prediction).all():
            found.append(f"{where}: prediction is not finite.")
        elif (row.prediction < 0).any():
            found.append(f"{where}: prediction is negative somewhere.")
    for folder, trial in sorted(wanted.keys() - seen):
        found.append(f"{name}: mouse {folder}, trial {trial}: is missing.")
    return found
