"""The recording store: one HDF5 file per animal, written once, then read-only.

Raw values, time first, the valid frames of all trials end to end, contiguous and uncompressed, so
that a clip is one read (`extents`). This module knows the layout; `preprocess` writes it.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

from sensorium_models.files import Closing
from sensorium_models.recordings import MODALITIES
from sensorium_models.recordings.extents import StoreError, extent_of
from sensorium_models.recordings.statistics import Statistics

SCHEMA_VERSION = 2
WITHHELD = -1


class WithheldResponsesError(StoreError):
    """Responses were asked for that the publisher withholds: never scored or trained on."""


@dataclass(frozen=True)
class Trials:
    """One row per trial, in the archive's order: the row number is the archive's trial index."""

    first_frame: np.ndarray  # int64: row of /video, /behavior, /pupil_center
    frames: np.ndarray  # int64: valid frames, uncapped
    first_response_frame: np.ndarray  # int64: row of /responses, -1 where withheld
    tier: np.ndarray  # str
    video: np.ndarray  # int32: same number, same video; within this animal
    video_id: np.ndarray  # str: same text, same video; across animals
    signature: np.ndarray  # str: same text, same frames
    perceptual_hash: np.ndarray  # str: 16 hex digits
    stimulus_type: np.ndarray  # str: by the study's table, the pixels and the length
    pixel_type: np.ndarray  # str: what the pixels alone say

    def __len__(self) -> int:
        return len(self.frames)


class Recording(Closing):
    """Read-only handle on one store. Opens instantly, without locking (network file systems), holds
    no data, and can be pickled or used after a fork: it opens the file anew there.

    Raises:
        StoreError: `path` is not a recording store of this version.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._handle: h5py.File | None = None
        self._handle_process = -1
        self._descriptor: int | None = None
        file = self._file
        self.animal: str = file.attrs["animal"]
        self.folder: str = file.attrs["folder"]
        self.digest: str = file.attrs["digest"]
        self.frame_rate_hz = float(file.attrs["frame_rate_hz"])
        self.modalities = tuple(name for name in MODALITIES if name in file)
        self.neurons = int(file["responses"].shape[1])
        self.frame_shape: tuple[int, int] = file["video"].shape[1:]
        self.video_dtype: np.dtype = file["video"].dtype
        self._extents = {name: extent_of(file[name]) for name in self.modalities}

    @cached_property
    def trials(self) -> Trials:
        group = self._file["trials"]
        text = {
            name: group[name][:].astype(str)
            for name in (
                "tier",
                "video_id",
                "signature",
                "perceptual_hash",
                "stimulus_type",
                "pixel_type",
            )
        }
        return Trials(
            first_frame=group["first_frame"][:],
            frames=group["frames"][:],
            first_response_frame=group["first_response_frame"][:],
            video=group["video"][:],
            **text,
        )

    @cached_property
    def neuron_ids(self) -> np.ndarray:
        """(N,) int64, the publisher's numbers, not contiguous."""
        return self._file["neurons/id"][:]

    @cached_property
    def coordinates(self) -> np.ndarray | None:
        """(N, 3) float64: x, y, z in cortex, micrometres; None where the archive has none."""
        neurons = self._file["neurons"]
        return neurons["coordinates"][:] if "coordinates" in neurons else None

    @property
    def masked_trials(self) -> tuple[int, ...]:
        """Trials left out because a device has a long gap in them; of native rates only."""
        named = str(self._file.attrs.get("masked_trials", ""))
        return tuple(map(int, named.split(","))) if named else ()

    @property
    def unused_devices(self) -> tuple[str, ...]:
        """Devices that were recorded, but of which no modality could be made."""
        return tuple(str(self._file.attrs.get("unused_devices", "")).split())

    def video_means(self) -> np.ndarray:
        """(frames, 4) float32: mean grey level of the quadrants of all frames of all trials."""
        return self._file["video_means"][:]

    def trials_of(self, tiers: Sequence[str]) -> np.ndarray:
        """Indices of the trials in any of `tiers`, ascending."""
        return np.flatnonzero(np.isin(self.trials.tier, list(tiers)))

    def read(
        self,
        modality: str,
        trial: int,
        start: int = 0,
        stop: int | None = None,
        *,
        step: int = 1,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """Raw frames `start` to `stop` (exclusive, default the end) of one trial, time first.

        video (T, H, W) uint8 or float32; responses (T, N), behavior, pupil_center (T, 2) float32.
        One contiguous read, of which every `step`-th frame is kept, into `out` (contiguous, of that
        shape and type) where given.

        Raises:
            WithheldResponsesError: the responses of this trial are withheld.
            StoreError: the recording lacks the modality, the trial has no such frames, or the file
                cannot be read.
            ValueError: `out` does not fit.
        """
        if modality not in self.modalities:
            raise StoreError(
                f"Animal {self.animal} has no {modality} (it has {', '.join(self.modalities)})."
                " Choose a model and a normalisation that do without."
            )
        if not 0 <= trial < len(self.trials):
            raise StoreError(
                f"Animal {self.animal} has trials 0 to {len(self.trials) - 1}, not trial {trial}."
            )
        frames = int(self.trials.frames[trial])
        stop = frames if stop is None else stop
        if not 0 <= start <= stop <= frames or step < 1:
            raise StoreError(
                f"Frames {start} to {stop} (step {step}) were asked for, but trial {trial} of"
                f" animal {self.animal} has {frames} frames."
            )
        column = self.trials.first_frame
        if modality == "responses":
            column = self.trials.first_response_frame
            if column[trial] == WITHHELD:
                raise WithheldResponsesError(
                    f"The responses of trial {trial} of animal {self.animal} (tier"
                    f" {self.trials.tier[trial]}) are withheld by the publisher, so they can be"
                    " neither trained on nor scored. Ask only for its inputs."
                )
        extent = self._extents[modality]
        shape = (len(range(start, stop, step)), *extent.frame_shape)
        if out is None:
            out = np.empty(shape, extent.dtype)
        elif out.shape != shape or out.dtype != extent.dtype or not out.flags.c_contiguous:
            raise ValueError(
                f"The {modality} of {shape[0]} frames of animal {self.animal} need a contiguous"
                f" array {shape} of {extent.dtype}, but were given one {out.shape} of {out.dtype}."
            )
        if out.size:
            extent.read(self._file_descriptor, int(column[trial]) + start, step, out)
        return out

    def statistics(
        self, source: Literal["published", "train"], modality: str, *, per_frame: bool
    ) -> Statistics:
        """Raw-unit statistics, time first: the publisher's, or our own from the training tier.

        Per frame index (frames, ...) or pooled over frames (...), float64; published minimum and
        maximum are NaN where the archive has none.

        Raises:
            StoreError: the recording has no such statistics.
        """
        kind = "per_frame" if per_frame else "pooled"
        group = self._file.get(f"statistics/{source}/{modality}/{kind}")
        if group is None or "mean" not in group or "std" not in group:
            raise StoreError(
                f"Animal {self.animal} has no {source} statistics of {modality}"
                f" ({kind.replace('_', ' ')}). Choose a normalisation from its own training trials:"
                " per_frame_train or global_train."
            )
        mean = group["mean"][:]
        missing = np.full_like(mean, np.nan)
        return Statistics(
            mean=mean,
            std=group["std"][:],
            min=group["min"][:] if "min" in group else missing,
            max=group["max"][:] if "max" in group else missing,
        )

    def close(self) -> None:
        if self._handle is not None and self._handle_process == os.getpid():
            self._handle.close()
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._handle = self._descriptor = None

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"])  # type: ignore[misc]

    def __del__(self) -> None:
        if getattr(self, "_descriptor", None) is not None:
            os.close(self._descriptor)  # type: ignore[arg-type]

    @property
    def _file(self) -> h5py.File:
        # A handle inherited through fork shares the file's state with the parent: open another.
        if self._handle is None or self._handle_process != os.getpid():
            self._handle = self._open()
            self._handle_process = os.getpid()
        return self._handle

    @property
    def _file_descriptor(self) -> int:
        if self._descriptor is None:  # reads say from where, so processes may share it after a fork
            self._descriptor = os.dup(self._file.id.get_vfd_handle())
        return self._descriptor

    def _open(self) -> h5py.File:
        if not self.path.exists():
            raise StoreError(
                f"There is no recording store at {self.path}. Run preprocessing first."
            )
        try:
            # Locking off: written once, read by many, often over a network file system.
            file = h5py.File(self.path, "r", locking=False)
        except OSError as error:
            raise StoreError(
                f"{self.path} is not a readable HDF5 file ({error}). Remove it and preprocess"
                " again."
            ) from error
        version = file.attrs.get("schema_version")
        if version != SCHEMA_VERSION:
            file.close()
            raise StoreError(
                f"{self.path} is a recording store of version {version}, but this program reads"
                f" version {SCHEMA_VERSION}. Remove it and preprocess again."
            )
        return file


def digests(stores: Mapping[str, Path]) -> dict[str, str]:
    """Content digest of each animal's store; equal exactly where the content is."""
    found = {}
    for animal, path in stores.items():
        with Recording(path) as recording:
            found[animal] = recording.digest
    return found
