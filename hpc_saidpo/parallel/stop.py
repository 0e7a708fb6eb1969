"""Requests to stop: Slurm's warning before the time limit, a preemption, scancel, or a person's kill."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

from . import launched

EXIT_STOPPED = 75  # EX_TEMPFAIL of sysexits.h: not done, start again
SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)


class Stopped(Exception):
    """The ranks have stopped on request. Finished work is on disk, and the same command resumes from there."""


def exit_at_once(signal_name: str) -> None:
    """End this process during its start, when it has begun no work: exit code 75."""
    if launched.rank() == 0:
        print(f"hpc_saidpo: {signal_name}: during the start: the same command starts again", file=sys.stderr)
    os._exit(EXIT_STOPPED)


class StopRequest:
    """A request to this process to stop. True once there is one.

    Attributes:
        signal_name: the signal that requested the stop; "" before there was one.
        is_listening: whether signals are handled.
    """

    def __init__(self):
        self.signal_name = ""
        self.is_listening = False
        self._grace_s, self._give_up = 0.0, exit_at_once

    def __bool__(self) -> bool:
        return bool(self.signal_name)

    def listen(self, grace_s: float = 0.0, give_up: Callable[[str], None] = exit_at_once) -> None:
        """Let SIGUSR1, SIGUSR2 and SIGTERM request a stop, from now on, instead of ending the process.

        A later call replaces the arguments. So a process can listen from its first moment, and learn later how to end.

        Args:
            grace_s: time after the signal in which the work may continue, in seconds.
            give_up: called with the name of the signal, in a separate thread, if the process still runs after that.
        """
        self._grace_s, self._give_up = grace_s, give_up
        if self.is_listening:
            return
        self.is_listening = True
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        # Python's own handlers wait for the main thread, which may be inside a library for minutes. This descriptor
        # is written at once, and a thread reads it.
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, _ignore)
        threading.Thread(target=self._watch, args=(reader,), daemon=True).start()

    def _watch(self, reader: int) -> None:
        while not self.signal_name:
            number = os.read(reader, 1)[0]
            if number in SIGNALS:
                self.signal_name = signal.Signals(number).name
        threading.Event().wait(self._grace_s)
        self._give_up(self.signal_name)


REQUEST = StopRequest()  # of this process: signals are sent to a process, not to a world


def _ignore(number: int, frame: FrameType | None) -> None:
    """Do nothing: the thread that reads the wake-up descriptor handles the signal."""
