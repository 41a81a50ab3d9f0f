"""What the writer of stores needs from a recording, and which kind of recording lies at a path.

Released archives and recordings at native rates go through one writer: both offer this.
"""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Protocol, Self

import numpy as np

from sensorium_models.recordings.archive_sources import ArrayHeader
from sensorium_models.recordings.archives import open_archive
from sensorium_models.recordings.native import NativeRecording, Resampling, is_native


class TrialSource(Protocol):
    """Trials of one animal: arrays with time last, at the frame rate of the store.

    See `archives.Archive` for what each of these means.
    """

    path: Path
    folder: str
    neuron_ids: np.ndarray
    coordinates: np.ndarray | None

    @property
    def tiers(self) -> np.ndarray: ...
    @property
    def modalities(self) -> tuple[str, ...]: ...
    @property
    def uncompressed_bytes(self) -> int: ...
    def first_row(self, modality: str, trial: int) -> tuple[ArrayHeader, np.ndarray | None]: ...
    def read(self, modality: str, trial: int) -> np.ndarray: ...
    def published_statistics(self, modality: str) -> dict[str, np.ndarray] | None: ...
    def leading_shape(self, modality: str) -> tuple[int, ...]: ...
    def checksum(self) -> str: ...
    def where(self, modality: str, trial: int) -> str: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...


def open_recording(
    path: Path,
    *,
    frame_rate_hz: float = 30.0,
    resampling: Resampling | None = None,
    masked_tier: str | None = None,
    withheld_tiers: Collection[str] = (),
) -> TrialSource:
    """Open a released archive (zip or folder) or the folder of a recording at native rates.

    Args:
        frame_rate_hz: to which a recording at native rates is resampled.
        resampling: how; None takes the defaults.
        masked_tier: see `native.NativeRecording`.
        withheld_tiers: the same.

    Raises:
        ArchiveError: it is neither, or cannot be used.
    """
    if resampling is None and not is_native(path):
        return open_archive(path)
    how = replace(resampling or Resampling(), target_hz=frame_rate_hz)
    return NativeRecording(path, how, masked_tier=masked_tier, withheld_tiers=withheld_tiers)
