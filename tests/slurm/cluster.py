"""A SLURM cluster of one node and two pretended GPUs, in a temporary folder, for as long as asked.

Its daemons are Debian's slurmctld, slurmd and munged, on free ports and with files of their own:
it disturbs no other cluster of the machine. `python -m tests.slurm.cluster` starts one by hand.
"""

import ctypes
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

PROGRAMS = (
    "slurmctld",
    "slurmd",
    "munged",
    "sbatch",
    "squeue",
    "scontrol",
    "scancel",
    "sinfo",
    "srun",
)
DEADLINE_SECONDS = 60.0
# slurmctld writes down what happened after so long at most; a crash before forgets it.
SAVING_SECONDS = 6.0

# Every interval is as short as SLURM takes it: what a large cluster does in minutes (start a job
# again, kill what ignores SIGTERM) is done in seconds. Processes are followed by parentage and
# nothing needs control groups, so that it runs in a container too.
CONFIGURATION = """
ClusterName=sensorium
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
AuthInfo=socket={folder}/munge/socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
ReturnToService=2
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=5
MinJobAge=300
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
SchedulerParameters=sched_interval=2,batch_sched_delay=1,bf_interval=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 RealMemory=16000 Gres=gpu:2
PartitionName=gpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP
PartitionName=urgent Nodes=ALL PriorityTier=10 MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """Why no cluster can be started here, or None."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"{', '.join(absent)} not found: apt-get install slurmctld slurmd slurm-client munge"
    if os.geteuid() != 0:
        return "slurmd can be started by root only"
    return None


def die_with_parent() -> None:
    """In a new process: end when the one that started it does, however that ends (man prctl)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


class Cluster:
    """One running cluster; a context manager that leaves neither processes nor files."""

    def __init__(self) -> None:
        # Munge wants a path that every user can pass, which pytest's folders are not.
        self.folder = Path(tempfile.mkdtemp(prefix="sensorium-slurm-"))
        self.folder.chmod(0o755)
        self.host = socket.gethostname().split(".")[0]
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def environment(self) -> dict[str, str]:
        """What SLURM's commands need to find this cluster."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")}
        path = f"{self.folder / 'bin'}{os.pathsep}{inherited['PATH']}"
        return {**inherited, "SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": path}

    def __enter__(self) -> Self:
        try:
            self._configure()
            self._start_munge()
            self.start_controller()
            self._start("slurmd", "slurmd", "-D")
            self._wait_for("node", lambda: self.run("sinfo", "-h", "-o", "%T") == "idle")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if "slurmd" in self._daemons:
            for job in self.jobs():
                self.run("scancel", job, check=False)
            deadline = time.monotonic() + DEADLINE_SECONDS
            while self.jobs() and time.monotonic() < deadline:
                time.sleep(0.2)
        for daemon in reversed(self._daemons.values()):
            daemon.terminate()
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self._daemons.clear()
        # Steps outlive slurmd, as they should, and a controller that crashed may not know of them.
        for process in self._left():
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, *command: str, check: bool = True) -> str:
        """What one of SLURM's commands says, without the last newline."""
        done = subprocess.run(command, capture_output=True, text=True, env=self.environment)
        if check and done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
        return done.stdout.strip()

    def jobs(self) -> dict[str, str]:
        """State by number of the jobs that wait, run or are ending."""
        lines = self.run("squeue", "-h", "-o", "%i %T", check=False).splitlines()
        return dict(line.split() for line in lines)

    def start_controller(self) -> None:
        """Start slurmctld; again after `kill_controller`, from the state that it saved."""
        self._start("slurmctld", "slurmctld", "-D")
        self._wait_for("slurmctld", lambda: "UP" in self.run("scontrol", "ping", check=False))

    def kill_controller(self) -> None:
        """End slurmctld as a crash does; jobs run on."""
        time.sleep(SAVING_SECONDS)
        daemon = self._daemons.pop("slurmctld")
        daemon.kill()
        daemon.wait()

    def _left(self) -> list[int]:
        """Processes that know of this cluster by their environment."""
        mark = f"SLURM_CONF={self.folder}/".encode()
        found = []
        for entry in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                if mark in entry.read_bytes():
                    found.append(int(entry.parent.name))
        return found

    def _configure(self) -> None:
        for name in ("state", "spool", "bin"):
            (self.folder / name).mkdir()
        ports = _free_ports(2)
        text = CONFIGURATION.format(
            folder=self.folder, host=self.host, controller_port=ports[0], node_port=ports[1]
        )
        (self.folder / "slurm.conf").write_text(text)
        # The plugin takes SLURM_CONF from the environment of its steps: clusters usually have their
        # configuration in /etc, which is not ours to change.
        srun = self.folder / "bin" / "srun"
        srun.write_text(
            f'#!/bin/sh\nSLURM_CONF={self.folder}/slurm.conf exec {shutil.which("srun")} "$@"\n'
        )
        srun.chmod(0o755)
        # SLURM wants devices; nothing is ever read from or written to them.
        for number in range(2):
            (self.folder / f"gpu{number}").symlink_to("/dev/null")
        (self.folder / "gres.conf").write_text(f"Name=gpu File={self.folder}/gpu[0-1]\n")
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nIgnoreSystemd=yes\n")

    def _start_munge(self) -> None:
        folder = self.folder / "munge"
        folder.mkdir(mode=0o755)
        (folder / "key").write_bytes(os.urandom(1024))
        (folder / "key").chmod(0o400)
        owner = pwd.getpwnam("munge")
        for path in (folder, folder / "key"):
            os.chown(path, owner.pw_uid, owner.pw_gid)
        options = [
            f"--{name}={folder / name}"
            for name in ("key-file", "socket", "pid-file", "log-file", "seed-file")
        ]
        options[0] = f"--key-file={folder / 'key'}"
        self._start("munged", "munged", "--foreground", *options, user="munge")
        self._wait_for("munged", lambda: (folder / "socket").exists())

    def _start(self, name: str, *command: str, user: str | None = None) -> None:
        self._daemons[name] = subprocess.Popen(
            command,
            env=self.environment,
            user=user,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=die_with_parent,
            # A Ctrl-C is for the tests, not for the daemons that they want to stop in order.
            start_new_session=True,
        )

    def _wait_for(self, name: str, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not ready():
            if time.monotonic() > deadline:
                logs = "\n".join(
                    f"== {log.name}\n{log.read_text()[-2000:]}"
                    for log in sorted(self.folder.glob("*.log"))
                )
                raise RuntimeError(f"{name} did not start within {DEADLINE_SECONDS:g} s:\n{logs}")
            time.sleep(0.1)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


if __name__ == "__main__":
    if reason := missing():
        raise SystemExit(reason)
    with Cluster() as cluster:
        print(
            f"export SLURM_CONF={cluster.folder / 'slurm.conf'} PATH={cluster.folder / 'bin'}:$PATH"
        )
        with suppress(EOFError, KeyboardInterrupt):
            input("The cluster runs until Enter is pressed.\n")
