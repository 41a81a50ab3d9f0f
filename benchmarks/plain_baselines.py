"""The GRU and the factorized baseline written down plainly: the benchmark's other side.

From the model cards of both (published code: sinzlab/neuralpredictors a2055cd): convolutions in
contiguous memory, the recurrent network frame by frame with six convolutions each, features sampled
for all frames, channels and neurons at once. Weights are those of the project's own modules.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def rates(encoder: Any, clip: Any) -> Tensor:
    """Rates (B, T', N) of a batch of clips of one animal."""
    (animal,) = encoder.animals
    inputs = encoder.inputs[animal]
    recurrent = hasattr(encoder.core, "gru")
    x = (_recurrent if recurrent else _factorized)(encoder.core, inputs(clip))
    shift = encoder.shifters[animal](inputs.pupil_center(clip)[:, -x.shape[2] :])
    return functional.elu(_drive(encoder.readouts[animal], x, shift)) + 1


def _factorized(core: Any, x: Tensor) -> Tensor:
    for layer in core.layers:
        x = layer.temporal(layer.spatial(x))
        x = functional.elu(_normalised(layer.norm, x))
    return x


def _recurrent(core: Any, x: Tensor) -> Tensor:
    clips, channels, frames = x.shape[:3]
    x = x.transpose(1, 2).reshape(clips * frames, channels, *x.shape[3:])
    layers = list(zip(core.frame_core.convolutions, core.frame_core.norms, strict=True))
    for number, (convolution, norm) in enumerate(layers):
        x = functional.conv2d(x, _kernels(convolution), padding=convolution.padding)
        rows, maps = len(x), x.shape[2:]
        x = x.reshape(rows, -1, norm.norm.num_features, *maps).transpose(1, 2)
        x = x.reshape(rows, norm.norm.num_features, -1)
        x = _normalised(norm.norm, x)
        x = (
            x.reshape(rows, norm.norm.num_features, -1, *maps)
            .transpose(1, 2)
            .reshape(rows, -1, *maps)
        )
        if number < len(layers) - 1:
            x = functional.elu(x)
    x = x.reshape(clips, frames, *x.shape[1:])
    gru, state, states = core.gru, torch.zeros_like(x[:, 0]), []
    for t in range(frames):
        seen = x[:, t]
        update = torch.sigmoid(gru.update_gate_input(seen) + gru.update_gate_hidden(state))
        reset = torch.sigmoid(gru.reset_gate_input(seen) + gru.reset_gate_hidden(state))
        content = torch.tanh(gru.out_gate_input(seen) + gru.out_gate_hidden(state * reset))
        state = state * (1 - update) + content * update
        states.append(state)
    return torch.stack(states, dim=2)


def _normalised(norm: Any, x: Tensor) -> Tensor:
    return functional.batch_norm(
        x,
        norm.running_mean,
        norm.running_var,
        norm.weight,
        norm.bias,
        training=norm.training,
        momentum=norm.momentum,
    )


def _kernels(convolution: Any) -> Tensor:
    kernels = []
    for step, rotation in enumerate(convolution.rotations):
        rotated = torch.tensordot(rotation, convolution.coefficients, dims=1)
        kernel = torch.einsum("ayx,aco->yxco", convolution.basis, rotated)
        kernels.append(
            kernel if convolution.first else kernel.roll(step * convolution.features, dims=2)
        )
    large = torch.cat(kernels, dim=3).permute(3, 2, 0, 1)  # (out, in, 2 k, 2 k)
    return 4 * functional.avg_pool2d(large, 2)


def _drive(readout: Any, x: Tensor, shift: Tensor) -> Tensor:
    clips, channels, frames = x.shape[:3]
    maps = x.transpose(1, 2).reshape(clips * frames, channels, *x.shape[3:])
    grid = readout.sampled_positions(len(maps)) + shift.reshape(-1, 1, 2)
    sampled = functional.grid_sample(maps, grid[:, :, None], align_corners=True)[..., 0]
    y = (sampled * readout.features).sum(dim=1) + readout.bias  # (B T, C, N) times (C, N)
    return y.reshape(clips, frames, -1)
