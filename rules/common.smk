# Look-ups for the rules: the validated study, paths of results, members. No logic of its own.
import sys
from pathlib import Path

sys.path.insert(0, workflow.basedir)

from sensorium_models import finished_recordings, fingerprints
from sensorium_models.finished import MemberGuard
from sensorium_models.jobs import make_importable
from sensorium_models.submission import UPLOADS, uploads_of
from sensorium_models.study import ConfigurationError, load_study

try:
    STUDY = load_study(
        config,
        [Path(workflow.basedir) / "config.yaml", *workflow.overwrite_configfiles],
    )
    # What the scripts are handed: without the keys of sources that the study replaced.
    config["recordings"] = STUDY.raw_recordings
    make_importable(workflow.basedir, *STUDY.settings.systems_folders)
    if workflow.is_main_process:
        # Building the networks' skeletons finds a wrong setting now, not in a queued job. The jobs
        # themselves need not import torch for it again.
        from sensorium_models.networks.build import check_study

        check_study(STUDY)
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
SCORES = f"{RESULTS}/{{protocol}}/scores/{{system}}.parquet"
SUBMISSION = f"{RESULTS}/{{protocol}}/submissions/{{system}}/{{upload}}.zip"
FIGURE = f"{RESULTS}/report/figures/{{figure}}"
TABLE = f"{RESULTS}/report/tables/{{table}}"
LOGS = f"{RESULTS}/logs"
BENCHMARKS = f"{RESULTS}/benchmarks"


wildcard_constraints:
    animal="|".join(STUDY.settings.animals),
    system="|".join(SYSTEMS),
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
    return expand(
        SPLIT,
        training_set=training_set(wildcards),
        system=wildcards.system,
        member=STUDY.members(wildcards.system),
    )


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


def learned_by_members(wildcards):
    return member_files([(training_set(wildcards), wildcards.system)], "split.parquet")


def of_members(pattern):
    """Input function: `pattern` for every member of the wildcards' system."""
    return lambda wildcards: expand(
        pattern, member=STUDY.members(wildcards.system), allow_missing=True
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


def asked(system, what):
    """A resource that a system's file asks for its training jobs."""
    return getattr(STUDY.systems[system].resources, what)


# A server that scores exists for animals whose test responses are withheld.
SUBMISSIONS = [
    SUBMISSION.format(protocol=protocol, system=system, upload=upload)
    for protocol in PROTOCOLS
    if STUDY.protocol(protocol).animals == "withheld"
    for system in SYSTEMS
    for upload in uploads_of(STUDY.protocol(protocol).tiers)
]
TITLES = {name: system.title for name, system in STUDY.systems.items()}
# Whose published numbers stand beside a system that is a variation of a published one.
PUBLISHED_AS = {
    name: system.published_as
    for name, system in STUDY.systems.items()
    if system.published_as
}
# Systems of which a score against the number of members can be shown.
ENSEMBLES = [system for system in SYSTEMS if len(STUDY.members(system)) > 1]
# Imported members have no history and no known cost.
TRAINED = [pair for pair in STUDY.trainings() if not STUDY.is_imported(*pair)]
LEARNED_SETS = list(
    dict.fromkeys(training_set for training_set, _ in STUDY.trainings())
)
TRAINING_SETS = list(dict.fromkeys(training_set for training_set, _ in TRAINED))
REPORTING = fingerprints.reporting()


def protocol_scores(wildcards):
    return expand(SCORES, protocol=wildcards.protocol, system=SYSTEMS)


def achievable_of(wildcards):
    """Best possible scores, which only simulated recordings tell."""
    animals = STUDY.predicted_animals(wildcards.protocol)
    known = all(
        STUDY.recording(animal).source.kind == "simulated" for animal in animals
    )
    return expand(ACHIEVABLE, protocol=wildcards.protocol) if known else []


def ensembles_with_sizes(wildcards):
    return expand(
        f"{ENSEMBLE}/moments.h5", protocol=wildcards.protocol, system=ENSEMBLES
    )


def member_files(trainings, name):
    return [
        f"{MEMBER.format(training_set=training_set, system=system, member=member)}/{name}"
        for training_set, system in trainings
        for member in STUDY.members(system)
    ]


def trainings_of(training_set):
    return [pair for pair in TRAINED if pair[0] == training_set]


def records_of(wildcards):
    return member_files(trainings_of(wildcards.training_set), "run.json")


def histories_of(wildcards):
    return member_files(trainings_of(wildcards.training_set), "history.csv")


def weights_of(wildcards):
    """Weights of every member of a training set, imported ones too."""
    trainings = [
        pair for pair in STUDY.trainings() if pair[0] == wildcards.training_set
    ]
    return member_files(trainings, "weights.safetensors")


def protocol_splits(wildcards):
    """What the members of every system were trained on."""
    return [
        SPLIT.format(training_set=training_set, system=system, member=member)
        for training_set, system in protocol_trainings(wildcards)
        for member in STUDY.members(system)
    ]


def protocol_trainings(wildcards):
    return [(STUDY.training_set_of(s, wildcards.protocol), s) for s in SYSTEMS]


def protocol_learned(wildcards):
    return member_files(protocol_trainings(wildcards), "split.parquet")


def learned_otherwise(wildcards):
    """Of adopted members only, so that the audit can be looked at before anything is trained."""
    return [
        f"{GUARD.folder(*names)}/split.parquet"
        for names in GUARD.adopted()
        if names[:2] in protocol_trainings(wildcards)
    ]


def protocol_records(wildcards):
    return member_files(protocol_trainings(wildcards), "run.json")
