"""Recorded responses in the score unit, and which trials may be scored with them."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sensorium_models.evaluation.moments import Reason
from sensorium_models.recordings.normalisation import score_precision
from sensorium_models.recordings.store import Recording


class RecordedResponses:
    """Responses of one animal, converted to the score unit while they are read.

    Args:
        recording: an open `recordings.store.Recording` (or anything with its attributes).
        unit: name of the score unit, for checks against prediction files.
        precision: (frames, N) by absolute frame of the trial, or (1, N) for all frames; the score
            is raw response times precision (specs/dataset.md section 5).
    """

    def __init__(self, recording: Any, *, unit: str, precision: np.ndarray) -> None:
        self._recording = recording
        self.animal: str = recording.animal
        self.digest: str = recording.digest
        self.neuron_ids = np.asarray(recording.neuron_ids, dtype=np.int64)
        self.unit = unit
        self._precision = precision
        trials = recording.trials
        self.tiers = [str(tier) for tier in trials.tier]
        self.stimulus_types = [str(name) for name in trials.stimulus_type]
        self.public = np.asarray(trials.first_response_frame) >= 0
        # Repeats within the animal share it, and a video has one name in all animals.
        self.videos = [str(name) for name in trials.video_id]

    def frames(self, trial: int) -> int:
        """Valid frames of a trial."""
        return int(self._recording.trials.frames[trial])

    def read(self, trial: int, start: int, stop: int) -> np.ndarray:
        """Responses (stop - start, N) of absolute frames [start, stop) in the score unit.

        Raises:
            ValueError: the unit is not defined for such late frames, or the trial is shorter.
        """
        where = f"frames {start}..{stop - 1} of animal {self.animal}, trial {trial}"
        raw = self._recording.read("responses", trial, start, stop)
        if len(self._precision) == 1:
            return _scaled(raw, self._precision)
        if stop > len(self._precision):
            raise ValueError(
                f"{where} cannot be scored in unit {self.unit!r}, which is defined for the first "
                f"{len(self._precision)} frames of a trial only. Set a cap on the frames."
            )
        return _scaled(raw, self._precision[start:stop])

    def factor_to(self, other: "RecordedResponses", start: int, stop: int) -> np.ndarray:
        """Factor (frames or 1, N) from this unit to that of `other`, of frames [start, stop)."""
        theirs, ours = (
            precision if len(precision) == 1 else precision[start:stop]
            for precision in (other._precision, self._precision)
        )
        return theirs / ours

    def close(self) -> None:
        """Close the recording."""
        self._recording.close()


def _scaled(raw: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """raw * precision, in place where that loses nothing: `raw` was read for this purpose."""
    if raw.dtype == precision.dtype and raw.flags.writeable:
        raw *= precision
        return raw
    return raw * precision


@contextmanager
def open_responses(
    recordings: Mapping[str, Path], unit: str
) -> Iterator[dict[str, RecordedResponses]]:
    """Open the recording stores of several animals for scoring in `unit`, closed at the end."""
    with ExitStack() as stack:
        opened = {}
        for animal, path in recordings.items():
            recording = stack.enter_context(Recording(path))
            precision = score_precision(unit, recording)
            opened[animal] = RecordedResponses(recording, unit=unit, precision=precision)
        yield opened


@contextmanager
def open_units(
    recordings: Mapping[str, Path], units: Iterable[str]
) -> Iterator[dict[str, dict[str, RecordedResponses]]]:
    """`open_responses` in several units, by unit."""
    with ExitStack() as stack:
        yield {unit: stack.enter_context(open_responses(recordings, unit)) for unit in units}


@dataclass
class ScoringPlan:
    """Which of the predicted trials of an animal are scored, in which order, and which are not.

    Attributes:
        scored: trials by (tier, stimulus type) and then by video, all repeats of a video together,
            so that only one video at a time is averaged over its repeats.
        excluded: trial -> (tier, stimulus type, reason).
    """

    scored: dict[tuple[str, str], dict[str, list[int]]] = field(default_factory=dict)
    excluded: dict[int, tuple[str, str, Reason]] = field(default_factory=dict)


def scoring_plan(
    trials: Iterable[int],
    responses: RecordedResponses,
    left_out: Collection[int],
    fitted_on: Collection[int] = (),
) -> ScoringPlan:
    """Sort predicted trials by video; exclude withheld ones and some others.

    Args:
        left_out: trials whose video was trained on.
        fitted_on: trials on which the weights of an ensemble were fitted.
    """
    plan = ScoringPlan()
    left_out, fitted_on = ({int(trial) for trial in some} for some in (left_out, fitted_on))
    by_key: dict[tuple[str, str, str], list[int]] = {}
    for trial in sorted(int(trial) for trial in trials):
        if trial >= len(responses.tiers):
            raise ValueError(
                f"trial {trial} of animal {responses.animal} was predicted, but the recording has "
                f"only {len(responses.tiers)} trials. Predict again from this recording."
            )
        tier, stimulus_type = responses.tiers[trial], responses.stimulus_types[trial]
        if not responses.public[trial]:
            plan.excluded[trial] = (tier, stimulus_type, "responses withheld")
        elif trial in left_out:
            plan.excluded[trial] = (tier, stimulus_type, "trained on")
        elif trial in fitted_on:
            plan.excluded[trial] = (tier, stimulus_type, "weights fitted on")
        else:
            by_key.setdefault((tier, stimulus_type, responses.videos[trial]), []).append(trial)
    for (tier, stimulus_type, video), repeats in sorted(by_key.items()):
        plan.scored.setdefault((tier, stimulus_type), {})[video] = repeats
    return plan
