"""Whether the parts of a study fit each other: names that exist, trials that may be learned from.

What is wrong with one value alone, the models of `settings` and `systems` say.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from sensorium_models.joint_ensembles import problem_of
from sensorium_models.settings import PUBLISHED_UNIT
from sensorium_models.systems import System
from sensorium_models.training_sets import Selection

if TYPE_CHECKING:
    from sensorium_models.study import Study


def check_consistency(study: "Study") -> None:
    """Look at everything that no single value can tell.

    Raises:
        ConfigurationError: names the file and key to mend.
    """
    _check_names(study)
    _check_native(study)
    _check_protocols(study)
    for name, ensemble in study.settings.ensembles.items():
        if problem := problem_of(study, name, ensemble):
            raise study.mistake(f"ensembles.{name}{problem[0]}", problem[1])


def _check_names(study: "Study") -> None:
    settings = study.settings
    _known(study, "animals", settings.animals, settings.recordings, "recordings")
    folders = [settings.recordings[animal].folder for animal in settings.animals]
    twice = [folder for folder in folders if folders.count(folder) > 1]
    if twice:
        raise study.mistake("recordings", f"two animals have the folder {twice[0]}")
    _known(study, "protocols", settings.protocols, settings.protocol_definitions, "protocols")
    _known(study, "members", settings.members, settings.systems, "systems of the study")
    _check_published_weights(study)
    for name, protocol in settings.protocol_definitions.items():
        key = f"protocol_definitions.{name}.tiers"
        _known(study, key, protocol.tiers, settings.tiers, "tiers")
        idle = [t for t in protocol.tiers if settings.tiers[t] in ("train", "unused")]
        if idle:
            role = settings.tiers[idle[0]]
            raise study.mistake(key, f"tier {idle[0]} has the role {role} and is no test")
    for animal, recording in settings.recordings.items():
        key = f"recordings.{animal}.stimulus_types"
        _known(study, key, recording.stimulus_types, settings.tiers, "tiers")
    for system in study.systems.values():
        for name, training_set in system.training_sets.items():
            for part in ("train", "select"):
                _check_selections(study, system, f"{name}.{part}", getattr(training_set, part))
        _check_folds(study, system)


def _check_published_weights(study: "Study") -> None:
    published = study.settings.published_weights
    _known(study, "published_weights", published, study.systems, "systems of the study")
    for system, weights in published.items():
        key, sets = f"published_weights.{system}", study.systems[system].training_sets
        _known(study, f"{key}.training_set", [weights.training_set], sets, "training sets")
        paths = []
        for member, axes in study.member_axes(system).items():
            try:
                paths.append(weights.path.format(member=member, **axes))
            except (KeyError, IndexError, ValueError, AttributeError):
                raise study.mistake(
                    f"{key}.path",
                    f"{weights.path} may hold {{member}} and {{{'}, {'.join(axes)}}}, and no "
                    "other braces",
                ) from None
        if len(set(paths)) < len(paths):
            raise study.mistake(
                f"{key}.path",
                f"{len(paths)} members would be one checkpoint ({paths[0]}); tell them apart "
                "by {member} or their axes, or name fewer under members",
            )


def _check_selections(
    study: "Study", system: System, key: str, selections: list[Selection]
) -> None:
    roles = study.settings.tiers
    for number, selection in enumerate(selections):
        where = f"training_sets.{key}" + (f".{number}" if len(selections) > 1 else "")
        unknown = [tier for tier in selection.tiers if tier not in roles]
        if unknown:
            raise study.mistake_of(
                system.name,
                f"{where}.tiers: there is no tier {unknown[0]}; tiers are {', '.join(roles)}",
            )
        hidden = [tier for tier in selection.tiers if roles[tier] == "test"]
        if hidden and selection.animals != "public":
            raise study.mistake_of(
                system.name,
                f"{where}: the responses of tier {hidden[0]} are withheld for some animals; "
                "choose animals: public or another tier",
            )


def _check_folds(study: "Study", system: System) -> None:
    members = system.member_axes()
    for name, training_set in system.training_sets.items():
        if (folds := training_set.folds) is None:
            continue
        if any(axes.get(folds.axis) not in range(folds.count) for axes in members.values()):
            raise study.mistake_of(
                system.name,
                f"training_sets.{name}.folds: members need an axis {folds.axis} with values "
                f"from 0 to {folds.count - 1}",
            )
        for student, axes in members.items():
            teacher = members.get(system.teacher_of(axes) or "", axes)
            if teacher[folds.axis] != axes[folds.axis]:
                raise study.mistake_of(
                    system.name,
                    f"training_sets.{name}.folds: {student} learns from a teacher of another "
                    f"{folds.axis}, which saw the trials that {student} leaves out; a teacher "
                    f"must not set the axis {folds.axis}",
                )


def _check_protocols(study: "Study") -> None:
    for protocol in study.settings.protocols:
        if not study.predicted_animals(protocol):
            group = study.protocol(protocol).animals
            raise study.mistake(
                "protocols",
                f"{protocol} predicts animals whose test responses are {group} and none is in "
                f"animals ({', '.join(study.settings.animals)}); leave it out or add one",
            )
        for system in study.settings.systems:
            _check_training(study, protocol, system)


def _check_native(study: "Study") -> None:
    """Statistics come with released archives only, and networks share what is made of them."""
    native = [a for a in study.settings.animals if study.recording(a).is_native]
    if not native:
        return
    sentence = (
        "per_frame_published needs the statistics that a publisher gives with a released "
        f"archive, and animal {native[0]} is recorded at native rates; choose "
    )
    if study.settings.score_unit == PUBLISHED_UNIT:
        raise study.mistake("score_unit", f"{sentence}per_neuron_train")
    for protocol in study.settings.protocols:
        if PUBLISHED_UNIT in study.protocol(protocol).further_units:
            key = f"protocol_definitions.{protocol}.further_units"
            raise study.mistake(key, f"{sentence}per_neuron_train")
    for system in study.systems.values():
        if system.response_unit == PUBLISHED_UNIT:
            raise study.mistake_of(system.name, f"response_unit: {sentence}per_neuron_train")
        if system.inputs.normalisation == PUBLISHED_UNIT:
            raise study.mistake_of(
                system.name, f"inputs.normalisation: {sentence}per_frame_train or global_train"
            )


def _check_training(study: "Study", protocol: str, system: str) -> None:
    training_set = study.training_set_of(system, protocol)
    trained = study.training_animals(training_set, system)
    untrained = [a for a in study.predicted_animals(protocol) if a not in trained]
    if untrained:
        raise study.mistake_of(
            system,
            f"training_sets.{training_set}.train.animals: protocol {protocol} predicts "
            f"{', '.join(untrained)}, which the members would not be trained on",
        )
    if study.select_tiers(training_set, system) == {}:
        groups = [group.animals for group in study.training_set(training_set, system).select]
        raise study.mistake_of(
            system,
            f"training_sets.{training_set}.select.animals: none of the study's animals "
            f"({', '.join(study.settings.animals)}) can select the best epoch; add a "
            f"{' or '.join(groups)} one",
        )


def _known(study: "Study", key: str, names: Iterable[str], known: Iterable[str], what: str) -> None:
    known = list(known)
    for name in names:
        if name not in known:
            raise study.mistake(key, f"{name} is unknown; {what} are {', '.join(known)}")
