"""Answer the other ranks' requests while this rank computes: for work items, and from torch (see `store`)."""

from __future__ import annotations

import atexit
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from .claims import Claims
from .drain import drain
from .idle import Work
from .task import Task
from .world import POLL_S, World

if TYPE_CHECKING:
    from mpi4py import MPI

DONE, STOP, LATER = -1, -2, -3  # sent in place of the index of a work item
ITEM, REPORT, LEAVE = range(3)  # what a message asks for
STORE_TAG, CLAIM_TAGS = 1, range(2, 1002)  # of messages
Handler = Callable[[int, Any], object]  # rank, message -> the reply
_NO_TAG = 0  # that no message has
_POLL_MAX_S = 0.05  # longest pause between two polls
_ANSWER_WITHIN_S = 0.02  # the same, while requests can come
_MISSING_S = 60.0  # root answers within milliseconds: after so long it is suspended, or its node does not respond
_LATER_S = 0.25  # pause before a rank with items repeats a request that was put off
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
        self.send(tag, message)
        return self.receive(tag, root)

    def send(self, tag: int, message: object) -> None:
        """Send a message to root. Its reply must be received before the next message with this tag."""
        self._comm.send(message, dest=0, tag=tag)

    def has_reply(self, tag: int) -> bool:
        """Whether root's reply to this rank's last message is here."""
        return self._has_message(0, tag)

    def receive(self, tag: int, root: str) -> Any:
        """Return root's reply to this rank's last message; wait for it. Args: as `request`."""
        since, has_warned = time.monotonic(), False

        def is_answered() -> bool:
            nonlocal has_warned
            if not has_warned and time.monotonic() - since > _MISSING_S:
                has_warned = True
                _log.warning("%s has not answered for %.0f s: is it suspended?", root, _MISSING_S)
            return self._has_message(0, tag)

        sleep_until(is_answered, _ANSWER_WITHIN_S)
        return self._comm.recv(source=0, tag=tag)

    def claims(self, tag: int, n: int, task: Task, world: World, work: Work) -> Claims:
        """Begin to hand out n items. Return this rank's part in it.

        The first item of a rank needs no request: it is the rank's own number (see `Counter`).

        Args:
            tag: a tag that the previous call did not use. A rank that is ahead then never receives an item of the
                call before.
            task: see `World.claim`.
            work: measures the time in which this rank has an item.
        """
        counter = None
        if world.is_root:
            counter = Counter(n, world.size, task)
            self.answer(tag, counter.answer)
        return _Requests(self, tag, n, world, work, counter)

    def _has_message(self, source: int, tag: int, status: MPI.Status | None = None) -> bool:
        """Whether a message can be received."""
        return any(self._comm.iprobe(source, tag, status) for _ in range(_PROBES))


class Counter:
    """The numbers n_ranks .. n-1, each handed out once, to any thread. No further number after a request to stop.

    The first numbers need no request: rank r begins with item r. So a stage does not begin with all ranks in a queue.
    A rank may have several items. A further one goes to it only if the ranks with fewer items can still receive as
    many: at the end of a stage, a rank with much room does not take what would keep the others busy.

    Attributes:
        all_left: set when every rank has finished its last item.
    """

    def __init__(self, n: int, n_ranks: int, task: Task):
        self._next, self._n, self._task = min(n, n_ranks), n, task
        self._held_W = np.zeros(n_ranks, dtype=np.int64)
        self._held_W[: self._next] = 1
        for index in range(self._next):
            task.begin(index, index)
        self._n_working = n_ranks
        self._stop_requested = False
        self._lock = threading.Lock()
        self.all_left = threading.Event()

    def answer(self, rank: int, message: Message) -> int:
        """Return the reply to a rank: the next number, DONE after the last one, STOP if a stop left some, or LATER."""
        with self._lock:
            for index, counts in message.ended:
                self._task.end(rank, index, counts)
                self._held_W[rank] -= 1
            self._stop_requested |= message.stop_requested
            if message.wish == LEAVE:
                self._n_working -= 1
                if self._n_working == 0:
                    self.all_left.set()
            if self._next >= self._n or self._stop_requested:
                return DONE if self._next >= self._n else STOP
            if message.wish != ITEM or not self._may_have_more(rank):
                return LATER
            index = self._next
            self._next += 1
            self._held_W[rank] += 1
            self._task.begin(rank, index)
            return index

    def _may_have_more(self, rank: int) -> bool:
        fewer = self._held_W[rank] - self._held_W
        return self._n - self._next > int(fewer[fewer > 0].sum())


