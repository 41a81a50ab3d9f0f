"""How a member is trained: the `recipe` of a system's file, typed and validated.

One vocabulary for every published recipe (model cards, their training sections): what a batch is,
the loss, the optimiser and its schedule, and what is done to weights, clips and targets besides.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from sensorium_models.configuration import Section

NetworkPart = Literal["core", "readouts", "shifters"]


class Loss(Section):
    """`poisson`: sum of rate - response * ln(rate + epsilon) over clips, frames and neurons.

    `epsilon_added_to: rate_and_response` adds epsilon to both wherever they stand. The sum is
    multiplied by a `scale`: `sqrt_trials_per_clip` is sqrt(trials of the recording / clips of the
    batch), `sqrt_training_trials_per_clip` the same with training trials only, `equal_animals` is
    training trials of all animals / (animals * those of this animal) / (animals * clips), and
    `weighted_clips` weighs every pair of clip and animal, by weights whose sum is 1.
    `correlation_weight` times the sum over neurons of 1 - correlation is added before scaling.
    """

    kind: Literal["poisson"]
    epsilon: float = Field(gt=0)
    epsilon_added_to: Literal["logarithm", "rate_and_response"] = "logarithm"
    scale: Literal[
        "none",
        "sqrt_trials_per_clip",
        "sqrt_training_trials_per_clip",
        "equal_animals",
        "weighted_clips",
    ]
    correlation_weight: float = Field(default=0.0, ge=0)


class PartSettings(Section):
    """Learning rate and weight decay of one part of the network."""

    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)


class Optimizer(Section):
    """AdamW, plain or schedule-free (Defazio et al. 2024), over all parameters.

    `parts` sets apart the core, the readouts or the shifters; what is not named there has the
    values above. Schedules change all learning rates by the same factor. `missing_gradients: zero`
    gives a parameter that a step did not use a gradient of zero, so that weight decay and momentum
    go on moving it (data-parallel training of the published Dynamic-V1FM); `skip` leaves it alone.
    """

    kind: Literal["adamw", "adamw_schedule_free"]
    learning_rate: float = Field(gt=0)
    betas: tuple[float, float]
    epsilon: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    parts: dict[NetworkPart, PartSettings] = Field(default_factory=dict)
    missing_gradients: Literal["skip", "zero"] = "skip"


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


class PlateauReloadSchedule(Section):
    """The best weights come back, slower, when the objective stops improving (ViV1T, section A6).

    After `patience_epochs` epochs without a new best, for `learning_rate_reductions` times in a
    row; then training ends. An objective that rounds to at most 0.00 when the best is at least
    `collapsed_below` is a collapse: the best weights come back and no epoch is counted.
    """

    kind: Literal["plateau_reload"]
    max_epochs: int = Field(ge=1)
    patience_epochs: int = Field(ge=1)
    learning_rate_factor: float = Field(gt=0, lt=1)
    learning_rate_reductions: int = Field(ge=0)
    minimum_learning_rate: float = Field(ge=0)
    collapsed_below: float = Field(gt=0)


class WarmUpCosineSchedule(Section):
    """Per iteration: linear from 0 over `warm_up_epochs`, then one half cosine to the minimum.

    The last weights are kept (model card of DwiseNeuro, section 4).
    """

    kind: Literal["warm_up_cosine"]
    max_epochs: int = Field(ge=1)
    warm_up_epochs: int = Field(ge=0)
    minimum_learning_rate: float = Field(ge=0)

    @model_validator(mode="after")
    def _some_cosine(self) -> "WarmUpCosineSchedule":
        if self.warm_up_epochs >= self.max_epochs:
            raise ValueError("warm_up_epochs must be fewer than max_epochs")
        return self


class WarmUpConstantCosineSchedule(Section):
    """Linear over `warm_up_steps` iterations, constant, then by epoch a half cosine to the minimum.

    The last weights are kept (model card of Dynamic-V1FM, section 6).
    """

    kind: Literal["warm_up_constant_cosine"]
    max_epochs: int = Field(ge=1)
    warm_up_steps: int = Field(ge=0)
    warm_up_from: float = Field(gt=0, le=1)  # part of the learning rate at the first iteration
    constant_epochs: int = Field(ge=0)
    minimum_learning_rate: float = Field(ge=0)

    @model_validator(mode="after")
    def _some_cosine(self) -> "WarmUpConstantCosineSchedule":
        if self.constant_epochs >= self.max_epochs:
            raise ValueError("constant_epochs must be fewer than max_epochs")
        return self


class ScheduleFreeSchedule(Section):
    """No schedule but a warm-up; ends after `patience_epochs` epochs without a new best.

    As in ViV1T of 2025; `averaging_power` and `averaging_rate_power` are `r` and `weight_lr_power`
    of the package `schedulefree`.
    """

    kind: Literal["schedule_free"]
    max_epochs: int = Field(ge=1)
    patience_epochs: int = Field(ge=1)
    warm_up_steps: int = Field(ge=0)
    averaging_power: float = Field(ge=0)
    averaging_rate_power: float = Field(ge=0)


Schedule = Annotated[
    PlateauSchedule
    | PlateauReloadSchedule
    | WarmUpCosineSchedule
    | WarmUpConstantCosineSchedule
    | ScheduleFreeSchedule,
    Field(discriminator="kind"),
]


class MovingAverage(Section):
    """Weights and batch statistics averaged over the steps; they are judged, kept and predict."""

    decay: float = Field(gt=0, lt=1)


class CutMix(Section):
    """A box of a second clip of the same animal replaces that of the first, targets in proportion.

    Yun et al. (2019), arXiv 1905.04899; `alpha` is that of the beta distribution of the box's area.
    """

    probability: float = Field(ge=0, le=1)
    alpha: float = Field(gt=0)


class Distillation(Section):
    """Where an animal's clip says nothing of the other animals, a teacher's rates are the target.

    `teacher` names the axes on which the teacher differs from the student, and its values there: a
    member of the same system and training set. `ratio` is the teacher's part of all weights.
    """

    teacher: dict[str, int | str] = Field(min_length=1)
    ratio: float = Field(gt=0, lt=1)


class NormClipping(Section):
    """Gradients are shortened to this norm, over all parameters."""

    kind: Literal["norm"]
    maximum: float = Field(gt=0)


class AutoClipping(Section):
    """Gradients are shortened to a quantile of all earlier norms (Seetharaman et al. 2020)."""

    kind: Literal["autoclip"]
    quantile: float = Field(ge=0, le=1)
    remembered_steps: int = Field(ge=1)


Clipping = Annotated[NormClipping | AutoClipping, Field(discriminator="kind")]


class RatesOfClips(Section):
    """Mean responses of so many batches of training clips start the readouts' biases."""

    kind: Literal["clips"]
    batches: int = Field(ge=1)


