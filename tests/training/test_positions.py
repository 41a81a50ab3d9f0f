"""Start positions: known pixels are found, and land where the feature map looks at them."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from sensorium_models.networks.cores.factorized import FactorizedCore
from sensorium_models.networks.cores.pixels import PixelCore
from sensorium_models.recordings.normalisation import Affine
from sensorium_models.recordings.store import Recording
from sensorium_models.training import positions
from sensorium_models.training.positions import (
    FeatureLayout,
    feature_layout,
    grid_positions,
    response_triggered_peaks,
)


def peaks_of(laboratory: Any, animal: str = "A", **changes: Any) -> Any:
    recording = Recording(laboratory.stores[animal])
    identity = np.ones((1, recording.neurons), np.float32)
    arguments: dict[str, Any] = {
        "responses": Affine(offset=0 * identity, scale=identity),
        "lag_frames": 3,
        "pool": 1,
        "smoothing_pixels": 0.7,
        "cap_frames": None,
    }
    return response_triggered_peaks(recording, range(14), **{**arguments, **changes})


def test_the_pixel_of_every_neuron_is_found(laboratory: Any) -> None:
    found = peaks_of(laboratory)
    np.testing.assert_array_equal(found.rows_columns, laboratory.pixels["A"])
    # A random frame of 168 pixels and 4 lags reaches about 1 + a few standard deviations; a field
    # that carries most of the response stands far out.
    assert found.strength.min() > 5


def test_without_smoothing_it_is_the_plain_correlation(laboratory: Any) -> None:
    recording = Recording(laboratory.stores["A"])
    energy = 0.0
    for lag in range(3):
        video, response = [], []
        for trial in range(14):
            frames = 25
            x = recording.read("video", trial, 0, frames).reshape(frames, -1).astype(float)
            video.append(x[: frames - lag])
            response.append(recording.read("responses", trial, lag, frames).astype(float))
        x, r = np.concatenate(video), np.concatenate(response)
        covariance = (r - r.mean(0)).T @ (x - x.mean(0)) / len(x)
        everything = np.concatenate(
            [recording.read("video", t, 0, 25).reshape(25, -1) for t in range(14)]
        )
        energy = energy + (covariance / everything.std(0)) ** 2
    found = peaks_of(laboratory, lag_frames=2, smoothing_pixels=0.0, cap_frames=25)
    rows, columns = np.unravel_index(energy.argmax(1), (12, 14))
    np.testing.assert_array_equal(found.rows_columns, np.stack([rows, columns], 1))
    # float32 sums of some hundred frames
    np.testing.assert_allclose(found.strength, energy.max(1) / energy.mean(1), rtol=1e-4)


def test_pooling_finds_the_square(laboratory: Any) -> None:
    found = peaks_of(laboratory, pool=2, smoothing_pixels=0.0)
    expected = laboratory.pixels["A"] // 2 * 2 + 0.5
    np.testing.assert_array_equal(found.rows_columns, expected)


def test_blocks_of_neurons_change_nothing(laboratory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = peaks_of(laboratory)
    monkeypatch.setattr(positions, "_BLOCK_BYTES", 4 * 168 * 4 * 4)  # four neurons at a time
    pieces = peaks_of(laboratory)
    np.testing.assert_array_equal(whole.rows_columns, pieces.rows_columns)
    np.testing.assert_allclose(whole.strength, pieces.strength, rtol=1e-4)


def test_scale_and_offset_of_responses_do_not_matter(laboratory: Any) -> None:
    ones = np.ones((1, 9), np.float32)
    found = peaks_of(laboratory, responses=Affine(offset=7 * ones, scale=30 * ones))
    np.testing.assert_array_equal(found.rows_columns, laboratory.pixels["A"])


def test_pool_larger_than_the_frame(laboratory: Any) -> None:
    with pytest.raises(ValueError, match=r"start_positions.pool: 13 is more than a side .*12 x 14"):
        peaks_of(laboratory, pool=13)


def test_grid_by_hand() -> None:
    # 36 x 64 pixels, kernels 11, 5, 5: feature (0, 0) looks at pixel (9, 9), (17, 45) at (26, 54).
    layout = FeatureLayout(map_shape=(18, 46), offset=(9, 9), stride=(1, 1))
    pixels = np.array([[9, 9], [26, 54], [17.5, 31.5], [0, 63], [26, 9]])
    expected = [[-1, -1], [1, 1], [0, 0], [1, -1], [-1, 1]]
    np.testing.assert_allclose(grid_positions(pixels, layout), expected, atol=1e-6)
    # A single row of features has one place; two features a stride of 10 apart have two ends.
    layout = FeatureLayout(map_shape=(1, 2), offset=(3, 5), stride=(4, 10))
    np.testing.assert_allclose(grid_positions(np.array([[0, 10.0]]), layout), [[0, 0]])


def factorized(strides: list[int], frame_shape: tuple[int, int] = (36, 64)) -> FactorizedCore:
    return FactorizedCore(
        in_channels=3,
        frame_shape=frame_shape,
        channels=[3, 4, 5],
        spatial_kernels=[11, 5, 5],
        temporal_kernels=[2, 1, 1],
        spatial_strides=strides,
        batch_norm_momentum=0.7,
        spatial_smoothness=0.0,
        temporal_smoothness=0.0,
    )


@pytest.mark.parametrize(
    ("strides", "offset", "stride"),
    # Offsets: half of each kernel's reach, in pixels of the frame: 5 + s0 (2 + s1 2).
    [([1, 1, 1], 9, 1), ([2, 1, 1], 13, 2), ([1, 2, 1], 11, 2)],
)
def test_convolutions_tell_what_they_look_at(strides: list[int], offset: int, stride: int) -> None:
    core = factorized(strides)
    layout = feature_layout(core, in_channels=3, frame_shape=(36, 64))
    assert core.training
    assert layout.map_shape == core.out_shape
    assert layout.offset == (offset, offset)
    assert layout.stride == (stride, stride)


def test_pooled_pixels() -> None:
    core = PixelCore(in_channels=1, frame_shape=(36, 64), pool=2)
    layout = feature_layout(core, in_channels=1, frame_shape=(36, 64))
    assert layout == FeatureLayout(map_shape=(18, 32), offset=(0.5, 0.5), stride=(2, 2))


class Padded(nn.Module):
    """Keeps the frame's size by zero padding, with rectifiers."""

    out_channels, out_shape, history_frames = 8, (12, 14), 0

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv3d(1, 8, (1, 5, 5), padding=(0, 2, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.one(x))


class Everywhere(nn.Module):
    """Every feature sees the whole frame, as with attention; 3 x 7 of them."""

    out_channels, out_shape, history_frames = 2, (3, 7), 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        whole = x.mean((1, 3, 4), keepdim=True)  # (B, 1, T, 1, 1)
        return whole.expand(-1, 2, -1, 3, 7)


def test_padded_and_global_cores() -> None:
    torch.manual_seed(0)
    layout = feature_layout(Padded(), in_channels=1, frame_shape=(12, 14))
    assert layout == FeatureLayout(map_shape=(12, 14), offset=(0, 0), stride=(1, 1))
    layout = feature_layout(Everywhere(), in_channels=1, frame_shape=(12, 14))
    assert layout == FeatureLayout(map_shape=(3, 7), offset=(1.5, 0.5), stride=(4, 2))


class ComputedAgain(Padded):
    """Saves memory by computing again for its gradient, where dropout must be off as before."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        def run(x: torch.Tensor) -> torch.Tensor:
            return functional.dropout(super(ComputedAgain, self).forward(x), 0.5, self.training)

        return checkpoint(run, x, use_reentrant=False)


def test_cores_that_compute_again_what_a_gradient_needs() -> None:
    core = ComputedAgain()
    layout = feature_layout(core, in_channels=1, frame_shape=(12, 14))
    assert layout == FeatureLayout(map_shape=(12, 14), offset=(0, 0), stride=(1, 1))
    assert core.training


def test_a_neuron_starts_on_features_that_see_its_pixel() -> None:
    """End to end: sampling the map at the grid position reads the pixel, for a core that copies."""
    core = PixelCore(in_channels=1, frame_shape=(12, 14), pool=2)
    pixels = np.array([[2, 5], [9, 12], [0, 0], [11, 13]])
    grid = grid_positions(
        pixels // 2 * 2 + 0.5, feature_layout(core, in_channels=1, frame_shape=(12, 14))
    )
    video = torch.arange(12 * 14, dtype=torch.float32).reshape(1, 1, 1, 12, 14)
    features = core(video)[:, :, 0]
    read = functional.grid_sample(
        features, torch.from_numpy(grid)[None, :, None], align_corners=True
    ).flatten()
    expected = features[0, 0, pixels[:, 0] // 2, pixels[:, 1] // 2]
    torch.testing.assert_close(read, expected, rtol=1e-5, atol=1e-3)
