# Look-ups for the rules: the validated study, paths of results, members. No logic of its own.
import sys
from pathlib import Path

sys.path.insert(0, workflow.basedir)

from sensorium_models import finished_recordings, fingerprints, slurm
from sensorium_models.allocator import keep_freed_memory
from sensorium_models.finished import MemberGuard
from sensorium_models.jobs import make_importable
from sensorium_models.submission import UPLOADS, is_submitted, uploads_of
from sensorium_models.study import ConfigurationError, load_study

try:
    STUDY = load_study(
        config,
        [Path(workflow.basedir) / "config.yaml", *workflow.overwrite_configfiles],
    )
    # What the scripts are handed: without the keys of sources that the study replaced.
    config["recordings"] = STUDY.raw_recordings
    make_importable(workflow.basedir, *STUDY.settings.systems_folders)
    keep_freed_memory()
    if workflow.is_main_process:
        # Building the networks' skeletons finds a wrong setting now, not in a queued job. The jobs
        # themselves need not import torch for it again.
        from sensorium_models.networks.build import check_study

        check_study(STUDY)
        for _key in STUDY.left_out:
            logger.warning(
                f"{_key} is left out: it names a system that is not among `systems`"
            )
except ConfigurationError as error:
    raise WorkflowError(f"\n{error}") from None

RESULTS = str(STUDY.settings.results)
PROTOCOLS = STUDY.settings.protocols
SYSTEMS = STUDY.settings.systems
GUARD = MemberGuard(STUDY)
if STUDY.settings.adopt_members and workflow.is_main_process and not workflow.dryrun:
    for _adopted in GUARD.adopt():
        logger.info(f"adopted as it is: {_adopted}")

RECORDING = f"{RESULTS}/recordings/{{animal}}.h5"
RECEIPT = f"{RESULTS}/receipts/{{animal}}.json"
VIDEOS = f"{RESULTS}/videos.parquet"
SPLIT = f"{RESULTS}/splits/{{training_set}}/{{system}}/{{member}}.parquet"
MEMBER = f"{RESULTS}/members/{{training_set}}/{{system}}/{{member}}"
PREDICTIONS = f"{RESULTS}/{{protocol}}/predictions/{{system}}/{{member}}.h5"
MOMENTS = f"{RESULTS}/{{protocol}}/moments/{{system}}/{{member}}.h5"
ENSEMBLE = f"{RESULTS}/{{protocol}}/ensembles/{{system}}"
CEILINGS = f"{RESULTS}/{{protocol}}/ceilings.h5"
ACHIEVABLE = f"{RESULTS}/{{protocol}}/achievable.parquet"
INTERVALS = f"{RESULTS}/{{protocol}}/intervals.parquet"
COMPARISONS = f"{RESULTS}/{{protocol}}/comparisons.parquet"
SCORES = f"{RESULTS}/{{protocol}}/scores/{{system}}.parquet"
SCORES_IN_UNIT = f"{RESULTS}/{{protocol}}/scores/{{system}}.{{unit}}.parquet"
SERVED = f"{RESULTS}/{{protocol}}/served/{{system}}.parquet"
SUBMISSION = f"{RESULTS}/{{protocol}}/submissions/{{system}}/{{upload}}.zip"
FIGURE = f"{RESULTS}/report/figures/{{figure}}"
TABLE = f"{RESULTS}/report/tables/{{table}}"
LOGS = f"{RESULTS}/logs"
BENCHMARKS = f"{RESULTS}/benchmarks"


wildcard_constraints:
    animal="|".join(STUDY.settings.animals),
    system="|".join([*SYSTEMS, *STUDY.settings.ensembles]),
    unit="[a-z_]+",
    protocol="|".join(PROTOCOLS),
    training_set="published|clean",
    member="[A-Za-z0-9_-]+",


def animals_from(*kinds):
    """Wildcard pattern of the animals whose source is of one of these kinds."""
    names = [
        a for a in STUDY.settings.animals if STUDY.recording(a).source.kind in kinds
    ]
    return "|".join(names) or "(?!)"


def archive_path(wildcards):
    return finished_recordings.archive_path(STUDY, wildcards.animal)


