"""Ensembles of several systems, as a study's `ensembles:` names them.

A system's own mean needs no entry: it is the ensemble that bears its name.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from sensorium_models.configuration import Section

if TYPE_CHECKING:
    from sensorium_models.study import Study

FITTED = "fitted"


class JointEnsemble(Section):
    """The mean of what several systems or members predict, by name of the ensemble.

    An entry of `members` is a system, which stands for the mean of all its members, as its own
    ensemble stored it, and counts as one whatever their number, or `system/member`. `weights` are
    `equal`, one number per entry, or `fitted`: those, none negative, with the best mean
    single-trial correlation on the trials that select (`oracle`), which then do not score it. They
    are made to sum to one.
    """

    members: list[str] = Field(min_length=1)
    weights: Literal["equal", "fitted"] | dict[str, float] = "equal"
    protocols: list[str] | None = None  # default: all of the study
    title: str | None = None

    def entries(self) -> list[tuple[str, str | None]]:
        """(system, member) of every entry; None for all members of a system."""
        parts = [entry.partition("/") for entry in self.members]
        return [(system, member or None) for system, _, member in parts]

    def is_made_under(self, protocol: str) -> bool:
        """Whether it is an ensemble of that protocol."""
        return self.protocols is None or protocol in self.protocols

    def given_weights(self) -> list[float] | None:
        """One per entry, in their order, summing to one; None where they are to be fitted."""
        if self.weights == FITTED:
            return None
        if self.weights == "equal":
            return [1 / len(self.members)] * len(self.members)
        assert isinstance(self.weights, dict)
        total = sum(self.weights.values())
        return [self.weights[entry] / total for entry in self.members]


def fitting_tiers(study: "Study", protocol: str) -> list[str]:
    """Tiers of a protocol on which weights may be fitted: those that select."""
    return [tier for tier in study.protocol(protocol).tiers if tier in study.validation_tiers]


def problem_of(study: "Study", name: str, ensemble: JointEnsemble) -> tuple[str, str] | None:
    """(key below `ensembles.{name}`, sentence) of the first thing wrong; None where all is well."""
    if name in study.systems:
        return "", f"{name} is a system, whose own ensemble bears its name; choose another name"
    systems, absent = ", ".join(study.systems), f"leave the ensemble out with {name}: null"
    for entry, (system, member) in zip(ensemble.members, ensemble.entries(), strict=True):
        if system not in study.systems:
            sentence = f"{system} is unknown; systems of the study are {systems}; or {absent}"
            return ".members", sentence
        if member is not None and member not in study.members(system):
            known = ", ".join(study.members(system))
            return ".members", f"{entry} is unknown; members of {system} are {known}"
        if ensemble.members.count(entry) > 1:
            return ".members", f"{entry} is named twice; use weights instead"
        if member is not None and system in ensemble.members:
            return ".members", f"{entry} is in {system} already; name one of them"
    return _problem_of_weights(ensemble) or _problem_of_protocols(study, ensemble)


def _problem_of_weights(ensemble: JointEnsemble) -> tuple[str, str] | None:
    if not isinstance(ensemble.weights, dict):
        return None
    if set(ensemble.weights) != set(ensemble.members):
        return ".weights", f"give one weight to each of {', '.join(ensemble.members)}"
    values = list(ensemble.weights.values())
    if not all(math.isfinite(value) and value >= 0 for value in values) or not sum(values):
        return ".weights", "weights must not be negative, and one must be above 0"
    return None


def _problem_of_protocols(study: "Study", ensemble: JointEnsemble) -> tuple[str, str] | None:
    known = study.settings.protocol_definitions
    for protocol in ensemble.protocols or []:
        if protocol not in known:
            return ".protocols", f"{protocol} is unknown; protocols are {', '.join(known)}"
    if ensemble.weights == FITTED:
        for protocol in filter(ensemble.is_made_under, study.settings.protocols):
            if sentence := _problem_of_fit(study, ensemble.entries(), protocol):
                return ".weights", sentence
    return None


def _problem_of_fit(
    study: "Study", entries: Sequence[tuple[str, str | None]], protocol: str
) -> str | None:
    tiers = fitting_tiers(study, protocol)
    if not tiers:
        return (
            f"protocol {protocol} predicts no tier on which weights could be fitted; add one of "
            f"{', '.join(study.validation_tiers)} to its tiers, leave it out under protocols, or "
            "give weights"
        )
    for system, _ in entries:
        trained = study.training_tiers(study.training_set_of(system, protocol), system)
        predicted = study.predicted_animals(protocol)
        for animal, its_tiers in trained.items():
            for tier in its_tiers:
                # What selects for one animal may be a test movie of another, as in SENSORIUM 2023:
                # an ensemble job would find no trial, but only when all is trained.
                if tier in study.test_tiers or (tier in tiers and animal in predicted):
                    return (
                        "weights are fitted on videos that no member trained on, but under "
                        f"protocol {protocol} {system} trains on tier {tier} of {animal}; give "
                        "weights, or leave the system or the protocol out"
                    )
    return None
