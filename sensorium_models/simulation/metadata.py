"""What a full-scale simulation takes from a real animal: positions, trials, response statistics.

The files are those of the openly published SENSORIUM 2023 metadata, one `.npz` per animal: no
response traces and no video frames, only their marginal statistics over training trials.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sensorium_models.simulation.behaviour import BehaviourScale

KEYS = (
    "coordinates_um",
    "stimulus_type_id",
    "video_id",
    "response_mean",
    "response_std",
    "behavior_mean",
    "behavior_std",
    "pupil_center_mean",
    "pupil_center_std",
)


@dataclass(frozen=True)
class AnimalMetadata:
    """One real animal.

    Attributes:
        coordinates: (N, 3) int64, x, y, z in um.
        stimulus_type_id, video_id: (trials,) ints as in `schedule.recorded_schedule`.
        response_mean, response_std: (N,) float64, raw units, training trials.
        behaviour_scale: units of pupil, running and gaze.
    """

    coordinates: np.ndarray
    stimulus_type_id: np.ndarray
    video_id: np.ndarray
    response_mean: np.ndarray
    response_std: np.ndarray
    behaviour_scale: BehaviourScale


def read_metadata(path: Path) -> AnimalMetadata:
    """Read the metadata of an animal.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no `.npz`, or lacks a key.
    """
    with np.load(path, allow_pickle=False) as stored:
        missing = [key for key in KEYS if key not in stored]
        if missing:
            raise ValueError(f"The metadata {path} lack {', '.join(missing)}.")
        values = {key: stored[key] for key in KEYS}
    pupil_mean, speed_mean = values["behavior_mean"].tolist()
    pupil_std, speed_std = values["behavior_std"].tolist()
    horizontal, vertical = values["pupil_center_mean"].tolist()
    horizontal_std, vertical_std = values["pupil_center_std"].tolist()
    return AnimalMetadata(
        coordinates=values["coordinates_um"].astype(np.int64),
        stimulus_type_id=values["stimulus_type_id"].astype(np.int64),
        video_id=values["video_id"].astype(np.int64),
        response_mean=values["response_mean"].astype(np.float64),
        response_std=values["response_std"].astype(np.float64),
        behaviour_scale=BehaviourScale(
            pupil_mean=pupil_mean,
            pupil_std=pupil_std,
            speed_mean=speed_mean,
            speed_std=speed_std,
            gaze_mean=(horizontal, vertical),
            gaze_std=(horizontal_std, vertical_std),
        ),
    )
