"""Members killed in every way that a cluster knows: the study ends as if nothing had happened.

Weights and scores are compared bit for bit with an uninterrupted run, and trained steps are
counted: checkpoints are written after every step here, so a kill costs the step in hand at most.
"""

import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster
from tests.slurm.lab import SlurmLab, Step, wait_until

pytestmark = pytest.mark.slurm

STEPS = 12  # of every member, uninterrupted


def same(lab: SlurmLab, reference: SlurmLab) -> None:
    """All members and scores of `lab` are those of `reference`."""
    expected = reference.outcome()
    for name, value in lab.outcome().items():
        assert value == expected[name], name


def processes(steps: list[Step]) -> list[int]:
    """Processes that trained, in order; fails if one went on after the next had begun."""
    order = [step.process for step in steps]
    lives = list(dict.fromkeys(order))
    assert order == sorted(order, key=lives.index), "two trainings of one member at once"
    return lives


@pytest.fixture
def lab(uninterrupted: SlurmLab, cluster: Cluster, tmp_path: Path) -> Iterator[SlurmLab]:
    """The study with its recordings, before any training."""
    lab = uninterrupted.copy(tmp_path / "lab", cluster, trained=False)
    yield lab
    lab.kill_snakemake()
    for job in cluster.jobs():
        cluster.run("scancel", job, check=False)
    wait_until(lambda: not cluster.jobs(), "the cluster is empty")


def test_killed_in_every_way(lab: SlurmLab, uninterrupted: SlurmLab, cluster: Cluster) -> None:
    """Six members, each ended in another way in the middle of a training."""
    # Warned three minutes before the end of two, it would be before it listens.
    lab.site("--signal=URG@180", "--signal=URG@30")
    lab.hold("watched-seed1", 3)
    lab.hold("watched-seed2", 5)
    lab.hold("watched-seed3", 7)
    lab.hold("watched-seed4", 9, "eat")
    lab.hold("hurried-seed1", 4)  # takes the warning
    lab.hold("hurried-seed2", 6, "stuck")  # does not: the time limit kills it
    lab.start("scores")

    def preempt(job: str) -> None:
        """What preemption does; the node takes no new jobs meanwhile."""
        cluster.run("scontrol", "update", f"nodename={cluster.host}", "state=drain", "reason=test")
        cluster.run("scontrol", "requeue", job)
        wait_until(lambda: cluster.jobs().get(job) == "PENDING", "the job waits again")
        cluster.run("scontrol", "update", f"nodename={cluster.host}", "state=resume")

    deeds: dict[str, Callable[[Step], object]] = {
        "watched-seed1": lambda step: cluster.run("scancel", step.job),
        "watched-seed2": lambda step: preempt(step.job),
        "watched-seed3": lambda step: os.kill(step.process, signal.SIGKILL),
    }
    while deeds:
        wait_until(lambda: lab.is_held(*deeds), f"one of {', '.join(deeds)} is held")
        member = lab.is_held(*deeds)[0]
        deeds.pop(member)(lab.held(member))
    lab.finish()

    same(lab, uninterrupted)
    lost = {}
    for system, members in (("watched", (1, 2, 3, 4)), ("hurried", (1, 2))):
        for number in members:
            member = f"{system}-seed{number}"
            steps = lab.steps(member)
            assert len(processes(steps)) == 2, member
            lost[member] = len(steps) - STEPS
    # Killed outright, the step in hand is lost; one that is told to end saves it if it has time.
    assert lost["watched-seed3"] == lost["watched-seed4"] == lost["hurried-seed2"] == 1
    assert lost["watched-seed1"] in (0, 1)
    assert lost["watched-seed2"] in (0, 1)
    assert lost["hurried-seed1"] == 0
    # Put back into the queue, by the cluster or by itself, it is the same job and no failure.
    for member in ("watched-seed2", "hurried-seed1"):
        assert len({step.job for step in lab.steps(member)}) == 1, member
    for job in (lab.steps(m)[0].job for m in ("watched-seed2", "hurried-seed1")):
        assert f"SLURM-job '{job}' failed" not in lab.said
    # Out of memory, it got more the second time.
    asked = re.findall(r"system=watched, member=seed4\n +resources: .*?mem_mb=(\d+)", lab.said)
    assert asked[:2] == ["1500", "3000"]