def archive_state(wildcards):
    return finished_recordings.archive_state(STUDY, wildcards.animal)


def store_fingerprint(wildcards):
    return finished_recordings.store_fingerprint(STUDY, wildcards.animal)


def recordings_of(animals):
    return expand(RECORDING, animal=animals)


def training_recordings(wildcards):
    return recordings_of(
        STUDY.training_animals(wildcards.training_set, wildcards.system)
    )


def published_checkpoint(wildcards):
    return str(STUDY.published_weights(**wildcards))


def teacher_files(wildcards):
    """The finished member from which this one learns, if it does."""
    teacher = STUDY.teacher(wildcards.system, wildcards.member)
    folder = MEMBER.format(**{**wildcards, "member": teacher})
    return [f"{folder}/run.json", f"{folder}/weights.safetensors"] if teacher else []


def predicted_recordings(wildcards):
    return recordings_of(STUDY.predicted_animals(wildcards.protocol))


def training_set(wildcards):
    return STUDY.training_set_of(wildcards.system, wildcards.protocol)


def split_of(wildcards):
    return SPLIT.format(
        training_set=training_set(wildcards),
        system=wildcards.system,
        member=wildcards.member,
    )


def splits_of_members(wildcards):
    return expand_averaged(SPLIT, wildcards)


def learned_by_members(wildcards):
    return expand_averaged(f"{MEMBER}/split.parquet", wildcards)


def expand_averaged(pattern, wildcards):
    """`pattern` for every member of an ensemble, whose systems may be several."""
    return [
        pattern.format(
            training_set=STUDY.training_set_of(system, wildcards.protocol),
            system=system,
            member=member,
        )
        for system, members in STUDY.averaged_members(wildcards.system).items()
        for member in members
    ]


def averaged_predictions(wildcards):
    """Of a system's members; of an ensemble of several systems, of each of its entries."""
    if wildcards.system in SYSTEMS:
        return of_members(PREDICTIONS)(wildcards)
    return [
        (
            PREDICTIONS.format(
                protocol=wildcards.protocol, system=system, member=member
            )
            if member
            else f"{ENSEMBLE}/predictions.h5".format(
                protocol=wildcards.protocol, system=system
            )
        )
        for system, member in STUDY.settings.ensembles[wildcards.system].entries()
    ]


def ranked(protocol):
    """Every system and every ensemble of several under a protocol."""
    return [*SYSTEMS, *STUDY.joint_ensembles(protocol)]


def ensemble_files(pattern):
    return [
        pattern.format(protocol=protocol, system=name)
        for protocol in PROTOCOLS
        for name in ranked(protocol)
    ]


def member_record(wildcards):
    return of_member(wildcards, "run.json")


def learned_by_member(wildcards):
    """What the member learned from, which is what its scores are judged by."""
    return of_member(wildcards, "split.parquet")


def of_member(wildcards, name):
    folder = MEMBER.format(
        training_set=training_set(wildcards),
        system=wildcards.system,
        member=wildcards.member,
    )
    return f"{folder}/{name}"


def of_members(pattern):
    """Input function: `pattern` for every member of the wildcards' system.

    An ensemble of several systems has none of its own.
    """
    return lambda wildcards: expand(
        pattern,
        member=STUDY.members(wildcards.system) if wildcards.system in SYSTEMS else [],
        allow_missing=True,
    )


def all_members(wildcards):
    return member_files(STUDY.trainings(), "run.json")


def checked_members(wildcards):
    for training_set, system in STUDY.trainings():
        for member in STUDY.members(system):
            GUARD.check(training_set, system, member)
    return all_members(wildcards)


def prediction_fingerprint(wildcards):
    """Also where a plan stops that would use a member which its file no longer describes.

    Not in an input function: Snakemake takes its error for a missing file where the output exists.
    """
    GUARD.check(training_set(wildcards), wildcards.system, wildcards.member)
    return fingerprints.prediction(STUDY, wildcards.protocol, wildcards.system)


def member_files(trainings, name):
    return [
        f"{MEMBER.format(training_set=training_set, system=system, member=member)}/{name}"
        for training_set, system in trainings
        for member in STUDY.members(system)
    ]
