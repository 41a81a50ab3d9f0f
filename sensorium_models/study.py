"""The study: which animals, systems and protocols, where files lie, how scores are made.

The only reader of YAML. `load_study` validates `config.yaml`, its overrides and every system file
that the study names; what is wrong ends in a `ConfigurationError` that names file, key and allowed
values, before any job starts.
"""

import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator

from sensorium_models.systems import AnimalGroup, ResponseUnit, Section, System, TrainingSetName

REPOSITORY = Path(__file__).resolve().parent.parent
SYSTEMS_FOLDER = REPOSITORY / "config" / "systems"

TierRole = Literal["train", "select", "test", "unused"]
StimulusType = Literal["movie", "pink_noise", "gaussian_dots", "random_dots", "gabor", "images"]
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")]

# A child system that names another class starts from that class's own settings.
_SETTINGS_OF = {
    "core": "core_settings",
    "readout": "readout_settings",
    "shifter": "shifter_settings",
}


class ConfigurationError(ValueError):
    """A configuration that cannot be run; the message names file, key and what is allowed."""


class GinSource(Section):
    """An archive on G-Node GIN at a pinned commit."""

    kind: Literal["gin"]
    repository: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    commit: str = Field(pattern=r"^([0-9a-f]{40}|master)$")


class DirectorySource(Section):
    """A zip or an unpacked folder in the released layout, read where it lies, never written."""

    kind: Literal["directory"]
    path: Path


class SimulatedSource(Section):
    """A recording made by `simulation`; animals of one `pair` and `seed` share their movies."""

    kind: Literal["simulated"]
    pair: Word
    seed: int = Field(ge=0)
    training_trials: int = Field(default=60, ge=1)
    test_videos: int = Field(default=2, ge=1)
    repeats: int = Field(default=4, ge=2)
    metadata: Path | None = None


Source = Annotated[GinSource | DirectorySource | SimulatedSource, Field(discriminator="kind")]


class Recording(Section):
    """One animal: where its archive comes from and what the archive must hold."""

    folder: str = Field(pattern=r"^[\w.-]+$")
    neurons: int = Field(ge=1)
    test_responses: Literal["public", "withheld"]
    source: Source
    stimulus_types: dict[str, list[StimulusType]] = Field(default_factory=dict)


class ScoredFrames(Section):
    """Frames `first .. min(length, cap) - drop_last - 1` of a trial count; the rest never does."""

    first: int = Field(ge=0)
    cap: int | None = Field(ge=1)
    drop_last: int = Field(ge=0)


class Protocol(Section):
    """What is predicted and scored, and which training sets may serve it, best one first."""

    animals: AnimalGroup
    tiers: list[str] = Field(min_length=1)
    training_sets: list[TrainingSetName] = Field(min_length=1)


class Settings(Section):
    """`config.yaml` with its overrides, key by key."""

    study: str = Field(min_length=1)
    results: Path
    archives: Path
    animals: list[Word] = Field(min_length=1)
    systems: list[Word] = Field(min_length=1)
    protocols: list[Word] = Field(min_length=1)
    members: dict[Word, dict[str, list[int | str]]]
    systems_folders: list[Path]
    recordings: dict[Word, Recording] = Field(min_length=1)
    tiers: dict[Word, TierRole] = Field(min_length=1)
    protocol_definitions: dict[Word, Protocol] = Field(min_length=1)
    frame_rate_hz: float = Field(gt=0)
    scored_frames: ScoredFrames
    score_unit: ResponseUnit
    keep_predictions: bool
    cpu_threads: int = Field(ge=1)
    device: Literal["auto", "cpu", "cuda"]
    checkpoint_minutes: float = Field(gt=0)
    replace_members: bool
    adopt_members: bool

    @field_validator("animals", "systems", "protocols")
    @classmethod
    def _each_once(cls, names: list[str]) -> list[str]:
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"names {', '.join(twice)} twice; name each once")
        return names

    @field_validator("systems_folders")
    @classmethod
    def _here_or_in_the_repository(cls, folders: list[Path]) -> list[Path]:
        # A study of this repository may be run from any working directory.
        return [
            folder if folder.is_dir() or not (REPOSITORY / folder).is_dir() else REPOSITORY / folder
            for folder in folders
        ]

    @field_validator("tiers")
    @classmethod
    def _one_train_tier(cls, tiers: dict[str, TierRole]) -> dict[str, TierRole]:
        if list(tiers.values()).count("train") != 1:
            raise ValueError("exactly one tier must have the role train")
        return tiers


