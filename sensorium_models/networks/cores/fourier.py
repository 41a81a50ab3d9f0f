"""Convolutions with large kernels as products of spectra: a tenth of the work of plain ones.

For a CPU, where plain convolutions run at the rate of matrix products and only fewer of these help.
Maps are so small that their transforms are fastest as products with two matrices of sines and
cosines; rows and columns lie first in memory, (W, H, M, C), so that nothing is ever reordered
between a transform, the product of spectra, and the transform back. Gradients are the transposed
products. The rounding errors are smaller than those of the plain convolution.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

# Maps whose spectra exist at the same time: enough for the matrix products, few for the memory.
_MAPS_AT_ONCE = 32

# How much slower the products here run than those inside a plain convolution, roughly: they read
# and write more memory.
_SLOWER = 3


@dataclass(frozen=True)
class Plan:
    """The transforms for maps of one size, by a kernel of one size, with zeros around.

    `rows` and `columns` are (2 G, 2 H) and (2 F, W): a map's columns, then its rows, become F x G
    complex numbers, real and imaginary part one after the other. `rows_back` (2 H', 2 G) and
    `columns_back` (W', 2 F) lead back to a map of the output's size; `taps` (2, F G, k l) makes the
    factors of a kernel.
    """

    rows: Tensor
    columns: Tensor
    rows_back: Tensor
    columns_back: Tensor
    taps: Tensor

    def factors(self, kernels: Tensor) -> Tensor:
        """Of kernels (O, C, k, l), (F G, C, 2 O): real parts, then imaginary ones."""
        flat = kernels.permute(2, 3, 1, 0).reshape(self.taps.shape[2], -1)  # (k l, C O)
        parts = (self.taps @ flat).unflatten(2, (kernels.shape[1], -1))  # (2, F G, C, O)
        return parts.permute(1, 2, 0, 3).flatten(2)


def convolver(
    kernels: Tensor, *, size: tuple[int, int], padding: int
) -> Callable[[Tensor], Tensor]:
    """`conv2d` of maps (M, C, H, W), in whichever way is faster, by kernels (O, C, k, l); stride 1.

    What depends on the kernels alone is computed once, for all maps of `size` to come.
    """
    kernel, channels = (kernels.shape[2], kernels.shape[3]), (kernels.shape[1], kernels.shape[0])
    if kernels.device.type == "cpu" and worthwhile(size, kernel, padding, channels):
        # Under autocast kernels may come in bfloat16: the transforms sum too much for its 8 bits.
        kernels = kernels.to(torch.promote_types(kernels.dtype, torch.float32))
        plan = plan_of(size, kernel, padding, kernels.dtype)
        with torch.autocast("cpu", enabled=False):
            return partial(multiplied, factors=plan.factors(kernels), plan=plan)
    return partial(functional.conv2d, weight=kernels, padding=padding)


def worthwhile(
    size: tuple[int, int], kernel: tuple[int, int], padding: int, channels: tuple[int, int]
) -> bool:
    """Whether spectra need much less work, for maps (H, W) of (C, O) channels."""
    inputs, outputs = channels
    (height, width), (tall, broad) = size, kernel
    high, wide = height + 2 * padding - tall + 1, width + 2 * padding - broad + 1
    plain = 2 * tall * broad * inputs * outputs * high * wide
    g, f = height + padding, (width + padding) // 2 + 1
    there = 4 * f * (width * height + 2 * g * height) * inputs
    back = 4 * f * (wide * high + 2 * g * high) * outputs
    return plain > _SLOWER * (there + back + 8 * f * g * inputs * outputs)


@lru_cache(maxsize=32)
@torch.inference_mode(False)  # also when it is first needed where nothing is learned
def plan_of(
    size: tuple[int, int], kernel: tuple[int, int], padding: int, dtype: torch.dtype
) -> Plan:
    """The plan for maps (H, W) and kernels (k, l)."""
    (height, width), (tall, broad) = size, kernel
    # A circle this long keeps what leaves one edge from entering at the other.
    long_h, long_w = height + padding, width + padding
    high, wide = height + 2 * padding - tall + 1, width + 2 * padding - broad + 1
    g, f = torch.arange(long_h).double(), torch.arange(long_w // 2 + 1).double()
    turn_h, turn_w = 2 * math.pi / long_h, 2 * math.pi / long_w

    def waves(turn: float, frequencies: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        angle = turn * frequencies[:, None] * places
        return angle.cos(), angle.sin()

    cos, sin = waves(turn_w, f, torch.arange(width))
    columns = torch.stack([cos, -sin], dim=1).flatten(0, 1)
    cos, sin = waves(turn_h, g, torch.arange(height))
    rows = _interleaved(cos, sin)  # times (cos - i sin)
    cos, sin = waves(turn_h, g, torch.arange(high))
    rows_back = _interleaved(cos, sin).t() / long_h  # the transposed matrix turns back
    # Of a real map the other half of the spectrum is the conjugate of this one.
    alone = (f == 0) | (2 * f == long_w)
    twice = (2 - alone.double())[:, None] / long_w
    cos, sin = waves(turn_w, f, torch.arange(wide))
    columns_back = torch.stack([cos * twice, -sin * twice], dim=1).flatten(0, 1).t()
    down = turn_h * g[:, None] * (torch.arange(tall).double() - padding)
    along = turn_w * f[:, None] * (torch.arange(broad).double() - padding)
    angle = (along[:, None, None, :] + down[None, :, :, None]).flatten(2).flatten(0, 1)
    taps = torch.stack([angle.cos(), angle.sin()])
    matrices = (rows, columns, rows_back, columns_back, taps)
    return Plan(*(matrix.to(dtype).contiguous() for matrix in matrices))


def _interleaved(cos: Tensor, sin: Tensor) -> Tensor:
    """(2 G, 2 H): real and imaginary row of each frequency; real columns, then imaginary ones."""
    real, imaginary = torch.cat([cos, sin], dim=1), torch.cat([-sin, cos], dim=1)
    return torch.stack([real, imaginary], dim=1).flatten(0, 1)


def multiplied(x: Tensor, factors: Tensor, plan: Plan) -> Tensor:
    """Maps (M, O, H', W') in channels-last memory from maps (M, C, H, W) and `Plan.factors`."""
    return cast(Tensor, _Multiplied.apply(x, factors, plan))


class _Multiplied(torch.autograd.Function):
    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.float32)
    def forward(ctx: Any, x: Tensor, factors: Tensor, plan: Plan) -> Tensor:
        ctx.save_for_backward(x, factors)
        ctx.plan = plan
        outputs = factors.shape[2] // 2
        size = (len(plan.rows_back) // 2, len(plan.columns_back))
        y = x.new_empty(len(x), outputs, *size).contiguous(memory_format=torch.channels_last)
        for part in _parts(len(x)):
            product = torch.bmm(_spectrum(x[part], plan), factors)
            product = product.unflatten(2, (2, -1)).unflatten(1, (2, -1))  # (F G, 2, m, 2, O)
            spectrum = torch.empty(*product.shape[:3], outputs, dtype=x.dtype)
            torch.sub(product[:, 0, :, 0], product[:, 1, :, 1], out=spectrum[:, 0])
            torch.add(product[:, 0, :, 1], product[:, 1, :, 0], out=spectrum[:, 1])
            y[part] = _transformed(spectrum, plan.rows_back, plan.columns_back)
        return y

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    @once_differentiable
    def backward(ctx: Any, y_gradient: Tensor) -> tuple[Tensor | None, ...]:
        (x, factors), plan = ctx.saved_tensors, ctx.plan
        of_x, of_factors, _ = ctx.needs_input_grad
        x_gradient = torch.empty_like(x, memory_format=torch.channels_last) if of_x else None
        factors_gradient = torch.zeros_like(factors) if of_factors else None
        for part in _parts(len(x)):
            dy = _back_transformed(y_gradient[part], plan.rows_back, plan.columns_back)
            product = torch.empty(*dy.shape[:3], 2, dy.shape[3], dtype=dy.dtype)
            product[:, 0, :, 0], product[:, 0, :, 1] = dy[:, 0], dy[:, 1]
            torch.neg(dy[:, 0], out=product[:, 1, :, 1])
            product[:, 1, :, 0] = dy[:, 1]
            product = product.flatten(3).flatten(1, 2)  # (F G, 2 m, 2 O)
            if factors_gradient is not None:
                spectrum = _spectrum(x[part], plan)
                factors_gradient.baddbmm_(spectrum.transpose(1, 2), product)
            if x_gradient is not None:
                dx = torch.bmm(product, factors.transpose(1, 2)).unflatten(1, (2, -1))
                x_gradient[part] = _transformed(dx, plan.rows.t(), plan.columns.t())
        return x_gradient, factors_gradient, None


def _spectrum(x: Tensor, plan: Plan) -> Tensor:
    """(F G, 2 m, C) of maps (m, C, H, W): real parts of all maps, then imaginary ones."""
    return _back_transformed(x, plan.rows.t(), plan.columns.t()).flatten(1, 2)


def _back_transformed(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The transpose of `_transformed`: (F G, 2, m, C) from (m, C, H, W)."""
    flat = x.permute(3, 2, 0, 1).reshape(x.shape[3], -1)  # (W, H m C)
    half = (
        (columns.t() @ flat)
        .unflatten(0, (-1, 2))
        .reshape(columns.shape[1] // 2, 2 * x.shape[2], -1)
    )
    whole = torch.matmul(rows.t(), half)  # (F, 2 G, m C)
    return whole.reshape(-1, 2, len(x), x.shape[1])


def _transformed(spectrum: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Maps (m, C, H, W) by matrices (2 H, 2 G) and (W, 2 F) of a spectrum (F G, 2, m, C)."""
    frequencies = columns.shape[1] // 2
    half = torch.matmul(rows, spectrum.reshape(frequencies, rows.shape[1], -1))  # (F, 2 H, m C)
    flat = columns @ half.reshape(2 * frequencies, -1)  # (W, H m C)
    size = (len(columns), len(rows) // 2, *spectrum.shape[2:])
    return flat.reshape(size).permute(2, 3, 1, 0)


def _parts(maps: int) -> list[slice]:
    return [slice(start, start + _MAPS_AT_ONCE) for start in range(0, maps, _MAPS_AT_ONCE)]
