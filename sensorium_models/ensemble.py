"""Ensembles: the mean prediction of several members, and the cross-moments that score any subset.

Reads prediction files and responses, never networks, one trial at a time. The cross-moments are
read back, and scores of subsets computed from them, by `evaluation.subsets`.
"""

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

import h5py
import numpy as np

from sensorium_models import files
from sensorium_models.evaluation.moments import (
    SIGNALS,
    AnimalMoments,
    Group,
    GroupMoments,
    Moments,
)
from sensorium_models.evaluation.moments_file import (
    crossed_bytes,
    numbers_per_neuron,
    write_moments,
)
from sensorium_models.evaluation.responses import RecordedResponses, ScoringPlan, scoring_plan
from sensorium_models.evaluation.scores import add_in_units, matching
from sensorium_models.evaluation.streaming import JointMoments, RepeatAverage
from sensorium_models.evaluation.subsets import write_groups, write_header
from sensorium_models.predictions import PredictionAttributes, Predictions, PredictionWriter
from sensorium_models.progress import track

MEMBER = "ensemble"


class EnsembleError(ValueError):
    """Members that cannot be averaged with each other."""


def build_ensemble(
    *,
    name: str,
    members: Sequence[Path],
    responses: Mapping[str, RecordedResponses],
    predictions: Path,
    moments: Path,
    mean: Path,
    weights: Sequence[float] | None = None,
    left_out: Mapping[str, Collection[int]] | None = None,
    fitted_on: Mapping[str, Collection[int]] | None = None,
    further: Mapping[str, Mapping[str, RecordedResponses]] | None = None,
) -> None:
    """Write the mean prediction of `members` and their cross-moments, reading each trial once.

    Needs about K x frames of a trial x N x 12 bytes, and 8 for each repeat: 0.5 GB for 14 members
    of 8,000 neurons.

    Args:
        name: of the ensemble; becomes `system` of both files, `member` is "ensemble".
        members: prediction files; their order is the order of signals in the moments.
        responses: by animal, in the score unit of the files.
        predictions, moments, mean: the files to write; `mean` holds moments of the mean prediction
            by video, like those of a member. Layout of the cross-moments, per animal: `neuron_ids`,
            and for each tier and type a group `{0,1,..}` with attributes tier, stimulus_type and
            counts, and `{single_trial,repeat_average}/{mean (K+1, N), products (P, N)}`, the last
            signal being the response and P = (K+1)(K+2)/2 the packed upper triangle.
        weights: one per member, summing to one; default equal.
        left_out: by animal, trials whose video ANY member trained on; predicted, not scored.
        fitted_on: by animal, trials on which `weights` were fitted; predicted, not scored.
        further: by unit and animal, responses in which the mean is scored too, in `mean` only.

    Raises:
        EnsembleError: members differ in trials, neurons, frames, unit or recordings, members of one
            system in their training set, one is there twice, or the weights do not fit.
        OSError: the disk has no room for the mean prediction and the moments.
    """
    left_out, fitted_on = left_out or {}, fitted_on or {}
    with ExitStack() as stack:
        sources = [stack.enter_context(Predictions(path)) for path in members]
        _check_members(sources)
        weighting = _weighting(len(sources), weights)
        first = sources[0]
        plans = {
            animal: scoring_plan(
                first.trials(animal),
                matching(first, animal, responses),
                left_out.get(animal, ()),
                fitted_on.get(animal, ()),
            )
            for animal in first.animals
        }
        size = {"members": len(sources), "units": 1 + len(further or {})}
        needed = sum(
            _moments_bytes(plan, first.neuron_ids(animal).size, **size)
            for animal, plan in plans.items()
        )
        files.check_room(predictions, first.path.stat().st_size + needed)
        trained = sorted({source.attributes.training_set for source in sources})
        attributes = replace(
            first.attributes,
            system=name,
            member=MEMBER,
            training_set=" and ".join(trained),
            fingerprint=_fingerprint([source.attributes for source in sources], weights),
        )
        temporary = stack.enter_context(files.replacing(moments))
        output = stack.enter_context(h5py.File(temporary, "w", locking=False))
        writer = stack.enter_context(PredictionWriter(predictions, **asdict(attributes)))
        write_header(
            output,
            attributes=asdict(attributes),
            members=[(source.attributes.system, source.attributes.member) for source in sources],
            weights=weighting,
        )
        gathered = Moments.started(asdict(attributes), further or {})
        for animal, plan in plans.items():
            recorded = responses[animal]
            target = output.create_group(animal)
            target["neuron_ids"] = first.neuron_ids(animal)
            of_mean = []
            for unit in gathered.in_units():
                unit.animals[animal] = AnimalMoments(first.neuron_ids(animal))
                unit.animals[animal].excluded.update(plan.excluded)
                of_mean.append(unit.animals[animal])
            units = [recorded, *(by_animal[animal] for by_animal in (further or {}).values())]
            groups = _animal_groups(sources, weights, animal, units, plan, writer, of_mean)
            write_groups(target, groups)
        write_moments(mean, gathered)


