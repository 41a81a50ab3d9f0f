"""How wrong a network's rates are: the loss of one batch of one animal.

Formula from the card of the factorized baseline, section 7.
"""

import math

import torch
from torch import Tensor

from sensorium_models.recipes import Loss


class PoissonLoss:
    """scale * sum over clips, frames and neurons of rate - response * ln(rate + epsilon).

    Sum, not mean; no Stirling term. `scale` is sqrt(D / b) with D ALL trials of the recording, not
    only those trained on, and b the clips in this batch: the last, smaller batch weighs more.
    """

    def __init__(self, settings: Loss) -> None:
        self._settings = settings

    def __call__(
        self,
        rates: Tensor,
        responses: Tensor,
        *,
        recording_trials: int,
        valid: Tensor | None = None,
    ) -> Tensor:
        """Loss of one batch, a scalar.

        Args:
            rates: (B, T, N), non-negative.
            responses: (B, T, N), same unit and frames.
            recording_trials: trials of the recording in all tiers.
            valid: (B, T) bool; False frames are padding and do not count. None: all count.
        """
        clips = rates.shape[0]
        if valid is not None:
            rates, responses = rates[valid], responses[valid]
        total = (rates - responses * torch.log(rates + self._settings.epsilon)).sum()
        if self._settings.scale == "sqrt_trials_per_clip":
            total = total * math.sqrt(recording_trials / clips)
        return total
