"""What SLURM's commands say is understood; stand-ins say what real ones said to us."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sensorium_models import slurm


@pytest.fixture
def says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put a command on the path that prints something."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)

    def put(command: str, text: str = "", *, code: int = 0, error: str = "") -> None:
        script = folder / command
        script.write_text(
            f"#!/bin/sh\necho \"$@\" >> {tmp_path}/asked\ncat <<'END'\n{text}\nEND\n"
            f"echo '{error}' >&2\nexit {code}\n"
        )
        script.chmod(0o755)

    for command in ("sinfo", "scontrol", "squeue", "sacctmgr", "scancel"):
        put(command, code=1)
    return put


def test_a_default_partition_need_not_be_named(says: Callable[..., None]) -> None:
    says("sinfo", "cpu*\ngpu")
    assert slurm.what_is_unset({"slurm_partition": None, "slurm_account": None}) is None
    says("sinfo", "cpu\ngpu")
    sentence = slurm.what_is_unset({"slurm_partition": None, "slurm_account": None})
    assert sentence == (
        "This cluster has no default partition: set slurm_partition to one of cpu, gpu."
    )
    assert slurm.what_is_unset({"slurm_partition": "gpu", "slurm_account": None}) is None


def test_an_account_is_named_where_the_cluster_insists(says: Callable[..., None]) -> None:
    nothing = {"slurm_partition": "gpu", "slurm_account": None}
    says("scontrol", "AccountingStorageEnforce = associations,limits")
    says("sacctmgr", "lab")
    assert slurm.what_is_unset(nothing) is None  # the user's default account
    says("sacctmgr", "")
    sentence = slurm.what_is_unset(nothing)
    assert sentence is not None
    assert "set slurm_account" in sentence
    assert slurm.what_is_unset({**nothing, "slurm_account": "lab"}) is None
    says("scontrol", "AccountingStorageEnforce = none")
    assert slurm.what_is_unset(nothing) is None


@pytest.mark.parametrize(
    ("state", "at_work"),
    [("RUNNING", True), ("COMPLETING", True), ("PENDING", False), ("COMPLETED", False)],
)
def test_a_job_is_at_work_while_it_may_have_processes(
    says: Callable[..., None], state: str, at_work: bool
) -> None:
    says("squeue", state)
    assert slurm.is_at_work("12") is at_work


def test_a_forgotten_job_is_not_at_work_and_a_dumb_controller_says_nothing(
    says: Callable[..., None],
) -> None:
    says("squeue", code=1, error="slurm_load_jobs error: Invalid job id specified")
    assert slurm.is_at_work("12") is False
    says("squeue", code=1, error="Unable to contact slurm controller")
    assert slurm.is_at_work("12") is None


def test_only_jobs_of_this_workflow_and_folder_are_ours(
    says: Callable[..., None], tmp_path: Path
) -> None:
    here = tmp_path.resolve()
    says(
        "squeue",
        f"1|rule_train_wildcards_clean_viv1t_seed1|{here}\n"
        f"2|(null)|{here}\n"
        f"3|rule_train|{here / 'other'}\n"
        f"4|rule_predict|{here}",
    )
    left = slurm.left_jobs(tmp_path)
    assert left == {"1": "train_wildcards_clean_viv1t_seed1", "4": "predict"}
    slurm.cancel(left)
    assert (tmp_path / "asked").read_text().splitlines()[-1] == "1 4"


def test_the_own_job_goes_back_into_the_queue(
    says: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    says("scontrol")
    assert not slurm.requeue_own_job()  # no job at all
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    assert slurm.requeue_own_job()
    assert (tmp_path / "asked").read_text().splitlines() == ["requeue 12"]
    says("scontrol", code=1)
    assert not slurm.requeue_own_job()
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "11")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    assert slurm.own_job() == "11_3"


@pytest.mark.parametrize(("found", "old"), [("2.7.0", True), ("2.7.1", False), ("2.10.0", False)])
def test_an_old_plugin_is_told_of(monkeypatch: pytest.MonkeyPatch, found: str, old: bool) -> None:
    monkeypatch.setattr(slurm, "version", lambda name: found)
    assert (slurm.old_plugin() is not None) is old
