"""The GRU baseline's core: the rotation-equivariant core, then a convolutional GRU over time.

Facts: model card of the GRU baseline, sections 1 and 3 (ecker-lab/sensorium_2023 with
sinzlab/neuralpredictors a2055cd). No padding in time and no memory between clips: every clip, and
every trial, starts from a hidden state of zeros, so a trial must be predicted in one pass.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sensorium_models.networks.cores.fourier import convolver
from sensorium_models.networks.cores.rotation_equivariant import RotationEquivariantCore
from sensorium_models.networks.encoder import Core


class ConvGRU(nn.Module):
    """h <- (1 - u) h + u c, gates from zero-padded convolutions; (B, C, T, H, W) to the same.

    u = sigmoid(input + hidden) weighs the new content; c = tanh(input + hidden applied to r h): the
    reset gate r acts before the convolution. Two biases per gate, as published.
    """

    def __init__(
        self,
        *,
        channels: int,
        input_kernel: int,
        hidden_kernel: int,
        checkpoint_frames: int | None = None,
    ) -> None:
        """`checkpoint_frames`: in training, keep the state every so many frames only.

        The rest is computed again in the backward pass; None keeps everything.
        """
        super().__init__()
        for name, value in (("input_kernel", input_kernel), ("hidden_kernel", hidden_kernel)):
            if type(value) is not int or value < 1 or value % 2 == 0:
                raise ValueError(f"{name} must be an odd number of pixels, not {value!r}")
        if checkpoint_frames is not None and (
            type(checkpoint_frames) is not int or checkpoint_frames < 1
        ):
            raise ValueError(
                f"checkpoint_frames must be a whole number from 1 on, or null, not "
                f"{checkpoint_frames!r}"
            )

        def convolution(kernel: int) -> nn.Conv2d:
            return nn.Conv2d(channels, channels, kernel, padding=kernel // 2)

        # In the published order, in which they are drawn.
        self.reset_gate_input = convolution(input_kernel)
        self.reset_gate_hidden = convolution(hidden_kernel)
        self.update_gate_input = convolution(input_kernel)
        self.update_gate_hidden = convolution(hidden_kernel)
        self.out_gate_input = convolution(input_kernel)
        self.out_gate_hidden = convolution(hidden_kernel)
        self.checkpoint_frames = checkpoint_frames
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights (normal, Xavier, gain 1) and set biases to zero."""
        for convolution in self.children():
            nn.init.xavier_normal_(convolution.weight)  # type: ignore[arg-type]
            nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        inputs = (self.update_gate_input, self.reset_gate_input, self.out_gate_input)
        hidden = (self.update_gate_hidden, self.reset_gate_hidden, self.out_gate_hidden)
        # What does not depend on the state is computed for all frames at once, and gates that share
        # their input in one convolution. Both biases of a gate are added here: the same sum.
        clips, _, frames = x.shape[:3]
        size = (x.shape[3], x.shape[4])
        driven_by = convolver(
            torch.cat([gate.weight for gate in inputs]),
            size=size,
            padding=self.update_gate_input.padding[0],  # type: ignore[arg-type]
        )
        bias = torch.cat([i.bias + h.bias for i, h in zip(inputs, hidden, strict=True)])  # type: ignore[operator]
        padding = self.update_gate_hidden.padding[0]
        known_by, recalled_by = (
            convolver(kernels, size=size, padding=padding)  # type: ignore[arg-type]
            for kernels in (
                torch.cat([gate.weight for gate in hidden[:2]]),
                self.out_gate_hidden.weight,
            )
        )

        def run(part: Tensor, state: Tensor) -> Tensor:
            driven = driven_by(part.flatten(0, 1)) + bias[:, None, None]
            driven = driven.unflatten(0, (clips, -1))  # (B, t, 3 C, H, W)
            return _states(driven, state, known_by, recalled_by)

        # Channels last in memory: as convolutions by spectra give their maps, and readouts take.
        state = x.new_zeros(clips, *size, x.shape[1]).permute(0, 3, 1, 2)
        outputs = []
        for part in x.transpose(1, 2).split(self.checkpoint_frames or frames, dim=1):
            if self.checkpoint_frames is not None and torch.is_grad_enabled():
                states = checkpoint(run, part, state, use_reentrant=False, preserve_rng_state=False)
            else:
                states = run(part, state)
            state = states[:, :, -1]
            outputs.append(states)
        return torch.cat(outputs, dim=2) if len(outputs) > 1 else outputs[0]


def _states(
    driven: Tensor,
    state: Tensor,
    known_by: Callable[[Tensor], Tensor],
    recalled_by: Callable[[Tensor], Tensor],
) -> Tensor:
    """States (B, C, t, H, W) after each frame of `driven` (B, t, 3 C, H, W)."""
    channels = state.shape[1]
    states = []
    for frame in driven.unbind(dim=1):
        gates = torch.sigmoid(frame[:, : 2 * channels] + known_by(state))
        update, reset = gates.chunk(2, dim=1)
        content = torch.tanh(frame[:, 2 * channels :] + recalled_by(state * reset))
        state = state * (1 - update) + content * update
        states.append(state.permute(0, 2, 3, 1))
    return torch.stack(states, dim=1).permute(0, 4, 1, 2, 3)


class EquivariantGRUCore(Core):
    """`RotationEquivariantCore` on each frame, then a `ConvGRU` over frames; no history is lost.

    The rate at a frame depends on all frames of the clip up to it. The penalty is that of the
    equivariant core; the GRU has none.
    """

    history_frames = 0
    undivided = True

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
        gru_input_kernel: int,
        gru_hidden_kernel: int,
        gru_checkpoint_frames: int | None = None,
    ) -> None:
        super().__init__()
        self.frame_core = RotationEquivariantCore(
            in_channels=in_channels,
            frame_shape=frame_shape,
            features=features,
            rotation_steps=rotation_steps,
            kernels=kernels,
            batch_norm_momentum=batch_norm_momentum,
            group_sparsity=group_sparsity,
            smoothness=smoothness,
        )
        self.out_channels = self.frame_core.out_channels
        self.out_shape = self.frame_core.out_shape
        # Drawn last (see draw_after_readouts): making it must not move the random stream.
        with torch.random.fork_rng(devices=[]):
            self.gru = ConvGRU(
                channels=self.out_channels,
                input_kernel=gru_input_kernel,
                hidden_kernel=gru_hidden_kernel,
                checkpoint_frames=gru_checkpoint_frames,
            )

    def forward(self, x: Tensor) -> Tensor:
        return self.gru(self.frame_core(x))

    def draw_after_readouts(self) -> None:
        """Draw the GRU again: the published code makes it after the readouts."""
        for convolution in self.gru.children():
            convolution.reset_parameters()  # type: ignore[operator]  # as making it draws
        self.gru.reset_parameters()

    def regularizer(self) -> Tensor:
        """Penalty of the equivariant core; a scalar."""
        return self.frame_core.regularizer()