class RatesOfTrials(Section):
    """Mean responses of the first so many training trials, whole, start the readouts' biases."""

    kind: Literal["trials"]
    trials: int = Field(ge=1)


class NoRates(Section):
    """Biases start as the readout makes them."""

    kind: Literal["none"]


StartRates = Annotated[RatesOfClips | RatesOfTrials | NoRates, Field(discriminator="kind")]


class StartPositions(Section):
    """How `positions: response_triggered_average` finds where each neuron looks.

    The video up to `lag_frames` before a response is averaged over squares of `pool` pixels and
    smoothed with a standard deviation of `smoothing_pixels`; the strongest pixel is the start.
    """

    lag_frames: int = Field(default=15, ge=0)
    pool: int = Field(default=1, ge=1)
    smoothing_pixels: float = Field(default=1.5, ge=0)


class Validation(Section):
    """The objective: mean single-trial correlation on the `select` trials of the split.

    `clips`: as in training, one random clip per trial; `windows`: clips laid end to end over the
    trial; `whole_trials`: every scored frame of it. `skip_frames` initial frames of a clip, window
    or trial never count. `mean_over` neurons of all animals, or over the means of the animals.
    """

    frames: Literal["clips", "windows", "whole_trials"]
    skip_frames: int = Field(ge=0)
    mean_over: Literal["neurons", "animals"] = "neurons"


class Recipe(Section):
    """How a member is trained.

    A batch is of one animal, and its step follows at once (`one_animal`) or after a batch of every
    animal, gradients summed (`all_animals_summed`); or animals mix clip by clip (`mixed_animals`,
    which draws `samples_per_epoch` clips). A clip is `clip_frames` frames, `frame_step` apart.

    Memory: `clips_per_part` computes a batch in parts of so many clips; where that changes the
    result (batch statistics, a correlation in the loss) it needs `allow_inexact_split`.
    `recompute_activations` forgets the core's activations until the backward pass.

    `negative_responses: zero` makes responses below zero zero before they are learned.
    """

    clip_frames: int = Field(ge=1)
    frame_step: int = Field(default=1, ge=1)
    clips_per_batch: int = Field(ge=1)
    batches: Literal["all_animals_summed", "one_animal", "mixed_animals"]
    samples_per_epoch: int | None = Field(default=None, ge=1)
    start_rates: StartRates
    start_positions: StartPositions = StartPositions()
    negative_responses: Literal["keep", "zero"] = "keep"
    loss: Loss
    optimizer: Optimizer
    schedule: Schedule
    clipping: Clipping | None = None
    moving_average: MovingAverage | None = None
    cutmix: CutMix | None = None
    distillation: Distillation | None = None
    validation: Validation
    # The loss is float32 always; `core` keeps the readouts so, too. Judging is in float32.
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    low_precision_part: Literal["network", "core"] = "network"
    compile: bool = False
    deterministic: bool = False  # on a GPU, where kernels allow; the CPU always is
    recompute_activations: bool = False
    clips_per_part: int | None = Field(default=None, ge=1)
    allow_inexact_split: bool = False

    @model_validator(mode="after")
    def _goes_together(self) -> "Recipe":
        mixed = self.batches == "mixed_animals"
        if mixed != (self.samples_per_epoch is not None):
            raise ValueError("samples_per_epoch belongs to batches: mixed_animals, which needs it")
        if mixed != (self.loss.scale == "weighted_clips"):
            raise ValueError("loss.scale weighted_clips and batches mixed_animals go together")
        if self.frame_step > 1 and not mixed:
            raise ValueError("frame_step: frames lie apart with batches: mixed_animals only")
        for key in ("cutmix", "distillation"):
            if getattr(self, key) is not None and not mixed:
                raise ValueError(f"{key} needs batches: mixed_animals")
        if self.loss.correlation_weight and mixed:
            raise ValueError("loss.correlation_weight needs batches of one animal")
        free = self.schedule.kind == "schedule_free"
        if free != (self.optimizer.kind == "adamw_schedule_free"):
            raise ValueError("schedule schedule_free and optimizer adamw_schedule_free go together")
        if free and self.moving_average is not None:
            raise ValueError("moving_average: schedule_free averages the weights itself")
        if self.clips_per_part and self.loss.correlation_weight and not self.allow_inexact_split:
            raise ValueError(
                "clips_per_part: the correlation in the loss would be that of the parts; set "
                "allow_inexact_split: true to accept that, or remove clips_per_part"
            )
        return self
