"""Running Snakemake for real, on a study small enough for tests."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from sensorium_models.configuration import REPOSITORY

JOB_START_SECONDS = 2.0
TINY = REPOSITORY / "tests" / "workflow" / "tiny.yaml"


@dataclass(frozen=True)
class Run:
    """What one call of Snakemake said."""

    code: int
    output: str

    @property
    def jobs(self) -> dict[str, int]:
        """Planned or executed jobs by rule, from Snakemake's table; empty where there are none."""
        table = re.search(r"job +count\n-+ +-+\n(.*?)\ntotal", self.output, re.DOTALL)
        if table is None:
            return {}
        rows = [line.split() for line in table.group(1).splitlines()]
        return {rule: int(count) for rule, count in rows}

    @property
    def nothing_to_do(self) -> bool:
        return "Nothing to be done" in self.output


@dataclass(frozen=True)
class Lab:
    """A working directory in which the tiny study lives."""

    folder: Path

    @property
    def results(self) -> Path:
        return self.folder / "results"

    @property
    def systems(self) -> Path:
        """The study's own system files, for tests to edit."""
        return self.folder / "systems"

    def command(self, *arguments: str, config: tuple[str, ...] = ()) -> list[str]:
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile")]
        command += ["--directory", str(self.folder), "--cores", "2", "--nocolor"]
        command += [*arguments, "--configfile", str(self.folder / "tiny.yaml")]
        return [*command, "--config", *config] if config else command

    def snakemake(self, *arguments: str, config: tuple[str, ...] = (), check: bool = True) -> Run:
        """Run Snakemake; with `check` a failure fails the test and shows the logs."""
        done = subprocess.run(
            self.command(*arguments, config=config),
            capture_output=True,
            text=True,
            timeout=900,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        run = Run(done.returncode, done.stdout + done.stderr)
        if check and run.code != 0:
            logs = "\n".join(
                f"== {log}\n{log.read_text()[-3000:]}"
                for log in sorted(self.results.glob("logs/**/*.log"))
                if "Error" in log.read_text()
            )
            pytest.fail(f"snakemake failed:\n{run.output[-5000:]}\n{logs}")
        return run

    def killed_in(self, rule: str, *arguments: str) -> bool:
        """Kill Snakemake and all its jobs, as a power cut does, once a job of `rule` has begun.

        False if it ended before.
        """
        running = subprocess.Popen(
            self.command(*arguments, "--nolock"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert running.stderr is not None
        with running.stderr as lines:
            begun = any(re.match(rf"(local)?rule {rule}:", line) for line in lines)
            if begun:
                # A job first imports what it needs; a moment later it is at work.
                time.sleep(JOB_START_SECONDS)
            with suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        return begun

    def plan(self, *arguments: str, config: tuple[str, ...] = (), check: bool = True) -> Run:
        return self.snakemake("--dry-run", *arguments, config=config, check=check)


def make_lab(folder: Path) -> Lab:
    """A working directory with the tiny study and its own copy of the system files."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(TINY.parent / "systems", folder / "systems")
    study = TINY.read_text().replace("tests/workflow/systems", "systems")
    (folder / "tiny.yaml").write_text(study)
    return Lab(folder)


@pytest.fixture(scope="session")
def make_tiny_lab() -> Callable[[Path], Lab]:
    """Make a working directory in which nothing has run yet."""
    return make_lab


@pytest.fixture(scope="session")
def finished_lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The tiny study, run to its end once; tests work on copies of it."""
    lab = make_lab(tmp_path_factory.mktemp("tiny"))
    lab.snakemake("all")
    return lab


@pytest.fixture
def lab(finished_lab: Lab, tmp_path: Path) -> Iterator[Lab]:
    """A copy of the finished study, times of all files included."""
    copy = tmp_path / "lab"
    shutil.copytree(finished_lab.folder, copy, symlinks=True)
    yield Lab(copy)
    shutil.rmtree(copy, ignore_errors=True)
