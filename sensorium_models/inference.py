"""Predictions of a trained network for whole trials, in bounded memory and in the score unit.

How a trial is cut is the system's `inference` (see `predict_trial` and `windows`); how much of it
is computed at once changes memory and speed but no result. `to_score_unit` is the one place where a
network's response unit becomes the unit of the scores (DESIGN, score unit).
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from sensorium_models import files, windows
from sensorium_models.evaluation.moments_file import largest_bytes
from sensorium_models.networks.devices import repeatable, resolved_device
from sensorium_models.networks.encoder import Encoder
from sensorium_models.networks.inputs import AnimalInputs, to_device
from sensorium_models.networks.members import load_encoder, read_record
from sensorium_models.predictions import PredictionWriter, scored_frames
from sensorium_models.progress import track
from sensorium_models.recordings.clips import Clip, whole_trial
from sensorium_models.recordings.normalisation import score_precision
from sensorium_models.recordings.store import WITHHELD, Recording
from sensorium_models.systems import System


def predict(
    member_folder: Path,
    *,
    recordings: Mapping[str, Path],
    trials: Mapping[str, Sequence[int]],
    output: Path,
    unit: str,
    first_scored_frame: int,
    cap_frames: int | None,
    drop_last_frames: int,
    device: str,
    threads: int,
    attributes: Mapping[str, Any],
    moments_units: int = 0,
) -> None:
    """Predict `trials` of each animal with one member and write them to `output`, atomically.

    Written are the scored frames only, in the score unit `unit`. `attributes` are the fields of
    `predictions.PredictionAttributes` without `score_unit` and `first_scored_frame`. `device` is
    `auto` or a name of PyTorch's; on the CPU the same number of `threads` gives the same bits.
    `moments_units` is in how many units the sums behind the scores will be written to the same disk
    afterwards: there must be room for them, too.

    Raises:
        ValueError: the network needs more history than the frames that are not scored, or an animal
            is unknown to the member.
        OSError: the disk has no room for the predictions and their sums.
    """
    stored = (_stored_bytes(recordings[a], trials[a], moments_units) for a in trials)
    files.check_room(output, sum(stored))
    encoder = load_encoder(member_folder, {animal: recordings[animal] for animal in trials})
    system = System.model_validate(read_record(member_folder)["system"])
    unknown = sorted(set(trials) - set(encoder.animals))
    if unknown:
        raise ValueError(
            f"{member_folder}: this member has no readout for animal {', '.join(unknown)}; it "
            f"knows {', '.join(encoder.animals)}"
        )
    if encoder.history_frames > first_scored_frame:
        raise ValueError(
            f"{member_folder}: its first prediction is for frame {encoder.history_frames} of a "
            f"trial, but scored frames begin at {first_scored_frame}; set first_scored_frame to at "
            f"least {encoder.history_frames}"
        )
    place = resolved_device(device)
    encoder.to(place)
    with (
        repeatable(place, threads=threads),
        PredictionWriter(
            output, score_unit=unit, first_scored_frame=first_scored_frame, **attributes
        ) as writer,
    ):
        for animal in encoder.animals:
            with Recording(recordings[animal]) as recording:
                model_precision = score_precision(system.response_unit, recording)
                cap = readable_frames(encoder, animal, cap_frames)
                precision = model_precision
                if unit != system.response_unit:
                    precision = score_precision(unit, recording)
                for trial in track(list(trials[animal]), f"predict {animal}", unit="trial"):
                    frames = scored_frames(
                        int(recording.trials.frames[trial]),
                        first_frame=first_scored_frame,
                        cap_frames=cap,
                        drop_last_frames=drop_last_frames,
                    )
                    prediction = predict_trial(
                        encoder,
                        recording,
                        trial,
                        system=system,
                        device=place,
                        cap_frames=cap,
                        wanted=frames,
                    )
                    scored = to_score_unit(
                        prediction,
                        frames=np.arange(frames.start, frames.stop),
                        model_precision=model_precision,
                        score_precision=precision,
                    )
                    writer.add(animal, recording.neuron_ids, trial, scored)


def _stored_bytes(recording: Path, trials: Sequence[int], moments_units: int) -> int:
    """At most so many, were every frame scored: predictions in float16, and their sums."""
    with Recording(recording) as opened:
        table, chosen = opened.trials, np.asarray(trials, dtype=np.int64)
        frames = int(table.frames[chosen].sum())
        public = chosen[table.first_response_frame[chosen] != WITHHELD]
        keys = (table.tier, table.stimulus_type, table.video)
        shown = zip(*(column[public].tolist() for column in keys), strict=True)
        predictions = frames * opened.neurons * np.dtype(np.float16).itemsize
        return predictions + largest_bytes(
            neurons=opened.neurons, videos=len(set(shown)), units=moments_units
        )


def predict_trial(
    encoder: Encoder,
    recording: Recording,
    trial: int,
    *,
    system: System,
    device: torch.device | str = "cpu",
    cap_frames: int | None,
    wanted: slice | None = None,
) -> np.ndarray:
    """Rates (frames, N) float32 of one trial in the network's response unit.

    They are those of the frames `wanted`; of all from `encoder.history_frames` on where None. The
    encoder must be on `device`; it is used in evaluation mode and left in the mode in which it
    came. About `prediction_chunk_frames` frames of the system are computed at once.

    By `inference` of the system the network sees
    - `whole_trial`: the trial, at most `cap_frames` of it, in pieces that begin with the history
      which their first frame needs (in one piece if the core is `undivided`);
    - `sliding_windows`: a window of a training clip's frames at every frame of the trial, whatever
      the cap; a frame's rate is the mean of all windows that hold it (card of DwiseNeuro, 5);
    - `tiled_windows`: clips of training length whose outputs lie end to end over `wanted`, the last
      one aligned at its end (card of Dynamic-V1FM, 7). Where these windows lie changes the numbers.

    Raises:
        ValueError: the trial is too short for the network, or `wanted` lies outside of it.
    """
    sliding = system.inference == "sliding_windows"
    cap = readable_frames(encoder, recording.animal, None if sliding else cap_frames)
    clip = whole_trial(recording, trial, cap_frames=cap, responses=False)
    frames = clip.frame.shape[1]
    where = f"animal {recording.animal}, trial {trial}"
    if frames <= encoder.history_frames:
        raise ValueError(
            f"{where}: {frames} frames are no longer than the network's history of "
            f"{encoder.history_frames} frames, so it cannot be predicted; leave out this trial or "
            "tier"
        )
    if wanted is None:
        wanted = slice(encoder.history_frames, frames)
    if not encoder.history_frames <= wanted.start < wanted.stop <= frames:
        raise ValueError(
            f"{where}: frames {wanted.start}..{wanted.stop - 1} are asked for, but the network "
            f"predicts {encoder.history_frames}..{frames - 1}"
        )
    was_training = encoder.training
    encoder.eval()
    try:
        with torch.inference_mode():
            rates = _PREDICTED_BY[system.inference](
                encoder, to_device(clip, device), wanted, system=system
            )
    except windows.TooShortError as error:
        raise ValueError(f"{where}: {error}; leave out this trial or tier") from error
    finally:
        encoder.train(was_training)
    return rates.cpu().numpy()


def readable_frames(encoder: Encoder, animal: str, cap_frames: int | None) -> int | None:
    """Frames of a trial that may be read: the cap, or fewer where the inputs' statistics end."""
    limits = (cap_frames, cast(AnimalInputs, encoder.inputs[animal]).frames)
    return min((limit for limit in limits if limit is not None), default=None)


