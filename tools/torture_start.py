"""Starts of the program for torture_run.py: each has a process group of its own and can be killed."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

HANGS_AFTER_S = 120.0


class Start:
    """One start of the program, in a separate process group.

    Attributes:
        python: the words that start the Python of a rank.
    """

    python = (sys.executable,)

    def __init__(self, arguments: list[str], ranks: int, log: Path):
        runner = [str(Path(sys.executable).parent / "mpiexec"), "-n", str(ranks)] if ranks > 1 else []
        module = ["-m", "mpi4py"] if ranks > 1 else []
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [*runner, *self.python, *module, "-m", "hpc_saidpo", *arguments],
                cwd=Path(__file__).parent.parent,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )

    def ended(self) -> bool:
        return self.process.poll() is not None

    def family(self) -> list[int]:
        """Return every living process of this start, the launcher first."""
        parents = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            except OSError:  # it has just ended
                continue
            if state != "Z":
                parents[int(stat.parent.name)] = int(parent)
        family = [self.process.pid]
        for pid in family:
            family += [child for child, parent in parents.items() if parent == pid]
        return family

    def ranks(self) -> list[int]:
        """Return the processes that compute."""
        return [pid for pid in self.family() if b"hpc_saidpo" in _command(pid) and b"mpiexec" not in _command(pid)]

    def kill(self, who: str, number: signal.Signals, rng: random.Random) -> bool:
        """Send a signal and wait until all processes are dead. Return False if there was no process to send it to."""
        family, ranks = self.family(), self.ranks()
        if self.ended() or not ranks:
            self.wait()
            return False
        # SIGKILL of "all" is a node that goes down: the launcher goes with it.
        everybody = family if number == signal.SIGKILL else ranks
        for pid in [rng.choice(ranks)] if who == "one" else everybody:
            _signal(pid, number)
        self.wait()
        for pid in family:  # a dead launcher may leave some
            _signal(pid, signal.SIGKILL)
        while any(_command(pid) for pid in family):
            time.sleep(0.01)
        return True

    def wait(self) -> int:
        """Wait for the end. Return the exit code.

        Raises:
            SystemExit: the processes hang.
        """
        try:
            return self.process.wait(HANGS_AFTER_S)
        except subprocess.TimeoutExpired:
            for pid in self.family():
                _signal(pid, signal.SIGKILL)
            raise SystemExit(f"torture_run: the job hangs {HANGS_AFTER_S:.0f} s after it was killed") from None


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
