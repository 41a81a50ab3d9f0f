"""What a study will take before anything is submitted: GPU hours, disk, the longest chain of jobs.

GPU hours are those that finished members of the same system took; where there are none, those of
the paper (arXiv 2407.09100, Table 2); else the limit in the system's file, as an upper bound. Disk
is counted from what is there, and estimated from numbers of trials where nothing is.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sensorium_models.evaluation.moments_file import crossed_bytes, largest_bytes
from sensorium_models.finished import is_whole, member_folder, read_record
from sensorium_models.finished_recordings import store_path
from sensorium_models.reporting.published import published
from sensorium_models.settings import SimulatedSource
from sensorium_models.study import Study
from sensorium_models.submission import UPLOADS, is_submitted, uploads_of

# Of a SENSORIUM 2023 recording, the median of the ten animals (metadata of the archives).
_TRIALS = {
    "train": 353,
    "oracle": 59,
    "live_test_main": 58,
    "live_test_bonus": 59,
    "final_test_main": 59,
    "final_test_bonus": 120,
}
_REPEATS = 10  # of a video that is no training video
_TYPES = {"final_test_bonus": 2}  # stimulus types, where there is more than one
_FRAMES, _PIXELS = 300, 36 * 64
_ARCHIVE_BYTES = 15e9
_MEMBER_BYTES = 0.3e9  # weights of a published network, readouts of ten animals included


@dataclass(frozen=True)
class Cost:
    """GPU hours of one member of a system, and where the number comes from."""

    hours: float
    source: str


@dataclass(frozen=True)
class SystemPlan:
    """Members of one system for one training set: how many are to be trained, at what cost each."""

    training_set: str
    system: str
    members: int
    waiting: int
    cost: Cost

    @property
    def hours(self) -> float:
        """GPU hours that are still to be spent."""
        return self.waiting * self.cost.hours


def plan_systems(study: Study) -> list[SystemPlan]:
    """One entry for each system and training set; imported members cost nothing."""
    plans = []
    for training_set, system in study.trainings():
        names = study.members(system)
        folders = [member_folder(study, training_set, system, name) for name in names]
        finished = [folder for folder in folders if is_whole(folder)]
        imported = study.is_imported(training_set, system)
        plans.append(
            SystemPlan(
                training_set=training_set,
                system=system,
                members=len(names),
                waiting=0 if imported else len(names) - len(finished),
                cost=Cost(0.0, "imported") if imported else member_cost(study, system),
            )
        )
    return plans


def member_cost(study: Study, system: str) -> Cost:
    """GPU hours of one member: measured, published, or what its file allows at most."""
    measured = []
    for path in sorted(_members(study).glob(f"*/{system}/*/run.json")):
        seconds = float((read_record(path.parent) or {}).get("gpu_seconds", 0.0))
        if seconds > 0:
            measured.append(seconds / 3600)
    if measured:
        return Cost(sum(measured) / len(measured), f"measured, {len(measured)} members")
    known = study.systems[system].published_as or system
    table = published()
    rows = table[(table["source_table"] == "2") & (table["system"] == known)]
    values = dict(zip(rows["quantity"], rows["value"], strict=True))
    if "wall_time" in values:
        gpus = int(values["gpu"].partition(" x ")[0])
        return Cost(gpus * float(values["wall_time"]), f"Table 2, {values['gpu']}")
    asked = study.systems[system].resources
    return Cost(asked.gpus * asked.runtime_hours, "at most, by its file")


def disk(study: Study) -> dict[str, float]:
    """Bytes of each stage when the study is whole, by stage (scores and report: some MB more)."""
    results = study.settings.results
    settings = study.settings
    archives = recordings = 0.0
    for animal in settings.animals:
        recording = study.recording(animal)
        archive = settings.archives / f"{recording.folder}.zip"
        if recording.source.kind in ("gin", "simulated"):  # others stay where they lie
            small = recording.source.kind == "simulated"
            estimate = _store_bytes(study, animal) if small else _ARCHIVE_BYTES
            archives += _size(archive) or estimate
        recordings += _size(store_path(study, animal)) or _store_bytes(study, animal)
    members = predictions = moments = ensembles = submissions = 0.0
    for training_set, system in study.trainings():
        for member in study.members(system):
            folder = member_folder(study, training_set, system, member)
            members += sum(map(_size, folder.glob("*"))) or _MEMBER_BYTES
    for protocol in settings.protocols:
        place, animals = results / protocol, study.predicted_animals(protocol)
        tiers = study.protocol(protocol).tiers
        one = sum(_predicted_bytes(study, animal, tiers) for animal in animals)
        uploads = {
            name: sum(_predicted_bytes(study, animal, UPLOADS[name]) for animal in animals)
            for name in (uploads_of(tiers) if is_submitted(study, protocol) else [])
        }
        by_video = sum(_moments_bytes(study, protocol, animal) for animal in animals)
        averaged = {system: len(study.members(system)) for system in settings.systems}
        for system in settings.systems:
            for member in study.members(system):
                predictions += _size(place / "predictions" / system / f"{member}.h5") or one
                moments += _size(place / "moments" / system / f"{member}.h5") or by_video
        for name, joint in study.joint_ensembles(protocol).items():
            averaged[name] = len(joint.members)
        for name, count in averaged.items():
            crossed = sum(_crossed_bytes(study, protocol, animal, count) for animal in animals)
            ensembles += _size(place / "ensembles" / name) or one + by_video + crossed
            for upload, estimate in uploads.items():
                submissions += _size(place / "submissions" / name / f"{upload}.zip") or estimate
    kept = {"predictions of members": predictions} if settings.keep_predictions else {}
    return {
        "archives": archives,
        "recordings": recordings,
        "members": members,
        **kept,
        "moments of members": moments,
        "ensembles": ensembles,
        **({"submissions": submissions} if submissions else {}),
    }


def longest_chain(study: Study) -> tuple[list[str], float]:
    """Stages that must follow one another for the slowest member, and its GPU hours of training."""
    chains = []
    for training_set, system in study.trainings():
        cost = member_cost(study, system).hours
        for member in study.members(system):
            lineage = [member]
            while (teacher := study.teacher(system, lineage[0])) is not None:
                lineage.insert(0, teacher)
            names = [f"train {training_set}/{system}/{name}" for name in lineage]
            chains.append((cost * len(lineage), names))
    hours, trainings = max(chains, key=lambda chain: chain[0])
    before, after = (
        ["archive", "preprocess", "split"],
        ["predict", "ensemble", "evaluate", "report"],
    )
    return [*before, *trainings, *after], hours


def report(study: Study, jobs: Mapping[str, int]) -> str:
    """The plan as text.

    Args:
        jobs: number of jobs by rule, as Snakemake counts them without running any.
    """
    systems = plan_systems(study)
    width = max(len(f"{plan.system} ({plan.training_set})") for plan in systems)
    lines = [f"{study.settings.study}: {sum(jobs.values())} jobs to run"]
    lines += ["", *(f"  {rule:<26}{count:>6}" for rule, count in jobs.items())]
    lines += ["", "GPU hours of training (predicting is not counted)", ""]
    for plan in systems:
        name = f"{plan.system} ({plan.training_set})"
        each = f"{plan.cost.hours:8.2f} each, {plan.cost.source}"
        count = f"{plan.waiting:>4} of {plan.members:<4}"
        lines.append(f"  {name:<{width}}{count} members{plan.hours:>10.1f} h ({each.strip()})")
    lines.append(f"  {'in all':<{width}}{sum(plan.hours for plan in systems):>27.1f} h")
    stages = disk(study)
    lines += ["", "Disk when all is there, GB", ""]
    lines += [f"  {stage:<26}{size / 1e9:>10.2f}" for stage, size in stages.items()]
    lines.append(f"  {'in all':<26}{sum(stages.values()) / 1e9:>10.2f}")
    chain, hours = longest_chain(study)
    lines += [
        "",
        f"Longest chain: {len(chain)} jobs, {hours:.1f} GPU hours of training in a row",
        "",
    ]
    lines.append(f"  {' -> '.join(chain)}")
    return "\n".join(lines) + "\n"


def _members(study: Study) -> Path:
    return study.settings.results / "members"


def _size(path: Path) -> float:
    if path.is_dir():
        return sum(map(_size, path.iterdir()))
    return float(path.stat().st_size) if path.is_file() else 0.0


def _trials(study: Study, animal: str, tier: str) -> int:
    source = study.recording(animal).source
    if not isinstance(source, SimulatedSource):
        return _TRIALS.get(tier, 0)
    if tier == study.train_tier:
        return source.training_trials
    return 0 if tier in study.unused_tiers else source.test_videos * source.repeats


def _store_bytes(study: Study, animal: str) -> float:
    """Video as bytes, four behavioural signals and responses where they are known as float32."""
    neurons, withheld = study.recording(animal).neurons, study.withheld_tiers(animal)
    return sum(
        _trials(study, animal, tier)
        * _FRAMES
        * (_PIXELS + 16 + (0 if tier in withheld else 4 * neurons))
        for tier in study.settings.tiers
    )


def _predicted_bytes(study: Study, animal: str, tiers: Iterable[str]) -> float:
    """float16 of every neuron and scored frame."""
    scored = study.settings.scored_frames
    frames = min(_FRAMES, scored.cap or _FRAMES) - scored.first - scored.drop_last
    trials = sum(_trials(study, animal, tier) for tier in tiers)
    return 2.0 * trials * frames * study.recording(animal).neurons


def _moments_bytes(study: Study, protocol: str, animal: str) -> int:
    """Of one member or mean, by video, in all units."""
    tiers = study.protocol(protocol).tiers
    return largest_bytes(
        neurons=study.recording(animal).neurons,
        videos=sum(_videos(study, animal, tier) for tier in tiers),
        units=1 + len(study.further_units(protocol)),
    )


def _crossed_bytes(study: Study, protocol: str, animal: str, members: int) -> int:
    """Of all pairs of members, by tier and stimulus type."""
    types = sum(_TYPES.get(tier, 1) for tier in study.protocol(protocol).tiers)
    return crossed_bytes(neurons=study.recording(animal).neurons, groups=types, members=members)


def _videos(study: Study, animal: str, tier: str) -> int:
    source = study.recording(animal).source
    repeats = source.repeats if isinstance(source, SimulatedSource) else _REPEATS
    return math.ceil(_trials(study, animal, tier) / repeats)
