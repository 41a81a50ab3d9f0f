"""A study whose trainings run as SLURM jobs and can be held, killed and counted."""

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from safetensors.numpy import load_file

from sensorium_models.configuration import REPOSITORY
from tests.slurm.cluster import Cluster, die_with_parent

PATIENCE_SECONDS = 1800.0
HERE = Path(__file__).parent


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Look until `condition` holds; a test that hangs says what it waited for."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited too long until {what}"
        time.sleep(0.2)


@dataclass(frozen=True)
class Step:
    """One training step as the watched core noted it."""

    job: str
    process: int
    frames: int
    gpus: str


@dataclass
class SlurmLab:
    """A working directory with the study and, in `slurm/`, a copy of the profile."""

    folder: Path
    cluster: Cluster | None = None
    config: tuple[str, ...] = ()
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def results(self) -> Path:
        return self.folder / "results"

    @property
    def said(self) -> str:
        """What all runs of Snakemake in this lab have said."""
        return "".join(log.read_text() for log in sorted(self.folder.glob("run*.log")))

    def site(self, old: str, new: str) -> None:
        """Edit the profile, as a lab does for its cluster."""
        profile = self.folder / "slurm" / "config.yaml"
        text = profile.read_text()
        assert old in text
        profile.write_text(text.replace(old, new))

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start Snakemake; with a cluster through its profile, else on this machine."""
        command = [sys.executable, str(HERE / "impatient.py")]
        command += ["--snakefile", str(REPOSITORY / "Snakefile")]
        if self.cluster is None:
            command += ["--cores", "2"]
        else:
            # Only waits are shorter than in the profile.
            command += ["--profile", "slurm", "--slurm-init-seconds-before-status-checks", "1"]
            command += ["--latency-wait", "15", "--max-status-checks-per-second", "10"]
        command += ["--nocolor", *arguments, "--configfile", "study.yaml"]
        if self.config:
            command += ["--config", *self.config]
        environment = dict(os.environ if self.cluster is None else self.cluster.environment)
        environment |= {"OMP_NUM_THREADS": "1"}
        if self.cluster is not None:
            environment["SENSORIUM_WATCH"] = str(self.folder / "watch")
        with (self.folder / f"run{len(self.running)}.log").open("wb") as log:
            snakemake = subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        self.running.append(snakemake)
        return snakemake

    def finish(self, *arguments: str) -> None:
        """Run Snakemake to its end, or wait for the end of the run that goes on."""
        going = [run for run in self.running if run.poll() is None]
        snakemake = self.start(*arguments) if arguments else going[-1]
        try:
            code = snakemake.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill_snakemake()
            code = None
        assert code == 0, self.said[-6000:] + self._logs()

    def kill_snakemake(self) -> None:
        """As a login node that reboots does: Snakemake is gone, its jobs are not."""
        for snakemake in self.running:
            if snakemake.poll() is None:
                os.killpg(snakemake.pid, signal.SIGKILL)
                snakemake.wait()

    def hold(self, member: str, step: int, how: str = "wait") -> None:
        """Stop a training, `<system>-<member>`, in the step after so many."""
        (self.folder / "watch" / "hold" / member).write_text(f"{step} {how}")

    def release(self, member: str) -> None:
        (self.folder / "watch" / "hold" / member).unlink()

    def held(self, member: str) -> Step:
        """Wait until a training is held; tells in which job and process."""
        path = self.folder / "watch" / "held" / member
        wait_until(lambda: path.exists() and path.read_text().endswith("\n"), f"{member} is held")
        return _step(path.read_text())

    def is_held(self, *members: str) -> list[str]:
        """Those of the trainings that are held, or were."""
        return [name for name in members if (self.folder / "watch" / "held" / name).exists()]

    def steps(self, member: str) -> list[Step]:
        """All steps that a member was trained, in the order of time, repeated ones included."""
        text = (self.folder / "watch" / "steps" / member).read_text()
        return [_step(line) for line in text.splitlines()]

    def training_log(self, member: str) -> str:
        system, _, name = member.partition("-")
        log = self.results / "logs" / "train" / "clean" / system / f"{name}.log"
        return log.read_text() if log.exists() else ""

    def outcome(self) -> dict[str, str]:
        """Hashes of all weights and scores."""
        hashes = {}
        for path in sorted(self.results.glob("members/**/weights.safetensors")):
            tensors = load_file(path)
            content = b"".join(name.encode() + tensors[name].tobytes() for name in sorted(tensors))
            hashes[str(path.relative_to(self.results))] = hashlib.sha256(content).hexdigest()
        for path in sorted(self.results.glob("*/scores/*.parquet")):
            table = pd.read_parquet(path).to_csv(index=False)
            digest = hashlib.sha256(table.encode()).hexdigest()
            hashes[str(path.relative_to(self.results))] = digest
        assert hashes
        return hashes

    def copy(self, folder: Path, cluster: Cluster | None, *, trained: bool) -> "SlurmLab":
        """Another lab with the same study and recordings, with or without what follows them."""
        leave = shutil.ignore_patterns("watch", "run*.log", "logs", "slurm", "locks")
        shutil.copytree(self.folder, folder, ignore=leave)
        if not trained:
            for name in ("members", "open", "report"):
                shutil.rmtree(folder / "results" / name, ignore_errors=True)
        return _equipped(SlurmLab(folder, cluster, self.config))

    def _logs(self) -> str:
        logs = [*self.results.glob("logs/**/*.log"), *self.folder.glob("logs/slurm/**/*.log")]
        return "\n".join(
            f"== {log}\n{log.read_text()[-2000:]}"
            for log in sorted(logs)
            if re.search("Error|error:", log.read_text())
        )


def make_slurm_lab(
    folder: Path,
    cluster: Cluster | None,
    *,
    animals: tuple[str, ...] = ("tinyA",),
    systems: tuple[str, ...] = ("watched",),
    config: tuple[str, ...] = (),
) -> SlurmLab:
    """The tiny study with systems that can be held; checkpoints are written after every step."""
    folder.mkdir(parents=True)
    shutil.copytree(HERE / "systems", folder / "systems")
    text = (REPOSITORY / "tests" / "workflow" / "tiny.yaml").read_text()
    for key, value in (
        ("systems_folders", "[systems]"),
        ("animals", f"[{', '.join(animals)}]"),
        ("systems", f"[{', '.join(systems)}]"),
    ):
        text = re.sub(rf"(?m)^{key}: .*$", f"{key}: {value}", text)
    (folder / "study.yaml").write_text(f"{text}checkpoint_minutes: 0.00001\n")
    return _equipped(SlurmLab(folder, cluster, config))


def _equipped(lab: SlurmLab) -> SlurmLab:
    for name in ("steps", "hold", "held"):
        (lab.folder / "watch" / name).mkdir(parents=True)
    shutil.copytree(REPOSITORY / "slurm", lab.folder / "slurm")
    return lab


def _step(line: str) -> Step:
    job, process, frames, gpus = line.split()
    return Step(job, int(process), int(frames), gpus)
