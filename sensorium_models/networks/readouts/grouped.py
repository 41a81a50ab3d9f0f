"""The readout of DwiseNeuro: a grouped linear map of features that have no space.

Facts: model card of DwiseNeuro, section 2.6 (lRomul/sensorium 6849050).
"""

from torch import Tensor, nn

from sensorium_models.networks.cores.dwiseneuro_blocks import initialise
from sensorium_models.networks.encoder import AnimalFacts, Readout


class GroupedReadout(Readout):
    """Drive of N neurons: each group of features feeds its own ceil(N / groups) neurons.

    Where N is no multiple of `groups`, the last outputs are dead, as published: computed, thrown
    away, and in the count of parameters. In training whole features are dropped over all steps of a
    clip. The bias starts at 0, not at the neurons' rates.
    """

    takes_shift = False

    def __init__(
        self,
        *,
        facts: AnimalFacts,
        in_channels: int,
        in_shape: tuple[int, int],
        groups: int,
        dropout: float,
    ) -> None:
        super().__init__()
        if type(groups) is not int or groups < 1 or in_channels % groups:
            raise ValueError(
                f"groups must be a whole number that divides {in_channels} features, not {groups!r}"
            )
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), not {dropout!r}")
        if tuple(in_shape) != (1, 1):
            raise ValueError(
                f"the grouped readout has no positions, so the core must average space away: "
                f"features are {in_shape[0]} x {in_shape[1]} instead of 1 x 1"
            )
        self.neurons = facts.neurons
        self.dropout = nn.Dropout1d(dropout)
        outputs = groups * -(-facts.neurons // groups)
        self.convolution = nn.Conv1d(in_channels, outputs, 1, groups=groups)
        initialise(self)

    def forward(self, features: Tensor, shift: Tensor | None = None) -> Tensor:
        """Drive (B, T, N) from features (B, C, T, 1, 1)."""
        if shift is not None:
            raise ValueError("the grouped readout has no positions that a gaze shift could move")
        drive = self.convolution(self.dropout(features.flatten(2)))
        return drive[:, : self.neurons].transpose(1, 2)
