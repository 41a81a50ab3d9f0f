# Look-ups for the rules: the validated study, paths of results, members. No logic of its own.
import sys
from pathlib import Path

sys.path.insert(0, workflow.basedir)

from sensorium_models import finished_recordings, fingerprints, slurm
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


def site(name):
    """What the cluster's profile says under `default-resources`, if there is a profile."""
    given = (workflow.resource_settings.default_resources or {}).get(name)
    if given is None:
        return None
    return given.raw.strip("'") if given.is_evaluable() else given.value


def asked(system, what):
    """A resource that a system's file asks for its training jobs."""
    return getattr(STUDY.systems[system].resources, what)


# A queue's limits stand in the cluster's profile, and no job asks for more.
def memory(megabytes):
    """Resource function: more at every attempt, up to what the largest node has."""
    most = 1000 * float(site("max_memory_gb") or "inf")
    return lambda wildcards, attempt: int(min(attempt * megabytes, most))


def minutes(asked_for):
    """Time limit of a job, at most the queue's."""
    return int(min(asked_for, float(site("max_runtime") or "inf")))


def member_cpus(wildcards):
    """What the system's file asks for, and a core for each process that reads clips."""
    readers = max(1, asked(wildcards.system, "gpus")) * STUDY.settings.data_workers
    return max(asked(wildcards.system, "cpus"), 1 + readers)


def member_memory(wildcards, attempt):
    return memory(1000 * asked(wildcards.system, "memory_gb"))(wildcards, attempt)


def member_minutes(wildcards):
    """A training that needs more goes through the queue several times."""
    return minutes(max(1, 60 * asked(wildcards.system, "runtime_hours")))


def member_gpus(wildcards):
    return 0 if site("gpu_syntax") == "gres" else asked(wildcards.system, "gpus")


def member_gres(wildcards):
    """For clusters that take --gres only; empty otherwise, which submits nothing."""
    gpus = asked(wildcards.system, "gpus")
    kind = site("gres_name") or "gpu"
    return f"{kind}:{gpus}" if gpus and site("gpu_syntax") == "gres" else ""


def prepare_cluster():
    """Before the first job of a run: is the profile whole, and who is still at work?

    Jobs that an earlier run of this folder left are ended: nobody would notice their end, and those
    that still wait would train finished members again. Trainings go on from their checkpoints.
    """
    if workflow.executor_plugin.name != "slurm":
        return
    named = {name: site(name) for name in ("slurm_partition", "slurm_account")}
    for problem in (slurm.old_plugin(), slurm.what_is_unset(named)):
        if problem:
            raise WorkflowError(f"{problem} The profile is slurm/config.yaml.")
    left = slurm.left_jobs(Path.cwd())
    # Without its lock another run may be at work in this folder, and they may be its jobs.
    if left and workflow.execution_settings.lock:
        jobs = ", ".join(f"{number} ({rule})" for number, rule in left.items())
        logger.info(f"Ending jobs that an earlier run left in the queue: {jobs}")
        slurm.cancel(left)


ALL_SCORES = ensemble_files(SCORES) + [
    SCORES_IN_UNIT.format(protocol=protocol, system=system, unit=unit)
    for protocol in PROTOCOLS
    for system in ranked(protocol)
    for unit in STUDY.further_units(protocol)
]


def uploads_of_system(wildcards):
    return expand(
        SUBMISSION,
        protocol=wildcards.protocol,
        system=wildcards.system,
        upload=uploads_of(STUDY.protocol(wildcards.protocol).tiers),
    )


def uploads_of_protocol(wildcards):
    return [
        path
        for path in SUBMISSIONS
        if path.startswith(f"{RESULTS}/{wildcards.protocol}/")
    ]


def served_of(wildcards):
    """The emulated server's scores, which only simulated recordings have."""
    if not all_simulated(wildcards.protocol):
        return []
    return expand(
        SERVED, protocol=wildcards.protocol, system=ranked(wildcards.protocol)
    )


def all_simulated(protocol):
    animals = STUDY.predicted_animals(protocol)
    return all(STUDY.recording(a).source.kind == "simulated" for a in animals)


# A server that scores exists for animals whose test responses are withheld.
SUBMITTED = [
    protocol
    for protocol in PROTOCOLS
    if STUDY.protocol(protocol).animals == "withheld"
    and uploads_of(STUDY.protocol(protocol).tiers)
]
SUBMISSIONS = [
    SUBMISSION.format(protocol=protocol, system=system, upload=upload)
    for protocol in SUBMITTED
    for system in ranked(protocol)
    for upload in uploads_of(STUDY.protocol(protocol).tiers)
]
TITLES = {name: system.title for name, system in STUDY.systems.items()}
# With ensembles of several systems, which are ranked among the systems.
RANKED_TITLES = TITLES | {
    name: ensemble.title or name for name, ensemble in STUDY.settings.ensembles.items()
}
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


def ranked_scores(wildcards):
    """With those of ensembles of several systems."""
    return expand(
        SCORES, protocol=wildcards.protocol, system=ranked(wildcards.protocol)
    )


def means(wildcards):
    """Moments of the mean prediction of everything that is ranked."""
    return expand(
        f"{ENSEMBLE}/mean.h5",
        protocol=wildcards.protocol,
        system=ranked(wildcards.protocol),
    )


def joint_moments(wildcards):
    return expand(
        f"{ENSEMBLE}/moments.h5",
        protocol=wildcards.protocol,
        system=STUDY.joint_ensembles(wildcards.protocol),
    )


def further_scores(wildcards):
    """Scores of the same predictions in other units."""
    return expand(
        SCORES_IN_UNIT,
        protocol=wildcards.protocol,
        system=ranked(wildcards.protocol),
        unit=STUDY.further_units(wildcards.protocol),
    )


def protocol_moments(wildcards):
    return [
        MOMENTS.format(protocol=wildcards.protocol, system=system, member=member)
        for system in SYSTEMS
        for member in STUDY.members(system)
    ]


def achievable_of(wildcards):
    """Best possible scores, which only simulated recordings tell."""
    known = all_simulated(wildcards.protocol)
    return expand(ACHIEVABLE, protocol=wildcards.protocol) if known else []


def ensembles_with_sizes(wildcards):
    return expand(
        f"{ENSEMBLE}/moments.h5", protocol=wildcards.protocol, system=ENSEMBLES
    )


def table_files(table, category, title):
    """The forms of a table; the CSV stands in Snakemake's own report, captioned by its family."""
    wildcards = [part.rstrip("}") for part in table.split("{")[1:]]
    family = table.split("_{")[0]
    csv = report(
        TABLE.format(table=f"{table}.csv"),
        caption=f"captions/table_{family}.rst",
        category=category,
        labels={
            "table": title,
            **{name.replace("_", " "): f"{{{name}}}" for name in wildcards},
        },
    )
    return [csv, *multiext(TABLE.format(table=table), ".md", ".tex", ".json")]


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
