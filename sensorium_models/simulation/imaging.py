"""From firing rates to recorded responses: slow scanning, calcium-like smoothing, 30 Hz output.

A two-photon microscope visits each of ten planes about eight times a second. Spikes between two
visits are counted, smeared over the next visit, and the samples interpolated linearly to the frames
of the video. All of it is linear in the spike counts, so the expected response is the same linear
map applied to the rates, exactly; `Scan` holds both maps.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

FRAME_RATE_HZ = 30.0
SCAN_RATE_HZ = 8.0
PLANES = 10
# Share of a spike's signal in the visit that collects it and in the next one.
CALCIUM_KERNEL = (0.75, 0.25)
# Frames between a spike and its signal. Interpolation looks at most one scan period (3.75 frames)
# ahead; together with this and the latency of the neurons no response depends on later frames.
SIGNAL_DELAY_FRAMES = 1.0


@dataclass(frozen=True)
class Scan:
    """Linear maps of one plane in one trial.

    Attributes:
        collect: (visits, frames), rate per frame (spikes per second) to expected spikes per visit.
        smear: (visits, visits), spike counts per visit to the samples that the microscope takes.
        display: (frames, visits), spike counts per visit to the recorded trace at 30 Hz: the
            samples, joined by straight lines.
        first: number of the first visit; visit 0 is the first of the trial, up to one scan late.
    """

    collect: np.ndarray
    smear: np.ndarray
    display: np.ndarray
    first: int

    @property
    def expectation(self) -> np.ndarray:
        """(frames, frames) map from rates in spikes per second to the expected trace."""
        product: np.ndarray = self.display @ self.collect
        return product


@lru_cache(maxsize=4 * PLANES)
def scan(frames: int, phase: float) -> Scan:
    """Maps for a trial of `frames` whose first visit is `phase` (0..1) of a scan period late.

    Before the first and after the last frame the rate is taken to be that of the nearest frame.
    """
    period = FRAME_RATE_HZ / SCAN_RATE_HZ
    first = -2
    last = math.ceil((frames - 1) / period - phase)
    visits = (np.arange(first, last + 1) + phase) * period  # in frames
    stop = visits - SIGNAL_DELAY_FRAMES
    edges = np.arange(frames + 1, dtype=float)
    edges[0], edges[-1] = -np.inf, np.inf  # the nearest frame beyond both ends
    overlap = np.minimum(stop[:, None], edges[None, 1:]) - np.maximum(
        stop[:, None] - period, edges[None, :-1]
    )
    collect = np.maximum(overlap, 0) / FRAME_RATE_HZ
    smear = CALCIUM_KERNEL[0] * np.eye(len(visits)) + CALCIUM_KERNEL[1] * np.eye(len(visits), k=-1)
    smear[0, 0] = 1.0  # nothing was collected before the first visit kept
    tent = np.maximum(1 - np.abs(np.arange(frames)[:, None] - visits[None, :]) / period, 0)
    return Scan(
        collect=collect.astype(np.float32),
        smear=smear.astype(np.float32),
        display=(tent @ smear).astype(np.float32),
        first=first,
    )


def plane_phase(trial_phase: float, plane: int) -> float:
    """Phase of a plane in a trial: planes are scanned one after the other."""
    return round((trial_phase + plane / PLANES) % 1.0, 6)


def expected_counts(rates: np.ndarray, planes: np.ndarray, trial_phase: float) -> list[np.ndarray]:
    """Expected spikes per visit, per plane (its neurons, visits), from rates (N, frames) in Hz."""
    frames = rates.shape[1]
    return [
        rates[planes == plane] @ scan(frames, plane_phase(trial_phase, plane)).collect.T
        for plane in range(PLANES)
    ]


def display(
    counts: list[np.ndarray], planes: np.ndarray, trial_phase: float, frames: int
) -> np.ndarray:
    """Trace at 30 Hz (N, frames) float32 from spike counts per visit of each plane."""
    trace = np.empty((len(planes), frames), dtype=np.float32)
    for plane in range(PLANES):
        shown = scan(frames, plane_phase(trial_phase, plane)).display
        trace[planes == plane] = counts[plane].astype(np.float32) @ shown.T
    return trace


def noise_share() -> float:
    """Variance of the trace per variance of the (independent) counts, mean over frames."""
    return float(np.mean(np.sum(scan(300, 0.0).display[50:] ** 2, axis=1)))
