"""The reproduction ledger: each published number, ours where there is one, and what follows.

A number is judged only where it was measured on the same neurons and trials as the published one;
everywhere else the row says why not. Nothing is filled in.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from sensorium_models.evaluation.scores import METRICS
from sensorium_models.reporting import published
from sensorium_models.reporting.counterparts import Counterpart, ProtocolResults, counterpart
from sensorium_models.reporting.tables import Column, Table

WITHIN, OUTSIDE, NOT_COMPARABLE = "within band", "outside band", "not comparable"
# The neurons of F-J (arXiv 2407.09100): scores of any other number are of another data set.
COMPETITION_NEURONS = 40_034
COMPETITION = "competition"
# Standard deviations of the difference of two draws that still count as the same.
BAND_DEVIATIONS = 2.0

_SOURCES = {
    "1": "Table 1: final test sets",
    "2": "Table 2: training cost of a single model",
    "5": "Table 5: seeds of the factorized baseline",
    "text": "Text of the paper",
    "A.1": "Appendix A.1: development of DwiseNeuro",
    "A.2": "Appendix A.2: development of Dynamic-V1FM",
    "README": "Repository of DwiseNeuro",
    "demo": "Repository of ViV1T",
}
_TRACKS = {
    "main": "main, final",
    "bonus": "bonus, final",
    "live_main": "main, live",
    "live_bonus": "bonus, live",
    "oracle": "oracle",
}
_QUANTITIES = {
    METRICS[0]: "ρ, single trials",
    METRICS[1]: "ρ, to average",
    f"{METRICS[0]}_animal_mean": "ρ, mean of animals",
    "gpu": "GPU",
    "gpu_memory": "memory of the GPU",
    "batch_size": "clips per step",
    "wall_time": "wall time",
    "parameters": "parameters",
    "relative_gain": "gain over ensemble",
}


def ledger(
    protocols: Mapping[str, ProtocolResults],
    *,
    systems: Sequence[str],
    titles: Mapping[str, str],
    simulated: bool,
    published_as: Mapping[str, str] | None = None,
) -> Table:
    """One row per published number and system of the study that stands for the published one.

    Args:
        protocols: of the study; each has a column of its own.
        systems: of the study, in its order.
        titles: system -> the name that a reader knows.
        published_as: system -> the published system of which it is a variation.
    """
    published_as = published_as or {}
    counterparts: dict[str, list[str]] = {}
    for system in systems:
        counterparts.setdefault(published_as.get(system, system), []).append(system)
    rows = [
        _row(
            number, system, protocols, titles, simulated=simulated, variation=system in published_as
        )
        for number in _numbers()
        for system in counterparts.get(number["system"], [None])
    ]
    frame = pd.DataFrame(rows)
    counts = frame["verdict"].value_counts()
    return Table(
        frame=frame,
        columns=[
            Column("published_name", "Model"),
            Column("of", "of"),
            Column("quantity_title", "Quantity"),
            Column("where", "on (F–J)"),
            Column("published", "Published"),
            *(Column(f"ours_{name}", name, "text", "This study, protocol") for name in protocols),
            Column("verdict", "Verdict"),
            Column("reason", "Reason"),
        ],
        title="Reproduction ledger",
        caption=(
            f"Each of {len(published.published())} published numbers: "
            + ", ".join(f"{int(counts.get(v, 0))} {v}" for v in (WITHIN, OUTSIDE, NOT_COMPARABLE))
            + ". ρ: single-trial correlation or correlation to average, on the test sets named. A "
            "score is judged where ours is of the same neurons and trials. Band: "
            f"{BAND_DEVIATIONS:g} standard deviations of the difference of two independent "
            "trainings (√(1/n + 1/m) times the published deviation over seeds, n and m being the "
            "numbers of models behind either mean): that of the system's own published models "
            "where there are several, else that of the 14 seeds of Table 5, the only ones "
            "published. The CSV holds citation, band, and notes. "
            + ("The recordings are simulated: no number is comparable." if simulated else "")
        ).strip(),
        section="reproduction",
        row_heading="source",
    )


def _numbers() -> list[dict[str, Any]]:
    rows = published.published().to_dict(orient="records")
    return [{str(key): value for key, value in row.items()} for row in rows]


def seed_deviation(system: str, metric: str) -> tuple[float, str]:
    """Deviation of `metric` over published models (ddof 1), of `system` if it has several."""
    rows = published.published()
    own = rows[(rows.system == system) & rows.member.str.fullmatch(r"(seed|model )\d+")]
    own = own[own.quantity.str.startswith(metric)]
    if len(own) > 1:
        return float(own.value.astype(float).std(ddof=1)), f"{len(own)} published models"
    seeds = published.seed_scores("factorized_baseline")[metric]
    return float(seeds.std(ddof=1)), f"{len(seeds)} seeds of Table 5"


def _row(
    number: Mapping[str, Any],
    system: str | None,
    protocols: Mapping[str, ProtocolResults],
    titles: Mapping[str, str],
    *,
    simulated: bool,
    variation: bool,
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "source": _SOURCES.get(number["source_table"], number["source_table"]),
        "published_name": number["published_name"],
        "of": _of(number["member"]),
        "quantity": number["quantity"],
        "quantity_title": _quantity(number["quantity"]),
        "where": _TRACKS[number["track"]] if number["track"] else None,
        "published": " ".join(filter(None, [number["value"], number["unit"]])),
        "published_value": number["value"],
        "unit": number["unit"],
        "system": system,
        "system_title": titles.get(system, system) if system else None,
    }
    judged = None
    for name, results in protocols.items():
        ours = counterpart(number, system, results) if system else Counterpart(None)
        row[f"ours_{name}"] = ours.text
        row[f"ours_{name}_value"] = ours.value
        row[f"ours_{name}_is"] = ours.estimate or None
        if name == COMPETITION:
            judged = ours
    verdict, reason, band = _verdict(
        number, system, judged, simulated=simulated, variation=variation
    )
    return row | {
        "verdict": verdict,
        "reason": reason,
        "band": band,
        "note": number["note"] or None,
        "citation": number["citation"],
    }


def _verdict(
    number: Mapping[str, Any],
    system: str | None,
    ours: Counterpart | None,
    *,
    simulated: bool,
    variation: bool,
) -> tuple[str, str, float | None]:
    """Verdict, its reason, and the half-width of the band where there is one."""
    if system is None:
        return NOT_COMPARABLE, "not in this study", None
    if simulated:
        return NOT_COMPARABLE, "simulated recordings", None
    if variation:
        return NOT_COMPARABLE, "a variation of the published system", None
    if ours is None:
        return NOT_COMPARABLE, "other animals and trials: the study lacks F–J", None
    if ours.value is None:
        return NOT_COMPARABLE, ours.missing, None
    if number["quantity"] == "gpu":
        return NOT_COMPARABLE, "a description, not a measurement", None
    if number["quantity"] in ("wall_time", "gpu_memory"):
        return NOT_COMPARABLE, "depends on the hardware", None
    published_value, value = float(number["value"]), float(ours.value)
    if number["quantity"] in ("batch_size", "parameters"):
        band = 0.5  # rounded as published
        reason = "equal" if number["quantity"] == "batch_size" else "equal up to its rounding"
    else:
        if ours.neurons != COMPETITION_NEURONS:
            wrong = f"{ours.neurons or 'no'} neurons, not the {COMPETITION_NEURONS:,} of F–J"
            return NOT_COMPARABLE, wrong, None
        if ours.left_out:
            wrong = f"other trials: {ours.left_out:,} are left out as seen in training"
            return NOT_COMPARABLE, wrong, None
        deviation, source = seed_deviation(system, _metric_of(number["quantity"]))
        band = BAND_DEVIATIONS * deviation * _relative_error(number, ours)
        reason = f"difference {value - published_value:+.4f}, band ±{band:.4f} ({source})"
    within = abs(value - published_value) <= band
    if number["quantity"] in ("batch_size", "parameters") and not within:
        reason = "differs"
    return WITHIN if within else OUTSIDE, reason, band


def _relative_error(number: Mapping[str, Any], ours: Counterpart) -> float:
    """Standard error of the difference from the published number, in deviations of single models.

    An ensemble counts as one model: how much ensembles vary was never published, single models vary
    more. The error of a deviation over n models is that of a normal distribution, 1 / sqrt(2n - 2).
    """
    seeds = 14
    if number["member"] == "members_sd":
        return float(np.sqrt(1 / (2 * seeds - 2) + 1 / (2 * ours.count - 2)))
    theirs = seeds if number["member"] == "members_mean" else 1
    return float(np.sqrt(1 / theirs + 1 / ours.count))


def _metric_of(quantity: str) -> str:
    return next(metric for metric in METRICS if quantity.startswith(metric))


def _quantity(quantity: str) -> str:
    if quantity in _QUANTITIES:
        return _QUANTITIES[quantity]
    return f"ρ, animal {quantity.rsplit('_', 1)[1]}"


def _of(member: str) -> str:
    words = {
        "members_mean": "mean of 14 seeds",
        "members_sd": "deviation of 14 seeds",
        "single": "single model",
        "over_ensemble_baseline": "submission",
    }
    return words.get(member, member.replace("seed", "seed "))
