"""Batch norm with channels last is PyTorch's, but for its rounding errors."""

import copy

import pytest
import torch
from torch import nn

from sensorium_models.networks.cores import batch_norm
from sensorium_models.networks.cores.batch_norm import batch_normalised


def trained_a_little(features):
    norm = nn.BatchNorm1d(features, momentum=0.7).double()
    for values in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(values)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    return norm


@pytest.mark.parametrize("clips", [1, 3])  # PyTorch's own gradient is wrong for one
@pytest.mark.parametrize("repeats", [1, 4])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("silu", [False, True])
def test_values_gradients_and_statistics(monkeypatch, clips, repeats, training, silu):
    monkeypatch.setattr(batch_norm, "_SUMMED_AT_ONCE", 7 * 3 * repeats)
    torch.manual_seed(0)
    ours = trained_a_little(3).train(training)
    theirs = copy.deepcopy(ours)
    x = (2 + torch.randn(clips, 4, 5, 3 * repeats, dtype=torch.float64)).requires_grad_()
    got = batch_normalised(x, ours, silu=silu)
    # Contiguous in PyTorch's sense, repeats of a channel joining the batch.
    rows = x.reshape(-1, 3).t()[None].contiguous()
    expected = theirs(rows)[0].t().reshape(x.shape)
    expected = nn.functional.silu(expected) if silu else expected
    torch.testing.assert_close(got, expected)
    weights = torch.randn_like(got)
    for one, other in zip(
        torch.autograd.grad(got, (x, ours.weight, ours.bias), weights),
        torch.autograd.grad(expected, (x, theirs.weight, theirs.bias), weights),
        strict=True,
    ):
        torch.testing.assert_close(one, other)
    for name, values in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], values)


def test_low_precision_comes_in_and_sums_are_made_in_full():
    torch.manual_seed(0)
    x = torch.randn(500, 3).bfloat16()
    weights = torch.randn(500, 3)
    found = []
    for low in (True, False):
        norm = nn.BatchNorm1d(3)
        given = x.clone() if low else x.float()
        given.requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            y = batch_normalised(given, norm, silu=True)
        gradients = torch.autograd.grad(y, (given, norm.weight, norm.bias), weights.to(y.dtype))
        found.append([y, *gradients])
    for one, other in zip(*found, strict=True):
        # 8 bits of what comes out; nothing is lost on the way.
        torch.testing.assert_close(one.float(), other, rtol=2**-8, atol=2**-8)


def test_sums_over_many_pixels_stay_exact():
    torch.manual_seed(0)
    x = 10 + torch.randn(300_000, 2)
    norm = nn.BatchNorm1d(2)
    y = batch_normalised(x, norm)
    assert y.double().mean(dim=0).abs().max() < 1e-6  # one rounding of numbers around 10
    torch.testing.assert_close(
        norm.running_mean.double(), 0.1 * x.double().mean(dim=0), rtol=1e-7, atol=0
    )
