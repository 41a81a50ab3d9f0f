"""Classical controls on the salamander recording, in plain numpy, on the network's test frames.

`linear`: per cell the spike-triggered average around the given receptive-field centre, reduced to
one spatial times one temporal filter (the recipe of `linear_heldout_r` in the README of the data).
`linear_nonlinear`: the same filter followed by an exponential. Both are fitted on frames 0-28,799.
"""

from pathlib import Path

import numpy as np
from scipy.optimize import minimize_scalar

FITTED_FRAMES = 28_800
PIXELS = 11
LAGS = 15
CLIP_FRAMES = 300
BURN_IN_FRAMES = 50
# Far from every fitted slope (0.6 to 2), per standard deviation of the filter's output.
SLOPES = (0.01, 3.0)


def scored_frames(frames: int) -> np.ndarray:
    """Absolute indices of the scored frames: 250 of each of the 24 test clips, 6,000 in all."""
    starts = np.arange(FITTED_FRAMES, frames, CLIP_FRAMES)[:, None]
    return (starts + np.arange(BURN_IN_FRAMES, CLIP_FRAMES)).ravel()


def control_predictions(
    video: np.ndarray, counts: np.ndarray, centres: np.ndarray
) -> dict[str, np.ndarray]:
    """Predictions of both controls for the test frames, (6000, N) each.

    Args:
        video: (T, H, W) uint8, 0 to 4.
        counts: (T, N) spikes.
        centres: (N, 2) receptive-field centres (row, column).
    """
    margin = PIXELS // 2
    # Contrast; beyond the edge the screen is taken as grey.
    contrast = np.pad((video.astype(np.float32) - 2) / 2, ((0, 0), (margin,) * 2, (margin,) * 2))
    scored = scored_frames(len(video))
    fitted = np.arange(LAGS - 1, FITTED_FRAMES)
    predictions = {
        "linear": np.empty((len(scored), len(centres))),
        "linear_nonlinear": np.empty((len(scored), len(centres))),
    }
    for cell, (row, column) in enumerate(np.round(centres).astype(int)):
        patch = contrast[:, row : row + PIXELS, column : column + PIXELS].reshape(len(video), -1)
        spikes = counts[:, cell].astype(np.float64)
        drive = filtered(patch, spikes)
        drive = drive / drive[fitted].std()
        slope = exponential_slope(drive[fitted], spikes[fitted])
        predictions["linear"][:, cell] = drive[scored]
        # A gain would not change the correlation.
        predictions["linear_nonlinear"][:, cell] = np.exp(slope * drive[scored])
    return predictions


def filtered(patch: np.ndarray, spikes: np.ndarray) -> np.ndarray:
    """Output (T,) of the rank-1 spike-triggered average of a patch (T, pixels), lags 0 to 14.

    The video is white, so the spike-triggered average is the least-squares filter: no inverse, no
    ridge, no smoothing.
    """
    late = spikes[LAGS - 1 : FITTED_FRAMES].astype(np.float32)
    average = np.stack([late @ patch[LAGS - 1 - lag : FITTED_FRAMES - lag] for lag in range(LAGS)])
    average = average / late.sum() - patch[:FITTED_FRAMES].mean(axis=0)
    temporal, strengths, spatial = np.linalg.svd(average, full_matrices=False)
    seen = (patch @ spatial[0]).astype(np.float64)
    return np.convolve(seen, temporal[:, 0] * strengths[0])[: len(seen)]


def exponential_slope(drive: np.ndarray, spikes: np.ndarray) -> float:
    """b of the least-squares fit spikes = a * exp(b * drive).

    Least squares, not Poisson likelihood: it correlates better here, so it is the harder control.
    """

    def unexplained(slope: float) -> float:
        rate = np.exp(slope * drive)
        return -(rate @ spikes) / np.sqrt(rate @ rate)

    return float(minimize_scalar(unexplained, bounds=SLOPES, method="bounded").x)


def correlations(predictions: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Single-trial correlation of every cell, (N,), over the first axis."""
    a = predictions - predictions.mean(axis=0)
    b = counts - counts.mean(axis=0)
    return (a * b).sum(axis=0) / np.sqrt((a * a).sum(axis=0) * (b * b).sum(axis=0))


def read_centres(data: Path) -> tuple[np.ndarray, np.ndarray]:
    """Receptive-field centres (N, 2); stored linear correlations (N,) on all frames from 28,800."""
    with np.load(data / "responses.npz", allow_pickle=False) as file:
        return file["rf_centre_stim_rc"], file["linear_heldout_r"]
