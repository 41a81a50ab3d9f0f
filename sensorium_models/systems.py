"""What a system is: architecture, inputs, recipe, members, and what it trains on.

One file `config/systems/<name>.yaml` describes one system; these types validate it and
`load_system` reads it with what it `extends`. A system of the user's own names its classes as
`package.module:Class`, exactly as the built-in ones do.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from sensorium_models.configuration import (
    REPOSITORY,
    ConfigurationError,
    Origin,
    Section,
    merged,
    read_yaml,
    validated,
)
from sensorium_models.recipes import Recipe
from sensorium_models.training_sets import TrainingSet, TrainingSetName

NormalisationScheme = Literal[
    "per_frame_published", "per_frame_train", "viv1t", "global_train", "none"
]
ResponseUnit = Literal["per_frame_published", "per_frame_train", "per_neuron_train", "raw"]

ClassPath = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
_MEMBER_WORD = re.compile(r"^[A-Za-z0-9_]+$")

SYSTEMS_FOLDER = REPOSITORY / "config" / "systems"

# A child system that names another class starts from that class's own settings.
_SETTINGS_OF = {
    "core": "core_settings",
    "readout": "readout_settings",
    "shifter": "shifter_settings",
    "output": "output_settings",
}


class Inputs(Section):
    """What enters the network: planes for the core, and the behavioural state as a sequence.

    `channels` are stacked in this order, one plane per row of behaviour. `state` reaches core and
    readout as numbers per frame, two per modality. `frame_padding` (height, width) is the plane of
    zeros in whose middle the video lies; planes of behaviour fill it.
    """

    normalisation: NormalisationScheme
    channels: list[Literal["video", "behavior", "pupil_center"]] = Field(min_length=1)
    state: list[Literal["behavior", "pupil_center"]] = Field(default_factory=list)
    frame_padding: tuple[int, int] | None = None

    @model_validator(mode="after")
    def _video_first(self) -> "Inputs":
        if self.channels[0] != "video" or len(set(self.channels)) != len(self.channels):
            raise ValueError("channels must start with video and name each modality once")
        if len(set(self.state)) != len(self.state):
            raise ValueError("state must name each modality once")
        return self


class Resources(Section):
    """What one training job asks of the cluster."""

    gpus: int = Field(ge=0)
    cpus: int = Field(ge=1)
    memory_gb: float = Field(gt=0)
    runtime_hours: float = Field(gt=0)


class System(Section):
    """A published model with its whole recipe, or a variation of one."""

    name: str
    title: str
    citation: str
    published_as: str | None = None
    core: ClassPath
    core_settings: dict[str, Any] = Field(default_factory=dict)
    readout: ClassPath
    readout_settings: dict[str, Any] = Field(default_factory=dict)
    shifter: ClassPath | None = None
    shifter_settings: dict[str, Any] = Field(default_factory=dict)
    output: Literal["elu_plus_one", "softplus", "exponential"]
    output_settings: dict[str, Any] = Field(default_factory=dict)
    # Parameters that no loss reaches, by pattern of their name, and why; a test holds it true.
    no_gradient: dict[str, str] = Field(default_factory=dict)
    inputs: Inputs
    response_unit: ResponseUnit
    training_sets: dict[TrainingSetName, TrainingSet] = Field(min_length=1)
    members: dict[str, list[int | str]] = Field(min_length=1)
    # Combinations that are not trained: every member with all the values of one entry.
    members_left_out: list[dict[str, int | str]] = Field(default_factory=list)
    recipe: Recipe
    # By axis and value: what is laid over this file for the members with that value.
    by_axis: dict[str, dict[str, dict[str, Any]]] = Field(default_factory=dict)
    # How a trial is cut for prediction: see inference.predict_trial.
    inference: Literal["whole_trial", "sliding_windows", "tiled_windows"] = "whole_trial"
    prediction_chunk_frames: int = Field(ge=1)  # computed at once
    resources: Resources

    @field_validator("members")
    @classmethod
    def _distinct_values(cls, axes: dict[str, list[int | str]]) -> dict[str, list[int | str]]:
        # Snakemake's `--config` leaves numbers inside a mapping as text.
        axes = {
            axis: [int(v) if isinstance(v, str) and v.isdigit() else v for v in values]
            for axis, values in axes.items()
        }
        if "seed" not in axes:
            raise ValueError("members need an axis seed, for example seed: [42]")
        if not all(isinstance(seed, int) and seed >= 0 for seed in axes["seed"]):
            raise ValueError("axis seed holds whole numbers from 0 on")
        for axis, values in axes.items():
            if not values:
                raise ValueError(f"axis {axis} is an empty list; give at least one value")
            if len(set(values)) != len(values):
                twice = sorted({str(v) for v in values if values.count(v) > 1})
                raise ValueError(
                    f"axis {axis} names {', '.join(twice)} twice; a member is trained once"
                )
            for value in values:
                if not _MEMBER_WORD.match(str(value)):
                    raise ValueError(f"axis {axis}: {value!r} may hold letters, digits and _ only")
        return axes

    def member_axes(self) -> dict[str, dict[str, int | str]]:
        """Name of every member and its value on each axis, in the order of the file."""
        named: dict[str, dict[str, int | str]] = {}
        for values in itertools.product(*self.members.values()):
            axes = dict(zip(self.members, values, strict=True))
            if not any(_holds(axes, combination) for combination in self.members_left_out):
                named[self.name_of(axes)] = axes
        return named

    def name_of(self, axes: Mapping[str, int | str]) -> str:
        """Name of the member with these values."""
        # Numbers carry their axis (`seed42`, `scales2_4`); words speak for themselves (`basic`).
        values = [(axis, str(axes[axis])) for axis in self.members]
        return "-".join(f"{axis}{v}" if v[0].isdigit() else v for axis, v in values)

    @field_validator("by_axis", mode="before")
    @classmethod
    def _values_are_words(cls, axes: Any) -> Any:
        if not isinstance(axes, Mapping):
            return axes
        return {
            axis: {str(value): changes for value, changes in values.items()}
            if isinstance(values, Mapping)
            else values
            for axis, values in axes.items()
        }

    @model_validator(mode="after")
    def _frames_apart_need_windows(self) -> "System":
        if self.recipe.frame_step > 1 and self.inference != "sliding_windows":
            raise ValueError(
                f"inference: recipe.frame_step is {self.recipe.frame_step}, which only "
                "sliding_windows can predict; set inference to that"
            )
        return self

    @model_validator(mode="after")
    def _axes_fit(self) -> "System":
        for combination in self.members_left_out:
            if unknown := [axis for axis in combination if axis not in self.members]:
                raise ValueError(
                    f"members_left_out: there is no axis {unknown[0]}; axes are "
                    f"{', '.join(self.members)}"
                )
        if not self.member_axes():
            raise ValueError("members_left_out leaves no member; keep at least one")
        for axis, values in self.by_axis.items():
            if axis not in self.members:
                raise ValueError(
                    f"by_axis: there is no axis {axis}; axes are {', '.join(self.members)}"
                )
            for value in values:
                try:
                    self.of_member({axis: value})
                except ValidationError as error:
                    first = error.errors()[0]
                    key = ".".join(str(part) for part in first["loc"])
                    raise ValueError(f"by_axis: {axis}: {value}: {key}: {first['msg']}") from None
        return self

    def of_member(self, axes: Mapping[str, int | str]) -> "System":
        """The system as the member with these values trains it: `by_axis` applied, and empty."""
        if not self.by_axis:
            return self
        content = self.model_dump()
        changes = content.pop("by_axis")
        for axis, value in axes.items():
            content = with_changes(content, changes.get(axis, {}).get(str(value), {}))
        return System.model_validate(content)

    def teacher_of(self, axes: Mapping[str, int | str]) -> str | None:
        """Name of the member from which the one with these values learns, if it does."""
        distillation = self.of_member(axes).recipe.distillation
        if distillation is None:
            return None
        teacher = {axis: distillation.teacher.get(axis, value) for axis, value in axes.items()}
        return self.name_of(teacher)

    def trained_by(self) -> dict[str, Any]:
        """The part of the file that decides a trained member; titles and resources do not."""
        decisive = self.model_dump(mode="json")
        for key in (
            "title",
            "citation",
            "published_as",
            "members",
            "members_left_out",
            "training_sets",
            "resources",
            "by_axis",
            "prediction_chunk_frames",
            "no_gradient",
        ):
            decisive.pop(key)
        return decisive


def load_system(
    name: str,
    *,
    folders: Sequence[Path],
    members: Mapping[str, Mapping[str, Sequence[int | str]]],
    origin: Origin,
) -> System:
    """Read `<name>.yaml`, fill in what it `extends`, apply the study's `members`, validate.

    Args:
        folders: the study's own folders of systems, searched before the built-in ones.
        members: by system, the axes that the study sets in place of the file's.
        origin: of the study's configuration, to name the culprit.

    Raises:
        ConfigurationError: no such file, a cycle of `extends`, or an invalid value.
    """
    content, contents = _resolve_system(name, folders, origin, key="systems", seen=())
    if name in members:
        content["members"] = members[name]
        source = Path(origin.of(["members", name]))
        contents = [*contents, (source, {"members": content["members"]})]
    where = Origin(contents, content)
    system = validated(System, {**content, "name": name}, where)
    for member, axes in system.member_axes().items():
        teacher = system.teacher_of(axes)
        if teacher is not None and (teacher == member or teacher not in system.member_axes()):
            raise where.error(
                "recipe.distillation.teacher",
                f"{teacher} is no other member that {member} could learn from; name other values "
                f"of the axes {', '.join(system.members)}, and give distillation under by_axis",
            )
    return system


def find_system_file(
    name: str, folders: Sequence[Path], origin: Origin, *, key: str = "systems"
) -> Path:
    """Look for `<name>.yaml` in the study's own folders, then among the built-in systems.

    Raises:
        ConfigurationError: there is none; the message blames `key`, which named it, in `origin`.
    """
    for folder in folders:
        if not folder.is_dir():
            raise origin.error("systems_folders", f"{folder} is no folder")
    if file := system_file(name, folders):
        return file
    places = (*folders, SYSTEMS_FOLDER)
    known = sorted({file.stem for folder in places for file in folder.glob("*.yaml")})
    raise origin.error(key, f"there is no system {name}; systems are {', '.join(known)}")


def system_file(name: str, folders: Sequence[Path]) -> Path | None:
    """The first `<name>.yaml` in the study's own folders, then among the built-in systems."""
    files = (folder / f"{name}.yaml" for folder in (*folders, SYSTEMS_FOLDER))
    return next((file for file in files if file.is_file()), None)


