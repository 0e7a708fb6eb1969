"""A response and its question -> a verdict, whatever the response is."""

from __future__ import annotations

import functools
import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence

from .. import settings
from ..errors import RunError
from ..records import CORRECT, UNGRADABLE, WRONG, Judgement, Question
from . import code, verifiers
from .answers import extract
from .answers.extract import boxed_apart
from .answers.fast import settle
from .answers.gold import is_prose
from .code import START_S

_LIST = re.compile(r",|\band\b|\bor\b|\\pm")
_LAUNCHERS = ("PMI", "PMIX", "OMPI_", "MPI", "HYDI_", "HYDRA_", "SLURM_")


class _Lost(Exception):
    """The worker ended, or did not answer; `by_limit` when that is the pair's own fault."""

    def __init__(self, what: str, by_limit: bool):
        super().__init__(what)
        self.by_limit = by_limit


class Grader:
    """Grades responses; one per rank, usable from any thread.

    The worker process is spawned, never forked, when it is first needed; it is replaced when it dies. A pair that
    reaches its limit is ungradable, and costs that limit once; a pair whose worker was killed from outside is graded
    again by the next one.
    """

    def __init__(self, limits: settings.Grader | None = None, cache_size: int = 200_000):
        self.limits = limits or settings.Grader()
        self.n_restarts = 0
        self._cache: dict[tuple[str, ...], Judgement] = {}
        self._cache_size = cache_size
        self._worker: subprocess.Popen | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Grader:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """End the worker."""
        with self._lock:
            self._stop()

    def judge(self, response: str, question: Question) -> Judgement:
        """The verdict on a response by the verifier of its question.

        Returns:
            CORRECT, WRONG, or UNGRADABLE: the gold answer cannot be used, or every checker gave up.
        """
        return verifiers.VERIFIERS[question.verifier].judge(self, response, question)

    def grade(self, response: str, gold: str, alternatives: Sequence[str] = ()) -> Judgement:
        """The verdict on a response, by mathematics.

        Args:
            gold: the gold answer, in LaTeX or plain.
            alternatives: other answers that are right as well.

        Returns:
            CORRECT, WRONG, or UNGRADABLE: the gold answer cannot be read, or every checker gave up.
        """
        candidates = extract.candidates(response)
        if not candidates:
            return settle(gold, None) or Judgement(WRONG, "no answer stated")
        golds = [gold, *alternatives]
        judgements = [self.compare(g, candidates[0]) for g in golds]
        best = _best(judgements)
        if best.verdict == CORRECT:
            return best
        parts = boxed_apart(response) if alternatives else []
        if parts and all(any(self.compare(g, part).verdict == CORRECT for g in golds) for part in parts):
            return Judgement(CORRECT, "every box holds one of the accepted answers")
        if len(candidates) > 1 and _LIST.search(gold):  # each value in a box of its own
            together = self.compare(gold, candidates[1])
            return together if together.verdict == CORRECT else best
        return best

    def compare(self, gold: str, answer: str) -> Judgement:
        """The verdict on an answer as it was stated."""
        settled = settle(gold, answer)
        if settled is not None:
            return settled
        found = self.ask("math", gold, answer)
        if found.verdict == WRONG and is_prose(gold):
            return Judgement(UNGRADABLE, "the gold answer is prose")
        return found

    def ask(self, *request: str) -> Judgement:
        """What the worker says: to ("math", gold answer, answer), or ("reasoning_gym", entry, answer)."""
        return self._once(request, lambda: self._ask(request))

    def run_tests(self, program: str, tests: str) -> Judgement:
        """The verdict on a program, by tests."""
        return self._once(("code", tests, program), lambda: code.run_tests(program, tests, self.limits))

    def _once(self, key: tuple[str, ...], judge: Callable[[], Judgement]) -> Judgement:
        found = self._cache.get(key)
        if found is None:
            with self._lock:
                found = self._cache.get(key) or judge()
                if len(self._cache) >= self._cache_size:
                    self._cache.pop(next(iter(self._cache)))
                self._cache[key] = found
        return found

    def _ask(self, request: Sequence[str]) -> Judgement:
        for _ in range(3):
            try:
                verdict, reason = self._request(request)
                return Judgement(verdict, reason)
            except _Lost as lost:
                self._stop()
                self.n_restarts += 1
                if lost.by_limit:
                    return Judgement(UNGRADABLE, f"gave up: {lost}")
        return Judgement(UNGRADABLE, "gave up: the grading process was killed three times")

    def _request(self, request: Sequence[str]):
        if self._worker is None:
            self._start()
        try:
            self._worker.stdin.write(json.dumps(request).encode() + b"\n")
            self._worker.stdin.flush()
        except OSError as error:  # it died before this pair
            raise _Lost(f"the grading process is gone: {error}", by_limit=False) from error
        return json.loads(self._read(self.limits.wall_s))

    def _start(self) -> None:
        """Spawn the worker, and wait until it serves.

        Raises:
            RunError: it does not start: no verdict could be trusted.
        """
        with tempfile.TemporaryFile() as errors:
            self._worker = _spawn(self.limits, errors)
            try:
                self._read(START_S)
            except _Lost as lost:
                if not lost.by_limit:
                    raise
                errors.seek(0)
                said = errors.read().decode(errors="replace").strip().splitlines()[-1:]
                raise RunError(
                    f"the grading process does not start ({lost}): {' '.join(said) or 'it says nothing'}. Install the "
                    "package's requirements again, or raise rollouts.grader.memory_gib"
                ) from lost

    def _read(self, timeout_s: float) -> bytes:
        """One line from the worker.

        Raises:
            _Lost: it ended, or was silent for `timeout_s`.
        """
        line = b""
        while not line.endswith(b"\n"):
            if not select.select([self._worker.stdout], [], [], timeout_s)[0]:
                raise _Lost(f"{timeout_s:g} s on the clock", by_limit=True)
            block = os.read(self._worker.stdout.fileno(), 65536)
            if not block:
                raise self._death()
            line += block
        return line

    def _death(self) -> _Lost:
        code = self._worker.wait()
        if code == -signal.SIGPROF:
            return _Lost(f"{self.limits.cpu_s:g} s of CPU time", by_limit=True)
        if code < 0 and -code not in (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT):
            return _Lost(f"killed by {signal.Signals(-code).name}", by_limit=False)
        return _Lost(f"the grading process failed (exit {code}): out of memory or of stack", by_limit=True)

    def _stop(self) -> None:
        if self._worker is not None:
            self._worker.kill()
            self._worker.wait()
            self._worker.stdin.close()
            self._worker.stdout.close()
            self._worker = None


def _best(judgements: list[Judgement]) -> Judgement:
    for verdict in (CORRECT, UNGRADABLE, WRONG):
        for judgement in judgements:
            if judgement.verdict == verdict:
                return judgement
    raise ValueError("nothing to judge")


def _spawn(limits: settings.Grader, errors) -> subprocess.Popen:
    """A fresh interpreter, with nothing of MPI in its environment: it must not take itself for a rank."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(_LAUNCHERS)}
    return subprocess.Popen(
        [
            sys.executable,
            "-P",
            "-c",
            "from hpc_saidpo.grader.worker import main; main()",
            str(limits.cpu_s),
            str(int(limits.memory_gib * 2**30)),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        bufsize=0,
        env={**environment, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )


@functools.lru_cache(maxsize=1)
def grader_of(limits: settings.Grader) -> Grader:
    """This process's grader: its verdicts are kept from stage to stage, and it ends with the process."""
    return Grader(limits)
