"""How wrong a network's rates are: the Poisson losses of the cards, and the correlation in ViV1T's.

Formulas: cards of the factorized baseline (section 7), DwiseNeuro (4), Dynamic-V1FM (6) and ViV1T
(A6 and part B). Always in float32, whatever the network computes in.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sensorium_models.recipes import Loss


@dataclass(frozen=True)
class TrialCounts:
    """Trials of one animal, by which a loss may be scaled."""

    recording: int  # in all tiers
    training: int
    training_of_all: int  # of all animals together
    animals: int


class PoissonLoss:
    """scale * (sum over clips, frames and neurons of rate - response * ln(rate + epsilon)).

    Sums, not means; no Stirling term. See `recipes.Loss` for the scales and the correlation.
    """

    def __init__(self, settings: Loss) -> None:
        self._settings = settings

    def __call__(
        self,
        rates: Tensor,
        responses: Tensor,
        *,
        counts: TrialCounts,
        valid: Tensor | None = None,
        clips: int | None = None,
    ) -> Tensor:
        """Loss of one batch of one animal, a scalar.

        Args:
            rates: (B, T, N), non-negative.
            responses: (B, T, N), same unit and frames.
            counts: of the animal.
            valid: (B, T) bool; False frames are padding and do not count. None: all count.
            clips: of the whole batch, where this is a part of it.
        """
        scale = self._scale(counts, rates.shape[0] if clips is None else clips)
        rates, responses = rates.float(), responses.float()
        if valid is not None:
            rates, responses = rates[valid], responses[valid]
        total = self._poisson(rates, responses).sum()
        if self._settings.correlation_weight:
            lack = 1 - _correlation(rates, responses, self._settings.epsilon)
            total = total + self._settings.correlation_weight * lack.sum()
        return total * scale if scale != 1.0 else total

    def by_clip(self, rates: Tensor, responses: Tensor, valid: Tensor | None = None) -> Tensor:
        """Unscaled loss of every clip, (B,); arguments as above."""
        values = self._poisson(rates.float(), responses.float())
        if valid is not None:
            values = torch.where(valid[:, :, None], values, 0.0)
        return values.sum(dim=(1, 2))

    def _poisson(self, rates: Tensor, responses: Tensor) -> Tensor:
        shifted = rates + self._settings.epsilon
        if self._settings.epsilon_added_to == "rate_and_response":
            return shifted - (responses + self._settings.epsilon) * torch.log(shifted)
        return rates - responses * torch.log(shifted)

    def _scale(self, counts: TrialCounts, clips: int) -> float:
        match self._settings.scale:
            case "sqrt_trials_per_clip":
                return math.sqrt(counts.recording / clips)
            case "sqrt_training_trials_per_clip":
                return math.sqrt(counts.training / clips)
            case "equal_animals":
                share = counts.training_of_all / (counts.animals * counts.training)
                return share / (counts.animals * clips)
            case _:
                return 1.0


def clip_weights(own: Tensor, *, ratio: float | None) -> Tensor:
    """Weight (B, A) of every clip's loss with every animal's readout; their sum is 1.

    Args:
        own: (B, A) bool, True where the clip is of the animal: there are recorded responses.
        ratio: part of a teacher in all weights; None: clips count for their own animal only.
    """
    weights = own.to(torch.float32)
    others = int((~own).sum())
    if ratio is not None and others:
        each = ratio / (1 - ratio) * weights.sum() / others
        weights = torch.where(own, weights, each)
    return weights / weights.sum()


def _correlation(rates: Tensor, responses: Tensor, epsilon: float) -> Tensor:
    """Correlation of every neuron (N,) over all frames of all clips; deviations with ddof 0."""
    rates, responses = rates.flatten(0, -2), responses.flatten(0, -2)
    rates = (rates - rates.mean(0)) / (rates.std(0, correction=0) + epsilon)
    responses = (responses - responses.mean(0)) / (responses.std(0, correction=0) + epsilon)
    return (rates * responses).mean(0)
