"""The best scores that any model can reach on simulated recordings: those of the true rates.

The true rates are written as if a member had predicted them and scored like every other member, on
the same frames and in the same unit, so the two are comparable by construction.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sensorium_models.evaluation.responses import open_responses
from sensorium_models.evaluation.scores import member_scores, score_member, write_scores
from sensorium_models.predictions import PredictionWriter, frame_convention, scored_frames
from sensorium_models.recordings.normalisation import score_precision
from sensorium_models.recordings.store import Recording, digests
from sensorium_models.simulation.truth import Truth, truth_path

SYSTEM = "achievable"


def achievable_scores(
    *,
    protocol: str,
    recordings: Mapping[str, Path],
    archives: Mapping[str, Path],
    tiers: Sequence[str],
    unit: str,
    first_frame: int,
    cap_frames: int | None,
    drop_last_frames: int,
    output: Path,
) -> None:
    """Write the score rows of the true rates, system `achievable`, member `truth`.

    Args:
        recordings, archives: by animal; the truth lies beside the archive.
        tiers: which to score; those with withheld responses get a row without a value.

    Raises:
        TruthError: the truth of an archive is missing or holds no rates.
    """
    frames: dict[str, Any] = {
        "first_frame": first_frame,
        "cap_frames": cap_frames,
        "drop_last_frames": drop_last_frames,
    }
    # One name, so that what a killed process leaves is written over by the next.
    predictions = output.with_name(f".{output.stem}.h5")
    try:
        with PredictionWriter(
            predictions,
            protocol=protocol,
            training_set="truth",
            system=SYSTEM,
            member="truth",
            score_unit=unit,
            first_scored_frame=first_frame,
            frame_convention=frame_convention(**frames),
            recording_digests=digests(recordings),
            fingerprint="",
        ) as writer:
            for animal, store in recordings.items():
                with Recording(store) as recording, Truth(truth_path(archives[animal])) as truth:
                    precision = score_precision(unit, recording)
                    for trial in recording.trials_of(tiers):
                        rows = scored_frames(int(recording.trials.frames[trial]), **frames)
                        scale = precision[rows] if len(precision) > 1 else precision
                        rates = truth.rates(int(trial))[rows] * scale
                        writer.add(
                            animal, recording.neuron_ids, int(trial), rates.astype(np.float32)
                        )
        with open_responses(recordings, unit) as responses:
            moments = score_member(predictions=predictions, responses=responses)
    finally:
        predictions.unlink(missing_ok=True)
    write_scores(output, member_scores(moments))
