"""Verdicts on programs: each runs with its tests in a separate process, which the kernel confines (`sandbox`)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from .. import settings
from ..records import CORRECT, UNGRADABLE, VERDICTS, Judgement

START_S = 120.0  # time for a process to import its libraries, on a file system under load
_ROOT = str(Path(__file__).resolve().parents[2])
# Isolated and without site-packages: it starts in hundredths of a second, and there is less to read inside.
_PROGRAM = (
    f"import sys; sys.path.insert(0, {_ROOT!r}); from hpc_saidpo.sandbox.process import main; del sys.path[0]; main()"
)
_VERDICTS = {name: verdict for verdict, name in VERDICTS.items()}


def run_tests(code: str, tests: str, limits: settings.Grader) -> Judgement:
    """Run a program under its tests.

    Args:
        code: the program of the response.
        tests: assertions, in Python, on the functions that it must define.

    Returns:
        CORRECT; WRONG: a test fails, or the program does not parse or reaches a limit; UNGRADABLE: the tests themselves
        do not run, or the sandbox does not start.
    """
    result, end = _run(json.dumps({"code": code, "tests": tests}), limits)
    if "unusable" in result:
        return Judgement(UNGRADABLE, f"the sandbox does not start: {result['unusable']}")
    if "verdict" not in result:
        return Judgement(UNGRADABLE, f"the tests do not come to an end: {end}")
    return Judgement(_VERDICTS[result["verdict"]], result["reason"])


def obstacle(limits: settings.Grader) -> str:
    """The reason why programs cannot run on this machine, and what to do; "" if they can."""
    judgement = run_tests("def one(): return 1", "assert one() == 1", limits)
    if judgement.verdict == CORRECT:
        return ""
    return (
        f"code cannot be run safely here ({judgement.reason}). It needs a Linux kernel that lets this user make "
        "namespaces: user.max_user_namespaces above 0, kernel.unprivileged_userns_clone=1 (Debian), "
        "kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu), a container that permits unshare. Or, on a machine "
        "that you can afford to lose, rollouts.grader.code_unsandboxed=true runs it with limits alone"
    )


def _run(request: str, limits: settings.Grader) -> tuple[dict, str]:
    """(output of the sandbox process, {} if there is none; the last line of its errors and its exit code)."""
    confinement = {
        "cpu_s": limits.cpu_s,
        "wall_s": limits.wall_s,
        "memory_bytes": int(limits.memory_gib * 2**30),
        "is_confined": not limits.code_unsandboxed,
    }
    libraries = {key: os.environ[key] for key in ("LD_LIBRARY_PATH",) if key in os.environ}
    command = [sys.executable, "-I", "-S", "-B", "-c", _PROGRAM, json.dumps(confinement)]
    with subprocess.Popen(
        command,
        env=libraries,
        start_new_session=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            out, errors = process.communicate(request.encode(), timeout=limits.wall_s + START_S)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            out, errors = b"", b"they took too long"
    last_line = errors.decode(errors="replace").strip().splitlines()[-1:]
    return json.loads(out or "{}"), " ".join([*last_line, f"(exit {process.returncode})"])
