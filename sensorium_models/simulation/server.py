"""An emulated competition server: it scores an upload with the responses that simulation withheld.

The real server's script and responses are not public; this one scores as specs/metrics.md sections
1 to 4 say, on every trial of the upload, whatever the members were trained on. It sees the upload's
files only, never a prediction file.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sensorium_models.evaluation.moments import AnimalMoments, Moments
from sensorium_models.evaluation.scores import LABELS, member_scores
from sensorium_models.predictions import frame_convention, scored_frames
from sensorium_models.recordings.normalisation import score_precision
from sensorium_models.recordings.store import Recording
from sensorium_models.simulation.truth import Truth, truth_path
from sensorium_models.submission import SERVER_UNIT, SubmissionError
from sensorium_models.submitted import submitted_trials

MEMBER = "submission"


def served_scores(
    uploads: Sequence[Path],
    *,
    labels: Mapping[str, Any],
    folders: Mapping[str, str],
    recordings: Mapping[str, Path],
    archives: Mapping[str, Path],
    first_frame: int,
    cap_frames: int | None,
    drop_last_frames: int,
) -> pd.DataFrame:
    """Tidy rows (`scores.SCHEMA`) of one system's uploads, member `submission`.

    Args:
        labels: protocol, training_set and system of the rows.
        folders: by animal, the name by which an upload calls it.
        recordings, archives: by animal; the withheld responses lie beside the archive.

    Raises:
        SubmissionError: an upload cannot be read, or names an animal that the server does not have.
        TruthError: a trial's response was not withheld, or the truth is missing.
    """
    frames: dict[str, Any] = {
        "first_frame": first_frame,
        "cap_frames": cap_frames,
        "drop_last_frames": drop_last_frames,
    }
    ours = {
        "member": MEMBER,
        "score_unit": SERVER_UNIT,
        "frame_convention": frame_convention(**frames),
    }
    moments = Moments({name: {**labels, **ours}[name] for name in LABELS})
    animal_of = {folder: animal for animal, folder in folders.items()}
    with ExitStack() as stack:
        stores = {a: stack.enter_context(Recording(path)) for a, path in recordings.items()}
        truths = {a: stack.enter_context(Truth(truth_path(p))) for a, p in archives.items()}
        precision = {a: score_precision(SERVER_UNIT, store) for a, store in stores.items()}
        for upload in uploads:
            for tier, row in submitted_trials(upload):
                if row.folder not in animal_of:
                    raise SubmissionError(
                        f"{upload}: mouse {row.folder} is none of {', '.join(animal_of)}."
                    )
                animal = animal_of[row.folder]
                trials = stores[animal].trials
                scored = scored_frames(int(trials.frames[row.trial]), **frames)
                response = truths[animal].responses(row.trial)[scored] * precision[animal][scored]
                content = moments.animals.setdefault(
                    animal, AnimalMoments(np.asarray(stores[animal].neuron_ids))
                )
                content.add_trial(
                    tier=tier,
                    stimulus_type=str(trials.stimulus_type[row.trial]),
                    video=str(trials.video_id[row.trial]),
                    trial=row.trial,
                    response=response,
                    prediction=row.prediction.T,
                )
            # All repeats of a video are in one upload; what is closed needs little memory.
            for content in moments.animals.values():
                content.finish()
    return member_scores(moments)
