"""Gaze shifters: from the pupil centre to a displacement of all receptive fields of one animal.

Published form: a small tanh network (model card of the factorized baseline, section 4).
"""

from torch import Tensor, nn


class MLPShifter(nn.Module):
    """Linear and tanh, `hidden_layers` times with `hidden_units`, then Linear(., 2) and tanh.

    Biases everywhere, PyTorch's default initialisation, no penalty. Maps the normalised pupil
    centre (B, T, 2) to a shift (B, T, 2) in (-1, 1), (x, y) in units of half a feature map.
    """

    def __init__(self, *, hidden_units: int, hidden_layers: int) -> None:
        super().__init__()
        if not isinstance(hidden_units, int) or hidden_units < 1:
            raise ValueError(f"hidden_units must be a whole number from 1 on, not {hidden_units!r}")
        if not isinstance(hidden_layers, int) or hidden_layers < 0:
            raise ValueError(
                f"hidden_layers must be a whole number from 0 on, not {hidden_layers!r}"
            )
        layers: list[nn.Module] = []
        width = 2
        for _ in range(hidden_layers):
            layers += [nn.Linear(width, hidden_units), nn.Tanh()]
            width = hidden_units
        self.layers = nn.Sequential(*layers, nn.Linear(width, 2), nn.Tanh())

    def forward(self, pupil_center: Tensor) -> Tensor:
        return self.layers(pupil_center)
