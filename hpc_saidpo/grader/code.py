"""Verdicts on programs: each runs with its tests in a separate process, which the kernel confines (`sandbox`)."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from .. import settings
from ..records import CORRECT, UNGRADABLE, VERDICTS, Judgement

START_S = 120.0  # time for a process to import its libraries, on a file system under load
_ROOT = str(Path(__file__).resolve().parents[2])
# Isolated and without site-packages: it starts in hundredths of a second, and there is less to read inside.
_LIBRARY_PATH = "LD_LIBRARY_PATH"  # the only variable of the environment that the sandbox has
_FLAGS = ("-I", "-S", "-B", "-c")
_PROGRAM = "import sys; sys.path.insert(0, {!r}); from hpc_saidpo.sandbox.{} import main; del sys.path[0]; main()"
_VERDICTS = {name: verdict for verdict, name in VERDICTS.items()}


class Unusable(Exception):
    """The sandbox does not start; the message is the reason."""


def run_tests(code: str, tests: str, limits: settings.Grader) -> Judgement:
    """Run a program under its tests.

    Args:
        code: the program of the response.
        tests: assertions, in Python, on the functions that it must define.

    Returns:
        CORRECT; WRONG: a test fails, or the program does not parse or reaches a limit, or lets the tests reach one;
        UNGRADABLE: the tests do not parse or call no function of it, or the sandbox does not start.
    """
    request = json.dumps({"code": code, "tests": tests})
    try:
        result = _run("process", json.dumps(_confinement(limits)), request, limits.wall_s + START_S)
        if "unusable" in result:
            raise Unusable(result["unusable"])
    except Unusable as reason:
        return Judgement(UNGRADABLE, f"the sandbox does not start: {reason}")
    return Judgement(_VERDICTS[result["verdict"]], result["reason"])


def obstacle(limits: settings.Grader) -> str:
    """The reason why programs cannot run on this machine, and what to do; "" if they can."""
    judgement = run_tests("def one(): return 1", "assert one() == 1", limits)
    if judgement.verdict == CORRECT:
        return ""
    return (
        f"code cannot be run safely here ({judgement.reason}). It needs a Linux kernel on x86_64 or aarch64 that lets "
        "this user make namespaces (user.max_user_namespaces above 0, kernel.unprivileged_userns_clone=1 (Debian), "
        "kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu)), set a seccomp filter, and join a new session "
        "keyring (keyctl; kernel.keys.maxkeys above the keys in use); and a container that permits unshare, mount and "
        "keyctl. Or, on a machine that you can afford to lose, rollouts.grader.code_unsandboxed=true runs it with "
        "limits alone"
    )


def _confinement(limits: settings.Grader) -> dict[str, Any]:
    is_confined = not limits.code_unsandboxed
    return {
        "cpu_s": limits.cpu_s,
        "wall_s": limits.wall_s,
        "memory_bytes": int(limits.memory_gib * 2**30),
        "is_confined": is_confined,
        "libraries": _libraries(sys.executable, os.environ.get(_LIBRARY_PATH)) if is_confined else [],
    }


@functools.cache
def _libraries(python: str, path: str | None) -> list[str]:
    """The shared libraries that this Python's standard library loads, with this LD_LIBRARY_PATH."""
    return _run("libraries", "", "", START_S)


def _run(module: str, argument: str, request: str, timeout_s: float) -> Any:
    """Run a program of the sandbox. Returns its output, from JSON.

    Raises:
        Unusable: it fails, with the last line of its errors and its exit code.
    """
    with subprocess.Popen(
        [sys.executable, *_FLAGS, _PROGRAM.format(_ROOT, module), argument],
        env={_LIBRARY_PATH: os.environ[_LIBRARY_PATH]} if _LIBRARY_PATH in os.environ else {},
        start_new_session=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            out, errors = process.communicate(request.encode(), timeout=timeout_s)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            out, errors = b"", b"it takes too long"
    if process.returncode or not out:
        last_line = errors.decode(errors="replace").strip().splitlines()[-1:]
        raise Unusable(" ".join([*last_line, f"(exit {process.returncode})"]))
    return json.loads(out)