class Study:
    """A validated study: settings, systems, and the look-ups that rules and scripts need."""

    def __init__(self, settings: Settings, systems: Mapping[str, System], origin: "Origin") -> None:
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
        return self.group(self._training_set(training_set, system).train.animals)

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

    def _training_set(self, training_set: str, system: str) -> Any:
        return self.systems[system].training_sets[typing.cast(TrainingSetName, training_set)]

    def _check_names(self) -> None:
        settings = self.settings
        self._known("animals", settings.animals, settings.recordings, "recordings")
        self._known("protocols", settings.protocols, settings.protocol_definitions, "protocols")
        self._known("members", settings.members, settings.systems, "systems of the study")
        for name, protocol in settings.protocol_definitions.items():
            key = f"protocol_definitions.{name}.tiers"
            self._known(key, protocol.tiers, settings.tiers, "tiers")
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


class Origin:
    """Which file a key came from, so that an error can say where to look."""

    def __init__(
        self, contents: Sequence[tuple[Path, Mapping[str, Any]]], final: Mapping[str, Any]
    ) -> None:
        self._contents = list(contents)
        self._final = final

    def error(self, key: str, sentence: str) -> ConfigurationError:
        """A `ConfigurationError` about a dotted `key`."""
        return ConfigurationError(f"{self.of(key.split('.'))}: {key}: {sentence}.")

    def of(self, path: Sequence[str]) -> str:
        """The file whose value at `path` (or at the section around it) is the one in force."""
        for length in range(len(path), 0, -1):
            value = _value(self._final, path[:length])
            if value is _ABSENT:
                continue
            files = [(f, _value(content, path[:length])) for f, content in self._contents]
            holding = [(f, theirs) for f, theirs in files if theirs is not _ABSENT]
            same = [f for f, theirs in holding if theirs == value]
            if same:
                return str(same[-1])
            # A section may be put together from several files; a value comes from one place.
            return str(holding[-1][0]) if holding and isinstance(value, Mapping) else "--config"
        return str(self._contents[-1][0]) if self._contents else "configuration"


def load_study(config: Mapping[str, Any], files: Sequence[Path] = ()) -> Study:
    """Validate a merged configuration and every system that it names.

    Args:
        config: the merged mapping, as Snakemake makes it from its configuration files.
        files: the YAML files that it was merged from, later ones winning; used to name the culprit.

    Raises:
        ConfigurationError: anything wrong in the configuration or in a system file.
    """
    origin = Origin([(Path(file), read_yaml(Path(file))) for file in files], config)
    settings = _validate(Settings, dict(config), origin)
    systems = {name: load_system(name, settings, origin) for name in settings.systems}
    return Study(settings, systems, origin)


def read_study(*files: Path, overrides: Mapping[str, Any] | None = None) -> Study:
    """Read a study from YAML files, later ones overriding earlier ones as `--configfile` does."""
    config: dict[str, Any] = {}
    for file in files:
        config = merged(config, read_yaml(file))
    return load_study(merged(config, dict(overrides or {})), files)


def load_system(name: str, settings: Settings, origin: Origin) -> System:
    """Read `<name>.yaml`, fill in what it `extends`, apply the study's `members`, validate.

    Raises:
        ConfigurationError: no such file, a cycle of `extends`, or an invalid value.
    """
    content, contents = _resolve_system(name, settings.systems_folders, origin, seen=())
    if name in settings.members:
        content["members"] = settings.members[name]
        source = Path(origin.of(["members", name]))
        contents = [*contents, (source, {"members": content["members"]})]
    return _validate(System, {**content, "name": name}, Origin(contents, content))


def find_system_file(name: str, folders: Sequence[Path], origin: Origin) -> Path:
    """Look for `<name>.yaml` in the study's own folders, then among the built-in systems."""
    places = [*folders, SYSTEMS_FOLDER]
    for folder in folders:
        if not folder.is_dir():
            raise origin.error("systems_folders", f"{folder} is no folder")
    for folder in places:
        if (folder / f"{name}.yaml").is_file():
            return folder / f"{name}.yaml"
    known = sorted({file.stem for folder in places for file in folder.glob("*.yaml")})
    raise origin.error("systems", f"there is no system {name}; systems are {', '.join(known)}")


