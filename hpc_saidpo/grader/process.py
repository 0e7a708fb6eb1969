"""The worker process of a grader, seen from its rank: start it, send requests, learn why it ended."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import IO

from .. import settings
from ..errors import RunError
from ..records import Judgement
from .code import START_S

# Environment variables of MPI launchers: the worker must not take itself for a rank.
_LAUNCHERS = ("PMI", "PMIX", "OMPI_", "MPI", "HYDI_", "HYDRA_", "SLURM_")
_CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT)
_BLOCK_BYTES = 65536


class Lost(Exception):
    """The worker ended, or sent no answer in time.

    Attributes:
        by_limit: whether the request itself caused it; False: the worker was killed or stopped from outside.
    """

    def __init__(self, message: str, by_limit: bool):
        super().__init__(message)
        self.by_limit = by_limit


class WorkerProcess:
    """A process that runs `grader.worker`: spawned, never forked. It serves one request at a time.

    Raises:
        RunError: it does not start, so no verdict could be trusted.
        Lost: it was killed from outside while it started.
    """

    def __init__(self, limits: settings.Grader):
        self.limits = limits
        with tempfile.TemporaryFile() as errors:
            self.popen = _spawn(limits, errors)
            try:
                self._read(START_S, by_limit=True)
            except BaseException as lost:
                self.close()
                if not isinstance(lost, Lost) or not lost.by_limit:
                    raise
                errors.seek(0)
                last_line = errors.read().decode(errors="replace").strip().splitlines()[-1:]
                raise RunError(
                    f"the grading process does not start ({lost}): {' '.join(last_line) or 'it writes no message'}. "
                    "Install the package's requirements again, or raise rollouts.grader.memory_gib"
                ) from lost

    def request(self, message: Sequence[str | None]) -> Judgement:
        """Send a request and wait for the verdict.

        A request computes and never waits. So one that is late without having used up its CPU time is no fault of its
        own: the machine is busy, or the process was stopped.

        Raises:
            Lost: the process ended, or the time limit was reached.
        """
        assert self.popen.stdin is not None
        try:
            self.popen.stdin.write(json.dumps(message).encode() + b"\n")
            self.popen.stdin.flush()
        except OSError as error:  # it ended before this request
            raise Lost(f"the grading process is gone: {error}", by_limit=False) from error
        verdict, reason = json.loads(self._read(self.limits.wall_s, by_limit=False))
        return Judgement(verdict, reason)

    def close(self) -> None:
        """End the process."""
        self.popen.kill()
        self.popen.wait()
        for pipe in (self.popen.stdin, self.popen.stdout):
            if pipe is not None:
                pipe.close()

    def _read(self, timeout_s: float, by_limit: bool) -> bytes:
        """One line from the process.

        Raises:
            Lost: it ended, or was silent for `timeout_s`.
        """
        assert self.popen.stdout is not None
        line = b""
        while not line.endswith(b"\n"):
            if not select.select([self.popen.stdout], [], [], timeout_s)[0]:
                raise Lost(f"{timeout_s:g} s on the clock", by_limit)
            block = os.read(self.popen.stdout.fileno(), _BLOCK_BYTES)
            if not block:
                raise self._death()
            line += block
        return line

    def _death(self) -> Lost:
        """The reason why the process ended."""
        code = self.popen.wait()
        if code == -signal.SIGPROF:
            return Lost(f"{self.limits.cpu_s:g} s of CPU time", by_limit=True)
        if code < 0 and -code not in _CRASHES:
            return Lost(f"killed by {signal.Signals(-code).name}", by_limit=False)
        return Lost(f"the grading process failed (exit {code}): out of memory or of stack", by_limit=True)


def _spawn(limits: settings.Grader, errors: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start a fresh interpreter without MPI in its environment."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(_LAUNCHERS)}
    program = "from hpc_saidpo.grader.worker import main; main()"
    return subprocess.Popen(
        [sys.executable, "-P", "-c", program, str(limits.cpu_s), str(int(limits.memory_gib * 2**30))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        bufsize=0,
        env={**environment, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
