"""Prediction files: what a member (or an ensemble) predicts for the scored frames of every trial.

One HDF5 file per member and protocol, in the score unit, float16, all animals in one file. Written
once and atomically; read trial by trial. Facts: specs/dataset.md section 3,
specs/metrics.md section 1.
"""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np

from sensorium_models import files
from sensorium_models.files import Closing

SCHEMA_VERSION = 1
CHUNK_NEURONS = 1024  # x ~250 frames x 2 bytes = half a megabyte, good for trials and for columns
CHUNK_CACHE_BYTES = 64 * 2**20  # all chunks that one trial of 8,000 neurons touches, several times


class PredictionError(ValueError):
    """A prediction that cannot be stored, or a prediction file that cannot be used."""


def scored_frames(
    frames: int, *, first_frame: int, cap_frames: int | None, drop_last_frames: int
) -> slice:
    """Frames of a trial that count: `first_frame` to `min(frames, cap_frames) - drop_last_frames`.

    SENSORIUM 2023 is 50, 300, 1: frames 50..298 of 300 (or more), 50..238 of 240.

    Raises:
        ValueError: an argument is negative, or no frame of the trial is left.
    """
    if min(frames, first_frame, drop_last_frames) < 0 or (
        cap_frames is not None and cap_frames < 1
    ):
        raise ValueError(
            f"scored frames need non-negative numbers and a cap of at least one frame, got frames="
            f"{frames}, first_frame={first_frame}, cap_frames={cap_frames}, "
            f"drop_last_frames={drop_last_frames}."
        )
    last = (frames if cap_frames is None else min(frames, cap_frames)) - drop_last_frames
    if last <= first_frame:
        raise ValueError(
            f"a trial of {frames} frames has no scored frame: {first_frame} are skipped at its "
            f"start and it ends before frame {max(last, 0)}. Shorten the burn-in or leave the "
            f"trial out."
        )
    return slice(first_frame, last)


def frame_convention(*, first_frame: int, cap_frames: int | None, drop_last_frames: int) -> str:
    """Name the choice of scored frames as it appears in every score row."""
    last = f"T-{drop_last_frames + 1}"
    cap = "" if cap_frames is None else f", at most {cap_frames}"
    return f"frames {first_frame}..{last} of a trial of T{cap}"


@dataclass(frozen=True, kw_only=True)
class PredictionAttributes:
    """What a prediction file says about itself; travels on into moments and scores."""

    protocol: str
    training_set: str
    system: str
    member: str
    score_unit: str
    first_scored_frame: int
    frame_convention: str
    recording_digests: Mapping[str, str]
    fingerprint: str

    def write(self, group: h5py.Group) -> None:
        """Store as attributes of `group`."""
        for key, value in asdict(self).items():
            group.attrs[key] = (
                json.dumps(dict(value), sort_keys=True) if key == "recording_digests" else value
            )

    @classmethod
    def read(cls, group: h5py.Group) -> Self:
        """Read back what `write` stored; a missing attribute is a PredictionError."""
        values: dict[str, Any] = {}
        for key in cls.__dataclass_fields__:
            if key not in group.attrs:
                raise PredictionError(
                    f"{group.file.filename} has no attribute {key!r}, so it was not written by "
                    f"this package or is of an older version. Predict again."
                )
            values[key] = group.attrs[key]
        values["recording_digests"] = json.loads(values["recording_digests"])
        values["first_scored_frame"] = int(values["first_scored_frame"])
        return cls(**values)


