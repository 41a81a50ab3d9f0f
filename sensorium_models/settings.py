"""The keys of `config.yaml`, typed: recordings and sources, tiers, protocols, scored frames."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from sensorium_models.configuration import REPOSITORY, Section
from sensorium_models.joint_ensembles import JointEnsemble
from sensorium_models.systems import ResponseUnit
from sensorium_models.training_sets import AnimalGroup, TrainingSetName

TierRole = Literal["train", "select", "test", "unused"]
StimulusType = Literal["movie", "pink_noise", "gaussian_dots", "random_dots", "gabor", "images"]
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")]


Address = Annotated[str, Field(pattern=r"^https?://[^\s?#]+$")]


class GinSource(Section):
    """An archive on G-Node GIN at a pinned commit.

    `file` is its path in the repository, `<folder>.zip` where not given. `mirrors` are addresses of
    folders that hold `<folder>.zip`, tried in this order after `server`; what they give is verified
    against the repository like everything else.
    """

    kind: Literal["gin"]
    repository: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    commit: str = Field(pattern=r"^([0-9a-f]{40}|master)$")
    file: str | None = Field(default=None, pattern=r"^\w[\w.-]*(/\w[\w.-]*)*$")
    server: Address = "https://gin.g-node.org"
    mirrors: list[Address] = Field(default_factory=list)


class DirectorySource(Section):
    """A zip or an unpacked folder in the released layout, read where it lies, never written."""

    kind: Literal["directory"]
    path: Path


class EyeTrackerSignals(Section):
    """Columns of the eye tracker's data, counted from 0; the layout fixes no order."""

    dilation: int = Field(default=0, ge=0)
    horizontal: int = Field(default=1, ge=0)
    vertical: int = Field(default=2, ge=0)


class ResamplingSettings(Section):
    """How a recording at native rates comes to the study's frame rate; see `recordings.native`."""

    longest_gap_seconds: float = Field(default=0.5, gt=0)
    responses: Literal["linear", "band_limited"] = "linear"
    eye_tracker: Literal["linear", "band_limited"] = "band_limited"
    eye_tracker_signals: EyeTrackerSignals = Field(default_factory=EyeTrackerSignals)
    clock_offsets_seconds: dict[Literal["responses", "treadmill", "eye_tracker"], float] = Field(
        default_factory=dict
    )


class NativeSource(Section):
    """A folder in the experanto layout, every device at its own rate; read where it lies."""

    kind: Literal["native"]
    path: Path
    resampling: ResamplingSettings = Field(default_factory=ResamplingSettings)


class SimulatedSource(Section):
    """A recording made by `simulation`; animals of one `pair` and `seed` share their movies."""

    kind: Literal["simulated"]
    pair: Word
    seed: int = Field(ge=0)
    training_trials: int = Field(default=60, ge=1)
    test_videos: int = Field(default=2, ge=1)
    repeats: int = Field(default=4, ge=2)
    metadata: Path | None = None
    layout: Literal["released", "native"] = "released"
    screen_hz: Literal[30, 60] = 30

    @model_validator(mode="after")
    def _screen_of_an_archive(self) -> "SimulatedSource":
        if self.layout == "released" and self.screen_hz != 30:
            raise ValueError(
                "released archives are at 30 Hz; give layout: native for other screens"
            )
        return self


# The unit, and the normalisation, that are made of statistics which a publisher gives.
PUBLISHED_UNIT = "per_frame_published"

Source = Annotated[
    GinSource | DirectorySource | NativeSource | SimulatedSource, Field(discriminator="kind")
]


class Recording(Section):
    """One animal: where its archive comes from and what the archive must hold."""

    folder: str = Field(pattern=r"^[\w.-]+$")
    neurons: int = Field(ge=1)
    test_responses: Literal["public", "withheld"]
    source: Source
    stimulus_types: dict[str, list[StimulusType]] = Field(default_factory=dict)

    @property
    def is_native(self) -> bool:
        """Whether devices ran at rates of their own; then no published statistics come with it."""
        simulated = isinstance(self.source, SimulatedSource) and self.source.layout == "native"
        return simulated or isinstance(self.source, NativeSource)


class ScoredFrames(Section):
    """Frames `first .. min(length, cap) - drop_last - 1` of a trial count; the rest never does."""

    first: int = Field(ge=0)
    cap: int | None = Field(ge=1)
    drop_last: int = Field(ge=0)

    @model_validator(mode="after")
    def _some_frame(self) -> "ScoredFrames":
        if self.cap is not None and self.cap - self.drop_last - self.first < 2:
            raise ValueError("fewer than two frames of a trial would be scored; lower first")
        return self


class Protocol(Section):
    """What is predicted and scored, and which training sets may serve it, best one first.

    In `further_units` the same predictions are scored once more, beside the study's `score_unit`.
    """

    animals: AnimalGroup
    tiers: list[str] = Field(min_length=1)
    training_sets: list[TrainingSetName] = Field(min_length=1)
    further_units: list[ResponseUnit] = Field(default_factory=list)


class PublishedWeights(Section):
    """Checkpoints of the original repository that stand for the members of a system.

    `path` is that of a member's checkpoint, with `{member}` and the names of its axes (`{seed}`) in
    braces where members differ. The members of `training_set` are imported instead of trained.
    """

    path: str = Field(min_length=1)
    training_set: TrainingSetName = "published"


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
    published_weights: dict[Word, PublishedWeights] = Field(default_factory=dict)
    ensembles: dict[Word, JointEnsemble] = Field(default_factory=dict)
    recordings: dict[Word, Recording] = Field(min_length=1)
    tiers: dict[Word, TierRole] = Field(min_length=1)
    protocol_definitions: dict[Word, Protocol] = Field(min_length=1)
    frame_rate_hz: float = Field(gt=0)
    scored_frames: ScoredFrames
    score_unit: ResponseUnit
    reliable_explainable_variance: float = Field(ge=0, lt=1)
    keep_predictions: bool
    cpu_threads: int = Field(ge=1)
    device: Literal["auto", "cpu", "cuda"]
    checkpoint_minutes: float = Field(gt=0)
    data_workers: int = Field(default=0, ge=0)
    replace_members: bool
    adopt_members: bool

    @model_validator(mode="after")
    def _one_way(self) -> "Settings":
        if self.replace_members and self.adopt_members:
            raise ValueError("replace_members and adopt_members exclude each other; choose one")
        return self

    @field_validator("animals", "systems", "protocols")
    @classmethod
    def _each_once(cls, names: list[str]) -> list[str]:
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"names {', '.join(twice)} twice; name each once")
        return names

    @field_validator("ensembles", mode="before")
    @classmethod
    def _without_those_left_out(cls, ensembles: Any) -> Any:
        # Mappings of several files merge, so a study says null to what one below it named. From the
        # command line it comes as text.
        if not isinstance(ensembles, dict):
            return ensembles
        return {name: it for name, it in ensembles.items() if it not in (None, "null")}

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
