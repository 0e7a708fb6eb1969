"""Work items for whoever is free, and MPI kept moving meanwhile."""

from __future__ import annotations

import atexit
import functools
import sys
import threading
import time
import traceback
from collections.abc import Callable

from .world import POLL_S, World, drain

DONE, STOP = -1, -2  # in place of the index of a work item
_POLL_MAX_S = 0.05  # the longest pause between two looks
_ANSWER_WITHIN_S = 0.02  # the same while there is work to hand out
_GROWTH = 1.05  # of root's pause: by then a rank waits for at most a twentieth of the time since the last claim
_LOOKS = 2  # at a message: MPI takes it in at one call, and tells of it at the next
_SWITCH_S = 0.0005  # after which a thread that computes in Python lets another one's MPI call return


class Progress(threading.Thread):
    """Keeps MPI moving while this rank is busy elsewhere; on root, hands out work items too.

    A message that was sent may leave, or be taken in, only when its rank calls MPI again: between nodes a rank that
    goes from a broadcast into torch would leave the others waiting for that broadcast for good. So a thread calls MPI
    now and then; and as it is there, it answers the ranks that ask root for work. (An MPI RMA counter instead would
    stall while its target rank computes.)
    """

    def __init__(self, mpi, comm):
        super().__init__(daemon=True)
        self._mpi, self._comm = mpi, comm
        self._current = (0, None)  # tag and counter of the claim at hand; one value, for two threads
        self._ended = threading.Event()
        atexit.register(self._end)  # before MPI ends
        sys.setswitchinterval(_SWITCH_S)
        self.start()

    def _end(self):
        self._ended.set()
        self.join()

    def run(self):
        try:
            self._look()
        except Exception:  # noqa: BLE001 - whatever it is (a tick that cannot be shown), ranks would wait for good
            traceback.print_exc()
            drain(sys.stdout, sys.stderr)
            self._comm.Abort(1)

    def _look(self):
        pause_s = POLL_S
        while not self._ended.wait(pause_s):
            _, counter = self._current
            longest_s = _POLL_MAX_S if counter is None or counter.nothing_left else _ANSWER_WITHIN_S
            pause_s = POLL_S if self._answer() else min(longest_s, _GROWTH * pause_s)

    def _answer(self) -> bool:
        """Answer every rank that waits for work; False when there was none."""
        answered, (tag, counter) = False, self._current
        status = self._mpi.Status()
        while self._has_come(self._mpi.ANY_SOURCE, tag, status) and counter is not None:
            told = self._comm.recv(source=status.source, tag=tag)
            self._comm.send(counter.next(told), dest=status.source, tag=tag)
            answered = True
        return answered

    def claim(self, tag: int, n: int, tick: Callable[[int], None], world: World) -> Callable[[], int]:
        """A function that gives this rank the items after its first, then DONE or STOP.

        Each call of `claim` has a tag of its own, so that a rank that is ahead is not given an item of the one before.
        """
        if not world.is_root:
            return functools.partial(self._ask, tag, world)
        counter = Counter(n, world.size, tick)
        self._current = (tag, counter)

        def take() -> int:
            index = counter.next(bool(world.told))
            if index < 0:
                while not counter.everyone_knows.wait(1.0):
                    pass
                self._current = (0, None)
            return index

        return take

    def _has_come(self, source, tag, status=None) -> bool:
        """Whether there is a message to be received."""
        return any(self._comm.iprobe(source, tag, status) for _ in range(_LOOKS))

    def _ask(self, tag, world) -> int:
        self._comm.send(bool(world.told), dest=0, tag=tag)
        sleep_until(lambda: self._has_come(0, tag), _ANSWER_WITHIN_S)
        return self._comm.recv(source=0, tag=tag)


class Counter:
    """The numbers n_ranks .. n-1, once each, to any thread; none any more once a rank was told to stop.

    The first ones need no asking, they are the ranks' own numbers: a stage does not begin with every rank in a queue.

    Attributes:
        everyone_knows: set when every rank has been told that there is nothing more.
    """

    def __init__(self, n: int, n_ranks: int, tick: Callable[[int], None]):
        self._next, self._n, self._tick = min(n, n_ranks), n, tick
        for index in range(self._next):
            tick(index)
        self._working = n_ranks
        self._told = False
        self._lock = threading.Lock()
        self.everyone_knows = threading.Event()

    def next(self, told: bool) -> int:
        with self._lock:
            self._told |= told
            if self._next >= self._n or self._told:
                self._working -= 1
                if self._working == 0:
                    self.everyone_knows.set()
                return DONE if self._next >= self._n else STOP
            index = self._next
            self._next += 1
            self._tick(index)
            return index

    @property
    def nothing_left(self) -> bool:
        return self._next >= self._n or self._told


def sleep_until(true: Callable[[], bool], longest_s: float = _POLL_MAX_S) -> None:
    """Wait without taking the core from a rank that computes; a rank that spins would."""
    pause_s = POLL_S / 2
    while not true():
        time.sleep(pause_s)
        pause_s = min(longest_s, 1.5 * pause_s)
