"""A real Slurm for the tests: tools/local_slurm.sh, and the commands of its user."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from support.program import TOYS, user_environment, warm

HOME = Path(__file__).parents[2]
TOOL = HOME / "tools" / "local_slurm.sh"
FINAL = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"}
# Options that replace the values in the sbatch scripts: 2 nodes with one rank each.
TWO_NODES = {"nodes": 2, "ntasks-per-node": 1, "cpus-per-task": 1, "mem-per-cpu": "900M", "time": 60}
ONE_RANK = {**TWO_NODES, "nodes": 1}
NO_GPU = {"gpus-per-task": "null"}  # drops the line of the sbatch scripts


class Cluster:
    """Nodes n1 and n2, and n3 to replace a dead one. Each has 4 CPUs."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.logs = folder / "logs"
        self.logs.mkdir()
        started = subprocess.run([TOOL, "start"], env=user_environment(NODES="3"), capture_output=True, text=True)
        assert started.returncode == 0, started.stderr
        exported = dict(word.split("=", 1) for word in started.stdout.split()[1:])
        # OMP_NUM_THREADS would decide the threads of a rank, SLURM_CPUS_PER_TASK shall.
        self.env = user_environment(
            **exported, SAIDPO_PYTHON=sys.executable, SAIDPO_HOME=str(HOME), PYTHONPATH=f"{HOME}:{TOYS}"
        )
        del self.env["OMP_NUM_THREADS"]

    def warm_python(self) -> Path:
        """A program that jobs call in place of Python: their ranks start warm (`support.warm`)."""
        script = self.folder / "warm-python"
        script.write_text(f'#!/bin/sh\nexec {shlex.join(warm().command())} "$@"\n')
        script.chmod(0o755)
        return script

    def run(self, *command, timeout_s: float = 120, check: bool = True, **env: str) -> subprocess.CompletedProcess:
        """Run a command as the cluster's user."""
        done = subprocess.run(
            [str(word) for word in command], env={**self.env, **env}, capture_output=True, text=True, cwd=HOME,
            timeout=timeout_s, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert not check or done.returncode == 0, (command, done.stdout, done.stderr)
        return done

    def stop(self) -> None:
        self.run(TOOL, "stop")

    def submit(self, script, *arguments, **options) -> str:
        """Call sbatch. Return the number of the job."""
        where = {"output": self.logs / "%x-%A_%a.out", **options}
        words = [f"--{key}={value}" for key, value in where.items()]
        return self.run("sbatch", "--parsable", *words, script, *arguments).stdout.strip()

    def sweep(self, lines: Path, *overrides: str, **options) -> dict[str, str]:
        """Call tools/submit.py. Return the number of each step's job."""
        given = {"output": self.logs / "%x-%A_%a.out", **NO_GPU, **options}
        words = [f"{name}={value}" for name, value in given.items()]
        done = self.run(sys.executable, "tools/submit.py", lines, *words, "--", *overrides)
        return dict(line.split() for line in done.stdout.splitlines())

    def jobs(self, number: str) -> dict[str, dict[str, str]]:
        """Return facts about a job, or about each started task of an array, by the name in the queue."""
        shown = self.run("scontrol", "-o", "show", "job", number).stdout.splitlines()
        facts = [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in shown]
        return {f"{f['ArrayJobId']}_{f['ArrayTaskId']}" if "ArrayTaskId" in f else f["JobId"]: f for f in facts}

    def state(self, number: str) -> str:
        return self.jobs(number)[number]["JobState"]

    def restarts(self, number: str) -> int:
        return int(self.jobs(number)[number]["Restarts"])

    def wait(self, number: str, timeout_s: float = 240) -> dict[str, str]:
        """Wait until a job, or every task of an array, has ended. Return their states."""

        def states():
            return {name: facts["JobState"] for name, facts in self.jobs(number).items()}

        self.until(lambda: set(states().values()) <= FINAL, f"end of {number}", timeout_s)
        return states()

    def until(self, is_true, event: str, timeout_s: float = 120) -> None:
        """Wait for a condition.

        Raises:
            AssertionError: it did not become true in time.
        """
        deadline = time.monotonic() + timeout_s
        while not is_true():
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {timeout_s} s for: {event}\n{self.describe()}")
            time.sleep(0.05)

    def describe(self) -> str:
        """Return the queue and the end of every log."""
        tails = [f"== {path.name}\n{path.read_text()[-1500:]}" for path in sorted(self.logs.glob("*"))]
        return "\n".join([self.run("squeue", check=False).stdout, *tails])

    def log(self, pattern: str = "*") -> str:
        return "".join(path.read_text() for path in sorted(self.logs.glob(pattern)))

    def ranks_on(self, node: str) -> list[int]:
        """Return the program's processes on a node."""
        pids = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
                environment = (folder / "environ").read_bytes().split(b"\0")
            except OSError:  # it has just ended
                continue
            in_this_cluster = f"SLURM_CONF={self.env['SLURM_CONF']}".encode() in environment
            if in_this_cluster and f"SLURMD_NODENAME={node}".encode() in environment and b"hpc_saidpo" in words[1:]:
                pids.append(int(folder.name))
        return [pid for pid in pids if Path(f"/proc/{pid}/comm").read_text().strip() not in ("srun", "bash")]


def not_run() -> str:
    """Return the reason why no cluster can be started here, "" if there is none."""
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    missing = [p for p in ("slurmctld", "slurmd", "munged", "srun") if not shutil.which(p, path=path)]
    return f"not run: no Slurm (apt-get install slurm-wlm munge; missing: {', '.join(missing)})" if missing else ""
