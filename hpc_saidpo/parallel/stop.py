"""Requests to stop: Slurm's warning before the time limit, a preemption, scancel, or a person's kill."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

EXIT_STOPPED = 75  # EX_TEMPFAIL of sysexits.h: not done, start again
SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)


class Stopped(Exception):
    """The ranks have stopped on request. Finished work is on disk, and the same command resumes from there."""


class StopRequest:
    """A request to this process to stop. True once there is one.

    Attributes:
        signal_name: the signal that requested the stop; "" before there was one.
    """

    def __init__(self):
        self.signal_name = ""

    def __bool__(self) -> bool:
        return bool(self.signal_name)

    def listen(self, grace_s: float, give_up: Callable[[str], None]) -> None:
        """Let SIGUSR1, SIGUSR2 and SIGTERM request a stop, from now on, instead of ending the process.

        A signal that another part of this process (submitit) handles already is left to it.

        Args:
            grace_s: time after the signal in which the work may continue, in seconds.
            give_up: called with the name of the signal, in a separate thread, if the process still runs after that.
        """
        unhandled = [s for s in SIGNALS if signal.getsignal(s) in (signal.SIG_DFL, signal.SIG_IGN, None)]
        if not unhandled:  # also in the second run of a multirun
            return
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        # Python's own handlers wait for the main thread, which may be inside a library for minutes. This descriptor
        # is written at once, and a thread reads it.
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in unhandled:
            signal.signal(number, _ignore)
        threading.Thread(target=self._watch, args=(reader, grace_s, give_up), daemon=True).start()

    def _watch(self, reader: int, grace_s: float, give_up: Callable[[str], None]) -> None:
        while not self.signal_name:
            number = os.read(reader, 1)[0]
            if number in SIGNALS:
                self.signal_name = signal.Signals(number).name
        threading.Event().wait(grace_s)
        give_up(self.signal_name)


def _ignore(number: int, frame: FrameType | None) -> None:
    """Do nothing: the thread that reads the wake-up descriptor handles the signal."""
