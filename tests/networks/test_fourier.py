"""Convolutions by spectra are plain convolutions, and so are their gradients."""

import pytest
import torch
from torch.nn import functional

from sensorium_models.networks.cores import fourier

SHAPES = [
    # maps, channels in and out, height, width, kernel, padding
    (3, 2, 4, 7, 9, (3, 3), 1),
    (2, 3, 2, 8, 10, (5, 5), 0),
    (1, 1, 1, 5, 5, (5, 3), 0),
    (4, 2, 3, 6, 7, (5, 5), 2),
    (2, 2, 2, 4, 5, (9, 9), 4),  # a kernel larger than the map
]


def by_spectra(x, kernels, padding):
    size, kernel = tuple(x.shape[2:]), tuple(kernels.shape[2:])
    plan = fourier.plan_of(size, kernel, padding, kernels.dtype)
    return fourier.multiplied(x, plan.factors(kernels), plan)


@pytest.mark.parametrize("maps_at_once", [1, 3, 100])
@pytest.mark.parametrize(("maps", "inputs", "outputs", "height", "width", "kernel", "pad"), SHAPES)
def test_values_and_gradients_are_those_of_a_convolution(
    monkeypatch, maps_at_once, maps, inputs, outputs, height, width, kernel, pad
):
    monkeypatch.setattr(fourier, "_MAPS_AT_ONCE", maps_at_once)
    torch.manual_seed(0)
    x = torch.randn(maps, inputs, height, width, dtype=torch.float64, requires_grad=True)
    kernels = torch.randn(outputs, inputs, *kernel, dtype=torch.float64, requires_grad=True)
    expected = functional.conv2d(x, kernels, padding=pad)
    got = by_spectra(x, kernels, pad)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    weights = torch.randn_like(expected)
    for ours, theirs in zip(
        torch.autograd.grad(got, (x, kernels), weights),
        torch.autograd.grad(expected, (x, kernels), weights),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_rounding_errors_are_no_larger_than_those_of_a_plain_convolution():
    torch.manual_seed(0)
    x, kernels = torch.randn(2, 64, 28, 56), torch.randn(8, 64, 9, 9)
    exact = functional.conv2d(x.double(), kernels.double(), padding=4)
    ours, theirs = by_spectra(x, kernels, 4), functional.conv2d(x, kernels, padding=4)
    assert (ours - exact).norm() < 2 * (theirs - exact).norm()


def test_under_low_precision_spectra_stay_in_float32():
    """Also where the kernels come out of a product that autocast made in bfloat16."""
    torch.manual_seed(0)
    x = torch.randn(2, 24, 28, 30)
    basis = torch.randn(24 * 24, 3, requires_grad=True)
    weights = torch.randn(3, 81)
    with torch.autocast("cpu", torch.bfloat16):
        kernels = (basis @ weights).reshape(24, 24, 9, 9)
        assert kernels.dtype == torch.bfloat16
        got = fourier.convolver(kernels, size=(28, 30), padding=4)(x)
    exact = functional.conv2d(x.double(), kernels.double(), padding=4)
    assert got.dtype == torch.float32
    assert (got - exact).norm() < 1e-6 * exact.norm()
    (gradient,) = torch.autograd.grad(got.square().sum(), basis, retain_graph=True)
    (expected,) = torch.autograd.grad(exact.square().sum(), basis)
    # On its way back the gradient passes the kernels' bfloat16 once.
    assert (gradient - expected).norm() < 2**-7 * expected.norm()


def test_it_is_used_where_it_saves_much_work():
    # Large kernels between many channels: the GRU baseline's, and the last factorized layer's.
    assert fourier.worthwhile((28, 56), (9, 9), 4, (64, 192))
    assert fourier.worthwhile((22, 50), (5, 5), 0, (64, 128))
    # Few channels, where the transforms outweigh the rest, and small kernels.
    assert not fourier.worthwhile((36, 64), (11, 11), 0, (3, 32))
    assert not fourier.worthwhile((22, 50), (1, 1), 0, (64, 128))
    assert not fourier.worthwhile((28, 56), (3, 3), 1, (64, 64))


@pytest.mark.parametrize("kernel", [9, 3])
def test_prepared_convolutions_serve_maps_of_one_size(kernel):
    torch.manual_seed(0)
    kernels = torch.randn(24, 24, kernel, kernel)
    convolve = fourier.convolver(kernels, size=(28, 30), padding=kernel // 2)
    for maps in (1, 2):
        x = torch.randn(maps, 24, 28, 30)
        expected = functional.conv2d(x, kernels, padding=kernel // 2)
        torch.testing.assert_close(convolve(x), expected, rtol=1e-4, atol=1e-3)
