"""Told to stop: Slurm's warning that the time limit is close, a preemption, a scancel, or a person's kill."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

EXIT_STOPPED = 75  # EX_TEMPFAIL of sysexits.h: not done, start again
SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)


class Stopped(Exception):
    """The ranks were told to stop, and have: what is finished is on disk, the same start goes on from there."""


class StopRequest:
    """Whether this process has been told to stop, and by what.

    Attributes:
        by: name of the signal; "" while there was none.
    """

    def __init__(self):
        self.by = ""

    def __bool__(self) -> bool:
        return bool(self.by)

    def listen(self, grace_s: float, give_up: Callable[[str], None]) -> None:
        """From now on SIGUSR1, SIGUSR2 and SIGTERM ask for an end of the work instead of ending the process.

        A signal that somebody in this process handles already (submitit) is left to them.

        Args:
            grace_s: how long after the signal the work may go on, in seconds.
            give_up: called with the signal's name when it has not ended by then, on a thread of its own.
        """
        unhandled = [s for s in SIGNALS if signal.getsignal(s) in (signal.SIG_DFL, signal.SIG_IGN, None)]
        if not unhandled:  # also the second run of a multirun
            return
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        # Python's own handlers wait for the main thread, which may be minutes inside a library; this descriptor
        # is written to at once, and read by a thread.
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in unhandled:
            signal.signal(number, _ignore)
        threading.Thread(target=self._watch, args=(reader, grace_s, give_up), daemon=True).start()

    def _watch(self, reader, grace_s, give_up):
        while not self.by:
            number = os.read(reader, 1)[0]
            if number in SIGNALS:
                self.by = signal.Signals(number).name
        threading.Event().wait(grace_s)
        give_up(self.by)


def _ignore(number, frame):
    """The thread that reads the wake-up descriptor does what there is to do."""
