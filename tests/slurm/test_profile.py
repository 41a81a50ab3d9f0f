"""The whole study through the SLURM profile, with one job killed on the way."""

import re
from pathlib import Path

import pytest

from sensorium_models.configuration import REPOSITORY
from tests.slurm.cluster import Cluster
from tests.slurm.lab import make_slurm_lab

pytestmark = pytest.mark.workflow

STEPS, FRAMES_PER_STEP = 12, 80


def test_everything_is_made_through_the_profile_in_spite_of_a_kill(
    cluster: Cluster, tmp_path: Path
) -> None:
    two = ("members={watched: {seed: [1, 2]}}",)
    lab = make_slurm_lab(tmp_path / "lab", cluster, config=two)
    lab.hold("watched-seed1", 7)
    lab.start("all")
    cluster.run("scancel", lab.held("watched-seed1").job)
    lab.finish()

    # The same study trained and scored by this machine alone.
    alone = lab.copy(tmp_path / "alone", None, trained=False)
    alone.finish("scores")
    assert lab.outcome() == alone.outcome()
    # Told to end, the training wrote its checkpoint first: at most the step in hand is repeated.
    jobs = {member: lab.steps(f"watched-{member}") for member in ("seed1", "seed2")}
    assert len({step.job for step in jobs["seed1"]}) == 2
    assert STEPS <= len(jobs["seed1"]) <= STEPS + 1
    assert len(jobs["seed2"]) == STEPS
    assert {step.frames for steps in jobs.values() for step in steps} == {FRAMES_PER_STEP}
    assert {step.gpus for steps in jobs.values() for step in steps} <= {"0", "1"}

    page = (lab.results / "report.html").read_text()
    assert "Watched" in page
    submitted = re.findall(r"rule_(\w+)/", lab.said)
    # What takes a second is done where Snakemake runs.
    assert "train" in submitted
    assert not {"split", "tabulate_scores", "page"} & set(submitted)
    assert not cluster.jobs()


def test_no_job_asks_for_more_than_the_site_has(tmp_path: Path) -> None:
    """The profile's limits, read without a cluster."""
    lab = make_slurm_lab(tmp_path / "lab", None, systems=("watched", "paired"))
    lab.site("max_runtime: 1440", "max_runtime: 25")
    lab.site("max_memory_gb: 250", "max_memory_gb: 2")
    lab.finish("all", "--dry-run", "--profile", "slurm")
    planned = re.findall(r"^rule (\w+):.*?resources: (.*?)\n", lab.said, re.DOTALL | re.MULTILINE)
    resources = [(rule, dict(re.findall(r"(\w+)=([^,]*)", line))) for rule, line in planned]
    assert {rule for rule, _ in resources} >= {"simulate", "train", "predict", "evaluate"}
    files = "".join(path.read_text() for path in (REPOSITORY / "rules").glob("*.smk"))
    local = re.findall(r"^rule (\w+):(?:\n(?: .*)?)*?\n    localrule: True", files, re.MULTILINE)
    for rule, asked in resources:
        if rule in [*local, "all"]:
            continue
        assert int(asked["runtime"]) <= 25, rule
        assert int(asked["mem_mb"]) <= 2000, rule
    trainings = [asked for rule, asked in resources if rule == "train"]
    assert {(r["gpu"], r["runtime"], r["mem_mb"]) for r in trainings} == {
        ("1", "25", "1500"),
        ("2", "25", "2000"),
    }
    lab.site("gpu_syntax: gpus", "gpu_syntax: gres")
    lab.finish("members", "--dry-run", "--profile", "slurm")
    assert re.search(r"rule train:.*?gpu=0, gres=gpu:2", lab.said, re.DOTALL)


def test_what_the_cluster_needs_is_told_before_any_job(cluster: Cluster, tmp_path: Path) -> None:
    lab = make_slurm_lab(tmp_path / "lab", cluster)
    cluster.run("scontrol", "update", "partitionname=gpu", "default=no")
    try:
        assert lab.start("recordings").wait(300) != 0
    finally:
        cluster.run("scontrol", "update", "partitionname=gpu", "default=yes")
    assert "set slurm_partition to one of gpu, urgent" in lab.said
    assert "slurm/config.yaml" in lab.said
    assert "has been submitted" not in lab.said
