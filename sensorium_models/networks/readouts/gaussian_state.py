"""ViV1T's readout: the Gaussian readout, with the behavioural state added to what is read.

Facts: model card of ViV1T, section A4 (bryanlimy/ViV1T 765cf77).
"""

from torch import Tensor, nn

from sensorium_models.networks.encoder import AnimalFacts
from sensorium_models.networks.readouts.gaussian import GaussianReadout, Positions


class GaussianStateReadout(GaussianReadout):
    """Drive of N neurons: (features at the neuron's position + encoded state) weighted, plus bias.

    The state encoder, one per animal, gives a vector as long as the features for each frame, in
    [-1, 1]: Linear, LayerNorm, GELU, Linear, tanh, PyTorch's default initialisation.
    """

    takes_state = True

    def __init__(
        self,
        *,
        facts: AnimalFacts,
        in_channels: int,
        in_shape: tuple[int, int],
        state_channels: int,
        positions: Positions,
        position_hidden_units: int,
        sigma_range: float,
        feature_penalty: float,
    ) -> None:
        super().__init__(
            facts=facts,
            in_channels=in_channels,
            in_shape=in_shape,
            positions=positions,
            position_hidden_units=position_hidden_units,
            sigma_range=sigma_range,
            feature_penalty=feature_penalty,
        )
        if state_channels < 1:
            raise ValueError(
                f"animal {facts.animal} has no behavioural state to encode; name its modalities in "
                "inputs.state, or use GaussianReadout"
            )
        self.state_encoder = nn.Sequential(
            nn.Linear(state_channels, in_channels),
            nn.LayerNorm(in_channels),
            nn.GELU(),
            nn.Linear(in_channels, in_channels),
            nn.Tanh(),
        )

    def forward(  # type: ignore[override]
        self, features: Tensor, shift: Tensor | None, state: Tensor
    ) -> Tensor:
        """Drive (B, T, N) from features (B, C, T, H, W), a gaze shift and a state (B, T, S)."""
        # The same vector joins every neuron's features, so its weighted sum can be taken apart.
        return super().forward(features, shift) + self.state_encoder(state) @ self.features