class PredictionWriter:
    """Write one prediction file, trial by trial and animal by animal, in any order.

    Use as a context manager; the file appears under `path` only when the block ends without error.
    Keyword arguments are the fields of `PredictionAttributes`.

    Layout: `/{animal}/predictions (frames, N)` float16, trials end to end in the order added;
    `/{animal}/trials/{trial,first_frame,frames}` int64, `first_frame` being the row of
    `predictions` where the trial starts; `/{animal}/neuron_ids` int64.
    """

    def __init__(self, path: Path, **attributes: Any) -> None:
        self.path = Path(path)
        self.attributes = PredictionAttributes(**attributes)
        self._cleanup = ExitStack()
        self._trials: dict[str, list[tuple[int, int, int]]] = {}

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            temporary = stack.enter_context(files.replacing(self.path))
            self._file = stack.enter_context(
                h5py.File(temporary, "w", locking=False, rdcc_nbytes=CHUNK_CACHE_BYTES)
            )
            self._file.attrs["schema_version"] = SCHEMA_VERSION
            self.attributes.write(self._file)
            self._cleanup = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self._cleanup.__exit__(kind, error, trace)
            return
        with self._cleanup:  # writing the tables can fail too, and must then leave nothing behind
            if not self._trials:
                raise PredictionError(
                    f"no prediction was added to {self.path}; a file without trials is not written."
                )
            for animal, rows in self._trials.items():
                columns = np.array(rows, dtype=np.int64).reshape(-1, 3)
                for index, name in enumerate(("trial", "first_frame", "frames")):
                    self._file[f"{animal}/trials/{name}"] = columns[:, index]

    def add(self, animal: str, neuron_ids: np.ndarray, trial: int, prediction: np.ndarray) -> None:
        """Append the prediction (frames, N) of one trial, in the score unit.

        Raises:
            PredictionError: not finite, beyond float16, wrong shape, other neurons than before, or
                the trial was added already; names animal and trial.
        """
        where = f"the prediction of animal {animal}, trial {trial}"
        prediction, neuron_ids = np.asarray(prediction), np.asarray(neuron_ids, dtype=np.int64)
        if prediction.ndim != 2 or prediction.shape[1:] != neuron_ids.shape or not len(prediction):
            raise PredictionError(
                f"{where} has shape {prediction.shape}, but (frames, {neuron_ids.size} neurons) "
                f"with at least one frame is needed."
            )
        stored = self._rounded(prediction, where)
        if animal not in self._trials:
            self._start(animal, neuron_ids, frames=len(prediction))
        elif not np.array_equal(self._file[animal]["neuron_ids"][:], neuron_ids):
            raise PredictionError(f"{where} is for other neurons than the trials before it.")
        if any(int(trial) == known for known, _, _ in self._trials[animal]):
            raise PredictionError(f"{where} was added already; each trial is predicted once.")
        dataset = self._file[animal]["predictions"]
        first = dataset.shape[0]
        dataset.resize(first + len(stored), axis=0)
        dataset[first:] = stored
        self._trials[animal].append((int(trial), first, len(stored)))

    @staticmethod
    def _rounded(prediction: np.ndarray, where: str) -> np.ndarray:
        with np.errstate(over="ignore"):
            stored = prediction.astype(np.float16)
        if not np.isfinite(stored).all():
            frame, neuron = np.argwhere(~np.isfinite(stored))[0]
            value = prediction[frame, neuron]
            what = (
                f"beyond the range of float16 (±{np.finfo(np.float16).max:.0f})"
                if np.isfinite(value)
                else "not finite"
            )
            raise PredictionError(
                f"{where} is {what} in {np.count_nonzero(~np.isfinite(stored))} of {stored.size} "
                f"values, first {value} at scored frame {frame}, neuron {neuron}. Check the "
                f"training of this member and the score unit."
            )
        return stored

    def _start(self, animal: str, neuron_ids: np.ndarray, *, frames: int) -> None:
        if not animal or "/" in animal or animal == ".":
            raise PredictionError(f"{animal!r} cannot name an animal: empty, '.' or with a slash.")
        group = self._file.create_group(animal)
        group["neuron_ids"] = neuron_ids
        # Most trials are as long as the first, so most trials are exactly one row of chunks.
        group.create_dataset(
            "predictions",
            shape=(0, neuron_ids.size),
            maxshape=(None, neuron_ids.size),
            dtype=np.float16,
            chunks=(frames, min(max(neuron_ids.size, 1), CHUNK_NEURONS)),
        )
        self._trials[animal] = []


class Predictions(Closing):
    """Read-only handle on a prediction file; opens instantly, a context manager.

    Raises:
        PredictionError: the file is missing, is no prediction file, or another schema version.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        try:
            self._file = h5py.File(self.path, "r", locking=False, rdcc_nbytes=CHUNK_CACHE_BYTES)
        except OSError as error:
            raise PredictionError(
                f"{self.path} cannot be read as a prediction file ({error}). Predict again."
            ) from error
        version = self._file.attrs.get("schema_version")
        if version != SCHEMA_VERSION:
            raise PredictionError(
                f"{self.path} has schema version {version}, this package reads {SCHEMA_VERSION}. "
                f"Predict again."
            )
        self.attributes = PredictionAttributes.read(self._file)
        self._rows = {
            animal: {
                int(trial): slice(int(first), int(first + frames))
                for trial, first, frames in zip(
                    *(group["trials"][name][:] for name in ("trial", "first_frame", "frames")),
                    strict=True,
                )
            }
            for animal, group in self._file.items()
        }

    @property
    def animals(self) -> tuple[str, ...]:
        """Animals in the file, sorted."""
        return tuple(sorted(self._rows))

    def neuron_ids(self, animal: str) -> np.ndarray:
        """Unit ids (N,) int64, in the order of the prediction's columns."""
        self._known(animal)
        return self._file[animal]["neuron_ids"][:]

    def trials(self, animal: str) -> np.ndarray:
        """Indices of the predicted trials in the recording, int64, ascending."""
        return np.array(sorted(self._known(animal)), dtype=np.int64)

    def frames(self, animal: str, trial: int) -> int:
        """Number of scored frames of a trial."""
        rows = self._row(animal, trial)
        return rows.stop - rows.start

    def read(self, animal: str, trial: int) -> np.ndarray:
        """Prediction (frames, N) float32 of one trial, in the score unit."""
        return self._file[animal]["predictions"][self._row(animal, trial)].astype(np.float32)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _known(self, animal: str) -> dict[int, slice]:
        if animal not in self._rows:
            raise PredictionError(
                f"{self.path} has no animal {animal!r}; it holds {', '.join(self.animals)}."
            )
        return self._rows[animal]

    def _row(self, animal: str, trial: int) -> slice:
        rows = self._known(animal)
        if int(trial) not in rows:
            raise PredictionError(
                f"{self.path} has no prediction of animal {animal}, trial {trial}."
            )
        return rows[int(trial)]