def test_snakemake_and_the_controller_die_with_jobs_in_flight(
    lab: SlurmLab, uninterrupted: SlurmLab, cluster: Cluster
) -> None:
    member = "watched-seed1"
    lab.config = ("members={watched: {seed: [1]}}", "systems=[watched]")
    lab.hold(member, 5)
    lab.start("members")
    first = lab.held(member)
    lab.kill_snakemake()
    cluster.kill_controller()
    cluster.start_controller()
    assert cluster.jobs() == {first.job: "RUNNING"}

    # Without Snakemake's lock the new run leaves the old job alone: the lock of the member decides.
    lab.start("members", "--nolock")
    wait_until(lambda: "is training this member" in lab.training_log(member), "the second waits")
    assert f"process {first.process} on" in lab.training_log(member)
    assert len(lab.steps(member)) == 6
    lab.release(member)
    lab.finish()
    assert len(lab.steps(member)) == STEPS
    assert processes(lab.steps(member)) == [first.process]
    same(lab, uninterrupted)


def test_a_restarted_run_ends_the_jobs_that_the_killed_one_left(
    lab: SlurmLab, uninterrupted: SlurmLab, cluster: Cluster
) -> None:
    """Of three members two run and one waits for a GPU when Snakemake is killed."""
    lab.config = ("members={watched: {seed: [2, 3, 4]}}", "systems=[watched]")
    members = [f"watched-seed{number}" for number in (2, 3, 4)]
    for member in members:
        lab.hold(member, 5)
    lab.start("members")
    held = lab.folder / "watch" / "held"
    wait_until(lambda: len(list(held.iterdir())) == 2, "two are held")
    wait_until(
        lambda: sorted(cluster.jobs().values()) == ["PENDING", *2 * ["RUNNING"]], "one waits"
    )
    left = set(cluster.jobs())
    lab.kill_snakemake()
    waiting = next(member for member in members if not (held / member).exists())
    lab.release(waiting)
    lab.finish("--unlock")
    lab.finish("members")
    assert "Ending jobs that an earlier run left in the queue" in lab.said
    same(lab, uninterrupted)
    for member in members:
        steps = lab.steps(member)
        assert len(processes(steps)) == (1 if member == waiting else 2)
        assert STEPS <= len(steps) <= STEPS + 1
        assert steps[-1].job not in left


def test_where_requeueing_is_forbidden_and_gpus_are_generic_resources(
    lab: SlurmLab, uninterrupted: SlurmLab, cluster: Cluster
) -> None:
    """The warned training ends with the status that makes Snakemake start it again."""
    lab.site("slurm-requeue: true", "slurm-no-requeue: true")
    lab.site("gpu_syntax: gpus", "gpu_syntax: gres")
    member = "watched-seed1"
    lab.config = ("members={watched: {seed: [1]}}", "systems=[watched]")
    lab.hold(member, 5)
    lab.start("members")
    first = lab.held(member)
    asked = cluster.run("scontrol", "show", "job", first.job)
    assert "Requeue=0" in asked
    assert "gres:gpu:1" in asked
    # What SLURM sends when the time is nearly up.
    cluster.run("scancel", "--signal=URG", first.job)
    lab.finish()
    steps = lab.steps(member)
    assert len(steps) == STEPS
    assert len(processes(steps)) == 2
    assert steps[-1].job != first.job
    assert f"SLURM-job '{first.job}' failed, SLURM status is: 'FAILED'" in lab.said
    same(lab, uninterrupted)
