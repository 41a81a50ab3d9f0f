"""The factorized core against loops written from its model card."""

import numpy as np
import pytest
import torch

from sensorium_models.networks.cores.factorized import FactorizedCore
from sensorium_models.networks.cores.pixels import PixelCore

PUBLISHED = {
    "channels": [32, 64, 128],
    "spatial_kernels": [11, 5, 5],
    "temporal_kernels": [11, 5, 5],
    "spatial_strides": [1, 1, 1],
    "batch_norm_momentum": 0.7,
    "spatial_smoothness": 10.0,
    "temporal_smoothness": 0.01,
}
SMALL = {
    **PUBLISHED,
    "channels": [3, 2],
    "spatial_kernels": [3, 2],
    "temporal_kernels": [4, 3],
    "spatial_strides": [1, 1],
}


def small_core(**changes):
    torch.manual_seed(0)
    core = FactorizedCore(in_channels=2, frame_shape=(7, 8), **{**SMALL, **changes})
    for layer in core.layers:  # running statistics as after some training
        torch.nn.init.normal_(layer.norm.running_mean)
        torch.nn.init.uniform_(layer.norm.running_var, 0.5, 2)
        torch.nn.init.normal_(layer.norm.weight)
        torch.nn.init.normal_(layer.norm.bias)
        torch.nn.init.normal_(layer.spatial.bias)
        torch.nn.init.normal_(layer.temporal.bias)
    return core.eval()


def layer_by_loops(x, layer, stride=1):
    """Spatial conv, temporal conv, batch norm with running statistics, ELU; x (C, T, H, W)."""
    w, b = layer.spatial.weight.detach().numpy(), layer.spatial.bias.detach().numpy()
    k = w.shape[-1]
    _, frames, height, width = x.shape
    rows, columns = (height - k) // stride + 1, (width - k) // stride + 1
    y = np.zeros((len(w), frames, rows, columns))
    for o in range(len(w)):
        for t in range(frames):
            for i in range(rows):
                for j in range(columns):
                    patch = x[:, t, i * stride : i * stride + k, j * stride : j * stride + k]
                    y[o, t, i, j] = (patch * w[o, :, 0]).sum() + b[o]
    w, b = layer.temporal.weight.detach().numpy(), layer.temporal.bias.detach().numpy()
    k = w.shape[2]
    z = np.zeros((len(w), frames - k + 1, rows, columns))
    for o in range(len(w)):
        for t in range(frames - k + 1):
            for d in range(k):
                for c in range(y.shape[0]):
                    z[o, t] += w[o, c, d, 0, 0] * y[c, t + d]
        z[o] += b[o]
        mean, var = layer.norm.running_mean[o].item(), layer.norm.running_var[o].item()
        gain, bias = layer.norm.weight[o].item(), layer.norm.bias[o].item()
        z[o] = (z[o] - mean) / np.sqrt(var + 1e-5) * gain + bias
    return np.where(z > 0, z, np.exp(np.minimum(z, 0)) - 1)


@pytest.mark.parametrize("stride", [1, 2])
def test_forward_equals_plain_loops(stride):
    core = small_core(spatial_strides=[stride, 1])
    x = torch.randn(1, 2, 9, 7, 8)
    expected = layer_by_loops(x[0].double().numpy(), core.layers[0], stride)
    expected = layer_by_loops(expected, core.layers[1])
    with torch.no_grad():
        got = core(x)[0].numpy()
    assert got.shape == (core.out_channels, 9 - core.history_frames, *core.out_shape)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_layer_equals_its_three_dimensional_convolutions(stride):
    layer = small_core(spatial_strides=[stride, 1]).layers[0].double()
    x = torch.randn(2, 2, 9, 7, 8, dtype=torch.float64)
    inner = layer.norm(layer.temporal(layer.spatial(x)))
    torch.testing.assert_close(layer(x), torch.nn.functional.elu(inner))


def test_published_size_and_shapes():
    with torch.device("meta"):
        core = FactorizedCore(in_channels=3, frame_shape=(36, 64), **PUBLISHED)
        features = core(torch.empty(1, 3, 80, 36, 64))
    assert features.shape == (1, 128, 62, 18, 46)
    assert (core.history_frames, core.out_shape, core.out_channels) == (18, (18, 46), 128)
    assert sum(p.numel() for p in core.parameters()) == 382_176


