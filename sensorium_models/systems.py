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

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from sensorium_models.configuration import (
    REPOSITORY,
    ConfigurationError,
    Origin,
    merged,
    read_yaml,
    validated,
)

TrainingSetName = Literal["published", "clean"]
AnimalGroup = Literal["public", "withheld", "all"]
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
}


class Section(BaseModel):
    """Base of every part of the configuration: unknown keys are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Selection(Section):
    """Trials by animal group and tier; the group is narrowed to the animals of the study."""

    animals: AnimalGroup
    tiers: list[str] = Field(min_length=1)
    # Whose turn it is when: batch statistics are dominated by the last animal.
    order: list[str] = Field(default_factory=list)


class TrainingSet(Section):
    """What a member learns from (`train`) and what picks its best epoch (`select`)."""

    train: Selection
    select: Selection


class Inputs(Section):
    """What enters the core: `channels` stacked in this order, one plane per row of behaviour."""

    normalisation: NormalisationScheme
    channels: list[Literal["video", "behavior", "pupil_center"]] = Field(min_length=1)

    @model_validator(mode="after")
    def _video_first(self) -> "Inputs":
        if self.channels[0] != "video" or len(set(self.channels)) != len(self.channels):
            raise ValueError("channels must start with video and name each modality once")
        return self


class Loss(Section):
    """`poisson`: sum of rate - response * ln(rate + epsilon) over clips, frames and neurons.

    `scale: sqrt_trials_per_clip` multiplies it by sqrt(trials of the recording / clips of a batch).
    """

    kind: Literal["poisson"]
    epsilon: float = Field(gt=0)
    scale: Literal["none", "sqrt_trials_per_clip"]


class Optimizer(Section):
    """AdamW over all parameters in one group."""

    kind: Literal["adamw"]
    learning_rate: float = Field(gt=0)
    betas: tuple[float, float]
    epsilon: float = Field(gt=0)
    weight_decay: float = Field(ge=0)


class PlateauSchedule(Section):
    """Rounds that end when the objective stops improving; a learning rate that drops on a plateau.

    The two counters are independent (model card of the factorized baseline, section 8).
    """

    kind: Literal["plateau"]
    max_epochs: int = Field(ge=1)
    rounds: int = Field(ge=1)
    patience_epochs: int = Field(ge=1)
    tolerance: float = Field(ge=0)
    learning_rate_factor: float = Field(gt=0, lt=1)
    learning_rate_patience_epochs: int = Field(ge=0)
    minimum_learning_rate: float = Field(ge=0)


class Validation(Section):
    """The objective: mean single-trial correlation on the `select` trials of the split.

    `clips`: as in training, one random clip per trial; `whole_trials`: every scored frame of them.
    `skip_frames` initial frames of a clip (or trial) never count.
    """

    frames: Literal["clips", "whole_trials"]
    skip_frames: int = Field(ge=0)


class StartPositions(Section):
    """How `positions: response_triggered_average` finds where each neuron looks.

    The video up to `lag_frames` before a response is averaged over squares of `pool` pixels and
    smoothed with a standard deviation of `smoothing_pixels`; the strongest pixel is the start.
    """

    lag_frames: int = Field(default=15, ge=0)
    pool: int = Field(default=1, ge=1)
    smoothing_pixels: float = Field(default=1.5, ge=0)


class Recipe(Section):
    """How a member is trained."""

    clip_frames: int = Field(ge=1)
    clips_per_batch: int = Field(ge=1)
    step: Literal["all_animals_summed"]
    loss: Loss
    optimizer: Optimizer
    schedule: PlateauSchedule
    validation: Validation
    start_positions: StartPositions = StartPositions()


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
    core_settings: dict[str, Any] = {}
    readout: ClassPath
    readout_settings: dict[str, Any] = {}
    shifter: ClassPath | None = None
    shifter_settings: dict[str, Any] = {}
    output: Literal["elu_plus_one", "softplus", "exponential"]
    inputs: Inputs
    response_unit: ResponseUnit
    training_sets: dict[TrainingSetName, TrainingSet] = Field(min_length=1)
    members: dict[str, list[int | str]] = Field(min_length=1)
    recipe: Recipe
    prediction_chunk_frames: int = Field(ge=1)
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
            # Numbers carry their axis (`seed42`); words speak for themselves (`basic`).
            words = [f"{axis}{v}" if isinstance(v, int) else v for axis, v in axes.items()]
            named["-".join(words)] = axes
        return named

    def trained_by(self) -> dict[str, Any]:
        """The part of the file that decides a trained member; titles and resources do not."""
        decisive = self.model_dump(mode="json")
        for key in (
            "title",
            "citation",
            "published_as",
            "members",
            "training_sets",
            "resources",
            "prediction_chunk_frames",
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
    return validated(System, {**content, "name": name}, Origin(contents, content))


def find_system_file(
    name: str, folders: Sequence[Path], origin: Origin, *, key: str = "systems"
) -> Path:
    """Look for `<name>.yaml` in the study's own folders, then among the built-in systems.

    Raises:
        ConfigurationError: there is none; the message blames `key`, which named it, in `origin`.
    """
    places = [*folders, SYSTEMS_FOLDER]
    for folder in folders:
        if not folder.is_dir():
            raise origin.error("systems_folders", f"{folder} is no folder")
    for folder in places:
        if (folder / f"{name}.yaml").is_file():
            return folder / f"{name}.yaml"
    known = sorted({file.stem for folder in places for file in folder.glob("*.yaml")})
    raise origin.error(key, f"there is no system {name}; systems are {', '.join(known)}")


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
    for key, settings_key in _SETTINGS_OF.items():
        if content.get(key, base.get(key)) != base.get(key):
            base.pop(settings_key, None)
    # Members and training sets are lists of choices: a child states them whole.
    for key in ("members", "training_sets"):
        if key in content:
            base.pop(key, None)
    return merged(base, content), [*contents, own]
