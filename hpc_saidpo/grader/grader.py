"""The grader of a rank: a response and its question -> a verdict, by any verifier."""

from __future__ import annotations

import functools
import hashlib
import re
import threading
from collections.abc import Callable, Sequence

from .. import settings
from ..errors import shown
from ..records import CORRECT, UNGRADABLE, WRONG, Judgement, Question
from . import code
from .answers import extract
from .answers.fast import decide
from .answers.gold import is_prose
from .process import Lost, WorkerProcess
from .verifiers import find_verifier

LONG_CHARS = 300  # of a text that the cache does not hold itself
ATTEMPTS = 3  # of a request whose worker is killed or stopped from outside
_LIST = re.compile(r",|\band\b|\bor\b|\\pm")


class Grader:
    """Grades responses; one per rank, usable from any thread.

    Most verdicts are made in place, from text. The rest needs a worker process, which starts when it is first needed
    and is replaced when it ends. A pair of response and gold answer that reaches a limit costs that limit once. It is
    wrong if the gold answer alone can be graded, so that no response is better off for being beyond the limits; else it
    is ungradable. A pair whose worker was killed or stopped from outside is graded again by the next worker.
    """

    def __init__(self, limits: settings.Grader | None = None, cache_size: int = 200_000):
        self.limits = limits or settings.Grader()
        self.n_restarts = 0
        self._cache: dict[tuple[str, ...], Judgement] = {}
        self._cache_size = cache_size
        self._worker: WorkerProcess | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Grader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the worker process."""
        with self._lock:
            self._stop()

    def judge(self, response: str, question: Question) -> Judgement:
        """Grade a response by the verifier of its question.

        Returns:
            CORRECT, WRONG, or UNGRADABLE: the gold answer cannot be used, no checker could decide, or the verifier
            failed. The reason is one line of at most about `reason_chars` characters.

        Raises:
            RunError: there is no such verifier, or the worker process does not start.
        """
        return self._brief(find_verifier(question.verifier).verdict(self, response, question))

    def grade(self, response: str, gold: str, alternatives: Sequence[str] = ()) -> Judgement:
        """Grade a response by mathematics.

        Args:
            gold: the gold answer, in LaTeX or plain text.
            alternatives: other answers that are right as well.

        Returns:
            CORRECT, WRONG, or UNGRADABLE: the gold answer cannot be read, or no checker could decide.
        """
        candidates = extract.candidates(response)
        if not candidates:
            return decide(gold, None) or Judgement(WRONG, "no answer stated")
        golds = [gold, *alternatives]
        best = _best([self.compare(g, candidates[0]) for g in golds])
        if best.verdict == CORRECT:
            return best
        parts = extract.boxed_apart(response) if alternatives else []
        if parts and all(any(self.compare(g, part).verdict == CORRECT for g in golds) for part in parts):
            return Judgement(CORRECT, "every box holds one of the accepted answers")
        if len(candidates) > 1 and _LIST.search(gold):  # each value in its own box
            together = self.compare(gold, candidates[1])
            return together if together.verdict == CORRECT else best
        return best

    def compare(self, gold: str, answer: str) -> Judgement:
        """Grade an answer that is already extracted from its response."""
        judgement = decide(gold, answer)
        if judgement is not None:
            return judgement
        judgement = self.request("math", gold, answer)
        if judgement.verdict == WRONG and is_prose(gold):
            return Judgement(UNGRADABLE, "the gold answer is prose")
        return judgement

    def request(self, kind: str, gold: str, answer: str) -> Judgement:
        """The verdict of the worker.

        Args:
            kind: "math"; or "reasoning_gym", whose gold answer is an entry.
        """
        judgement = self._once((kind, gold, answer), lambda: self._request((kind, gold, answer)))
        if judgement.verdict != UNGRADABLE:
            return judgement
        alone = self._once((kind, gold), lambda: self._request((kind, gold, None)))
        if alone.verdict != CORRECT:
            return judgement
        return Judgement(WRONG, f"the gold answer can be graded, this answer cannot: {judgement.reason}")

    def run_tests(self, program: str, tests: str) -> Judgement:
        """Grade a program by tests."""
        return self._once(("code", tests, program), lambda: code.run_tests(program, tests, self.limits))

    def _once(self, key: tuple[str, ...], judge: Callable[[], Judgement]) -> Judgement:
        """The verdict from the cache, or a new one that the cache keeps."""
        key = tuple(map(_short, key))
        judgement = self._cache.get(key)
        if judgement is None:
            with self._lock:
                judgement = self._cache.get(key) or self._brief(judge())
                if len(self._cache) >= self._cache_size:
                    self._cache.pop(next(iter(self._cache)))
                self._cache[key] = judgement
        return judgement

    def _brief(self, judgement: Judgement) -> Judgement:
        reason = shown(judgement.reason, self.limits.reason_chars)
        return judgement if reason == judgement.reason else Judgement(judgement.verdict, reason)

    def _request(self, message: Sequence[str | None]) -> Judgement:
        reason = ""
        for _ in range(ATTEMPTS):
            try:
                if self._worker is None:
                    self._worker = WorkerProcess(self.limits)
                return self._worker.request(message)
            except Lost as lost:
                self._stop()
                self.n_restarts += 1
                if lost.by_limit:
                    return Judgement(UNGRADABLE, f"gave up: {lost}")
                reason = str(lost)
        return Judgement(UNGRADABLE, f"gave up: the grading process was lost three times, at last: {reason}")

    def _stop(self) -> None:
        if self._worker is not None:
            self._worker.close()
            self._worker = None


def _short(part: str) -> str:
    """A part of a key of the cache: a long text by its hash, so that the cache stays small."""
    long = len(part) > LONG_CHARS
    return hashlib.sha256(part.encode("utf-8", "surrogatepass")).hexdigest() if long else part


def _best(judgements: Sequence[Judgement]) -> Judgement:
    """The first verdict that is correct, else the first ungradable, else the first wrong one."""
    return min(judgements, key=lambda judgement: (CORRECT, UNGRADABLE, WRONG).index(judgement.verdict))


@functools.lru_cache(maxsize=1)
def shared_grader(limits: settings.Grader) -> Grader:
    """The grader of this process: its verdicts are kept from stage to stage, and it ends with the process."""
    return Grader(limits)
