"""Predictions of a trained network for whole trials, in bounded memory and in the score unit.

A trial is predicted in overlapping pieces, each with the history that its first frame needs, so the
length of a piece changes memory and speed but no result. `to_score_unit` is the one place where a
network's response unit becomes the unit of the scores (DESIGN, score unit).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from sensorium_models.networks.devices import repeatable, resolved_device
from sensorium_models.networks.encoder import Encoder
from sensorium_models.networks.inputs import AnimalInputs, to_device
from sensorium_models.networks.members import load_encoder, read_record
from sensorium_models.predictions import PredictionWriter, scored_frames
from sensorium_models.progress import track
from sensorium_models.recordings.clips import Clip, whole_trial
from sensorium_models.recordings.normalisation import score_precision
from sensorium_models.recordings.store import Recording
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
) -> None:
    """Predict `trials` of each animal with one member and write them to `output`, atomically.

    Written are the scored frames only, in the score unit `unit`. `attributes` are the fields of
    `predictions.PredictionAttributes` without `score_unit` and `first_scored_frame`. `device` is
    `auto` or a name of PyTorch's; on the CPU the same number of `threads` gives the same bits.

    Raises:
        ValueError: the network needs more history than the frames that are not scored, or an animal
            is unknown to the member.
    """
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
                # The inputs' statistics may end before the cap; training stopped there, too.
                limits = (cap_frames, cast(AnimalInputs, encoder.inputs[animal]).frames)
                cap = min((limit for limit in limits if limit is not None), default=None)
                precision = model_precision
                if unit != system.response_unit:
                    precision = score_precision(unit, recording)
                for trial in track(list(trials[animal]), f"predict {animal}", unit="trial"):
                    prediction = predict_trial(
                        encoder,
                        recording,
                        trial,
                        system=system,
                        device=place,
                        cap_frames=cap,
                    )
                    frames = scored_frames(
                        int(recording.trials.frames[trial]),
                        first_frame=first_scored_frame,
                        cap_frames=cap,
                        drop_last_frames=drop_last_frames,
                    )
                    scored = to_score_unit(
                        prediction[
                            frames.start - encoder.history_frames : frames.stop
                            - encoder.history_frames
                        ],
                        frames=np.arange(frames.start, frames.stop),
                        model_precision=model_precision,
                        score_precision=precision,
                    )
                    writer.add(animal, recording.neuron_ids, trial, scored)


def predict_trial(
    encoder: Encoder,
    recording: Recording,
    trial: int,
    *,
    system: System,
    device: str | torch.device = "cpu",
    cap_frames: int | None,
) -> np.ndarray:
    """Rates (T_out, N) float32 of one trial in the network's response unit.

    They are aligned to the end of the trial, of which the first `cap_frames` are read; row 0 is
    frame `encoder.history_frames`. The encoder must be on `device`; it is used in evaluation mode
    and left in the mode in which it came. At most `prediction_chunk_frames` frames of the system
    plus the history are computed at once.

    Raises:
        ValueError: the trial is no longer than the network's history.
    """
    clip = whole_trial(recording, trial, cap_frames=cap_frames, responses=False)
    frames = clip.frame.shape[1]
    history = encoder.history_frames
    if frames <= history:
        raise ValueError(
            f"animal {recording.animal}, trial {trial}: {frames} frames are no longer than the "
            f"network's history of {history} frames, so it cannot be predicted; leave out this "
            "trial or tier"
        )
    was_training = encoder.training
    encoder.eval()
    pieces = []
    with torch.inference_mode():
        for start in range(0, frames - history, system.prediction_chunk_frames):
            stop = min(start + system.prediction_chunk_frames, frames - history)
            piece = to_device(_frames_of(clip, start, stop + history), device)
            pieces.append(encoder(piece)[0].float().cpu().numpy())
    encoder.train(was_training)
    return np.concatenate(pieces)


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


def _frames_of(clip: Clip, start: int, stop: int) -> Clip:
    """Steps start..stop-1 of a clip without responses."""

    def cut(values: np.ndarray | None) -> np.ndarray | None:
        return None if values is None else values[:, start:stop]

    return dataclasses.replace(
        clip,
        video=clip.video[:, :, start:stop],
        behavior=cut(clip.behavior),
        pupil_center=cut(clip.pupil_center),
        frame=clip.frame[:, start:stop],
        valid=clip.valid[:, start:stop],
    )
