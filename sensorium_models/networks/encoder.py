"""The encoder: a core shared by all animals, and one readout (and shifter) per animal.

Video and behaviour of a clip become features, features become rates of every neuron of one animal.
What a core, a readout and a shifter must offer is written here; their classes live beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from sensorium_models.networks.inputs import AnimalInputs, select_rows

if TYPE_CHECKING:
    from sensorium_models.recordings.clips import Clip
    from sensorium_models.recordings.normalisation import Normalisation


@dataclass(frozen=True)
class AnimalFacts:
    """All that a network needs to know of one animal before training.

    `coordinates` (N, 3) are cortical positions in micrometres, `frame_shape` is (height, width).
    `normalisation` is that of the system's inputs, its `responses` that of the response unit.
    `initial_rates` (N,) are mean responses in the response unit; they start the readout's bias
    (None: it stays 0). `initial_positions` (N, 2) are (x, y) in [-1, 1].
    """

    animal: str
    neurons: int
    coordinates: np.ndarray | None
    has_behavior: bool
    has_pupil_center: bool
    normalisation: Normalisation
    frame_shape: tuple[int, int]
    initial_rates: np.ndarray | None = None
    initial_positions: np.ndarray | None = None


class Core(nn.Module):
    """Maps (B, C, T, H, W) to features (B, out_channels, T - history_frames, *out_shape).

    A core is constructed with keywords `in_channels`, `frame_shape` and its settings. With
    `takes_state` it is also given `state_channels` and called with (inputs, state), state (B, T,
    state_channels) being normalised behaviour. With `clip_frames` it serves clips of that length
    only. `undivided` says that rates depend on more of a trial than `history_frames`, so that it
    must be predicted in one piece. Subclassing is a convenience: any module with these attributes
    serves.
    """

    out_channels: int
    out_shape: tuple[int, int]
    history_frames: int
    takes_state: bool = False
    clip_frames: int | None = None
    undivided: bool = False

    def draw_after_readouts(self) -> None:
        """Draw what the published code draws after the readouts; nothing unless overridden."""

    def regularizer(self) -> Tensor:
        """Penalty added to the loss of every batch; none unless overridden."""
        return torch.zeros(())


class Readout(nn.Module):
    """Maps features (B, C, T, H', W') to one animal's drive (B, T - history_frames, N).

    A readout is constructed with keywords `facts`, `in_channels`, `in_shape` and its settings, and
    called with features and, where `takes_shift`, a gaze shift (B, T - history_frames, 2) or None.
    With `takes_state` it is also given `state_channels` and called with (features, shift, state),
    state (B, T - history_frames, state_channels) being normalised behaviour. A parameter named
    `bias` (N,) is set to the output's starting bias by `build_encoder`.
    """

    history_frames: int = 0
    takes_shift: bool = True
    takes_state: bool = False

    def regularizer(self) -> Tensor:
        """Penalty added to the loss of every batch of this animal; none unless overridden."""
        return torch.zeros(())


class Encoder(nn.Module):
    """Predicts non-negative rates in the response unit, aligned to the last steps of a clip.

    Of a clip of T frames, rates of the last T - history_frames come out; the rate at one frame
    depends on that frame and the `history_frames` before it only (for causal cores).
    """

    def __init__(
        self,
        *,
        core: nn.Module,
        readouts: Mapping[str, nn.Module],
        shifters: Mapping[str, nn.Module] | None,
        inputs: Mapping[str, AnimalInputs],
        output: nn.Module,
    ) -> None:
        super().__init__()
        if set(readouts) != set(inputs) or (
            shifters is not None and set(shifters) != set(readouts)
        ):
            raise ValueError("readouts, shifters and inputs must be of the same animals")
        histories = {int(getattr(readout, "history_frames", 0)) for readout in readouts.values()}
        if len(histories) != 1:
            raise ValueError(
                f"all readouts must use the same history, not {sorted(histories)} frames"
            )
        self.core = core
        self.readouts = nn.ModuleDict(dict(readouts))
        self.shifters = None if shifters is None else nn.ModuleDict(dict(shifters))
        self.inputs = nn.ModuleDict(dict(inputs))
        self.output = output
        self.history_frames = int(cast(Any, core).history_frames) + histories.pop()
        self.clip_frames: int | None = getattr(core, "clip_frames", None)
        self.undivided = bool(getattr(core, "undivided", False))

    @property
    def animals(self) -> tuple[str, ...]:
        """The animals this encoder has a readout for, in the order they were built."""
        return tuple(self.readouts)

    def core_features(self, clip: Clip) -> Tensor:
        """Features (B, C', T', H', W') of a batch of one animal or of several."""
        return self.core(*self.core_inputs(clip))

    def core_inputs(self, clip: Clip) -> tuple[Tensor, ...]:
        """What the core is called with: (B, C, T, H, W), and the state where it takes that."""
        animals = list(dict.fromkeys(clip.animal))
        if len(animals) == 1:
            return self._core_inputs(clip, animals[0])
        parts, order = [], []
        for animal in animals:
            rows = [row for row, name in enumerate(clip.animal) if name == animal]
            parts.append(self._core_inputs(select_rows(clip, rows), animal))
            order += rows
        # One pass for the whole batch, its rows in the order in which they came.
        back = torch.argsort(torch.tensor(order, device=parts[0][0].device))
        return tuple(torch.cat(part)[back] for part in zip(*parts, strict=True))

    def read(
        self, features: Tensor, clip: Clip, animal: str, rows: Sequence[int] | None = None
    ) -> Tensor:
        """Rates (b, T_out, N) of `animal` for its `rows` of the batch (all rows when None)."""
        inputs = self._inputs_of(animal)
        if rows is not None:
            features = features[list(rows)]
            clip = select_rows(clip, rows)
        frames = cast(Tensor, clip.frame).shape[1] - self.history_frames
        shift = None
        if self.shifters is not None:
            shift = self.shifters[animal](inputs.pupil_center(clip)[:, -frames:])
        readout = self.readouts[animal]
        if getattr(readout, "takes_state", False):
            return self.output(readout(features, shift, inputs.state(clip)[:, -frames:]))
        return self.output(readout(features, shift))

    def forward(self, clip: Clip) -> Tensor:
        """Rates (B, T_out, N) of a batch that holds clips of a single animal."""
        animals = set(clip.animal)
        if len(animals) != 1:
            raise ValueError(
                f"a batch of several animals ({', '.join(sorted(animals))}) has no single rate "
                "tensor; call core_features once and read for each animal"
            )
        return self.read(self.core_features(clip), clip, clip.animal[0])

    def regularizer(self, animal: str) -> Tensor:
        """Penalty of a batch of `animal`: that of the core plus that of its readout; a scalar."""
        return cast(Any, self.core).regularizer() + cast(Any, self.readouts[animal]).regularizer()

    def _core_inputs(self, clip: Clip, animal: str) -> tuple[Tensor, ...]:
        inputs = self._inputs_of(animal)
        if getattr(self.core, "takes_state", False):
            return inputs(clip), inputs.state(clip)
        return (inputs(clip),)

    def _inputs_of(self, animal: str) -> AnimalInputs:
        if animal not in self.inputs:
            raise ValueError(
                f"this network has no readout for animal {animal}; it was built for "
                f"{', '.join(self.animals)}"
            )
        return cast(AnimalInputs, self.inputs[animal])
