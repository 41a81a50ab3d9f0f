"""What a system's members learn from: animals and tiers, and folds that are left out.

The part of a system's file from which `recordings.splits` makes the explicit lists of trials.
"""

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from sensorium_models.configuration import Section

TrainingSetName = Literal["published", "clean"]
AnimalGroup = Literal["public", "withheld", "all"]


class Selection(Section):
    """Trials by animal group and tier; the group is narrowed to the animals of the study."""

    animals: AnimalGroup
    tiers: list[str] = Field(min_length=1)
    # Whose turn it is when: batch statistics are dominated by the last animal.
    order: list[str] = Field(default_factory=list)


class Folds(Section):
    """Each member leaves the trials of one fold out of its training: that of its value on `axis`.

    `by: perceptual_hash`: a trial's fold is the remainder of its video's perceptual hash divided by
    `count` (card of DwiseNeuro, section 4.2), so that equal videos of all animals share a fold.
    """

    count: int = Field(ge=2)
    by: Literal["perceptual_hash"]
    axis: str = "fold"


class TrainingSet(Section):
    """What a member learns from (`train`) and what picks its best epoch (`select`).

    Both are one selection or a list of them, whose trials are joined; animals take turns in the
    order of the list. Where `select` is left out, the fold that a member does not train on selects.
    """

    train: list[Selection] = Field(min_length=1)
    folds: Folds | None = None
    select: list[Selection] = Field(default_factory=list, validate_default=True)

    @field_validator("train", "select", mode="before")
    @classmethod
    def _one_or_several(cls, selections: Any) -> Any:
        return [selections] if isinstance(selections, dict) else selections

    @field_validator("select")
    @classmethod
    def _something_selects(cls, select: list[Selection], others: ValidationInfo) -> list[Selection]:
        if not select and others.data.get("folds", "invalid") is None:
            raise PydanticCustomError("missing", "without folds, select must be named")
        return select

    @property
    def fold_selects(self) -> bool:
        """Whether the fold that is left out of training picks the best epoch."""
        return not self.select