def _moments_bytes(plan: ScoringPlan, neurons: int, *, members: int, units: int) -> int:
    """Size of an animal's cross-moments and of the moments of the mean by video, in all units."""
    videos = sum(len(by_video) for by_video in plan.scored.values())
    crossed = crossed_bytes(neurons=neurons, groups=len(_groups_of(plan)), members=members)
    return crossed + 8 * neurons * units * videos * numbers_per_neuron(len(SIGNALS))


def _groups_of(plan: ScoringPlan) -> list[Group]:
    """Tiers and stimulus types of all trials, sorted."""
    return sorted({*plan.scored, *((tier, kind) for tier, kind, _ in plan.excluded.values())})


def _check_members(sources: Sequence[Predictions]) -> None:
    if not sources:
        raise EnsembleError("an ensemble needs at least one member.")
    names = [(source.attributes.system, source.attributes.member) for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise EnsembleError(f"member {name[1]} of {name[0]} is in the ensemble twice.")
    first = sources[0]
    for other in sources[1:]:
        between = f"{first.path} and {other.path} cannot be averaged"
        ours, theirs = first.attributes, other.attributes
        for key in (
            "protocol",
            # What another system learned from is another matter.
            *(["training_set"] if ours.system == theirs.system else []),
            "score_unit",
            "first_scored_frame",
            "frame_convention",
            "recording_digests",
        ):
            values = getattr(ours, key), getattr(theirs, key)
            if values[0] != values[1]:
                raise EnsembleError(f"{between}: {key} is {values[0]!r} and {values[1]!r}.")
        if first.animals != other.animals:
            raise EnsembleError(f"{between}: animals {first.animals} and {other.animals}.")
        for animal in first.animals:
            if not np.array_equal(first.neuron_ids(animal), other.neuron_ids(animal)):
                raise EnsembleError(f"{between}: neuron ids of animal {animal} differ.")
            differing = set(first.trials(animal)) ^ set(other.trials(animal))
            if differing:
                raise EnsembleError(
                    f"{between}: of animal {animal} only one of them has trials "
                    f"{', '.join(map(str, sorted(differing)[:10]))}. Predict the other again."
                )
            for trial in first.trials(animal):
                frames = first.frames(animal, trial), other.frames(animal, trial)
                if frames[0] != frames[1]:
                    raise EnsembleError(
                        f"{between}: animal {animal}, trial {trial} has {frames[0]} and "
                        f"{frames[1]} scored frames."
                    )


def _weighting(members: int, weights: Sequence[float] | None) -> list[float]:
    if weights is None:
        return [1 / members] * members
    weighting = [float(weight) for weight in weights]
    if len(weighting) != members or abs(sum(weighting) - 1) > 1e-9:
        raise EnsembleError(
            f"{members} members need as many weights that sum to one, not {weighting}."
        )
    return weighting


def _fingerprint(members: Sequence[PredictionAttributes], weights: Sequence[float] | None) -> str:
    content = [[member.system, member.member, member.fingerprint] for member in members]
    weighted = [] if weights is None else [list(map(float, weights))]
    return hashlib.sha256(json.dumps(content + weighted).encode()).hexdigest()


def _animal_groups(
    sources: Sequence[Predictions],
    weights: Sequence[float] | None,
    animal: str,
    units: Sequence[RecordedResponses],
    plan: ScoringPlan,
    writer: PredictionWriter,
    of_mean: Sequence[AnimalMoments],
) -> Iterator[tuple[Group, GroupMoments]]:
    """Write the mean of every trial; yield the moments of each tier and type when it is done.

    Moments of the mean itself are added to `of_mean`, one for each unit; the first is the score
    unit.
    """
    neuron_ids = sources[0].neuron_ids(animal)
    start = sources[0].attributes.first_scored_frame
    signals = len(sources) + 1

    def members_of(trial: int) -> tuple[list[np.ndarray], np.ndarray]:
        read = [source.read(animal, trial) for source in sources]
        mean: np.ndarray = (
            np.mean(read, axis=0)
            if weights is None
            else np.tensordot(np.asarray(weights, dtype=np.float32), read, axes=1)
        )
        writer.add(animal, neuron_ids, trial, mean)
        return read, mean

    for key in track(_groups_of(plan), f"ensemble of {len(sources)}, {animal}", unit="set"):
        group = GroupMoments.empty(signals, neuron_ids.size)
        for trial, (tier, stimulus_type, reason) in plan.excluded.items():
            if (tier, stimulus_type) == key:
                members_of(trial)
                group.leave_out(reason)
        for video, repeats in plan.scored.get(key, {}).items():
            average = RepeatAverage(signals, neuron_ids.size)
            means = {}
            for trial in repeats:
                read, mean = members_of(trial)
                read.append(units[0].read(trial, start, start + len(read[0])))
                means[trial] = mean, read[-1]
                group.single_trial.add(JointMoments.of(read))
                average.add(read)
            group.repeat_average.add(average.moments(len(repeats)))
            add_in_units(of_mean, units, start, (*key, video), means)
            group.trials += len(repeats)
            group.videos += 1
        if not group.single_trial.is_finite():
            raise EnsembleError(
                f"the recorded responses of animal {animal}, tier {key[0]}, are not all finite."
            )
        yield key, group
