"""What a recording holds and how good it is, measured from its store trial by trial.

Reliability is the oracle correlation: each repeat against the mean of the others, an estimate of
what a model could predict of single trials (Lurz et al. 2021, ICLR).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sensorium_models.recordings.normalisation import score_precision
from sensorium_models.recordings.store import Recording, StoreError

# Channels of the two modalities of behaviour, in the order of the release.
CHANNELS = {
    "behavior": ("pupil size", "running speed"),
    "pupil_center": ("horizontal pupil position", "vertical pupil position"),
}
# Deconvolved responses are not negative; the release has rounding errors of 1e-7.
LEAST_RESPONSE = -1e-6


@dataclass(frozen=True)
class Quality:
    """The facts of one recording.

    Attributes:
        trials: one row per trial: tier, stimulus_type, pixel_type, frames, video (within-animal
            id), withheld, and for every recorded channel of `CHANNELS` whether it is constant in
            the trial.
        channels: name -> all valid frames of all trials, float32, NaN where unknown.
        padded_frames: to how many frames the archive pads every trial with NaN, as far as its
            published statistics tell; None without.
        coordinates: (N, 3) micrometres, or None.
        mean_response: (N,) float64, raw, over all frames of trials with public responses.
        constant: (N,) bool: the response never changed in these trials.
        lowest_response: the smallest value.
        negative_share: share of values below `LEAST_RESPONSE`.
        missing_share: share of values that are no finite number.
        reliability: (N,) float64, or None where no video with scored frames was repeated; NaN for
            constant neurons.
        reliability_videos, reliability_trials: what it was computed from.
        masked_trials: left out because a device has a long gap in them.
        unused_devices: recorded, but not enough to make a modality of them.
    """

    animal: str
    frame_rate_hz: float
    trials: pd.DataFrame
    channels: Mapping[str, np.ndarray]
    padded_frames: int | None
    coordinates: np.ndarray | None
    mean_response: np.ndarray
    constant: np.ndarray
    lowest_response: float
    negative_share: float
    missing_share: float
    reliability: np.ndarray | None
    reliability_videos: int
    reliability_trials: int
    masked_trials: tuple[int, ...] = ()
    unused_devices: tuple[str, ...] = ()

    @property
    def neurons(self) -> int:
        """How many neurons were recorded."""
        return len(self.mean_response)


def measure(
    recording: Recording,
    *,
    repeated_tiers: Sequence[str],
    unit: str,
    first_frame: int,
    cap_frames: int | None,
    drop_last_frames: int,
) -> Quality:
    """Read every trial once, and the repeated ones once more; holds one trial at a time.

    Args:
        repeated_tiers: tiers from whose repeated videos the reliability is computed.
        unit, first_frame, cap_frames, drop_last_frames: reliability is of scored frames in the
            score unit, so that it can be compared with scores.

    Raises:
        ValueError: no trial has public responses.
    """
    trials = recording.trials
    public = trials.first_response_frame >= 0
    if not public.any():
        raise ValueError(
            f"Animal {recording.animal} has no trial with public responses. Leave it out."
        )
    table = pd.DataFrame(
        {
            "tier": trials.tier,
            "stimulus_type": trials.stimulus_type,
            "pixel_type": trials.pixel_type,
            "frames": trials.frames,
            "video": trials.video,
            "withheld": ~public,
        }
    )
    channels: dict[str, np.ndarray] = {}
    for modality, names in CHANNELS.items():
        if modality in recording.modalities:
            parts = [recording.read(modality, trial) for trial in range(len(trials))]
            for column, name in enumerate(names):
                channels[name] = np.concatenate([part[:, column] for part in parts])
                table[f"constant {name}"] = [is_constant(part[:, column]) for part in parts]
    total = np.zeros(recording.neurons)
    low = np.full(recording.neurons, np.inf)
    high = np.full(recording.neurons, -np.inf)
    frames = negative = missing = 0
    for trial in np.flatnonzero(public):
        responses = recording.read("responses", int(trial))
        finite = np.isfinite(responses)
        if not finite.all():
            missing += int(finite.size - np.count_nonzero(finite))
            responses = np.where(finite, responses, 0)
        total += responses.sum(axis=0, dtype=np.float64)
        np.minimum(low, responses.min(axis=0, initial=np.inf), out=low)
        np.maximum(high, responses.max(axis=0, initial=-np.inf), out=high)
        negative += int(np.count_nonzero(responses < LEAST_RESPONSE))
        frames += len(responses)
    precision = score_precision(unit, recording)
    groups = [
        group
        for group in _repeats(table, repeated_tiers)
        if _stop(recording, group, precision, cap_frames, drop_last_frames) > first_frame
    ]
    values = max(frames, 1) * recording.neurons
    return Quality(
        animal=recording.animal,
        frame_rate_hz=recording.frame_rate_hz,
        trials=table,
        channels=channels,
        padded_frames=_padded_frames(recording),
        coordinates=recording.coordinates,
        mean_response=total / max(frames, 1),
        constant=~(high > low),
        lowest_response=float(low.min()),
        negative_share=negative / values,
        missing_share=missing / values,
        reliability=reliability(
            recording,
            groups,
            precision=precision,
            first_frame=first_frame,
            cap_frames=cap_frames,
            drop_last_frames=drop_last_frames,
        ),
        reliability_videos=len(groups),
        reliability_trials=sum(len(group) for group in groups),
        masked_trials=recording.masked_trials,
        unused_devices=recording.unused_devices,
    )


def reliability(
    recording: Recording,
    groups: Sequence[Sequence[int]],
    *,
    precision: np.ndarray,
    first_frame: int,
    cap_frames: int | None,
    drop_last_frames: int,
) -> np.ndarray | None:
    """Correlation of single repeats with the mean of the other repeats, (N,) float64.

    One correlation per neuron over all scored frames of all trials, like the single-trial
    correlation of a model; NaN where the response does not vary, None without repeats.

    Args:
        groups: the trials of each repeated video; repeats are cut to the shortest.
        precision: (F, N) or (1, N), from raw rate to score unit.
    """
    # Per neuron: sums of x, y, x^2, y^2, x y, with x a repeat and y the mean of the others.
    sums = np.zeros((5, recording.neurons))
    count = 0
    for group in groups:
        stop = _stop(recording, group, precision, cap_frames, drop_last_frames)
        if stop <= first_frame:
            continue
        scale = precision[first_frame:stop] if len(precision) > 1 else precision
        total = np.zeros((stop - first_frame, recording.neurons))
        squares = np.zeros_like(total)
        for trial in group:
            values = recording.read("responses", trial, first_frame, stop).astype(np.float64)
            values *= scale
            total += values
            squares += np.square(values, out=values)
        repeats = len(group)
        others = repeats - 1
        # Sums over the repeats k of x_k, y_k = (S - x_k) / (K - 1), and their products, by frame.
        sums[0] += total.sum(axis=0)
        sums[1] += total.sum(axis=0)
        sums[2] += squares.sum(axis=0)
        squared_total = np.square(total, out=total)
        sums[3] += ((repeats - 2) * squared_total + squares).sum(axis=0) / others**2
        sums[4] += (squared_total - squares).sum(axis=0) / others
        count += repeats * (stop - first_frame)
    if not count:
        return None
    mean = sums / count
    covariance = mean[4] - mean[0] * mean[1]
    variance_x, variance_y = mean[2] - mean[0] ** 2, mean[3] - mean[1] ** 2
    # Below this, a variance is the rounding of its own terms.
    floor = 1e-12
    varies = (variance_x > floor * mean[2]) & (variance_y > floor * mean[3])
    result = np.full(recording.neurons, np.nan)
    result[varies] = covariance[varies] / np.sqrt(variance_x[varies] * variance_y[varies])
    return result


def _stop(
    recording: Recording,
    group: Sequence[int],
    precision: np.ndarray,
    cap_frames: int | None,
    drop_last_frames: int,
) -> int:
    """Where the scored frames of all repeats of a video end, exclusive."""
    lengths = [int(recording.trials.frames[trial]) for trial in group]
    stop = min([*lengths, *([cap_frames] if cap_frames else [])]) - drop_last_frames
    return min(stop, len(precision)) if len(precision) > 1 else stop


def _padded_frames(recording: Recording) -> int | None:
    try:
        return len(recording.statistics("published", "responses", per_frame=True).mean)
    except StoreError:
        return None


def _repeats(trials: pd.DataFrame, tiers: Sequence[str]) -> list[list[int]]:
    """Trials with public responses of every video that `tiers` show at least twice."""
    chosen = trials[trials["tier"].isin(list(tiers)) & ~trials["withheld"]]
    groups = [list(part.index) for _, part in chosen.groupby("video")]
    return [group for group in groups if len(group) > 1]


def is_constant(values: np.ndarray) -> bool:
    """Whether all known values are the same, or none is known."""
    known = values[np.isfinite(values)]
    return bool(len(known) == 0 or known.min() == known.max())