def _resolve_system(
    name: str, folders: Sequence[Path], origin: Origin, seen: tuple[str, ...]
) -> tuple[dict[str, Any], list[tuple[Path, Mapping[str, Any]]]]:
    file = find_system_file(name, folders, origin)
    content = read_yaml(file)
    own = (file, dict(content))
    parent = content.pop("extends", None)
    if parent is None:
        return content, [own]
    if parent == name or parent in seen:
        raise ConfigurationError(
            f"{file}: extends: {' -> '.join((*seen, name, parent))} is a circle."
        )
    if not isinstance(parent, str):
        raise ConfigurationError(f"{file}: extends: must be the name of one system.")
    here = Origin([own], {"systems": parent})
    base, contents = _resolve_system(parent, folders, here, (*seen, name))
    for key, settings_key in _SETTINGS_OF.items():
        if content.get(key, base.get(key)) != base.get(key):
            base.pop(settings_key, None)
    # Members and training sets are lists of choices: a child states them whole.
    for key in ("members", "training_sets"):
        if key in content:
            base.pop(key, None)
    return merged(base, content), [*contents, own]


def read_yaml(file: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ConfigurationError: the file is missing, is not YAML, or holds no mapping.
    """
    try:
        content = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{file}: cannot be read ({error.strerror}).") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file}: is not valid YAML: {error}.") from error
    if not isinstance(content, dict):
        raise ConfigurationError(
            f"{file}: must hold keys and values, not {type(content).__name__}."
        )
    return content


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `over` laid on top: mappings merge key by key, everything else is replaced."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        result[key] = merged(below, value) if both else value  # type: ignore[arg-type]
    return result


Model = typing.TypeVar("Model", bound=BaseModel)


def _validate(model: type[Model], content: dict[str, Any], origin: Origin) -> Model:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        sentences = [_sentence(model, problem, origin) for problem in error.errors()]
        raise ConfigurationError("\n".join(dict.fromkeys(sentences))) from None


def _sentence(model: type[BaseModel], problem: Any, origin: Origin) -> str:
    # The tag of a union is part of pydantic's location but no key of the file.
    path = [
        str(part) for part in problem["loc"] if str(part) not in ("gin", "directory", "simulated")
    ]
    key = ".".join(path) or "(whole file)"
    kind = problem["type"]
    if kind == "extra_forbidden":
        allowed = _keys_at(model, problem["loc"][:-1])
        text = f"unknown key; allowed here: {', '.join(allowed)}" if allowed else "unknown key"
    elif kind == "missing":
        text = "is missing; add it"
    else:
        message = problem["msg"].removeprefix("Value error, ")
        text = f"{message} (it is {problem['input']!r})"[:500]
    return f"{origin.of(path)}: {key}: {text}."


def _keys_at(model: Any, location: Sequence[Any]) -> list[str]:
    """Allowed keys of the section at a pydantic location; empty where that is no fixed section."""
    for part in location:
        model = _inside(model, part)
    if isinstance(model, type) and issubclass(model, BaseModel):
        return sorted(set(model.model_fields) - {"name"})
    return []


def _inside(model: Any, part: Any) -> Any:
    if isinstance(model, type) and issubclass(model, BaseModel):
        field = model.model_fields.get(str(part))
        return field.annotation if field else None
    arguments = typing.get_args(model)
    if typing.get_origin(model) in (typing.Union, types.UnionType):
        for option in arguments:
            if isinstance(option, type) and issubclass(option, BaseModel):
                kind = option.model_fields.get("kind")
                if kind and part in typing.get_args(kind.annotation):
                    return option
        return next((a for a in arguments if a is not type(None)), None)
    if typing.get_origin(model) is Annotated:
        return _inside(arguments[0], part)
    return arguments[-1] if arguments else None


_ABSENT = object()


def _value(content: Any, path: Sequence[str]) -> Any:
    for part in path:
        if not isinstance(content, Mapping) or part not in content:
            return _ABSENT
        content = content[part]
    return content
