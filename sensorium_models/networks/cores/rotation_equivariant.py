"""The rotation-equivariant core: every feature in eight orientations that share their weights.

Facts: model card of the GRU baseline, sections 2 and 4 (sinzlab/neuralpredictors a2055cd as
configured by ecker-lab/sensorium_2023; Ecker et al. 2019, arXiv 1809.10504). Frame by frame.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from sensorium_models.networks.cores.batch_norm import batch_normalised
from sensorium_models.networks.cores.fourier import convolver
from sensorium_models.networks.cores.hermite import hermite_functions, rotations
from sensorium_models.networks.encoder import Core

_COEFFICIENT_STD = 0.1


class HermiteConvolution(nn.Module):
    """Correlation with kernels made of Hermite functions, each in every rotation; no bias.

    Channels are numbered rotation * features + feature, on the way in (except in the first layer)
    and on the way out.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        features: int,
        rotation_steps: int,
        kernel: int,
        first: bool,
    ) -> None:
        super().__init__()
        # Parameters, as published: they count, are saved, and never change.
        self.basis = _frozen(hermite_functions(kernel))  # (n, 2 k, 2 k)
        self.rotations = _frozen(rotations(kernel, rotation_steps))  # (R, n, n)
        self.coefficients = nn.Parameter(
            _COEFFICIENT_STD * torch.randn(len(self.basis), in_channels, features)
        )
        self.features = features
        self.first = first
        self.padding = 0 if first else kernel // 2

    def forward(self, x: Tensor) -> Tensor:
        size = (x.shape[2], x.shape[3])
        return convolver(self.kernels(), size=size, padding=self.padding)(x)

    def kernels(self) -> Tensor:
        """Kernels (R * features, C, k, k), made of the coefficients anew at each call."""
        # The published code makes kernels of twice the size and sums blocks of 2 x 2 pixels (a sum,
        # not a mean); both are linear, so summing the basis gives the same.
        basis = 4 * functional.avg_pool2d(self.basis, 2)  # (n, k, k)
        rotated = torch.einsum("rab,bcf->racf", self.rotations, self.coefficients)
        kernels = torch.einsum("ayx,racf->rfcyx", basis, rotated)
        if not self.first:
            # Input rotations turn along with the output's, so that only their difference matters.
            kernels = torch.stack(
                [kernel.roll(step * self.features, dims=1) for step, kernel in enumerate(kernels)]
            )
        return kernels.flatten(0, 1)


class RotationBatchNorm(nn.Module):
    """Batch norm with one mean, variance, weight and bias per feature, shared by its rotations."""

    def __init__(self, *, features: int, momentum: float) -> None:
        super().__init__()
        # Momentum is PyTorch's: the weight of the new batch.
        self.norm = nn.BatchNorm2d(features, momentum=momentum)

    def forward(self, x: Tensor) -> Tensor:
        return batch_normalised(x.permute(0, 2, 3, 1), self.norm).permute(0, 3, 1, 2)


class RotationEquivariantCore(Core):
    """Hermite convolutions, batch norm and ELU; (B, C, T, H, W) to (B, R F, T, H', W').

    The first layer has no padding, so H' = H - k + 1; the others keep their size. The last layer
    ends with batch norm. The penalty is `group_sparsity` * GS + `smoothness` * LL: the mean norm of
    a kernel in all layers but the first, and the energy of the Laplacian of the first layer's
    kernels relative to their own.
    """

    history_frames = 0

    def __init__(
        self,
        *,
        in_channels: int,
        frame_shape: tuple[int, int],
        features: int,
        rotation_steps: int,
        kernels: Sequence[int],
        batch_norm_momentum: float,
        group_sparsity: float,
        smoothness: float,
    ) -> None:
        super().__init__()
        for name, value in (("features", features), ("rotation_steps", rotation_steps)):
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} must be a whole number from 1 on, not {value!r}")
        if (
            not isinstance(kernels, list | tuple)
            or len(kernels) < 2
            or any(type(k) is not int or k < 1 or k % 2 == 0 for k in kernels)
        ):
            raise ValueError(f"kernels must list two or more odd sizes in pixels, not {kernels!r}")
        if min(frame_shape) < kernels[0]:
            raise ValueError(
                f"kernels: the first of {kernels[0]} pixels, which is not padded, exceeds frames "
                f"of {frame_shape[0]} x {frame_shape[1]}"
            )
        if not 0 <= batch_norm_momentum <= 1:
            raise ValueError(f"batch_norm_momentum must be in [0, 1], not {batch_norm_momentum}")
        if group_sparsity < 0 or smoothness < 0:
            raise ValueError("group_sparsity and smoothness must not be negative")
        channels = features * rotation_steps
        self.convolutions = nn.ModuleList(
            HermiteConvolution(
                in_channels=channels if layer else in_channels,
                features=features,
                rotation_steps=rotation_steps,
                kernel=kernel,
                first=layer == 0,
            )
            for layer, kernel in enumerate(kernels)
        )
        self.norms = nn.ModuleList(
            RotationBatchNorm(features=features, momentum=batch_norm_momentum) for _ in kernels
        )
        self.group_sparsity = group_sparsity
        self.smoothness = smoothness
        self.out_channels = channels
        self.out_shape = (frame_shape[0] - kernels[0] + 1, frame_shape[1] - kernels[0] + 1)
        laplace = torch.tensor([[0.0, -1.0, 0.0], [-1.0, 4.0, -1.0], [0.0, -1.0, 0.0]])
        self.register_buffer("laplace", laplace[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        clips, _, frames = x.shape[:3]
        x = x.transpose(1, 2).flatten(0, 1)  # (B T, C, H, W), channels last in memory
        x = x.contiguous(memory_format=torch.channels_last)
        last = len(self.norms) - 1
        for layer, (convolution, norm) in enumerate(
            zip(self.convolutions, self.norms, strict=True)
        ):
            x = norm(convolution(x))
            if layer < last:
                x = functional.elu(x, inplace=True)
        return x.unflatten(0, (clips, frames)).transpose(1, 2)

    def regularizer(self) -> Tensor:
        """Weighted sum of both penalties; a scalar."""
        kernels = [convolution.kernels() for convolution in self.convolutions]  # type: ignore[operator]
        return self.group_sparsity * group_sparsity(kernels[1:]) + self.smoothness * self.roughness(
            kernels[0]
        )

    def roughness(self, kernels: Tensor) -> Tensor:
        """LL = sum(conv2d(K, Laplace, padding 1)^2) / sum(K^2) of kernels (O, I, k, k)."""
        single = kernels.flatten(0, 1)[:, None]
        rough = functional.conv2d(single, self.laplace, padding=1)  # type: ignore[arg-type]
        return rough.square().sum() / single.square().sum()


def group_sparsity(kernels: Sequence[Tensor]) -> Tensor:
    """GS: the norm of a k x k kernel, averaged over those of a layer, then over layers."""
    norms = [layer.square().sum(dim=(2, 3)).sqrt().mean() for layer in kernels]
    return torch.stack(norms).mean()


def _frozen(values: object) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values, dtype=torch.float32), requires_grad=False)
