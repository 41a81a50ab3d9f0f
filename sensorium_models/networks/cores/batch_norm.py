"""Batch norm of maps whose channels lie last in memory, and SiLU after it.

PyTorch's own (2.13) sums such memory on a CPU in one long row of float32 numbers, which costs
gradients up to two more digits than need be, and its gradients for a single clip are wrong.
Formulas: Ioffe and Szegedy (2015), arXiv 1502.03167.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d

# Numbers that a sum goes over before it is added to the total, which is in double precision.
_SUMMED_AT_ONCE = 100_000


def batch_normalised(x: Tensor, norm: BatchNorm, *, silu: bool = False) -> Tensor:
    """`norm` of x (..., R C), channels last; with R > 1 repeats of a channel share its statistics.

    In training the statistics are those of the batch, and the running ones follow. With `silu` the
    activation follows; a training on a CPU keeps nothing between the two, but computes it again.
    """
    if not norm.training:
        scale, offset = affine(norm)
        repeats = x.shape[-1] // len(scale)
        y = torch.addcmul(offset.repeat(repeats), x, scale.repeat(repeats))
        return functional.silu(y) if silu else y
    if x.device.type != "cpu":
        cast(Tensor, norm.num_batches_tracked).add_(1)
        rows = x.reshape(-1, norm.num_features)
        y = functional.batch_norm(
            rows,
            norm.running_mean,
            norm.running_var,
            norm.weight,
            norm.bias,
            training=True,
            momentum=cast(float, norm.momentum),
            eps=norm.eps,
        ).view(x.shape)
        return functional.silu(y) if silu else y
    y, mean, variance = _Normalised.apply(x, norm.weight, norm.bias, norm.eps, silu)
    count = x.numel() // norm.num_features
    with torch.no_grad():
        cast(Tensor, norm.num_batches_tracked).add_(1)
        momentum = cast(float, norm.momentum)
        unbiased = variance * (count / max(count - 1, 1))
        cast(Tensor, norm.running_mean).lerp_(mean, momentum)
        cast(Tensor, norm.running_var).lerp_(unbiased, momentum)
    return cast(Tensor, y)


def affine(norm: BatchNorm) -> tuple[Tensor, Tensor]:
    """Factor and summand (C,) of a batch norm in evaluation."""
    mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    return scale, norm.bias - mean * scale


@contextmanager
def statistics_kept(part: nn.Module) -> Iterator[None]:
    """Recomputing a forward pass must not count its batch a second time."""
    kept = [(buffer, buffer.clone()) for buffer in part.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, values in kept:
                buffer.copy_(values)


class _Normalised(torch.autograd.Function):
    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.float32)
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, silu: bool) -> Any:
        rows = x.reshape(-1, x.shape[-1])  # (n, R C)
        repeats = rows.shape[1] // len(weight)
        count = len(rows) * repeats
        mean = _each(sum(p.sum(dim=0).double() for p in _pieces(rows)), repeats) / count
        means = mean.to(x.dtype).repeat(repeats)
        squares = sum((p - means).square_().sum(dim=0).double() for p in _pieces(rows))
        variance = _each(squares, repeats) / count
        rstd = torch.rsqrt(variance + eps)
        scale, offset = (v.to(x.dtype).repeat(repeats) for v in (weight * rstd, bias))
        y = x.new_empty(x.shape)
        for piece, out in zip(_pieces(rows), _pieces(y.view(rows.shape)), strict=True):
            torch.sub(piece, means, out=out).mul_(scale).add_(offset)
            if silu:
                functional.silu(out, inplace=True)
        ctx.save_for_backward(rows, weight, bias, mean, rstd)
        ctx.silu = silu
        statistics = mean.to(x.dtype), variance.to(x.dtype)
        ctx.mark_non_differentiable(*statistics)
        return y, *statistics

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    @once_differentiable
    def backward(ctx: Any, y_gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight, bias, mean, rstd = ctx.saved_tensors
        repeats = rows.shape[1] // len(weight)
        count = len(rows) * repeats
        gradient, dx = y_gradient.reshape(rows.shape), torch.empty_like(rows)

        def spread(values: Tensor) -> Tensor:
            return values.to(rows.dtype).repeat(repeats)

        means, scale, offset = spread(mean), spread(weight * rstd), spread(bias)
        total, turned = rows.new_zeros(2, rows.shape[1], dtype=torch.float64)
        for dy, x, out in zip(_pieces(gradient), _pieces(rows), _pieces(dx), strict=True):
            centred = x - means
            if ctx.silu:
                y = (centred * scale).add_(offset)
                dy = torch.ops.aten.silu_backward.grad_input(dy, y, grad_input=out)
            total += dy.sum(dim=0)
            turned += centred.mul_(dy).sum(dim=0)
        total, turned = _each(total, repeats), _each(turned, repeats) * rstd
        # w / std * (dy - mean(dy) - x' mean(dy x')), x' being the normalised x
        constant = spread(-weight * rstd * total / count)
        slope = spread(-weight * rstd * rstd * turned / count)
        before = dx if ctx.silu else gradient
        for dy, x, out in zip(_pieces(before), _pieces(rows), _pieces(dx), strict=True):
            torch.addcmul((x - means).mul_(slope).add_(constant), dy, scale, out=out)
        gradients = dx.view(y_gradient.shape), turned.to(weight.dtype), total.to(weight.dtype)
        return *gradients, None, None


def _pieces(rows: Tensor) -> tuple[Tensor, ...]:
    return rows.split(max(1, _SUMMED_AT_ONCE // rows.shape[1]))


def _each(values: Any, repeats: int) -> Tensor:
    """Sums (C,) over the repeats in (R C,)."""
    return cast(Tensor, values).unflatten(0, (repeats, -1)).sum(dim=0)
