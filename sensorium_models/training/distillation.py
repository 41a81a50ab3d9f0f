"""A teacher for what recordings do not tell: how the other animals would have responded to a clip.

Card of DwiseNeuro, section 4.3: the teacher is a finished member in evaluation mode, and sees what
the student sees, after CutMix.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from sensorium_models.networks.encoder import Encoder
from sensorium_models.networks.members import load_encoder
from sensorium_models.recordings.clips import Clip


class Teacher:
    """A trained network that only answers."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder.eval().requires_grad_(False)

    @torch.no_grad()
    def features(self, inputs: Sequence[Tensor]) -> Tensor:
        """Features of the teacher's core for the inputs of the student's."""
        features: Tensor = self.encoder.core(*inputs)
        return features

    @torch.no_grad()
    def rates(self, features: Tensor, clip: Clip, animal: str, rows: Sequence[int]) -> Tensor:
        """Rates (b, T_out, N) of `animal` for the clips at `rows`, whosever they are."""
        return self.encoder.read(features, clip, animal, rows)


def load_teacher(
    folder: Path, recordings: Mapping[str, Path], *, animals: Sequence[str], fabric: Fabric
) -> Teacher:
    """The finished member in `folder` as a teacher of students of `animals`.

    Raises:
        ValueError: the member is incomplete, of other recordings, or lacks one of the animals.
    """
    encoder = load_encoder(folder, recordings)
    lacking = [animal for animal in animals if animal not in encoder.animals]
    if lacking:
        raise ValueError(
            f"{folder}: the teacher was not trained on animal {', '.join(lacking)}, of which its "
            "student is to learn; train it on the same animals"
        )
    return Teacher(encoder.to(fabric.device))


def teacher_identity(folder: Path) -> dict[str, Any]:
    """Which weights a student learns from, for its record and its checkpoint."""
    weights = (folder / "weights.safetensors").read_bytes()
    return {"member": folder.name, "weights": hashlib.sha256(weights).hexdigest()}
