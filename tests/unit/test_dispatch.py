"""Handing out work items: the counter on root, and the thread that answers the other ranks."""

import atexit
import queue
import sys
import threading
import types

import pytest
from support.tasks import Noted

from hpc_saidpo.parallel.dispatch import DONE, STOP, Counter, Progress
from hpc_saidpo.parallel.task import Task
from hpc_saidpo.parallel.world import World

TAG = 7


def test_items_beyond_the_ranks_first_ones_are_handed_out_once_each():
    noted = Noted()
    counter = Counter(5, 2, noted)
    assert noted.items == [0, 1]  # the ranks begin with these without a request
    assert [counter.next(0, False, {}) for _ in range(3)] == [2, 3, 4]
    assert noted.items == [0, 1, 2, 3, 4]
    assert [counter.next(0, False, {}) for _ in range(2)] == [DONE, DONE]


@pytest.mark.parametrize("n", [0, 1, 2])
def test_there_is_nothing_to_hand_out_beyond_the_first_items(n):
    noted = Noted()
    counter = Counter(n, 2, noted)
    assert counter.next(0, False, {}) == DONE and noted.items == list(range(n))


def test_all_are_informed_when_the_last_rank_is_and_not_before():
    counter = Counter(3, 3, Task())
    for _ in range(2):
        assert counter.next(0, False, {}) == DONE and not counter.all_informed.is_set()
    assert counter.next(0, False, {}) == DONE and counter.all_informed.is_set()


def test_an_item_is_no_end():
    counter = Counter(2, 1, Task())
    assert counter.next(0, False, {}) == 1 and not counter.all_informed.is_set()
    assert counter.next(0, False, {}) == DONE and counter.all_informed.is_set()


def test_after_a_request_to_stop_no_rank_receives_an_item():
    noted = Noted()
    counter = Counter(10, 2, noted)
    assert counter.next(0, False, {}) == 2
    assert counter.next(0, True, {}) == STOP
    assert counter.next(0, False, {}) == STOP and counter.all_informed.is_set()  # the other rank had no request
    assert noted.items == [0, 1, 2]


def test_a_request_to_stop_after_the_last_item_leaves_nothing_undone():
    counter = Counter(3, 2, Task())
    assert counter.next(0, False, {}) == 2
    assert [counter.next(0, True, {}), counter.next(0, False, {})] == [DONE, DONE]


class FakeComm:
    """An MPI communicator on which a test plays the other ranks."""

    def __init__(self):
        self.incoming: queue.Queue = queue.Queue()  # (rank, (whether it has a request to stop, counts), tag)
        self.sent: queue.Queue = queue.Queue()  # (message, rank, tag)
        self.probed: queue.Queue = queue.Queue()  # tags
        self.aborted: queue.Queue = queue.Queue()  # exit codes

    def Abort(self, code):
        self.aborted.put(code)

    def iprobe(self, source, tag, status=None):
        self.probed.put(tag)
        if self.incoming.empty() or self.incoming.queue[0][2] != tag:
            return False
        if status is not None:
            status.source = self.incoming.queue[0][0]
        return True

    def recv(self, source, tag):
        rank, message, sent_tag = self.incoming.get_nowait()
        assert (rank, sent_tag) == (source, tag)
        return message

    def send(self, message, dest, tag):
        self.sent.put((message, dest, tag))

    def answer_to(self, rank, stop_requested=False):
        """A rank requests an item from root; the answer that it receives."""
        self.incoming.put((rank, (stop_requested, {}), TAG))
        message, dest, tag = self.sent.get(timeout=10)
        assert (dest, tag) == (rank, TAG)
        return message


@pytest.fixture
def progress():
    interval_s = sys.getswitchinterval()
    mpi = types.SimpleNamespace(Status=lambda: types.SimpleNamespace(source=-1), ANY_SOURCE=-1)
    thread = Progress(mpi, FakeComm())
    yield thread
    thread.end()
    atexit.unregister(thread.end)
    sys.setswitchinterval(interval_s)


def world_of(rank, size):
    world = World()
    world.rank, world.size = rank, size
    return world


def test_root_does_not_wait_before_an_item_and_waits_for_every_rank_after_the_last_one(progress):
    comm = progress._comm
    take = progress.claim(TAG, 4, Task(), world_of(0, 2))
    assert take() == 2
    assert comm.answer_to(1) == 3
    ended, last = threading.Event(), []

    def end():
        last.append(take())
        ended.set()

    thread = threading.Thread(target=end, daemon=True)
    thread.start()
    assert not ended.wait(1.5)  # rank 1 does not know yet: a new claim would leave it without an answer
    assert comm.answer_to(1) == DONE
    assert ended.wait(10) and last == [DONE]
    assert progress._handlers == {}  # the answering thread leaves the tag alone from now on


def test_root_and_the_ranks_stop_together(progress):
    comm, world = progress._comm, world_of(0, 3)
    take = progress.claim(TAG, 50, Task(), world)
    assert take() == 3
    assert comm.answer_to(1) == 4
    assert comm.answer_to(2, stop_requested=True) == STOP
    assert comm.answer_to(1) == STOP
    assert take() == STOP


def test_a_rank_reports_its_request_to_stop_and_receives_an_item(progress):
    comm, world = progress._comm, world_of(1, 2)
    take = progress.claim(TAG, 50, Task(), world)
    for signal_name, item in (("", 5), ("SIGUSR1", STOP)):
        world.stop_request.signal_name = signal_name
        comm.incoming.put((0, item, TAG))
        assert take() == item
        assert comm.sent.get(timeout=10) == ((bool(signal_name), {}), 0, TAG)


def test_mpi_is_called_now_and_then_also_when_there_is_nothing_to_hand_out(progress):
    for _ in range(3):
        assert progress._comm.probed.get(timeout=10) == 0


def test_a_failure_while_items_are_handed_out_aborts_the_job(progress):
    progress.claim(TAG, 4, Noted(fails_at=2), world_of(0, 2))
    progress._comm.incoming.put((1, (False, {}), TAG))
    assert progress._comm.aborted.get(timeout=10) == 1
