"""A member on two GPUs: one process for each, in one job."""

import json
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster
from tests.slurm.lab import SlurmLab, make_slurm_lab

pytestmark = pytest.mark.slurm


def record(lab: SlurmLab) -> dict:
    return json.loads((lab.results / "members/clean/paired/seed1/run.json").read_text())


def test_two_processes_train_and_go_back_into_the_queue_together(
    cluster: Cluster, tmp_path: Path
) -> None:
    animals = ("tinyA", "tinyB")
    lab = make_slurm_lab(tmp_path / "lab", cluster, animals=animals, systems=("paired",))
    lab.hold("paired-seed1", 3)
    lab.start("members")
    first = lab.held("paired-seed1")
    assert first.gpus == "0,1"
    # What SLURM sends when the time is nearly up, to every process of the job.
    cluster.run("scancel", "--signal=URG", first.job)
    lab.finish()
    steps = lab.steps("paired-seed1")
    assert len({step.process for step in steps}) == 4  # two in each life
    assert {step.job for step in steps} == {first.job}
    two = record(lab)
    assert two["processes"] == 2
    # The result of one process, up to rounding of sums in another order.
    alone = lab.copy(tmp_path / "alone", None, trained=False)
    system = alone.folder / "systems" / "paired.yaml"
    system.write_text(system.read_text().replace("gpus: 2", "gpus: 1"))
    alone.finish("members")
    one = record(alone)
    assert one["processes"] == 1
    for key in ("epochs", "steps", "clips_seen", "frames_seen"):
        assert two[key] == one[key], key
    assert two["best_objective"] == pytest.approx(one["best_objective"], abs=1e-4)
