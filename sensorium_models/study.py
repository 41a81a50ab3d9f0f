"""The study: which animals, systems and protocols, where files lie, how scores are made.

`load_study` validates `config.yaml`, its overrides and every system file that the study names; what
is wrong ends in a `ConfigurationError` that names file, key and allowed values, before any job
starts.
"""

import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sensorium_models.configuration import (
    ConfigurationError,
    Origin,
    merged,
    read_yaml,
    validated,
)
from sensorium_models.joint_ensembles import JointEnsemble, problem_of
from sensorium_models.settings import Protocol, Recording, Settings
from sensorium_models.systems import System, find_system_file, load_system
from sensorium_models.training_sets import AnimalGroup, Selection, TrainingSet, TrainingSetName


class Study:
    """A validated study: settings, systems, and the look-ups that rules and scripts need."""

    def __init__(
        self,
        settings: Settings,
        systems: Mapping[str, System],
        origin: Origin,
        raw_recordings: Mapping[str, Any],
    ) -> None:
        self.settings = settings
        # As read, each source of one kind; what follows from it may be read again without files.
        self.raw_recordings = raw_recordings
        self.systems = dict(systems)
        self._origin = origin
        self._check_names()
        self._check_protocols()
        for name, ensemble in settings.ensembles.items():
            if problem := problem_of(self, name, ensemble):
                raise origin.error(f"ensembles.{name}{problem[0]}", problem[1])

    @property
    def simulated(self) -> bool:
        """Whether any recording of the study is simulated, so that no score is a real one."""
        return any(self.recording(a).source.kind == "simulated" for a in self.settings.animals)

    @property
    def train_tier(self) -> str:
        """The tier from which our own statistics are taken."""
        return next(tier for tier, role in self.settings.tiers.items() if role == "train")

    @property
    def unused_tiers(self) -> list[str]:
        """Tiers that serve nothing."""
        return [tier for tier, role in self.settings.tiers.items() if role == "unused"]

    @property
    def validation_tiers(self) -> list[str]:
        """Tiers whose videos may pick the best epoch, and on which members are compared."""
        return [tier for tier, role in self.settings.tiers.items() if role == "select"]

    @property
    def test_tiers(self) -> list[str]:
        """Tiers whose responses an animal with `test_responses: withheld` does not release."""
        return [tier for tier, role in self.settings.tiers.items() if role == "test"]

    def recording(self, animal: str) -> Recording:
        """The animal's entry under `recordings`."""
        return self.settings.recordings[animal]

    def withheld_tiers(self, animal: str) -> list[str]:
        """Tiers of the animal without responses."""
        return self.test_tiers if self.recording(animal).test_responses == "withheld" else []

    def group(self, group: AnimalGroup) -> list[str]:
        """Animals of the study in `group`, in the order of `animals`."""
        return [
            animal
            for animal in self.settings.animals
            if group in ("all", self.recording(animal).test_responses)
        ]

    def protocol(self, name: str) -> Protocol:
        """The definition of a protocol."""
        return self.settings.protocol_definitions[name]

    def further_units(self, protocol: str) -> list[str]:
        """Units in which a protocol is scored besides the study's own."""
        named = dict.fromkeys(self.protocol(protocol).further_units)
        return [unit for unit in named if unit != self.settings.score_unit]

    def member_axes(self, system: str) -> dict[str, dict[str, int | str]]:
        """Every member of a system with its value on each axis."""
        return self.systems[system].member_axes()

    def members(self, system: str) -> list[str]:
        """Names of the members of a system."""
        return list(self.member_axes(system))

    def joint_ensembles(self, protocol: str) -> dict[str, JointEnsemble]:
        """Ensembles of several systems under a protocol, by name."""
        return {
            name: ensemble
            for name, ensemble in self.settings.ensembles.items()
            if ensemble.protocols is None or protocol in ensemble.protocols
        }

    def averaged_members(self, name: str) -> dict[str, list[str]]:
        """By system the members in the ensemble of that name, which may be a system's own."""
        if name in self.systems:
            return {name: self.members(name)}
        averaged: dict[str, list[str]] = {}
        for system, member in self.settings.ensembles[name].entries():
            members = [member] if member is not None else self.members(system)
            averaged.setdefault(system, []).extend(members)
        return averaged

    def teacher(self, system: str, member: str) -> str | None:
        """The member of the same system and training set that teaches this one, if any does."""
        return self.systems[system].teacher_of(self.member_axes(system)[member])

    def published_weights(self, training_set: str, system: str, member: str) -> Path | None:
        """The checkpoint that a member is imported from; None if it is trained."""
        published = self.settings.published_weights.get(system)
        if published is None or published.training_set != training_set:
            return None
        return Path(published.path.format(member=member, **self.member_axes(system)[member]))

    def is_imported(self, training_set: str, system: str) -> bool:
        """Whether the members of a training set are published ones."""
        published = self.settings.published_weights.get(system)
        return published is not None and published.training_set == training_set

    def training_set_of(self, system: str, protocol: str) -> TrainingSetName:
        """The training set that a system brings to a protocol."""
        available = self.systems[system].training_sets
        for name in self.protocol(protocol).training_sets:
            if name in available:
                return name
        raise self._error(
            system,
            f"training_sets: protocol {protocol} needs one of "
            f"{', '.join(self.protocol(protocol).training_sets)}; the file has "
            f"{', '.join(available)}",
        )

    def trainings(self) -> list[tuple[str, str]]:
        """Every (training set, system) that the chosen protocols need, each once."""
        return list(
            dict.fromkeys(
                (self.training_set_of(system, protocol), system)
                for protocol in self.settings.protocols
                for system in self.settings.systems
            )
        )

    def training_tiers(self, training_set: str, system: str) -> dict[str, list[str]]:
        """Tiers to learn from by animal, animals in the order in which they take turns."""
        return self._tiers(self._training_set(training_set, system).train)

    def training_animals(self, training_set: str, system: str) -> list[str]:
        """Animals that the members of a training set learn from (each gets a readout)."""
        return list(self.training_tiers(training_set, system))

    def select_tiers(self, training_set: str, system: str) -> dict[str, list[str]] | None:
        """Tiers that pick the best epoch, by animal that is trained on; None: the left-out fold."""
        chosen = self._training_set(training_set, system)
        if chosen.fold_selects:
            return None
        trained = self.training_tiers(training_set, system)
        return {a: tiers for a, tiers in self._tiers(chosen.select).items() if a in trained}

    def fold(self, training_set: str, system: str, member: str) -> tuple[int, int] | None:
        """The fold that a member leaves out of its training, and of how many; None without."""
        folds = self._training_set(training_set, system).folds
        if folds is None:
            return None
        return int(self.member_axes(system)[member][folds.axis]), folds.count

    def predicted_animals(self, protocol: str) -> list[str]:
        """Animals that a protocol predicts."""
        return self.group(self.protocol(protocol).animals)

    def test_animals(self, training_set: str, system: str) -> dict[str, list[str]]:
        """Tiers to predict by animal, over all protocols that this training set serves."""
        tiers: dict[str, list[str]] = {}
        for protocol in self.settings.protocols:
            if self.training_set_of(system, protocol) != training_set:
                continue
            for animal in self.predicted_animals(protocol):
                known = tiers.setdefault(animal, [])
                known += [t for t in self.protocol(protocol).tiers if t not in known]
        return tiers

    def split_animals(self, training_set: str, system: str) -> list[str]:
        """Animals that members learn from, are selected on or tested on, in the study's order."""
        named = {
            *self.training_animals(training_set, system),
            *self.test_animals(training_set, system),
        }
        return [animal for animal in self.settings.animals if animal in named]

    def _training_set(self, training_set: str, system: str) -> TrainingSet:
        return self.systems[system].training_sets[typing.cast(TrainingSetName, training_set)]

    def _tiers(self, selections: Iterable[Selection]) -> dict[str, list[str]]:
        """Tiers by animal of joined selections; an animal stands where it is named first."""
        joined: dict[str, list[str]] = {}
        for selection in selections:
            animals = self.group(selection.animals)
            named = [animal for animal in selection.order if animal in animals]
            for animal in [*named, *(animal for animal in animals if animal not in named)]:
                tiers = joined.setdefault(animal, [])
                tiers += [tier for tier in selection.tiers if tier not in tiers]
        return joined

    def _check_names(self) -> None:
        settings = self.settings
        self._known("animals", settings.animals, settings.recordings, "recordings")
        folders = [settings.recordings[animal].folder for animal in settings.animals]
        twice = [folder for folder in folders if folders.count(folder) > 1]
        if twice:
            raise self._origin.error("recordings", f"two animals have the folder {twice[0]}")
        self._known("protocols", settings.protocols, settings.protocol_definitions, "protocols")
        self._known("members", settings.members, settings.systems, "systems of the study")
        self._check_published_weights()
        for name, protocol in settings.protocol_definitions.items():
            key = f"protocol_definitions.{name}.tiers"
            self._known(key, protocol.tiers, settings.tiers, "tiers")
            idle = [t for t in protocol.tiers if settings.tiers[t] in ("train", "unused")]
            if idle:
                role = settings.tiers[idle[0]]
                raise self._origin.error(key, f"tier {idle[0]} has the role {role} and is no test")
        for animal, recording in settings.recordings.items():
            key = f"recordings.{animal}.stimulus_types"
            self._known(key, recording.stimulus_types, settings.tiers, "tiers")
        for system in self.systems.values():
            for name, training_set in system.training_sets.items():
                for part in ("train", "select"):
                    self._check_selections(system, f"{name}.{part}", getattr(training_set, part))
            self._check_folds(system)

    def _check_published_weights(self) -> None:
        published = self.settings.published_weights
        self._known("published_weights", published, self.systems, "systems of the study")
        for system, weights in published.items():
            key, sets = f"published_weights.{system}", self.systems[system].training_sets
            self._known(f"{key}.training_set", [weights.training_set], sets, "training sets")
            paths = []
            for member, axes in self.member_axes(system).items():
                try:
                    paths.append(weights.path.format(member=member, **axes))
                except (KeyError, IndexError, ValueError, AttributeError):
                    raise self._origin.error(
                        f"{key}.path",
                        f"{weights.path} may hold {{member}} and {{{'}, {'.join(axes)}}}, and no "
                        "other braces",
                    ) from None
            if len(set(paths)) < len(paths):
                raise self._origin.error(
                    f"{key}.path",
                    f"{len(paths)} members would be one checkpoint ({paths[0]}); tell them apart "
                    "by {member} or their axes, or name fewer under members",
                )

    def _check_selections(self, system: System, key: str, selections: list[Selection]) -> None:
        roles = self.settings.tiers
        for number, selection in enumerate(selections):
            where = f"training_sets.{key}" + (f".{number}" if len(selections) > 1 else "")
            unknown = [tier for tier in selection.tiers if tier not in roles]
            if unknown:
                raise self._error(
                    system.name,
                    f"{where}.tiers: there is no tier {unknown[0]}; tiers are {', '.join(roles)}",
                )
            hidden = [tier for tier in selection.tiers if roles[tier] == "test"]
            if hidden and selection.animals != "public":
                raise self._error(
                    system.name,
                    f"{where}: the responses of tier {hidden[0]} are withheld for some animals; "
                    "choose animals: public or another tier",
                )

    def _check_folds(self, system: System) -> None:
        members = system.member_axes()
        for name, training_set in system.training_sets.items():
            if (folds := training_set.folds) is None:
                continue
            if any(axes.get(folds.axis) not in range(folds.count) for axes in members.values()):
                raise self._error(
                    system.name,
                    f"training_sets.{name}.folds: members need an axis {folds.axis} with values "
                    f"from 0 to {folds.count - 1}",
                )
            for student, axes in members.items():
                teacher = members.get(system.teacher_of(axes) or "", axes)
                if teacher[folds.axis] != axes[folds.axis]:
                    raise self._error(
                        system.name,
                        f"training_sets.{name}.folds: {student} learns from a teacher of another "
                        f"{folds.axis}, which saw the trials that {student} leaves out; a teacher "
                        f"must not set the axis {folds.axis}",
                    )

    def _check_protocols(self) -> None:
        for protocol in self.settings.protocols:
            if not self.predicted_animals(protocol):
                group = self.protocol(protocol).animals
                raise self._origin.error(
                    "protocols",
                    f"{protocol} predicts animals whose test responses are {group} and none is in "
                    f"animals ({', '.join(self.settings.animals)}); leave it out or add one",
                )
            for system in self.settings.systems:
                self._check_training(protocol, system)

    def _check_training(self, protocol: str, system: str) -> None:
        training_set = self.training_set_of(system, protocol)
        trained = self.training_animals(training_set, system)
        untrained = [a for a in self.predicted_animals(protocol) if a not in trained]
        if untrained:
            raise self._error(
                system,
                f"training_sets.{training_set}.train.animals: protocol {protocol} predicts "
                f"{', '.join(untrained)}, which the members would not be trained on",
            )
        if self.select_tiers(training_set, system) == {}:
            groups = [group.animals for group in self._training_set(training_set, system).select]
            raise self._error(
                system,
                f"training_sets.{training_set}.select.animals: none of the study's animals "
                f"({', '.join(self.settings.animals)}) can select the best epoch; add a "
                f"{' or '.join(groups)} one",
            )

    def _known(self, key: str, names: Iterable[str], known: Iterable[str], what: str) -> None:
        known = list(known)
        for name in names:
            if name not in known:
                raise self._origin.error(key, f"{name} is unknown; {what} are {', '.join(known)}")

    def _error(self, system: str, sentence: str) -> ConfigurationError:
        return ConfigurationError(f"{self.system_file(system)}: {sentence}.")

    def system_file(self, system: str) -> Path:
        """The file that describes a system."""
        return find_system_file(system, self.settings.systems_folders, self._origin)