def _whole_trial(encoder: Encoder, clip: Clip, wanted: slice, *, system: System) -> Tensor:
    history = encoder.history_frames
    frames = clip.frame.shape[1]
    # A network that remembers the whole trial has no history to begin a piece with.
    at_once = frames if encoder.undivided else system.prediction_chunk_frames
    pieces = [
        encoder(_cut(clip, slice(start, start + at_once + history)))[0]
        for start in range(0, frames - history, at_once)
    ]
    return torch.cat(pieces).float()[wanted.start - history : wanted.stop - history]


def _sliding_windows(encoder: Encoder, clip: Clip, wanted: slice, *, system: System) -> Tensor:
    places = windows.sliding(
        clip.frame.shape[1],
        window_frames=system.recipe.clip_frames,
        step=system.recipe.frame_step,
        wanted=wanted,
    )
    total, counts = torch.zeros(()), torch.zeros(clip.frame.shape[1])
    for frames, rates in _of_windows(encoder, clip, places, system):
        if total.ndim == 0:
            total = rates.new_zeros(len(counts), rates.shape[2])
        # Window by window, so that neither their batches nor the device decide the order of a sum.
        for index, predicted in zip(frames, rates, strict=True):
            total[index[-len(predicted) :]] += predicted
            counts[index[-len(predicted) :]] += 1
    return (total / counts[:, None].to(total.device))[wanted]


