"""Reading maps at points: the ways of CPU and GPU give one answer, in pieces of any size."""

import pytest
import torch

from sensorium_models.networks.readouts import sampling


def values_and_gradients(drive_of, *inputs):
    inputs = [values.detach().clone().requires_grad_() for values in inputs]
    drive = drive_of(*inputs)
    torch.manual_seed(9)
    drive.backward(torch.randn_like(drive))
    return [drive.detach(), *(values.grad for values in inputs)]


@pytest.fixture
def example():
    """Features (B, C, T, H, W), positions of which some lie beyond the edge, and weights."""
    torch.manual_seed(0)
    grid = torch.empty(10, 6, 2, dtype=torch.float64).uniform_(-1.4, 1.4)
    grid[0] = 2.0  # a whole frame looks elsewhere
    grid[1, 0], grid[1, 1] = torch.tensor([1.0, 1.0]), torch.tensor([-1.0, -1.0])
    features = torch.randn(2, 3, 5, 4, 6, dtype=torch.float64)
    return features, grid, torch.randn(3, 6, dtype=torch.float64)


def by_grid_sample(features, grid, weights):
    maps = features.transpose(1, 2).flatten(0, 1)
    sampled = torch.nn.functional.grid_sample(maps, grid[:, :, None], align_corners=True)[..., 0]
    return (sampled * weights).sum(dim=1)


@pytest.mark.parametrize("frames", [1, 3, 100])
def test_values_and_gradients_are_those_of_a_sampled_grid(example, monkeypatch, frames):
    monkeypatch.setattr(sampling, "_FRAMES_AT_ONCE", frames)
    ours = values_and_gradients(sampling.read, *example)
    for got, expected in zip(ours, values_and_gradients(by_grid_sample, *example), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("at_once", [10**9, 3 * 3 * 6])  # all; three frames at a time
def test_the_way_of_a_gpu_is_the_same_in_pieces(example, monkeypatch, at_once):
    monkeypatch.setattr(sampling, "_SAMPLED_AT_ONCE", at_once)

    def in_pieces(features, grid, weights):
        return sampling.sampled_in_pieces(features.transpose(1, 2).flatten(0, 1), grid, weights)

    ours = values_and_gradients(in_pieces, *example)
    for got, expected in zip(ours, values_and_gradients(by_grid_sample, *example), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def test_what_is_not_wanted_gets_no_gradient_and_what_is_repeats_bit_for_bit(example):
    features, grid, weights = (values.float() for values in example)
    weights.requires_grad_()
    gradients = []
    for _ in range(2):
        weights.grad = None
        sampling.read(features, grid, weights).sum().backward()
        gradients.append(weights.grad)
    assert torch.equal(*gradients)
    assert features.grad is None


def test_positions_that_are_no_numbers_give_rates_that_are_none(example):
    features, grid, weights = example
    grid[2, 3, 0], grid[2, 4, 1] = float("nan"), float("inf")
    drive = sampling.read(features, grid, weights)
    assert drive[2, 3:5].isnan().all()
    assert drive.isnan().sum() == 2


def test_features_in_bfloat16_are_read_in_float32(example):
    features, grid, weights = (values.float() for values in example)
    drive = sampling.read(features.bfloat16(), grid, weights)
    assert drive.dtype == torch.float32
    torch.testing.assert_close(drive, sampling.read(features.bfloat16().float(), grid, weights))
