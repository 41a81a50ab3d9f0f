"""Reading feature maps at one point per neuron, weighted: the hot spot of every Gaussian readout.

On a CPU the sampled features, frames x channels x neurons, never exist: a neuron's drive is the
bilinear mix of four products of its weights with the features of a pixel. These products and both
gradients are sums over lists of pixels or neurons, for which PyTorch has fast kernels (a product
at given entries of a matrix, and sums over bags of rows). Elsewhere features are sampled for some
frames at a time.
"""

import warnings
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

# Frames whose lists of pixels exist at the same time: few, so that their maps stay in the cache.
_FRAMES_AT_ONCE = 4


# Elsewhere at most about this many sampled features are held at once (128 MB in float32), the rest
# is computed piece by piece and again in the backward pass.
_SAMPLED_AT_ONCE = 32_000_000


def read(features: Tensor, grid: Tensor, weights: Tensor) -> Tensor:
    """Drive (B T, N) from features (B, C, T, H, W), positions (B T, N, 2) and weights (C, N).

    Positions are (x, y) with -1 and 1 at the centres of the outermost pixels; bilinear, zero beyond
    the edge: `grid_sample` with `align_corners`, times the weights, summed over channels.
    """
    if features.device.type == "cpu":
        maps = features.permute(0, 2, 3, 4, 1).flatten(0, 1).to(weights.dtype)
        grid = grid.to(weights.dtype)
        return cast(Tensor, _Reading.apply(maps.contiguous(), grid, weights))
    return sampled_in_pieces(features.transpose(1, 2).flatten(0, 1), grid, weights)


def sampled_in_pieces(maps: Tensor, grid: Tensor, weights: Tensor) -> Tensor:
    """What `read` does on a GPU: (M, N) from maps (M, C, H, W) and positions (M, N, 2)."""
    piece = max(1, _SAMPLED_AT_ONCE // weights.numel())
    pairs = list(zip(maps.split(piece), grid.split(piece), strict=True))
    if len(pairs) > 1 and torch.is_grad_enabled():
        keep: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
        return torch.cat([checkpoint(_sampled, m, g, weights, **keep) for m, g in pairs])
    return torch.cat([_sampled(m, g, weights) for m, g in pairs])


def _sampled(maps: Tensor, grid: Tensor, weights: Tensor) -> Tensor:
    features = functional.grid_sample(
        maps, grid[:, :, None], mode="bilinear", padding_mode="zeros", align_corners=True
    )
    return (features[..., 0] * weights).sum(dim=1)  # (M, C, N) times (C, N)


class _Reading(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, grid: Tensor, weights: Tensor) -> Tensor:
        rows = weights.t().contiguous()  # (N, C)
        drive = grid.new_empty(grid.shape[:2])
        products = grid.new_empty(*grid.shape[:2], 4)
        for part in _parts(len(maps)):
            corners = _Corners(grid[part], (maps.shape[1], maps.shape[2]))
            products[part] = corners.products(maps[part], rows)
            drive[part] = (corners.shares() * products[part]).sum(dim=-1)
        ctx.save_for_backward(maps, grid, rows, products)
        return drive

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, drive_gradient: Tensor) -> tuple[Tensor | None, ...]:
        maps, grid, rows, products = ctx.saved_tensors
        of_maps, of_grid, of_weights = ctx.needs_input_grad
        maps_gradient = torch.empty_like(maps) if of_maps else None
        grid_gradient = torch.empty_like(grid) if of_grid else None
        rows_gradient = torch.zeros_like(rows) if of_weights else None
        for part in _parts(len(maps)):
            corners = _Corners(grid[part], (maps.shape[1], maps.shape[2]))
            dy = drive_gradient[part]
            if grid_gradient is not None:
                slopes = corners.slopes(products[part])
                grid_gradient[part] = slopes * dy[..., None]
            shares = corners.shares() * dy[..., None]
            if rows_gradient is not None:
                rows_gradient += corners.summed_by_neuron(maps[part], shares)
            if maps_gradient is not None:
                maps_gradient[part] = corners.summed_by_pixel(rows, shares)
        weights_gradient = None if rows_gradient is None else rows_gradient.t()
        return maps_gradient, grid_gradient, weights_gradient


