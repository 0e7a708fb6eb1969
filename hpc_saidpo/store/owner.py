"""The process that holds a lock: the facts by which other processes recognise it, and whether it is alive."""

from __future__ import annotations

import os
import re
import time
import uuid
from pathlib import Path
from typing import Any

# Owner of a lock file without content: its writer is about to write it, or died before.
UNKNOWN = {"token": "", "host": "unknown", "pid": 0, "slurm_job": "", "since": "this moment", "machine": ""}
_TEXTS = ("token", "host", "slurm_job", "since", "machine")
_LONGEST = 300  # characters of a text
_NUMBERS = ("pid", "slurm_restart")
_START = "process_start"  # in clock ticks; None where it is unknown


def this_process() -> dict[str, Any]:
    """Return the facts about this process. Each call returns another token."""
    return {
        "token": uuid.uuid4().hex,
        "host": os.uname().nodename,
        "pid": os.getpid(),
        "slurm_job": _slurm_job(),
        "slurm_restart": _slurm_restart(),
        "since": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "machine": _machine(),
        "process_start": process_start(os.getpid()),
    }


def is_owner(value: object) -> bool:
    """Whether a value has every fact of `this_process`, each of its type and of a sensible size."""
    if not isinstance(value, dict) or not value.keys() >= {*_TEXTS, *_NUMBERS, _START}:
        return False
    texts, numbers = [value[name] for name in _TEXTS], [value[name] for name in _NUMBERS]
    return (
        all(isinstance(text, str) and text.isprintable() and len(text) <= _LONGEST for text in texts)
        and all(type(number) is int and 0 <= number < 2**31 for number in numbers)
        and (value[_START] is None or type(value[_START]) is int)
    )


def is_alive(owner: dict[str, Any]) -> bool | None:
    """Whether the owner is alive; None if this machine cannot decide it."""
    if owner["machine"] and owner["machine"] == _machine():
        return _is_running(owner["pid"], owner["process_start"])
    if owner["slurm_job"] and owner["slurm_job"] == _slurm_job() and _slurm_restart() > owner["slurm_restart"]:
        return False  # an earlier start of this job: Slurm does not requeue a running job
    return None


def _slurm_job() -> str:
    array = [os.environ.get(f"SLURM_ARRAY_{part}_ID", "") for part in ("JOB", "TASK")]
    return "_".join(array) if all(array) else os.environ.get("SLURM_JOB_ID", "")


def _slurm_restart() -> int:
    count = os.environ.get("SLURM_RESTART_COUNT", "")
    return int(count) if re.fullmatch("[0-9]{1,9}", count) else 0


def _machine() -> str:
    """Return the place in which a pid is unique: boot of the kernel and pid namespace; "" without /proc."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _is_running(pid: int, start: int | None) -> bool:
    """Whether the process with this pid and start time runs. A hidden process of another user counts as that process.

    /proc mounted with hidepid shows no process of another user. A signal to such a process is refused, one to no
    process is reported as that.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return process_start(pid) in (start, None)
    return process_start(pid) == start


def process_start(pid: int) -> int | None:
    """Return a process's start time in clock ticks since boot; None if there is no such process, or it is hidden.

    Together with the pid it identifies a process: no pid is used twice in one clock tick.
    """
    try:
        # "pid (name) state ppid ...": only the name may contain spaces and parentheses
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if after_name[0] in "ZX" else int(after_name[19])
    except OSError:
        return None
