"""The process that grades what takes more than comparing text: requests in, judgements out, as lines of JSON.

It is started for one rank, serves one request at a time, and may be killed at any moment. Each request has a limit of
CPU time, which the kernel enforces (no Python handler: those wait until C code returns), and the process one of memory.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import resource
import signal
import sys

from ..records import UNGRADABLE, Judgement
from .answers.fast import thorough


def main() -> None:
    """Serve until standard input ends. Arguments: seconds of CPU per request, bytes of memory."""
    limit_s, limit_bytes = float(sys.argv[1]), int(sys.argv[2])
    importlib.metadata.version("math-verify")  # imported when it is asked for: seconds
    _confine(limit_bytes)
    answers = sys.stdout
    sys.stdout = sys.stderr  # whatever a library prints must not pass for an answer
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        verifier, gold, answer = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, limit_s)
        try:
            judgement = _JUDGE[verifier](gold, answer)
        except Exception as error:  # noqa: BLE001 - whatever this input broke is told, and the next one is served
            judgement = Judgement(UNGRADABLE, f"gave up: {type(error).__name__}: {error}"[:200])
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps([judgement.verdict, judgement.reason]), file=answers, flush=True)


def _confine(limit_bytes: int) -> None:
    most = resource.getrlimit(resource.RLIMIT_AS)[1]
    limit_bytes = limit_bytes if most == resource.RLIM_INFINITY else min(limit_bytes, most)
    resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    for told_to_stop in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(told_to_stop, signal.SIG_IGN)  # its rank decides: it may have responses to grade yet


def _by_mathematics(gold: str, answer: str) -> Judgement:
    return thorough(gold, answer, lambda *pair: _imported("hpc_saidpo.grader.library").settle(*pair))


def _by_scorer(entry: str, answer: str) -> Judgement:
    _imported("reasoning_gym")
    return _imported("hpc_saidpo.grader.scorer").score(entry, answer)


_JUDGE = {"math": _by_mathematics, "reasoning_gym": _by_scorer}


def _imported(name: str):
    """A module: its import may take seconds, once, and not at the cost of a pair."""
    left_s = signal.setitimer(signal.ITIMER_PROF, 0)[0]
    found = importlib.import_module(name)
    signal.setitimer(signal.ITIMER_PROF, max(left_s, 1e-3))
    return found


if __name__ == "__main__":
    main()