def test_batch_statistics_move_with_the_published_momentum():
    core = small_core()
    norm = core.layers[0].norm
    old_mean, old_var = norm.running_mean.clone(), norm.running_var.clone()
    x = torch.randn(4, 2, 9, 7, 8)
    with torch.no_grad():
        batch = core.layers[0].temporal(core.layers[0].spatial(x))
        core.train()(x)
    mean = batch.mean(dim=(0, 2, 3, 4))
    var = batch.var(dim=(0, 2, 3, 4), unbiased=True)
    torch.testing.assert_close(norm.running_mean, 0.3 * old_mean + 0.7 * mean)
    torch.testing.assert_close(norm.running_var, 0.3 * old_var + 0.7 * var)
    assert norm.eps == 1e-5


def test_regularizer_equals_plain_loops():
    core = small_core()
    spatial = core.layers[0].spatial.weight.detach().double().numpy()[:, :, 0]
    rough = 0.0
    for kernel in spatial.reshape(-1, 3, 3):
        padded = np.pad(kernel, 1)
        for i in range(3):
            for j in range(3):
                laplacian = (
                    4 * padded[i + 1, j + 1]
                    - padded[i, j + 1]
                    - padded[i + 2, j + 1]
                    - padded[i + 1, j]
                    - padded[i + 1, j + 2]
                )
                rough += laplacian**2
    expected = 10 * rough / (spatial**2).sum()
    temporal = core.layers[0].temporal.weight.detach().double().numpy()[..., 0, 0]
    rough = 0.0
    for kernel in temporal.reshape(-1, 4):
        padded = np.pad(kernel, 1)
        rough += sum((4 * padded[k + 1] - padded[k] - padded[k + 2]) ** 2 for k in range(4))
    expected += 0.01 * rough / (temporal**2).sum()
    assert core.regularizer().item() == pytest.approx(expected, rel=1e-5)


def test_start_is_xavier_with_zero_bias_and_its_penalty_is_near_the_published_one():
    torch.manual_seed(42)
    core = FactorizedCore(in_channels=3, frame_shape=(36, 64), **PUBLISHED)
    for layer in core.layers:
        for conv in (layer.spatial, layer.temporal):
            fan = (conv.in_channels + conv.out_channels) * conv.weight[0, 0].numel()
            std = np.sqrt(2 / fan)
            # The standard deviation of n normal draws is known to 1 / sqrt(2 n).
            tolerance = 5 * std / np.sqrt(2 * conv.weight.numel())
            assert conv.weight.std().item() == pytest.approx(std, abs=tolerance)
            assert not conv.bias.any()
    # The card: 196.9 and 0.180 at seed 42 with the original's order of draws. White kernels have
    # relative roughness 16 + 4 per pixel, less at the edges, so any seed comes close.
    assert 10 * core.spatial_roughness().item() == pytest.approx(196.9, rel=0.02)
    assert 0.01 * core.temporal_roughness().item() == pytest.approx(0.180, rel=0.1)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"channels": []}, "channels must be a list"),
        ({"channels": [3, 0]}, "channels must be a list of whole numbers"),
        ({"temporal_kernels": [3]}, "temporal_kernels has 1 entries and channels 2"),
        ({"spatial_kernels": [3, 9]}, "layer 1 has a spatial kernel of 9"),
        ({"spatial_strides": "12"}, "spatial_strides must be a list"),
        ({"batch_norm_momentum": 0}, "batch_norm_momentum"),
        ({"spatial_smoothness": -1}, "spatial_smoothness must not be negative"),
    ],
)
def test_settings_that_cannot_work_are_refused(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        small_core(**change)


def test_pixel_core_averages_squares():
    core = PixelCore(in_channels=1, frame_shape=(5, 7), pool=2)
    x = torch.randn(2, 1, 3, 5, 7)
    assert core(x).shape == (2, 1, 3, *core.out_shape) == (2, 1, 3, 2, 3)
    torch.testing.assert_close(core(x)[1, 0, 2, 1, 2], x[1, 0, 2, 2:4, 4:6].mean())
    assert core.history_frames == 0
    assert core.regularizer().item() == 0
    with pytest.raises(ValueError, match="pool must be a whole number from 1 to 5"):
        PixelCore(in_channels=1, frame_shape=(5, 7), pool=6)
