"""Writing a zip archive in the released layout of SENSORIUM 2023, trial by trial.

One top folder with `config.json`, `data/{modality}/{trial}.npy` (time last) and `meta/`; beside it
the `__MACOSX` folder that archives made on a Mac carry. Time stamps are fixed, so the same arrays
give the same bytes.
"""

import io
import json
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np

TIMESTAMP = (2023, 6, 1, 12, 0, 0)
# First bytes of an AppleDouble file: what really lies in `__MACOSX`, whatever the name says.
APPLE_DOUBLE = bytes.fromhex("0005160700020000") + b"Mac OS X        " + bytes(56)
STATISTICS = ("mean", "std", "median", "min", "max")
BLOCK_BYTES = 64_000_000


class ReleasedArchive:
    """A zip archive being written; use it as a context manager.

    Args:
        path: file to write; it is not renamed here.
        folder: name of the top folder, e.g. `dynamic29515-10-12-Video-9b4f...`.
        compression_level: 1 (fast) to 9 (small) of deflate, 0 to store without compression.
    """

    def __init__(self, path: Path, *, folder: str, compression_level: int) -> None:
        self.folder = folder
        self._compression = zipfile.ZIP_DEFLATED if compression_level else zipfile.ZIP_STORED
        self._level = compression_level or None
        self._zip = zipfile.ZipFile(path, "w", allowZip64=True)

    def __enter__(self) -> "ReleasedArchive":
        self._write(f"{self.folder}/", b"")
        self._write(f"__MACOSX/._{self.folder}", APPLE_DOUBLE)
        text = json.dumps({"links": {}}).encode()
        self._write(f"{self.folder}/config.json", text)
        self._write(f"__MACOSX/{self.folder}/._config.json", APPLE_DOUBLE)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._zip.close()

    def write_array(self, name: str, array: np.ndarray) -> None:
        """Add `{folder}/{name}.npy`."""
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
        self._write(f"{self.folder}/{name}.npy", buffer.getbuffer())

    def _write(self, name: str, content: bytes | memoryview) -> None:
        info = zipfile.ZipInfo(name, date_time=TIMESTAMP)
        info.compress_type = self._compression
        info.create_system = 3
        info.external_attr = (0o40755 << 16) | 0x10 if name.endswith("/") else 0o100644 << 16
        self._zip.writestr(info, content, compresslevel=self._level)


def padded(array: np.ndarray, frames: int) -> np.ndarray:
    """Fill the time axis at the end: NaN, or zero where integers know no NaN."""
    if array.shape[-1] == frames:
        return array
    filling = np.nan if array.dtype.kind == "f" else 0
    whole = np.full((*array.shape[:-1], frames), filling, dtype=array.dtype)
    whole[..., : array.shape[-1]] = array
    return whole


class TrainingFrames:
    """Arrays of the training trials on disk, from which exact statistics per frame are made.

    The released archives hold a median over trials, which needs all trials at once; they go to an
    unnamed temporary file in `folder` and come back a few rows (neurons, pixels) at a time, so that
    memory does not grow with the recording.

    Args:
        folder: where the temporary file lies.
        frames: leading frames of a trial that are kept (the length of a training movie).
    """

    def __init__(self, folder: Path, *, frames: int) -> None:
        self.frames = frames
        # Closed by `close`: it lives as long as this object.
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder, prefix=".training.")  # noqa: SIM115
        self._shape: tuple[int, ...] = ()
        self._dtype = np.dtype(np.float32)
        self.trials = 0

    def add(self, array: np.ndarray) -> None:
        """Add one trial, (..., frames or more), time last; all trials alike."""
        kept = np.ascontiguousarray(array[..., : self.frames])
        if self.trials and kept.shape != self._shape:
            raise ValueError(
                f"A training trial has shape {kept.shape}, those before it {self._shape}."
            )
        self._shape, self._dtype = kept.shape, kept.dtype
        self._file.write(kept.data)
        self.trials += 1

    def statistics(self, padded_frames: int, dtype: np.dtype) -> dict[str, np.ndarray]:
        """Mean, std (ddof 0), median, min, max over trials, (..., padded_frames), NaN-padded."""
        shape = (*self._shape[:-1], padded_frames)
        rows = int(np.prod(self._shape[:-1]))
        result = {name: np.full((rows, padded_frames), np.nan, dtype) for name in STATISTICS}
        for start, block in self._blocks(rows):
            place = np.s_[start : start + block.shape[1], : self.frames]
            result["median"][place] = np.median(block, axis=0)
            result["min"][place], result["max"][place] = block.min(axis=0), block.max(axis=0)
            result["mean"][place] = block.mean(axis=0, dtype=np.float64)
            result["std"][place] = block.std(axis=0, dtype=np.float64)
        return {name: values.reshape(shape) for name, values in result.items()}

    def close(self) -> None:
        """Remove the temporary file."""
        self._file.close()

    def _blocks(self, rows: int) -> Iterator[tuple[int, np.ndarray]]:
        """Yield first row and array (trials, rows of the block, frames)."""
        row_bytes = self.frames * self._dtype.itemsize
        # Statistics of small integers are computed in float64: count eight bytes a value.
        size = max(1, BLOCK_BYTES // (self.trials * self.frames * 8))
        for start in range(0, rows, size):
            taken = min(size, rows - start)
            block = np.empty((self.trials, taken, self.frames), self._dtype)
            for trial in range(self.trials):
                self._file.seek((trial * rows + start) * row_bytes)
                self._file.readinto(block[trial].data)  # type: ignore[attr-defined]
            yield start, block