def load_study(config: Mapping[str, Any], files: Sequence[Path] = ()) -> Study:
    """Validate a merged configuration and every system that it names.

    Args:
        config: the merged mapping, as Snakemake makes it from its configuration files.
        files: the YAML files that it was merged from, later ones winning; used to name the culprit.

    Raises:
        ConfigurationError: anything wrong in the configuration or in a system file.
    """
    contents = [(Path(file), read_yaml(Path(file))) for file in files]
    config = _with_sources_of_one_kind(config, [content for _, content in contents])
    origin = Origin(contents, config)
    settings = validated(Settings, config, origin)
    folders, members = settings.systems_folders, settings.members
    systems = {
        name: load_system(name, folders=folders, members=members, origin=origin)
        for name in settings.systems
    }
    return Study(settings, systems, origin, config["recordings"])


def _with_sources_of_one_kind(
    config: Mapping[str, Any], layers: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """`config` with every source of a recording rid of keys that belong to a kind it overrides.

    A study that says `source: {kind: directory, path: ...}` means all of it; Snakemake merges
    mappings key by key and so leaves the repository and commit of the layer below in it.
    """
    recordings = config.get("recordings")
    if not isinstance(recordings, Mapping):
        return dict(config)
    cleaned = dict(recordings)
    for animal, recording in recordings.items():
        source = recording.get("source") if isinstance(recording, Mapping) else None
        if not isinstance(source, Mapping):
            continue
        older: dict[str, Any] = {}
        own: dict[str, Any] = {}
        for layer in layers:
            theirs: Any = layer
            for key in ("recordings", animal, "source"):
                theirs = theirs.get(key) if isinstance(theirs, Mapping) else None
            if isinstance(theirs, Mapping):
                if theirs.get("kind", own.get("kind")) != own.get("kind"):
                    older, own = {**older, **own}, {}
                own |= theirs
        if source.get("kind") != own.get("kind"):  # from the command line
            older, own = {**older, **own}, {}
        kept = {
            key: value
            for key, value in source.items()
            if key in own or key == "kind" or key not in older or value != older[key]
        }
        cleaned[animal] = {**recording, "source": kept}
    return {**config, "recordings": cleaned}


def read_study(*files: Path, overrides: Mapping[str, Any] | None = None) -> Study:
    """Read a study from YAML files, later ones overriding earlier ones as `--configfile` does."""
    config: dict[str, Any] = {}
    for file in files:
        config = merged(config, read_yaml(file))
    return load_study(merged(config, dict(overrides or {})), files)
