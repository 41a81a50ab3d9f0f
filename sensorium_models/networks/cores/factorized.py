"""The factorized core: three-dimensional convolutions split into a spatial and a temporal one.

Facts: model card of the factorized baseline, section 2 (sinzlab/neuralpredictors a2055cd as
configured by ecker-lab/sensorium_2023). No padding: features shrink in time and space.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from sensorium_models.networks.cores.batch_norm import batch_normalised
from sensorium_models.networks.cores.fourier import convolver
from sensorium_models.networks.encoder import Core


class FactorizedLayer(nn.Module):
    """Spatial convolution, temporal convolution, batch norm, ELU; nothing between the first two."""

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        spatial_kernel: int,
        temporal_kernel: int,
        spatial_stride: int,
        batch_norm_momentum: float,
    ) -> None:
        super().__init__()
        self.spatial = nn.Conv3d(
            in_channels,
            out_channels,
            (1, spatial_kernel, spatial_kernel),
            stride=(1, spatial_stride, spatial_stride),
        )
        self.temporal = nn.Conv3d(out_channels, out_channels, (temporal_kernel, 1, 1))
        # The biases stay although batch norm follows, and momentum is PyTorch's (the weight of the
        # new batch), both as published.
        self.norm = nn.BatchNorm3d(out_channels, momentum=batch_norm_momentum)
        for convolution in (self.spatial, self.temporal):
            nn.init.xavier_normal_(convolution.weight)
            nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        # Conv3d's numbers by two-dimensional convolutions on channels-last memory: kernels of one
        # frame, then of one pixel, need no third dimension.
        clips, _, frames = x.shape[:3]
        maps = x.transpose(1, 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)
        kernels, bias = self.spatial.weight[:, :, 0], self.spatial.bias
        if self.spatial.stride[1] == 1:
            size = (maps.shape[2], maps.shape[3])
            maps = convolver(kernels, size=size, padding=0)(maps) + bias[:, None, None]  # type: ignore[index]
        else:
            maps = functional.conv2d(maps, kernels, bias, stride=self.spatial.stride[1:])
        pixels = maps.unflatten(0, (clips, frames)).transpose(1, 2).flatten(3)  # (B, C', T, H' W')
        pixels = functional.conv2d(pixels, self.temporal.weight[..., 0], self.temporal.bias)
        pixels = batch_normalised(pixels.permute(0, 2, 3, 1), self.norm)  # (B, T', H' W', C')
        x = functional.elu(pixels, inplace=True).unflatten(2, maps.shape[2:])
        return x.permute(0, 4, 1, 2, 3)


class FactorizedCore(Core):
    """A stack of factorized layers; (B, C, T, H, W) to (B, C', T - history_frames, H', W').

    `spatial_strides` is this project's addition (1 everywhere as published). The penalty is
    `spatial_smoothness` * Ls + `temporal_smoothness` * Lt on the first layer's kernels, each the
    energy of their Laplacian relative to their own.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        frame_shape: tuple[int, int],
        channels: Sequence[int],
        spatial_kernels: Sequence[int],
        temporal_kernels: Sequence[int],
        spatial_strides: Sequence[int],
        batch_norm_momentum: float,
        spatial_smoothness: float,
        temporal_smoothness: float,
    ) -> None:
        super().__init__()
        for name, values in (
            ("channels", channels),
            ("spatial_kernels", spatial_kernels),
            ("temporal_kernels", temporal_kernels),
            ("spatial_strides", spatial_strides),
        ):
            whole = isinstance(values, list | tuple) and all(
                type(v) is int and v >= 1 for v in values
            )
            if not whole or not values:
                raise ValueError(
                    f"{name} must be a list of whole numbers from 1 on, not {values!r}"
                )
            if len(values) != len(channels):
                raise ValueError(
                    f"{name} has {len(values)} entries and channels {len(channels)}; "
                    "each layer needs one of each"
                )
        if not 0 < batch_norm_momentum <= 1:
            raise ValueError(f"batch_norm_momentum must be in (0, 1], not {batch_norm_momentum!r}")
        for name, value in (
            ("spatial_smoothness", spatial_smoothness),
            ("temporal_smoothness", temporal_smoothness),
        ):
            if value < 0:
                raise ValueError(f"{name} must not be negative, but is {value!r}")
        height, width = frame_shape
        layers: list[FactorizedLayer] = []
        layer_inputs = [in_channels, *channels[:-1]]
        for index, (inputs, outputs, kernel, length, stride) in enumerate(
            zip(
                layer_inputs,
                channels,
                spatial_kernels,
                temporal_kernels,
                spatial_strides,
                strict=True,
            )
        ):
            if min(height, width) < kernel:
                raise ValueError(
                    f"layer {index} has a spatial kernel of {kernel}, but only {height} x {width} "
                    f"pixels of frames of {frame_shape[0]} x {frame_shape[1]} reach it; use "
                    "smaller spatial_kernels or spatial_strides"
                )
            height, width = (height - kernel) // stride + 1, (width - kernel) // stride + 1
            layers.append(
                FactorizedLayer(
                    in_channels=inputs,
                    out_channels=outputs,
                    spatial_kernel=kernel,
                    temporal_kernel=length,
                    spatial_stride=stride,
                    batch_norm_momentum=batch_norm_momentum,
                )
            )
        self.layers = nn.ModuleList(layers)
        self.out_channels = channels[-1]
        self.out_shape = (height, width)
        self.history_frames = sum(temporal_kernels) - len(temporal_kernels)
        self.spatial_smoothness = spatial_smoothness
        self.temporal_smoothness = temporal_smoothness
        laplace = torch.tensor([[0.0, -1.0, 0.0], [-1.0, 4.0, -1.0], [0.0, -1.0, 0.0]])
        self.register_buffer("laplace", laplace[None, None], persistent=False)
        # Four in the middle, not the usual two: as published.
        temporal_laplace = torch.tensor([-1.0, 4.0, -1.0])
        self.register_buffer("temporal_laplace", temporal_laplace[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x

    def regularizer(self) -> Tensor:
        """Smoothness penalty of the first layer; a scalar."""
        return (
            self.spatial_smoothness * self.spatial_roughness()
            + self.temporal_smoothness * self.temporal_roughness()
        )

    def spatial_roughness(self) -> Tensor:
        """Ls = sum(conv2d(W, Laplace, padding 1)^2) / sum(W^2), W first spatial kernels."""
        kernels = self.layers[0].spatial.weight[:, :, 0].flatten(0, 1)[:, None]  # type: ignore[union-attr,index]
        rough = functional.conv2d(kernels, self.laplace, padding=1)  # type: ignore[arg-type]
        return rough.square().sum() / kernels.square().sum()

    def temporal_roughness(self) -> Tensor:
        """Lt = sum(conv1d(W, [-1, 4, -1], padding 1)^2) / sum(W^2), W first temporal kernels."""
        kernels = self.layers[0].temporal.weight[..., 0, 0].flatten(0, 1)[:, None]  # type: ignore[union-attr,index]
        rough = functional.conv1d(kernels, self.temporal_laplace, padding=1)  # type: ignore[arg-type]
        return rough.square().sum() / kernels.square().sum()
