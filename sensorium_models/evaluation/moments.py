"""The durable result of a member: per neuron and video the sums from which its scores follow.

For each animal, tier, stimulus type and video: joint moments of (prediction, response) over single
trials, and over the averages of the repeats (specs/metrics.md sections 2 and 3). Kept per video, so
that videos can be left out or resampled later. Any order of trials, any division into pieces of
trials, processes and files gives the same correlations to 1e-12 (numerics: `streaming`).
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from sensorium_models.evaluation.streaming import (
    JointMoments,
    RepeatAverage,
    repeated_moments,
)

SIGNALS = ("prediction", "response")
Reason = Literal["trained on", "responses withheld", "weights fitted on"]
REASONS: tuple[Reason, ...] = ("trained on", "responses withheld", "weights fitted on")
Group = tuple[str, str]  # tier, stimulus type


@dataclass
class GroupMoments:
    """Joint moments of one tier and stimulus type of an animal; the response is the last signal."""

    single_trial: JointMoments
    repeat_average: JointMoments
    trials: int = 0
    videos: int = 0
    trials_left_out: int = 0  # their video was trained on
    trials_withheld: int = 0  # their responses are not public
    trials_fitted: int = 0  # the weights of an ensemble were fitted on them

    @classmethod
    def empty(cls, signals: int, neurons: int) -> "GroupMoments":
        """A group in which nothing was scored yet."""
        return cls(JointMoments.empty(signals, neurons), JointMoments.empty(signals, neurons))

    def add(self, video: "VideoMoments") -> None:
        """Add the moments of one more video, in place."""
        self.single_trial.add(video.single_trial)
        self.repeat_average.add(video.averaged())
        self.trials += len(video.trials)
        self.videos += 1

    def leave_out(self, reason: Reason) -> None:
        """Count a trial that is not scored."""
        if reason == "trained on":
            self.trials_left_out += 1
        elif reason == "responses withheld":
            self.trials_withheld += 1
        else:
            self.trials_fitted += 1

    @property
    def frames(self) -> int:
        """Scored frames of all trials together."""
        return self.single_trial.count


@dataclass
class VideoMoments:
    """Moments of one video, shown in `trials`: scored frame spans [start, stop) by trial index.

    `repeats` holds frame sums as long as more repeats may come, `repeat_average` is set afterwards.
    """

    single_trial: JointMoments
    repeats: RepeatAverage | None
    repeat_average: JointMoments | None = None
    trials: dict[int, list[tuple[int, int]]] = field(default_factory=dict)

    def finish(self) -> None:
        """Turn the frame sums into moments and free them."""
        if self.repeats is not None:
            self.repeat_average = self.repeats.moments(len(self.trials))
            self.repeats = None

    def averaged(self) -> JointMoments:
        """Moments of the repeat averages, as of now."""
        if self.repeat_average is not None:
            return self.repeat_average
        assert self.repeats is not None
        return self.repeats.moments(len(self.trials))


class AnimalMoments:
    """Moments of one member on one animal.

    Args:
        neuron_ids: (N,) unit ids, in the order of the columns of every response and prediction.
    """

    def __init__(self, neuron_ids: np.ndarray) -> None:
        self.neuron_ids = np.asarray(neuron_ids, dtype=np.int64)
        self.videos: dict[tuple[str, str, str], VideoMoments] = {}
        self.excluded: dict[int, tuple[str, str, Reason]] = {}

    @property
    def neurons(self) -> int:
        """Number of neurons N."""
        return self.neuron_ids.size

    def add_trial(
        self,
        *,
        tier: str,
        stimulus_type: str,
        video: str,
        trial: int,
        response: np.ndarray,
        prediction: np.ndarray,
        start: int = 0,
    ) -> None:
        """Add the scored frames of one trial, both (frames, N) in the score unit.

        A trial may come in pieces: `start` is the index, among its scored frames, of the first one
        given. Repeats are trials with the same `video`.

        Raises:
            ValueError: shapes disagree, a value is not finite, frames of the trial were added
                before, or the video was finished.
        """
        where = f"trial {trial} (tier {tier}, video {video})"
        self._check(where, prediction, response)
        moments = JointMoments.of([prediction, response])
        if not moments.is_finite():
            which = "response" if np.isfinite(prediction).all() else "prediction"
            raise ValueError(f"the {which} of {where} has values that are not finite.")
        entry = self._entry(tier, stimulus_type, video)
        if entry.repeats is None:
            raise ValueError(f"{where} comes after its video was finished; add all repeats first.")
        span = (start, start + len(response))
        entry.trials[trial] = _joined(entry.trials.get(trial, []), [span], where)
        entry.single_trial.add(moments)
        entry.repeats.add([prediction, response], start=start)

    def add_video(
        self,
        *,
        tier: str,
        stimulus_type: str,
        video: str,
        repeats: Mapping[int, tuple[np.ndarray, np.ndarray]],
        factor: np.ndarray | None = None,
    ) -> None:
        """Add all repeats of a video at once, which is quicker than trial by trial, and finish it.

        Args:
            repeats: by trial (prediction, response), both (frames, N), all scored frames, in the
                score unit. Held in memory together: about 16 MB for a trial of 8,000 neurons.
            factor: (frames or 1, N), what turns them into the unit of these moments, if another.

        Raises:
            ValueError: as `add_trial`, or the video was added before.
        """
        where = f"tier {tier}, video {video}"
        if (tier, stimulus_type, video) in self.videos:
            raise ValueError(f"{where} was added before; every video is added once.")
        for trial, (prediction, response) in repeats.items():
            self._check(f"trial {trial} ({where})", prediction, response)
        single, average = repeated_moments(list(repeats.values()), factor)
        if not single.is_finite():
            for trial, signals in repeats.items():
                for name, values in zip(SIGNALS, signals, strict=True):
                    if factor is not None:
                        values = values * factor[: len(values)]
                    if not np.isfinite(values).all():
                        raise ValueError(
                            f"the {name} of trial {trial} ({where}) has values that are not finite."
                        )
        spans = {trial: [(0, len(response))] for trial, (_, response) in repeats.items()}
        self.videos[tier, stimulus_type, video] = VideoMoments(single, None, average, spans)

    def exclude(self, *, tier: str, stimulus_type: str, trial: int, reason: Reason) -> None:
        """Record that a trial is not scored, and why."""
        self.excluded[int(trial)] = (tier, stimulus_type, reason)

    def finish(self) -> None:
        """Close all videos: no more repeats come, the frame sums (the bulk of memory) are freed."""
        for entry in self.videos.values():
            entry.finish()

    def merge(self, other: "AnimalMoments") -> None:
        """Add the moments of other trials, in place (`other` must not be used afterwards).

        Raises:
            ValueError: other neurons, trials in common, a trial that one scored and the other left
                out, or the repeats of a video that was finished are spread over both.
        """
        if not np.array_equal(self.neuron_ids, other.neuron_ids):
            raise ValueError("moments of different neurons cannot be merged.")
        for scored, excluded in ((self.scored(), other.excluded), (other.scored(), self.excluded)):
            if both := sorted(scored & excluded.keys()):
                raise ValueError(
                    f"trial {both[0]} was scored in one part and left out of the other "
                    f"({excluded[both[0]][2]}); score both with the same split."
                )
        for key, theirs in other.videos.items():
            if key not in self.videos:
                self.videos[key] = theirs
                continue
            ours, where = self.videos[key], f"video {key[2]} of tier {key[0]}"
            if ours.repeats is None or theirs.repeats is None:
                raise ValueError(
                    f"{where} was finished before all of its repeats were together; merge first, "
                    f"then finish."
                )
            for trial, spans in theirs.trials.items():
                what = f"trial {trial} ({where})"
                ours.trials[trial] = _joined(ours.trials.get(trial, []), spans, what)
            ours.single_trial.add(theirs.single_trial)
            ours.repeats.merge(theirs.repeats)
        self.excluded.update(other.excluded)

    def scored(self) -> set[int]:
        """Trials that count."""
        return {trial for entry in self.videos.values() for trial in entry.trials}

    def groups(self, *, without: Collection[str] = ()) -> dict[Group, GroupMoments]:
        """Moments by tier and stimulus type, sorted; the videos in `without` are left out.

        A group whose trials are all excluded is there too, with zero frames.
        """
        groups: dict[Group, GroupMoments] = {}
        for tier, stimulus_type, _ in sorted([*self.videos, *self.excluded.values()]):
            groups.setdefault((tier, stimulus_type), GroupMoments.empty(len(SIGNALS), self.neurons))
        # Sorted, so that the order in which videos came does not show, not even in the last bit.
        for (tier, stimulus_type, video), entry in sorted(self.videos.items()):
            if video not in without:
                groups[tier, stimulus_type].add(entry)
        for tier, stimulus_type, reason in self.excluded.values():
            groups[tier, stimulus_type].leave_out(reason)
        return groups

    def group(self, group: Group, videos: Collection[str]) -> GroupMoments:
        """Moments of some videos of a tier and stimulus type, joined."""
        result = GroupMoments.empty(len(SIGNALS), self.neurons)
        for key, entry in sorted(self.videos.items()):
            if key[:2] == group and key[2] in videos:
                result.add(entry)
        return result

    def _check(self, where: str, prediction: np.ndarray, response: np.ndarray) -> None:
        expected = (len(prediction), self.neurons)
        if response.shape != expected or prediction.shape != expected or not len(prediction):
            raise ValueError(
                f"response {response.shape} and prediction {prediction.shape} of {where} must both "
                f"be (frames, {self.neurons} neurons), with at least one frame."
            )

    def _entry(self, tier: str, stimulus_type: str, video: str) -> VideoMoments:
        key = (tier, stimulus_type, video)
        if key not in self.videos:
            self.videos[key] = VideoMoments(
                JointMoments.empty(len(SIGNALS), self.neurons),
                RepeatAverage(len(SIGNALS), self.neurons),
            )
        return self.videos[key]


@dataclass
class Moments:
    """All moments of one member; `attributes` are those of its prediction file.

    Written to and read from HDF5 by `moments_file`; picklable, so processes can return it.
    `further` holds, by unit, those of the same trials in other units than the score unit.
    """

    attributes: Mapping[str, object]
    animals: dict[str, AnimalMoments] = field(default_factory=dict)
    further: dict[str, "Moments"] = field(default_factory=dict)

    @classmethod
    def started(cls, attributes: Mapping[str, object], units: Iterable[str]) -> "Moments":
        """Without any trial yet, in the score unit of `attributes` and in further `units`."""
        further = {unit: cls({**attributes, "score_unit": unit}) for unit in units}
        return cls(attributes, {}, further)

    def in_units(self) -> list["Moments"]:
        """In the score unit and in every further one."""
        return [self, *self.further.values()]

    def merge(self, other: "Moments") -> None:
        """Add what another process or file gathered for the same member, in place.

        Raises:
            ValueError: the two describe different members, units or frames, or trials overlap.
        """
        different = [
            key
            for key in {*self.attributes, *other.attributes}
            if self.attributes.get(key) != other.attributes.get(key)
        ]
        if different:
            raise ValueError(
                f"moments that differ in {', '.join(sorted(different))} cannot be merged."
            )
        if self.further.keys() != other.further.keys():
            raise ValueError("moments in different further units cannot be merged.")
        for animal, theirs in other.animals.items():
            if animal in self.animals:
                self.animals[animal].merge(theirs)
            else:
                self.animals[animal] = theirs
        for unit, moments in self.further.items():
            moments.merge(other.further[unit])


def _joined(
    known: list[tuple[int, int]], added: list[tuple[int, int]], where: str
) -> list[tuple[int, int]]:
    # Without this check a trial that two processes both scored would count double in silence.
    joined: list[tuple[int, int]] = []
    for start, stop in sorted([*known, *added]):
        if joined and start < joined[-1][1]:
            raise ValueError(f"frames {start}..{joined[-1][1] - 1} of {where} were added twice.")
        if joined and start == joined[-1][1]:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    return joined
