"""Requests to stop: Slurm's warning before the time limit, a preemption, scancel, a person's kill or Ctrl-C."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

EXIT_STOPPED = 75  # EX_TEMPFAIL of sysexits.h: not done, start again
SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT)
CTRL_C = "Ctrl-C"  # the name of SIGINT
AGAIN_S = 1.0  # a second Ctrl-C counts after so long: a launcher may send on the one that its terminal has sent too


class Stopped(Exception):
    """The ranks have stopped on request. Finished work is on disk, and the same command resumes from there."""


def exit_at_once(signal_name: str) -> None:
    """End this process during its start, when it has begun no work: exit code 75."""
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
        self._grace_s = 0.0
        self._give_up: Callable[[str], None] | None = None
        self._announce: Callable[[str], None] = lambda signal_name: None
        self._can_end = threading.Event()

    def __bool__(self) -> bool:
        return bool(self.signal_name)

    def listen_from_start(self, is_rank: bool) -> None:
        """Listen before the ranks are connected. One process ends at once; a rank ends all as soon as it is connected.

        A rank must not end alone: the others would wait for it in MPI_Init, where they react to no signal.

        Args:
            is_rank: whether an MPI launcher has started this process.
        """
        self.listen(0.0, None if is_rank else exit_at_once)

    def listen(
        self,
        grace_s: float,
        give_up: Callable[[str], None] | None,
        announce: Callable[[str], None] = lambda signal_name: None,
    ) -> None:
        """Let SIGUSR1, SIGUSR2, SIGTERM and Ctrl-C request a stop, from now on, instead of ending the process.

        A second Ctrl-C ends the work in flight at once.

        A later call replaces the arguments.

        Args:
            grace_s: time after the signal in which the work may continue, in seconds.
            give_up: called with the name of the signal, in a separate thread, if the process still runs after that.
                None: a later call brings it.
            announce: called at once with the name of the signal, in a separate thread.
        """
        self._grace_s, self._give_up, self._announce = grace_s, give_up, announce
        if give_up is not None:
            self._can_end.set()
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
                self.signal_name = CTRL_C if number == signal.SIGINT else signal.Signals(number).name
        begun = time.monotonic()
        self._can_end.wait()
        self._announce(self.signal_name)
        while (left_s := begun + self._grace_s - time.monotonic()) > 0:
            if not select.select([reader], [], [], left_s)[0]:
                continue
            if os.read(reader, 1)[0] == signal.SIGINT and time.monotonic() > begun + AGAIN_S:
                break
        if self._give_up is not None:
            self._give_up(self.signal_name)


REQUEST = StopRequest()  # of this process: signals are sent to a process, not to a world


def _ignore(number: int, frame: FrameType | None) -> None:
    """Do nothing: the thread that reads the wake-up descriptor handles the signal."""
