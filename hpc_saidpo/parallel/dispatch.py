"""Answer the other ranks' requests while this rank computes: for work items, and from torch (see `store`)."""

from __future__ import annotations

import atexit
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .drain import drain
from .task import Task
from .world import POLL_S, World

if TYPE_CHECKING:
    from mpi4py import MPI

DONE, STOP = -1, -2  # sent in place of the index of a work item
STORE_TAG, CLAIM_TAGS = 1, range(2, 1002)  # of messages
Handler = Callable[[int, Any], object]  # rank, message -> the reply
_NO_TAG = 0  # that no message has
_POLL_MAX_S = 0.05  # longest pause between two polls
_ANSWER_WITHIN_S = 0.02  # the same, while requests can come
_MISSING_S = 60.0  # root answers within milliseconds: after so long it is suspended, or its node does not respond
_GROWTH = 1.05  # of root's pause: a rank waits for at most a twentieth of the time since the last claim
_PROBES = 2  # per message: MPI receives it in one call and reports it in the next
_SWITCH_S = 0.0005  # after this time a thread that computes in Python lets the MPI call of another thread return
_log = logging.getLogger("hpc_saidpo")  # the logger of progress.py; this package must not import that module


class Progress(threading.Thread):
    """A thread that keeps MPI moving while its rank computes. On root it answers requests of the other ranks too.

    MPI may send or receive a message only during a later MPI call of the same rank: a rank that goes from a broadcast
    into torch would leave ranks on other nodes waiting for that broadcast forever. So this thread calls MPI now and
    then. (An MPI RMA counter in place of requests would stall while its target rank computes.)
    """

    def __init__(self, mpi: ModuleType, comm: MPI.Comm):
        super().__init__(daemon=True)
        self._mpi, self._comm = mpi, comm
        self._handlers: dict[int, Handler] = {}  # by tag; on root. Two threads use it
        self._ended = threading.Event()
        atexit.register(self.end)  # before MPI ends
        sys.setswitchinterval(_SWITCH_S)
        self.start()

    def end(self) -> None:
        """Stop the thread and wait for its end."""
        self._ended.set()
        self.join()

    def run(self) -> None:
        try:
            self._poll()
        except Exception:  # noqa: BLE001 - any failure here (a tick that cannot be shown) would leave ranks waiting
            traceback.print_exc()
            drain(sys.stdout, sys.stderr)
            self._comm.Abort(1)

    def _poll(self) -> None:
        pause_s = POLL_S
        while not self._ended.wait(pause_s):
            longest_s = _ANSWER_WITHIN_S if self._handlers else _POLL_MAX_S
            pause_s = POLL_S if self._answer() else min(longest_s, _GROWTH * pause_s)

    def _answer(self) -> bool:
        """Answer every rank that waits. Return whether there was one."""
        answered, status = False, self._mpi.Status()
        for tag, handle in tuple(self._handlers.items()):
            while self._has_message(self._mpi.ANY_SOURCE, tag, status):
                rank = status.source
                reply = handle(rank, self._comm.recv(source=rank, tag=tag))
                self._comm.send(reply, dest=rank, tag=tag)
                answered = True
        return self._has_message(self._mpi.ANY_SOURCE, _NO_TAG) or answered  # a call of MPI in any case

    def answer(self, tag: int, handle: Handler) -> None:
        """Answer every message with a tag, on root, until `ignore`."""
        self._handlers[tag] = handle

    def ignore(self, tag: int) -> None:
        """Answer no further message with a tag."""
        self._handlers.pop(tag, None)

    def request(self, tag: int, message: object, root: str) -> Any:
        """Send a message to root. Return its reply. One request with a tag at a time.

        Args:
            root: name of root, for a warning if it does not reply.
        """
        self._comm.send(message, dest=0, tag=tag)
        sent, has_warned = time.monotonic(), False

        def is_answered() -> bool:
            nonlocal has_warned
            if not has_warned and time.monotonic() - sent > _MISSING_S:
                has_warned = True
                _log.warning("%s has not answered for %.0f s: is it suspended?", root, _MISSING_S)
            return self._has_message(0, tag)

        sleep_until(is_answered, _ANSWER_WITHIN_S)
        return self._comm.recv(source=0, tag=tag)

    def claim(self, tag: int, n: int, task: Task, world: World) -> Callable[[], int]:
        """Begin to hand out n items. Return a function that returns this rank's next item, in the end DONE or STOP.

        The first item of a rank is not among them: it is the rank's own number (see `Counter`).

        Args:
            tag: a tag that the previous claim did not use. A rank that is ahead then never receives an item of the
                claim before.
            task: see `World.claim`.
        """
        if not world.is_root:
            return lambda: self.request(tag, (bool(world.stop_request), world.take_counts()), world.name_of(0))
        counter = Counter(n, world.size, task)
        self.answer(tag, lambda rank, message: counter.next(rank, *message))

        def take() -> int:
            index = counter.next(world.rank, bool(world.stop_request), world.take_counts())
            if index in (DONE, STOP):
                while not counter.all_informed.wait(1.0):
                    pass
                self.ignore(tag)
            return index

        return take

    def _has_message(self, source: int, tag: int, status: MPI.Status | None = None) -> bool:
        """Whether a message can be received."""
        return any(self._comm.iprobe(source, tag, status) for _ in range(_PROBES))


class Counter:
    """The numbers n_ranks .. n-1, each returned once, to any thread. No further number after a request to stop.

    The first numbers need no request: rank r begins with item r. So a stage does not begin with all ranks in a queue.

    Attributes:
        all_informed: set when every rank has received DONE or STOP.
    """

    def __init__(self, n: int, n_ranks: int, task: Task):
        self._next, self._n, self._task = min(n, n_ranks), n, task
        for index in range(self._next):
            task.begin(index, index)
        self._n_working = n_ranks
        self._stop_requested = False
        self._lock = threading.Lock()
        self.all_informed = threading.Event()

    def next(self, rank: int, stop_requested: bool, counts: Mapping[str, float]) -> int:
        """Return the next number for one rank. Return DONE after the last one, STOP if a stop left some of them.

        Args:
            stop_requested: whether this rank has received a request to stop.
            counts: what the rank has counted in its last item (`World.count`).
        """
        with self._lock:
            self._task.end(rank, counts)
            self._stop_requested |= stop_requested
            if self._next >= self._n or self._stop_requested:
                self._n_working -= 1
                if self._n_working == 0:
                    self.all_informed.set()
                return DONE if self._next >= self._n else STOP
            index = self._next
            self._next += 1
            self._task.begin(rank, index)
            return index


def sleep_until(is_true: Callable[[], bool], longest_s: float = _POLL_MAX_S) -> None:
    """Wait for a condition. Sleep between two tests: a rank that spins would take the core from one that computes."""
    pause_s = POLL_S / 2
    while not is_true():
        time.sleep(pause_s)
        pause_s = min(longest_s, 1.5 * pause_s)
