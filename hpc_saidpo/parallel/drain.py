"""The last output of a process that is about to be ended."""

from __future__ import annotations

import fcntl
import os
import stat
import struct
import termios
import time
from typing import TextIO

_POLL_S = 0.001  # pause between two looks at a pipe
_DRAIN_S = 2.0  # how long a failing rank waits for the readers of its last messages


def drain(*streams: TextIO) -> None:
    """Flush streams and wait until the readers of pipes have read everything.

    Otherwise a launcher drops the rest of the output at an abort.
    """
    deadline = time.monotonic() + _DRAIN_S
    for stream in streams:
        try:
            stream.flush()
            is_pipe = stat.S_ISFIFO(os.fstat(stream.fileno()).st_mode)
            while is_pipe and _unread(stream.fileno()) and time.monotonic() < deadline:
                time.sleep(_POLL_S)
        except (OSError, ValueError):  # closed, or not a file
            continue


def _unread(handle: int) -> int:
    """Return the number of bytes in a pipe."""
    return struct.unpack("i", fcntl.ioctl(handle, termios.FIONREAD, bytes(4)))[0]
