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
from sensorium_models.settings import Protocol, Recording, Settings
from sensorium_models.systems import (
    AnimalGroup,
    System,
    TrainingSetName,
    find_system_file,
    load_system,
)


class Study:
    """A validated study: settings, systems, and the look-ups that rules and scripts need."""

    def __init__(self, settings: Settings, systems: Mapping[str, System], origin: Origin) -> None:
        self.settings = settings
        self.systems = dict(systems)
        self._origin = origin
        self._check_names()
        self._check_protocols()

    @property
    def simulated(self) -> bool:
        """Whether any recording of the study is simulated, so that no score is a real one."""
        return any(self.recording(a).source.kind == "simulated" for a in self.settings.animals)

    @property
    def train_tier(self) -> str:
        """The tier from which our own statistics are taken."""
        return next(tier for tier, role in self.settings.tiers.items() if role == "train")

    @property
    def select_tiers(self) -> list[str]:
        """Tiers by which members may be selected; members of all systems are compared on them."""
        return [tier for tier, role in self.settings.tiers.items() if role == "select"]

    @property
    def unused_tiers(self) -> list[str]:
        """Tiers that serve nothing."""
        return [tier for tier, role in self.settings.tiers.items() if role == "unused"]

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

    def member_axes(self, system: str) -> dict[str, dict[str, int | str]]:
        """Every member of a system with its value on each axis."""
        return self.systems[system].member_axes()

    def members(self, system: str) -> list[str]:
        """Names of the members of a system."""
        return list(self.member_axes(system))

    def teacher(self, system: str, member: str) -> str | None:
        """The member of the same system from which `member` learns, if it does."""
        return self.systems[system].teacher_of(self.member_axes(system)[member])

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

    def training_animals(self, training_set: str, system: str) -> list[str]:
        """Animals that the members of a training set learn from (each gets a readout)."""
        chosen = self._training_set(training_set, system).train
        animals = self.group(chosen.animals)
        named = [animal for animal in chosen.order if animal in animals]
        return named + [animal for animal in animals if animal not in named]

    def select_animals(self, training_set: str, system: str) -> list[str]:
        """Animals whose trials pick the best epoch: those of `select` that are trained on."""
        trained = self.training_animals(training_set, system)
        selection = self._training_set(training_set, system).select
        return [animal for animal in self.group(selection.animals) if animal in trained]

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

    def _training_set(self, training_set: str, system: str) -> Any:
        return self.systems[system].training_sets[typing.cast(TrainingSetName, training_set)]

    def _check_names(self) -> None:
        settings = self.settings
        self._known("animals", settings.animals, settings.recordings, "recordings")
        folders = [settings.recordings[animal].folder for animal in settings.animals]
        twice = [folder for folder in folders if folders.count(folder) > 1]
        if twice:
            raise self._origin.error("recordings", f"two animals have the folder {twice[0]}")
        self._known("protocols", settings.protocols, settings.protocol_definitions, "protocols")
        self._known("members", settings.members, settings.systems, "systems of the study")
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
                    unknown = [
                        t for t in getattr(training_set, part).tiers if t not in settings.tiers
                    ]
                    if unknown:
                        raise self._error(
                            system.name,
                            f"training_sets.{name}.{part}.tiers: there is no tier {unknown[0]}; "
                            f"tiers are {', '.join(settings.tiers)}",
                        )
                hidden = [t for t in training_set.train.tiers if settings.tiers[t] == "test"]
                if hidden and training_set.train.animals != "public":
                    raise self._error(
                        system.name,
                        f"training_sets.{name}.train: the responses of tier {hidden[0]} are "
                        "withheld for some animals; choose animals: public or another tier",
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
        if not self.select_animals(training_set, system):
            raise self._error(
                system,
                f"training_sets.{training_set}.select.animals: none of the study's animals "
                f"({', '.join(self.settings.animals)}) can select the best epoch; add a "
                f"{self._training_set(training_set, system).select.animals} one",
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
    origin = Origin([(Path(file), read_yaml(Path(file))) for file in files], config)
    settings = validated(Settings, dict(config), origin)
    folders, members = settings.systems_folders, settings.members
    systems = {
        name: load_system(name, folders=folders, members=members, origin=origin)
        for name in settings.systems
    }
    return Study(settings, systems, origin)


def read_study(*files: Path, overrides: Mapping[str, Any] | None = None) -> Study:
    """Read a study from YAML files, later ones overriding earlier ones as `--configfile` does."""
    config: dict[str, Any] = {}
    for file in files:
        config = merged(config, read_yaml(file))
    return load_study(merged(config, dict(overrides or {})), files)
