"""What the ensembles of several systems are made of, in words."""

from collections.abc import Collection, Mapping

from sensorium_models.ensemble import MEMBER as ENSEMBLE
from sensorium_models.evaluation.subsets import EnsembleMoments


def joint_notes(
    ensembles: Collection[EnsembleMoments], *, fitted: Collection[str], titles: Mapping[str, str]
) -> list[str]:
    """One sentence for each ensemble: its entries with their weights.

    Args:
        fitted: names of those whose weights were fitted.
        titles: of systems and ensembles.
    """
    notes = []
    for ensemble in ensembles:
        name = str(ensemble.attributes["system"])
        parts = [
            f"{weight:.2f} × {titles.get(system, system)}"
            + ("" if member == ENSEMBLE else f" {member}")
            for (system, member), weight in zip(ensemble.members, ensemble.weights, strict=True)
        ]
        how = " (weights fitted on oracle trials, which do not score it)" if name in fitted else ""
        notes.append(f"{titles.get(name, name)} is the mean {' + '.join(parts)}{how}.")
    return notes
