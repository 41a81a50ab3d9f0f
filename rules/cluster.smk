# What jobs ask of a cluster, within the limits of its profile, and what is looked at before the first.


def site(name):
    """What the cluster's profile says under `default-resources`, if there is a profile."""
    given = (workflow.resource_settings.default_resources or {}).get(name)
    if given is None:
        return None
    return given.raw.strip("'") if given.is_evaluable() else given.value


def asked(system, what):
    """A resource that a system's file asks for its training jobs."""
    return getattr(STUDY.systems[system].resources, what)


# A queue's limits stand in the cluster's profile, and no job asks for more. What takes seconds is a
# local rule: it runs beside Snakemake, and a study submits hundreds of jobs, not thousands.
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