@dataclass(frozen=True)
class Message:
    """What a rank sends to root.

    Attributes:
        ended: the items that it has finished since its last message, with what it has counted in each.
        wish: ITEM for a further item, REPORT for none, LEAVE when it has finished its last one.
    """

    stop_requested: bool
    ended: list[tuple[int, dict[str, float]]]
    wish: int


class _Requests:
    """The items that root hands out to this rank. Implements `Claims`.

    Args:
        counter: on root.
    """

    def __init__(self, progress: Progress, tag: int, n: int, world: World, work: Work, counter: Counter | None):
        self._progress, self._tag, self._world, self._work = progress, tag, world, work
        self._counter = counter
        self._first = world.rank if world.rank < n else None
        self._ended: list[tuple[int, dict[str, float]]] = []
        self._is_waiting = False  # for a reply
        self._reply: int | None = None  # the last one: DONE, STOP, LATER
        self._again_at = 0.0  # the time of the next request, after LATER

    def next(self, wait: bool = True) -> int | None:
        index, self._first = self._first, None
        while index is None and self._reply not in (DONE, STOP):
            if not self._is_waiting:
                if not wait and time.monotonic() < self._again_at:
                    return None
                self._send(ITEM)
            if not self._receive(wait):
                return None
            if self._reply is not None and self._reply >= 0:
                index = self._reply
            elif self._reply == LATER:
                if not wait:
                    return None
                time.sleep(_ANSWER_WITHIN_S)
        if index is not None:
            self._work.begin()
        return index

    def end(self, index: int, counts: Mapping[str, float] | None = None) -> None:
        self._work.end()
        self._ended.append((index, dict(counts or {})))
        self._again_at = 0.0
        if self._reply in (DONE, STOP) and self._receive(False):
            self._send(REPORT)  # no request follows that would bring it

    def close(self) -> None:
        self._receive(True)
        self._send(LEAVE)
        self._receive(True)
        if self._counter is not None:
            while not self._counter.all_left.wait(1.0):
                pass
            self._progress.ignore(self._tag)
        if self._reply == STOP:
            self._world.stop_if_requested()

    def _send(self, wish: int) -> None:
        message = Message(bool(self._world.stop_request), self._ended, wish)
        self._ended = []
        if self._counter is not None:
            self._note(self._counter.answer(self._world.rank, message))
        else:
            self._progress.send(self._tag, message)
            self._is_waiting = True

    def _receive(self, wait: bool) -> bool:
        """Receive the reply that this rank waits for, if any. Return False if it is not here yet."""
        if self._is_waiting:
            if not wait and not self._progress.has_reply(self._tag):
                return False
            self._is_waiting = False
            self._note(self._progress.receive(self._tag, self._world.name_of(0)))
        return True

    def _note(self, reply: int) -> None:
        self._reply = reply
        self._again_at = time.monotonic() + _LATER_S if reply == LATER else 0.0


def sleep_until(is_true: Callable[[], bool], longest_s: float = _POLL_MAX_S) -> None:
    """Wait for a condition. Sleep between two tests: a rank that spins would take the core from one that computes."""
    pause_s = POLL_S / 2
    while not is_true():
        time.sleep(pause_s)
        pause_s = min(longest_s, 1.5 * pause_s)
