"""Overlapping space-time patches of a video as tokens, without ever holding the patches.

Facts: model card of ViV1T, section A2 (bryanlimy/ViV1T 765cf77). A patch has thousands of numbers
and shares nearly all of them with its neighbours; a convolution reads them in place.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class PatchEmbedding(nn.Module):
    """LayerNorm, Linear, LayerNorm of every patch; (B, C, T, H, W) to (B, T', h, w, D).

    Patches of `frames` x `pixels` x `pixels` over all channels, in steps of one frame and `stride`
    pixels, whole ones only. PyTorch's default initialisation.
    """

    def __init__(
        self, *, in_channels: int, frames: int, pixels: int, stride: int, out_channels: int
    ) -> None:
        super().__init__()
        self.window = (frames, pixels, pixels)
        self.stride = stride
        size = in_channels * frames * pixels**2
        self.patch_norm = nn.LayerNorm(size)  # in the order channel, frame, row, column
        self.linear = nn.Linear(size, out_channels)
        self.norm = nn.LayerNorm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        # The mean is taken off after the convolution, a small difference of large numbers where a
        # patch lies far from zero: the 8 bits of bfloat16, enough for a patch that is normalised
        # first, would not do.
        if x.is_meta:  # only shapes are asked for, and autocast knows no such device
            return self._tokens(x)
        with torch.autocast(x.device.type, enabled=False):
            return self._tokens(x)

    def _tokens(self, x: Tensor) -> Tensor:
        # LayerNorm and Linear of a patch p: W (g (p - mean) / std + b) + c
        # = ((W g) p - mean sum(W g)) / std + (W b + c), and (W g) p is a convolution.
        mean, inverse_std = self._statistics(x)  # (B, 1, T', h, w)
        gained = self.linear.weight * self.patch_norm.weight
        kernels = gained.unflatten(1, (x.shape[1], *self.window))
        steps = (1, self.stride, self.stride)
        projected = functional.conv3d(x, kernels, stride=steps)
        constant = self.linear.weight @ self.patch_norm.bias + self.linear.bias
        projected = projected.permute(0, 2, 3, 4, 1)  # (B, T', h, w, D)
        mean, inverse_std = mean[:, 0, ..., None], inverse_std[:, 0, ..., None]
        return self.norm((projected - mean * gained.sum(dim=1)) * inverse_std + constant)

    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and 1 / standard deviation (with LayerNorm's epsilon) of every patch."""
        # In double precision, because a variance by squares is a small difference of large sums.
        planes = x.double()
        moments = torch.stack([planes.mean(dim=1), planes.square().mean(dim=1)], dim=1)
        frames, pixels, _ = self.window
        moments = functional.avg_pool3d(
            moments, (1, pixels, pixels), stride=(1, self.stride, self.stride)
        )
        moments = functional.avg_pool3d(moments, (frames, 1, 1), stride=1)
        mean, square = moments.split(1, dim=1)
        variance = (square - mean.square()).clamp(min=0)
        return mean.to(x.dtype), (variance + self.patch_norm.eps).rsqrt().to(x.dtype)


def patch_grid(frame_shape: tuple[int, int], *, pixels: int, stride: int) -> tuple[int, int]:
    """Rows and columns of whole patches in a frame.

    Raises:
        ValueError: not even one fits.
    """
    if min(frame_shape) < pixels:
        raise ValueError(
            f"patch_pixels: a patch of {pixels} pixels exceeds frames of {frame_shape[0]} x "
            f"{frame_shape[1]}"
        )
    height, width = frame_shape
    return (height - pixels) // stride + 1, (width - pixels) // stride + 1
