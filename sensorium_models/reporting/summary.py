"""What was run, for the head of the report: from the study and the records of its members."""

from collections.abc import Mapping, Sequence
from typing import Any

from sensorium_models.predictions import frame_convention
from sensorium_models.reporting.page import ProtocolFacts, StudySummary, SystemFacts
from sensorium_models.study import Study

_WHAT = {
    "competition": "Members trained as published predict animals with withheld test responses.",
    "open": "Members that never saw a test movie predict animals with public test responses.",
}


def summarise(study: Study, records: Sequence[Mapping[str, Any]]) -> StudySummary:
    """The facts at the top of the page; dates, versions and machines come from the records."""
    settings = study.settings
    environments = [record["environment"] for record in records]
    states = [environment["git"] for environment in environments if environment["git"]]
    finished = sorted(str(record["finished"])[:10] for record in records)
    scored = settings.scored_frames
    return StudySummary(
        title=settings.study,
        simulated=study.simulated,
        protocols={
            name: ProtocolFacts(
                description=_WHAT.get(name, "A protocol of this study."),
                animals=study.predicted_animals(name),
                tiers=study.protocol(name).tiers,
            )
            for name in settings.protocols
        },
        animals={animal: study.recording(animal).neurons for animal in settings.animals},
        systems={
            name: SystemFacts(
                title=system.title,
                citation=system.citation,
                members=study.members(name),
                training_sets={p: study.training_set_of(name, p) for p in settings.protocols},
            )
            for name, system in study.systems.items()
        },
        versions=environments[0]["packages"] if environments else {},
        commit=", ".join(sorted({state["commit"] for state in states})),
        uncommitted_changes=any(state["dirty"] for state in states),
        run_dates=" to ".join(dict.fromkeys([finished[0], finished[-1]])) if finished else "",
        machines=sorted({_machine(environment["machine"]) for environment in environments}),
        facts={
            "Score unit": settings.score_unit,
            "Scored frames": frame_convention(
                first_frame=scored.first, cap_frames=scored.cap, drop_last_frames=scored.drop_last
            ),
        },
    )


def _machine(machine: Mapping[str, Any]) -> str:
    return f"{machine['gpu'] or machine['processor']} ({machine['cpus']} processor cores)"
