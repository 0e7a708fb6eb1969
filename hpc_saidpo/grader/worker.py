"""The worker process of a grader: requests in, judgements out, as lines of JSON.

It starts for one rank, serves one request at a time, and may be killed at any moment. The kernel enforces a limit of
CPU time for each request (a Python handler would wait until C code returns) and a limit of memory for the process.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import resource
import signal
import sys
from types import ModuleType

from ..errors import words_of
from ..records import UNGRADABLE, Judgement
from .answers.fast import alone, thorough

_LIBRARY = "hpc_saidpo.grader.library"


def main() -> None:
    """Serve until standard input ends. Arguments: seconds of CPU time per request, bytes of memory."""
    limit_s, limit_bytes = float(sys.argv[1]), int(sys.argv[2])
    importlib.metadata.version("math-verify")  # its import takes seconds, so it waits for the first request
    _confine(limit_bytes)
    answers = sys.stdout
    sys.stdout = sys.stderr  # output of a library must not look like an answer
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        kind, gold, answer = json.loads(line)  # None: can the gold answer be compared with any answer at all?
        signal.setitimer(signal.ITIMER_PROF, limit_s)
        try:
            judgement = _JUDGES[kind](gold, answer)
        except Exception as error:  # noqa: BLE001 - the reason is reported, and the next request is served
            judgement = Judgement(UNGRADABLE, f"gave up: {words_of(error, with_type=True)}")
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps([judgement.verdict, judgement.reason]), file=answers, flush=True)


def _confine(limit_bytes: int) -> None:
    most = resource.getrlimit(resource.RLIMIT_AS)[1]
    limit_bytes = limit_bytes if most == resource.RLIM_INFINITY else min(limit_bytes, most)
    resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    for stop in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(stop, signal.SIG_IGN)  # the rank decides when to stop: it may have responses to grade yet


def _by_mathematics(gold: str, answer: str | None) -> Judgement:
    if answer is not None:
        return thorough(gold, answer, _by_library)
    _imported(_LIBRARY)  # if it does not load here, no answer is at fault
    return alone(gold, _by_library)


def _by_library(gold: str, answer: str) -> bool | None:
    return _imported(_LIBRARY).equal(gold, answer)


def _by_scorer(entry: str, answer: str | None) -> Judgement:
    _imported("reasoning_gym")
    return _imported("hpc_saidpo.grader.scorer").score(entry, answer)


_JUDGES = {"math": _by_mathematics, "reasoning_gym": _by_scorer}


def _imported(name: str) -> ModuleType:
    """A module. The time of its import, seconds once, does not count for the request."""
    left_s = signal.setitimer(signal.ITIMER_PROF, 0)[0]
    module = importlib.import_module(name)
    signal.setitimer(signal.ITIMER_PROF, max(left_s, 1e-3))
    return module


if __name__ == "__main__":
    main()