class _Corners:
    """The four pixels around each of `grid` (M, N, 2), upper left, upper right, lower left, right.

    Pixels are numbered row by row. Where one lies beyond the edge another stands for it, and it has
    no share.
    """

    def __init__(self, grid: Tensor, size: Sequence[int]) -> None:
        height, width = size
        self._size = size
        spans = grid.new_tensor([width - 1, height - 1])
        place = (grid + 1) / 2 * spans
        first = place.floor()
        self._past = place - first  # (M, N, 2), of one pixel
        x, y = first.unbind(dim=-1)
        columns = torch.stack([x, x + 1, x, x + 1], dim=-1)
        rows = torch.stack([y, y, y + 1, y + 1], dim=-1)
        inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
        self._inside = inside.to(grid.dtype)
        pixels = rows.clamp_(0, height - 1) * width + columns.clamp_(0, width - 1)
        # A position that is no number must not become an address; its share is no number either.
        self.pixels = pixels.nan_to_num_(nan=0).to(torch.int32)  # (M, N, 4)

    def shares(self) -> Tensor:
        """Of each pixel in the value between them, (M, N, 4)."""
        x, y = self._past.unbind(dim=-1)
        shares = torch.stack([(1 - x) * (1 - y), x * (1 - y), (1 - x) * y, x * y], dim=-1)
        return shares.mul_(self._inside)

    def slopes(self, values: Tensor) -> Tensor:
        """Derivative (M, N, 2) of the mix of `values` (M, N, 4) by the position in the grid."""
        x, y = self._past.unbind(dim=-1)
        a, b, c, d = (values * self._inside).unbind(dim=-1)
        along_x = (b - a) * (1 - y) + (d - c) * y
        along_y = (c - a) * (1 - x) + (d - b) * x
        height, width = self._size
        return torch.stack([along_x * ((width - 1) / 2), along_y * ((height - 1) / 2)], dim=-1)

    def products(self, maps: Tensor, rows: Tensor) -> Tensor:
        """Products (M, N, 4) of the neurons' weights (N, C) with maps (M, H, W, C) at the pixels.

        Those entries of the matrix of all neurons times all pixels.
        """
        pixels = self._of_neurons()  # (N, 4 M), in a map of all frames
        starts = torch.arange(0, pixels.numel() + 1, pixels.shape[1], dtype=torch.int32)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
            wanted = torch.sparse_csr_tensor(
                starts,
                pixels.flatten(),
                rows.new_zeros(pixels.numel()),
                (len(rows), maps.shape[:3].numel()),
                check_invariants=False,
            )
        found = torch.sparse.sampled_addmm(wanted, rows, maps.flatten(0, 2).t(), beta=0.0)
        return found.values().unflatten(0, (len(rows), len(maps), 4)).transpose(0, 1)

    def summed_by_neuron(self, maps: Tensor, shares: Tensor) -> Tensor:
        """Sum over frames and pixels of shares (M, N, 4) times maps (M, H, W, C), (N, C)."""
        return functional.embedding_bag(
            self._of_neurons(),
            maps.flatten(0, 2),
            per_sample_weights=shares.transpose(0, 1).flatten(1),
            mode="sum",
        )

    def summed_by_pixel(self, rows: Tensor, shares: Tensor) -> Tensor:
        """Sum over neurons of shares (M, N, 4) times rows (N, C), (M, H, W, C)."""
        height, width = self._size
        pixels = self.pixels.flatten(1)  # (M, 4 N)
        # NumPy sorts 16-bit numbers by their digits, several times as fast as others.
        kind = np.uint16 if height * width <= 2**16 else np.int32
        keys = pixels.numpy().astype(kind)
        order = torch.from_numpy(np.argsort(keys, axis=1, kind="stable"))
        counts = torch.stack([torch.bincount(row, minlength=height * width) for row in pixels])
        ends = counts.flatten().cumsum(dim=0)
        summed = functional.embedding_bag(
            (order // 4).flatten(),
            rows,
            ends - counts.flatten(),
            per_sample_weights=shares.flatten(1).gather(1, order).flatten(),
            mode="sum",
        )
        return summed.unflatten(0, (len(pixels), height, width))

    def _of_neurons(self) -> Tensor:
        """Pixels (N, 4 M) in a map of all frames, one under the other."""
        height, width = self._size
        first = torch.arange(len(self.pixels), dtype=torch.int32) * (height * width)
        return (self.pixels + first[:, None, None]).transpose(0, 1).flatten(1)


def _parts(frames: int) -> list[slice]:
    return [slice(start, start + _FRAMES_AT_ONCE) for start in range(0, frames, _FRAMES_AT_ONCE)]
