"""From a collated clip of raw values to what enters the network, on the device.

Applies the system's normalisation (recordings/normalisation.py; specs: per-frame statistics are
indexed by the absolute frame in the trial), pads frames, tiles behaviour into planes, stacks the
channels, and gives the behavioural state as a sequence. The same code serves training and
inference.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from sensorium_models.recordings.clips import Clip
    from sensorium_models.recordings.normalisation import Affine, Normalisation

# Dimensions of one frame of a modality: (H, W), (2,), (2,), (N,).
_FRAME_DIMENSIONS = {"video": 2, "behavior": 1, "pupil_center": 1, "responses": 1}
CHANNELS_OF = {"video": 1, "behavior": 2, "pupil_center": 2}


def to_device(clip: Clip, device: torch.device | str) -> Clip:
    """The same clip as tensors on `device`; video keeps its type, so that uint8 travels."""

    def move(values: Any) -> Any:
        if isinstance(values, np.ndarray | Tensor):
            return torch.as_tensor(values).to(device, non_blocking=True)
        if isinstance(values, tuple):  # one array per row where animals are mixed, or their names
            return tuple(move(value) for value in values)
        return values

    return dataclasses.replace(
        clip, **{field.name: move(getattr(clip, field.name)) for field in dataclasses.fields(clip)}
    )


def select_rows(clip: Clip, rows: Sequence[int]) -> Clip:
    """The clips of a batch at `rows`, in that order."""
    rows = list(rows)

    def pick(values: Any) -> Any:
        if values is None:
            return None
        if isinstance(values, tuple):
            return tuple(values[row] for row in rows)
        return values[rows]

    return dataclasses.replace(
        clip, **{field.name: pick(getattr(clip, field.name)) for field in dataclasses.fields(clip)}
    )


class AnimalInputs(nn.Module):
    """One animal's normalisation, and the channels and the state that its network takes.

    `channels` names modalities in order; video gives one channel, behaviour (pupil dilation,
    running speed) and pupil centre two planes each. `state` names those that also, or only, come as
    a sequence. `frame_padding` (height, width) is the size of the planes, the video in the middle
    of zeros; None leaves frames as they are. Nothing here is learned or saved: it is all in the
    recording.
    """

    def __init__(
        self,
        *,
        animal: str,
        normalisation: Normalisation,
        channels: Sequence[str],
        state: Sequence[str] = (),
        frame_padding: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        for key, names in (("channels", channels), ("state", state)):
            for name in names:
                if name not in CHANNELS_OF or (key, name) == ("state", "video"):
                    raise ValueError(
                        f"inputs.{key}: {name} is none of {', '.join(sorted(CHANNELS_OF))}"
                    )
                if getattr(normalisation, name) is None:
                    raise ValueError(
                        f"animal {animal} has no {name}, which the network takes as input"
                    )
        self.animal = animal
        self.channels = tuple(channels)
        self.state_modalities = tuple(state)
        self.frame_padding = frame_padding
        limits = [] if normalisation.frames is None else [normalisation.frames]
        for modality, dimensions in _FRAME_DIMENSIONS.items():
            affine: Affine | None = getattr(normalisation, modality)
            for part in ("offset", "scale"):
                values = None
                if affine is not None:
                    # A copy: a statistic may be a read-only view of a file.
                    values = torch.tensor(getattr(affine, part), dtype=torch.float32)
                    values = values.reshape(values.shape + (1,) * (1 + dimensions - values.ndim))
                    if len(values) > 1:
                        limits.append(len(values))
                self.register_buffer(f"{modality}_{part}", values, persistent=False)
        self.frames = min(limits, default=None)  # frame indices below this have statistics

    def forward(self, clip: Clip) -> Tensor:
        """Network input (B, C, T, H, W) in float32."""
        frame = self._frame_index(clip)
        video = self._normalised("video", torch.as_tensor(clip.video)[:, 0], frame)[:, None]
        if self.frame_padding is not None:
            video = _padded(video, self.frame_padding)
        planes = [video]
        for channel in self.channels:
            if channel != "video":
                values = self._normalised(channel, getattr(clip, channel), frame)  # (B, T, 2)
                values = values.transpose(1, 2)[..., None, None]
                planes.append(values.expand(*values.shape[:3], *video.shape[-2:]))
        return torch.cat(planes, dim=1) if len(planes) > 1 else video

    def state(self, clip: Clip) -> Tensor:
        """Normalised behavioural state (B, T, S), two numbers per modality; S is 0 without any."""
        frame = self._frame_index(clip)
        values = [
            self._normalised(modality, getattr(clip, modality), frame)
            for modality in self.state_modalities
        ]
        device = cast(Tensor, self.video_scale).device
        return torch.cat([*values, torch.empty(*clip.frame.shape, 0, device=device)], dim=2)

    def pupil_center(self, clip: Clip) -> Tensor:
        """Normalised pupil centre (B, T, 2), for the shifter."""
        return self._normalised("pupil_center", clip.pupil_center, self._frame_index(clip))

    def responses(self, clip: Clip) -> Tensor:
        """Recorded responses (B, T, N) in the response unit, the target of training.

        Of a batch of several animals, `select_rows` picks the rows of this one first.
        """
        recorded: Any = clip.responses
        if isinstance(recorded, tuple):
            if set(clip.animal) != {self.animal}:
                raise ValueError(
                    f"responses of animal {self.animal} were asked of a batch of "
                    f"{', '.join(dict.fromkeys(clip.animal))}; select its rows first"
                )
            recorded = torch.stack([torch.as_tensor(row) for row in recorded])
        return self._normalised("responses", recorded, self._frame_index(clip))

    def _normalised(self, modality: str, values: Any, frame: Tensor | None) -> Tensor:
        offset = cast(Tensor | None, getattr(self, f"{modality}_offset"))
        scale = cast(Tensor | None, getattr(self, f"{modality}_scale"))
        if values is None or offset is None or scale is None:
            raise ValueError(f"animal {self.animal}: this clip or its recording has no {modality}")
        raw = torch.as_tensor(values).to(offset.device, torch.float32)
        return (raw - _at(offset, frame)) * _at(scale, frame)

    def _frame_index(self, clip: Clip) -> Tensor | None:
        """Absolute frame indices (B, T) with padding moved to the last one that has statistics."""
        if self.frames is None:
            return None
        frame = torch.as_tensor(clip.frame).to(self.video_scale.device)  # type: ignore[arg-type]
        valid = torch.as_tensor(clip.valid).to(frame.device)
        last = int(torch.where(valid, frame, 0).max())
        if last >= self.frames:
            raise ValueError(
                f"animal {self.animal}: a clip reaches frame {last} of its trial, but this "
                f"normalisation has statistics for {self.frames} frames only; set a cap of at most "
                f"{self.frames} frames or use pooled statistics (global_train)"
            )
        return frame.clamp(max=self.frames - 1)


def padded_shape(
    frame_shape: tuple[int, int], frame_padding: tuple[int, int] | None
) -> tuple[int, int]:
    """Height and width of the planes that enter the core.

    Raises:
        ValueError: the frames are larger than the plane that they are to be padded to.
    """
    if frame_padding is None:
        return frame_shape
    if frame_shape[0] > frame_padding[0] or frame_shape[1] > frame_padding[1]:
        raise ValueError(
            f"inputs.frame_padding: frames of {frame_shape[0]} x {frame_shape[1]} pixels do not "
            f"fit into {frame_padding[0]} x {frame_padding[1]}; give at least their size"
        )
    return frame_padding


def _padded(video: Tensor, shape: tuple[int, int]) -> Tensor:
    height, width = video.shape[-2:]
    top, left = (shape[0] - height) // 2, (shape[1] - width) // 2
    return functional.pad(video, (left, shape[1] - width - left, top, shape[0] - height - top))


def _at(statistic: Tensor, frame: Tensor | None) -> Tensor:
    # Pooled statistics have one row, which broadcasts over clips and frames.
    return statistic[0] if len(statistic) == 1 or frame is None else statistic[frame]
