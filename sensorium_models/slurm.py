"""What is asked of SLURM: the own job, jobs that an earlier run left, what a site insists on.

Only SLURM's own commands are used (man scontrol, squeue, sinfo, sacctmgr); where they do not exist
nothing is a SLURM job, and the answers say so.
"""

import getpass
import os
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

# Before 2.7.1 jobs with two GPUs were submitted wrongly, and preempted ones twice.
PLUGIN, MINIMUM_PLUGIN = "snakemake-executor-plugin-slurm", (2, 7, 1)

# States of a job whose processes may be at work (man squeue, JOB STATE CODES).
_AT_WORK = {"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"}


def own_job() -> str | None:
    """Number of the job that this process is part of, as SLURM's commands take it."""
    array, task = (os.environ.get(f"SLURM_ARRAY_{part}_ID") for part in ("JOB", "TASK"))
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def requeue_own_job() -> bool:
    """Ask SLURM to end this job and to start it again later; whether it agreed."""
    job = own_job()
    return job is not None and _said("scontrol", "requeue", job) is not None


def is_at_work(job: str) -> bool | None:
    """Whether processes of a job may be running; None where SLURM cannot tell."""
    command = ("squeue", "--noheader", "--states=all", "--format=%T", "--jobs", job)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode != 0:
        # SLURM forgets jobs a few minutes after their end.
        return False if "Invalid job id" in done.stderr else None
    return any(state in _AT_WORK for state in done.stdout.split())


def left_jobs(folder: Path) -> dict[str, str]:
    """Jobs that Snakemake submitted from `folder` and that wait or run: number and rule.

    The executor plugin writes the rule into a job's comment.
    """
    said = _said("squeue", "--noheader", f"--user={getpass.getuser()}", "--format=%i|%k|%Z") or ""
    jobs = (line.split("|", 2) for line in said.splitlines() if line.count("|") >= 2)
    return {
        number: comment.removeprefix("rule_")
        for number, comment, place in jobs
        if comment.startswith(("rule_", "group_")) and Path(place).resolve() == folder.resolve()
    }


def cancel(jobs: Mapping[str, str]) -> None:
    """End jobs: those that wait at once, those that run after they had time to stop."""
    _said("scancel", *jobs)


def what_is_unset(settings: Mapping[str, object]) -> str | None:
    """A sentence for each of partition and account that this cluster needs and `settings` lack."""
    sentences = []
    if not settings.get("slurm_partition"):
        partitions = (_said("sinfo", "--noheader", "--format=%P") or "").split()
        if partitions and not any(name.endswith("*") for name in partitions):
            sentences.append(
                "This cluster has no default partition: set slurm_partition to one of "
                f"{', '.join(partitions)}."
            )
    if not settings.get("slurm_account"):
        configuration = _said("scontrol", "show", "config") or ""
        enforced = [line for line in configuration.splitlines() if "AccountingStorageEnf" in line]
        if any("associations" in line for line in enforced) and not _of_user("defaultaccount"):
            accounts = ", ".join(_of_user("account")) or "none; ask your administrators"
            sentences.append(
                f"This cluster wants an account with every job: set slurm_account ({accounts})."
            )
    return " ".join(sentences) or None


def old_plugin() -> str | None:
    """A sentence if the executor plugin is too old."""
    found = version(PLUGIN)
    if tuple(int(part) for part in found.split(".")[:3] if part.isdigit()) >= MINIMUM_PLUGIN:
        return None
    wanted = ".".join(map(str, MINIMUM_PLUGIN))
    return (
        f"{PLUGIN} {found} is installed, but {wanted} or newer is needed: older ones submit "
        "preempted jobs twice. Install requirements.lock."
    )


def _of_user(what: str) -> list[str]:
    table = "user" if what == "defaultaccount" else "association"
    said = _said(
        "sacctmgr", "-nP", "show", table, "where", f"user={getpass.getuser()}", f"format={what}"
    )
    return sorted({line.strip() for line in (said or "").splitlines() if line.strip()})


def _said(*command: str) -> str | None:
    """Standard output of a command, or None if it fails or does not exist."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
