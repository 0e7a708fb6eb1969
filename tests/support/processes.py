"""Processes that a test started and did not end."""

import ctypes
import os
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def what_is_left():
    """A list that holds, at the end, the command lines of the processes that the block started and did not end.

    A process whose parent has ended becomes a child of this one (PR_SET_CHILD_SUBREAPER), so that what other tests
    start meanwhile is not counted.
    """
    prctl, subreaper = ctypes.CDLL(None).prctl, 36
    left, before = [], set(children())
    prctl(subreaper, 1)
    try:
        yield left
        left += [line for pid, line in children().items() if pid not in before]
    finally:
        prctl(subreaper, 0)


def children():
    """The command line of each living child of this process, by its process number."""
    lines = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(FileNotFoundError, ProcessLookupError):
            state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[:2]
            if int(parent) == os.getpid() and state != "Z":
                lines[pid] = Path(f"/proc/{pid}/cmdline").read_bytes()
    return lines