def _tiled_windows(encoder: Encoder, clip: Clip, wanted: slice, *, system: System) -> Tensor:
    places = windows.tiled(
        wanted,
        window_frames=system.recipe.clip_frames,
        output_frames=system.recipe.clip_frames - encoder.history_frames,
    )
    rates = torch.cat([r for _, r in _of_windows(encoder, clip, places, system)])
    # The last window repeats what the one before it predicted, up to where that ends.
    last = (wanted.stop - wanted.start) - (len(rates) - 1) * rates.shape[1]
    return torch.cat([rates[:-1].flatten(0, 1), rates[-1, -last:]])


_PREDICTED_BY: dict[str, Callable[..., Tensor]] = {
    "whole_trial": _whole_trial,
    "sliding_windows": _sliding_windows,
    "tiled_windows": _tiled_windows,
}


def _of_windows(
    encoder: Encoder, clip: Clip, places: np.ndarray, system: System
) -> Iterator[tuple[Tensor, Tensor]]:
    """Frames (W, T) and rates (W, T_out, N) of some windows at a time; `places` holds frames."""
    at_once = max(1, system.prediction_chunk_frames // places.shape[1])
    for frames in torch.from_numpy(places).split(at_once):
        yield frames, encoder(_windows_of(clip, frames)).float()


def to_score_unit(
    prediction: np.ndarray,
    *,
    frames: np.ndarray,
    model_precision: np.ndarray,
    score_precision: np.ndarray,
) -> np.ndarray:
    """Rates (frames, N) in the score unit: rates / model precision * score precision.

    A precision is (F, N) with one row per absolute frame index of the trial, or (1, N) for all;
    `frames` are the absolute indices of the rows of `prediction`. Equal units change no bit.
    """
    if model_precision is score_precision or np.array_equal(model_precision, score_precision):
        return prediction
    model = model_precision[frames] if len(model_precision) > 1 else model_precision
    score = score_precision[frames] if len(score_precision) > 1 else score_precision
    return (prediction * (score.astype(np.float64) / model)).astype(np.float32)


def _cut(clip: Clip, steps: slice) -> Clip:
    """Some steps of a clip without responses."""
    return _each(clip, lambda values: values[:, steps])


def _windows_of(clip: Clip, frames: Tensor) -> Clip:
    """Windows of a single clip without responses as a batch: `frames` (W, T) are its steps."""
    batch = _each(clip, lambda values: values[0][frames.to(values.device)])
    trial: Any = clip.trial
    return dataclasses.replace(
        batch, animal=clip.animal * len(frames), trial=trial.expand(len(frames))
    )


def _each(clip: Clip, change: Callable[[Tensor], Tensor]) -> Clip:
    """A clip on its device with every sequence changed; `change` is given them as (B, T, ...)."""
    changed: dict[str, Any] = {
        name: None if (values := getattr(clip, name)) is None else change(values)
        for name in ("behavior", "pupil_center", "frame", "valid")
    }
    video: Any = clip.video
    changed["video"] = change(video.transpose(1, 2)).transpose(1, 2)
    return dataclasses.replace(clip, **changed)
