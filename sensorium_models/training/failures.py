"""When a step fails: a loss that is not finite, or memory too small for a batch; and what to try.

What would fit into memory is found by trying, in the order of what it costs: parts of a batch where
that changes nothing, else activations computed twice, then parts that change the result.
"""

import gc
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from sensorium_models.networks.encoder import Encoder
from sensorium_models.recordings.clips import Clip
from sensorium_models.systems import System
from sensorium_models.training.feeding import TrainingError
from sensorium_models.training.steps import Gradients, has_batch_statistics

_SIGNS_OF_TOO_LITTLE = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "ALLOC_FAILED",
    "ALLOCATION_FAILED",
)


@contextmanager
def explained(gradients: Gradients, batch: Clip, *, step: int, encoder: Encoder) -> Iterator[None]:
    """Turn an error of memory into a sentence that names a setting that fits.

    Raises:
        TrainingError: memory was too small; the gradients of the step are gone.
    """
    try:
        yield
        return
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
    # Outside the handler, so that the error no longer holds the tensors of its frames.
    advice = _fitting(gradients, batch, step=step, encoder=encoder)
    raise TrainingError(
        f"Memory is too small for a batch of {len(batch.animal)} clips of {batch.frame.shape[1]} "
        f"frames (animal {batch.animal[0]}). {advice} The last checkpoint is kept, but belongs to "
        "the present settings: delete it to train with others."
    )


@contextmanager
def enough_memory(what: str, advice: str) -> Iterator[None]:
    """Turn an error of memory into a sentence: for `what` it is too small, `advice` what to set.

    Raises:
        TrainingError: memory was too small.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        raise TrainingError(
            f"Memory is too small {what}. {advice} The last checkpoint is kept."
        ) from error


@contextmanager
def compiling(wanted: bool) -> Iterator[None]:
    """Where the core is compiled, which happens when it is first used, say what stands against it.

    Raises:
        TrainingError: there is no compiler, or it failed.
    """
    if not wanted:
        yield
        return
    from torch._dynamo.exc import TorchDynamoException  # takes a second to import

    try:
        yield
    except TorchDynamoException as error:
        reason = str(error).strip().partition("\n")[0]
        raise TrainingError(
            f"recipe.compile: the core cannot be compiled here ({reason}). Install a C++ compiler "
            "(g++, or CXX names another), or set recipe: {compile: false}, which is slower and "
            "gives the same result up to rounding."
        ) from error


def judging_advice(system: System, *, whole_trials: bool, undivided: bool) -> str:
    """What to set where memory is too small to judge a network.

    Args:
        whole_trials: they are predicted, not clips as in training.
        undivided: the network sees a trial in one piece.
    """
    frames, clips = system.prediction_chunk_frames, system.recipe.clips_per_batch
    if whole_trials and not undivided and frames > 1:
        return (
            f"Set prediction_chunk_frames: {frames // 2} (it is {frames}), which changes no result;"
            " training goes on from its checkpoint."
        )
    if not whole_trials and clips > 1:
        return f"Set recipe: {{clips_per_batch: {clips // 2}}} (it is {clips})."
    return "Use a device with more memory, or smaller core_settings."


def holding_advice(system: System) -> str:
    """What to set where memory is too small for what a training holds whatever its batches."""
    copies = [
        f"recipe.{key} ({what})"
        for key, what in (
            ("moving_average", "a copy of the weights"),
            ("distillation", "a second network"),
        )
        if getattr(system.recipe, key) is not None
    ]
    without = f", or leave out {' or '.join(copies)}" if copies else ""
    return (
        "Smaller batches would not change that: set smaller core_settings"
        f"{without}, or use a device with more memory (resources)."
    )


def check_finite(
    losses: Sequence[float], batches: Sequence[Clip], *, when: str, rates: Sequence[float]
) -> None:
    """Refuse to go on with a loss that is not finite.

    Args:
        losses, batches: of one step.
        when: epoch and step, for the message.
        rates: learning rates in use.

    Raises:
        TrainingError: a loss is not finite; the message says where.
    """
    for loss, batch in zip(losses, batches, strict=True):
        if not math.isfinite(loss):
            raise _not_finite(f"loss became {loss}", [batch], when=when, rates=rates)


def check_gradient(
    norm: float, batches: Sequence[Clip], *, when: str, rates: Sequence[float]
) -> None:
    """Refuse to take a step along a gradient that is not finite, though the loss is.

    Such a step would make weights of it that no training comes back from. Where a scaler of
    gradients skips these steps there is nothing to check.

    Args:
        norm: of the gradient of all parameters.
        batches, when, rates: as for `check_finite`.

    Raises:
        TrainingError: the norm is not finite; the message says where.
    """
    if not math.isfinite(norm):
        what = f"loss is finite, but the norm of its gradient became {norm}"
        raise _not_finite(what, batches, when=when, rates=rates)


def _not_finite(
    what: str, batches: Sequence[Clip], *, when: str, rates: Sequence[float]
) -> TrainingError:
    where = "; ".join(map(_trials, batches))
    used = ", ".join(f"{rate:g}" for rate in dict.fromkeys(rates))
    return TrainingError(
        f"The {what} in {when}, at {where}, with learning rate {used}. The last "
        "checkpoint is kept. Look at these trials, or lower recipe.optimizer.learning_rate (or "
        "set precision: float32, or clipping) and train from the start."
    )


def _trials(batch: Clip) -> str:
    trials = batch.trial.tolist()
    if len(set(batch.animal)) == 1:
        return f"animal {batch.animal[0]}, trials {', '.join(map(str, trials))}"
    named = zip(batch.animal, trials, strict=True)
    return ", ".join(f"animal {animal} trial {trial}" for animal, trial in named)


def _fitting(gradients: Gradients, batch: Clip, *, step: int, encoder: Encoder) -> str:
    exact = not has_batch_statistics(encoder)
    halves = _halves(len(batch.animal))
    tries: list[tuple[int | None, bool]] = []
    tries += [(clips, gradients.recompute) for clips in halves] if exact else []
    tries += [(gradients.clips_per_part, True)] if not gradients.recompute else []
    tries += [(clips, True) for clips in halves]
    for clips, recompute in tries:
        if _fits(gradients, batch, clips, recompute, step=step, encoder=encoder):
            said = [f"clips_per_part: {clips}"] if clips else []
            said += ["recompute_activations: true"] if recompute else []
            said += ["allow_inexact_split: true"] if clips and not exact else []
            return f"It would fit with recipe: {{{', '.join(said)}}}."
    return (
        "Not even single clips with recompute_activations: true would fit; use shorter clips "
        "(recipe.clip_frames), precision: bf16, or a device with more memory."
    )


def _fits(
    gradients: Gradients,
    batch: Clip,
    clips: int | None,
    recompute: bool,
    *,
    step: int,
    encoder: Encoder,
) -> bool:
    before = gradients.clips_per_part, gradients.recompute
    gradients.clips_per_part, gradients.recompute = clips, recompute
    encoder.zero_grad(set_to_none=True)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    try:
        gradients.add(batch, step=step)
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        return False
    finally:
        gradients.clips_per_part, gradients.recompute = before
    return True


def _halves(clips: int) -> list[int]:
    """Ever smaller parts: half of the batch, a quarter, ..., one clip."""
    parts = []
    while clips > 1:
        clips = -(-clips // 2)
        parts.append(clips)
    return parts


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # The CPU's allocator, cuBLAS and cuDNN raise plain RuntimeErrors.
    return any(sign in str(error) for sign in _SIGNS_OF_TOO_LITTLE)
