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
from sensorium_models.consistency import check_consistency
from sensorium_models.joint_ensembles import JointEnsemble
from sensorium_models.settings import Protocol, Recording, Settings
from sensorium_models.systems import System, find_system_file, load_system, system_file
from sensorium_models.training_sets import AnimalGroup, Selection, TrainingSet, TrainingSetName


class Study:
    """A validated study: settings, systems, and the look-ups that rules and scripts need."""

    def __init__(
        self,
        settings: Settings,
        systems: Mapping[str, System],
        origin: Origin,
        raw_recordings: Mapping[str, Any],
        left_out: Sequence[str] = (),
    ) -> None:
        self.settings = settings
        # Keys of the configuration about systems that are not among the study's.
        self.left_out = list(left_out)
        # As read, each source of one kind; what follows from it may be read again without files.
        self.raw_recordings = raw_recordings
        self.systems = dict(systems)
        self._origin = origin

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
            if ensemble.is_made_under(protocol)
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
        raise self.mistake_of(
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
        return self._tiers(self.training_set(training_set, system).train)

    def training_animals(self, training_set: str, system: str) -> list[str]:
        """Animals that the members of a training set learn from (each gets a readout)."""
        return list(self.training_tiers(training_set, system))

    def select_tiers(self, training_set: str, system: str) -> dict[str, list[str]] | None:
        """Tiers that pick the best epoch, by animal that is trained on; None: the left-out fold."""
        chosen = self.training_set(training_set, system)
        if chosen.fold_selects:
            return None
        trained = self.training_tiers(training_set, system)
        return {a: tiers for a, tiers in self._tiers(chosen.select).items() if a in trained}

    def fold(self, training_set: str, system: str, member: str) -> tuple[int, int] | None:
        """The fold that a member leaves out of its training, and of how many; None without."""
        folds = self.training_set(training_set, system).folds
        if folds is None:
            return None
        return int(self.member_axes(system)[member][folds.axis]), folds.count

    def predicted_animals(self, protocol: str) -> list[str]:
        """Animals that a protocol predicts."""
        return self.group(self.protocol(protocol).animals)

    def tested_tiers(self, training_set: str, system: str) -> dict[str, list[str]]:
        """Tiers that members may be tested on, by animal: whatever protocols the study chose.

        Every animal that a protocol predicts is one that they learned from.
        """
        tiers = [tier for tier, role in self.settings.tiers.items() if role in ("select", "test")]
        return dict.fromkeys(self.training_animals(training_set, system), tiers)

    def training_set(self, training_set: str, system: str) -> TrainingSet:
        """What a system's file says of a training set."""
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

    def mistake(self, key: str, sentence: str) -> ConfigurationError:
        """An error that blames `key` on the file that says it."""
        return self._origin.error(key, sentence)

    def mistake_of(self, system: str, sentence: str) -> ConfigurationError:
        """An error that blames a system's file."""
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
    settings, left_out = _of_chosen_systems(validated(Settings, config, origin))
    folders, members = settings.systems_folders, settings.members
    systems = {
        name: load_system(name, folders=folders, members=members, origin=origin)
        for name in settings.systems
    }
    study = Study(settings, systems, origin, config["recordings"], left_out)
    check_consistency(study)
    return study


def _of_chosen_systems(settings: Settings) -> tuple[Settings, list[str]]:
    """Without what concerns systems that exist but are not among the study's, as where only some
    are asked for on the command line; and the keys of what falls away.
    """

    def chosen(system: str) -> bool:
        return system in settings.systems or not system_file(system, settings.systems_folders)

    kept: dict[str, dict[str, Any]] = {
        "ensembles": {
            name: ensemble
            for name, ensemble in settings.ensembles.items()
            if all(chosen(system) for system, _ in ensemble.entries())
        }
    }
    for key in ("members", "published_weights"):
        kept[key] = {name: value for name, value in getattr(settings, key).items() if chosen(name)}
    left_out = [f"{k}.{name}" for k in kept for name in getattr(settings, k) if name not in kept[k]]
    return settings.model_copy(update=kept), left_out


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