def _resolve_system(
    name: str, folders: Sequence[Path], origin: Origin, *, key: str, seen: tuple[str, ...]
) -> tuple[dict[str, Any], list[tuple[Path, Mapping[str, Any]]]]:
    file = find_system_file(name, folders, origin, key=key)
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
    here = Origin([own], own[1])
    base, contents = _resolve_system(parent, folders, here, key="extends", seen=(*seen, name))
    # Members and training sets are lists of choices: a child states them whole.
    for key in ("members", "training_sets"):
        if key in content:
            base.pop(key, None)
    if "members" in content:
        base.pop("members_left_out", None)
    return with_changes(base, content), [*contents, own]


def _holds(axes: Mapping[str, int | str], combination: Mapping[str, int | str]) -> bool:
    return all(str(axes[axis]) == str(value) for axis, value in combination.items())


def with_changes(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it; what belongs to a replaced choice does not stay."""
    base = dict(base)
    for key, settings_key in _SETTINGS_OF.items():
        if changes.get(key, base.get(key)) != base.get(key):
            base.pop(settings_key, None)
            base.pop("no_gradient", None)  # of other parameters than the new ones
    recipe, changed = base.get("recipe"), changes.get("recipe")
    if isinstance(recipe, Mapping) and isinstance(changed, Mapping):
        base["recipe"] = {
            part: {}
            if isinstance(settings, Mapping) and _another_kind(settings, changed.get(part))
            else settings
            for part, settings in recipe.items()
        }
    return merged(base, changes)


def _another_kind(settings: Mapping[str, Any], changes: Any) -> bool:
    if not isinstance(changes, Mapping):
        return False
    return changes.get("kind", settings.get("kind")) != settings.get("kind")
