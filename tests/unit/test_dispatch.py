"""Handing out work items: the counter on root, and the thread that answers the other ranks."""

import atexit
import queue
import sys
import threading
import types

import pytest
from support.tasks import Noted

from hpc_saidpo.parallel.dispatch import DONE, ITEM, LATER, LEAVE, REPORT, STOP, Counter, Message, Progress
from hpc_saidpo.parallel.idle import Work
from hpc_saidpo.parallel.stop import Stopped
from hpc_saidpo.parallel.task import Task
from hpc_saidpo.parallel.world import World

TAG = 7


def message(wish=ITEM, ended=(), stop=False):
    return Message(stop, [(index, {}) for index in ended], wish)


def test_items_beyond_the_ranks_first_ones_are_handed_out_once_each():
    noted = Noted()
    counter = Counter(5, 2, noted)
    assert noted.items == [0, 1]  # the ranks begin with these without a request
    assert [counter.answer(0, message(ended=[i])) for i in (0, 2, 3)] == [2, 3, 4]
    assert noted.items == [0, 1, 2, 3, 4] and noted.n_done == 3
    assert [counter.answer(0, message()) for _ in range(2)] == [DONE, DONE]


@pytest.mark.parametrize("n", [0, 1, 2])
def test_there_is_nothing_to_hand_out_beyond_the_first_items(n):
    noted = Noted()
    counter = Counter(n, 2, noted)
    assert counter.answer(0, message()) == DONE and noted.items == list(range(n))


def test_all_have_left_when_the_last_rank_has_and_not_before():
    counter = Counter(3, 3, Task())
    for rank in range(3):
        assert counter.answer(rank, message(ended=[rank])) == DONE and not counter.all_left.is_set()
    for rank in range(3):
        assert not counter.all_left.is_set()
        assert counter.answer(rank, message(LEAVE)) == DONE
    assert counter.all_left.is_set()


def test_a_rank_with_several_items_leaves_as_many_to_the_ranks_with_fewer():
    counter = Counter(9, 3, Task())  # 0, 1, 2 are begun
    assert [counter.answer(0, message()) for _ in range(3)] == [3, 4, LATER]  # 4 are left: 2 more for each other one
    assert [counter.answer(1, message()) for _ in range(3)] == [5, 6, LATER]
    assert counter.answer(2, message()) == 7  # it has the fewest
    assert counter.answer(0, message(REPORT, ended=[0, 3])) == LATER
    assert counter.answer(0, message()) == 8
    assert counter.answer(1, message()) == DONE


def test_a_rank_without_items_always_receives_one_and_a_single_rank_all():
    counter = Counter(4, 2, Task())
    assert counter.answer(0, message()) == 2
    assert counter.answer(1, message(ended=[1])) == 3
    alone = Counter(6, 1, Task())
    assert [alone.answer(0, message()) for _ in range(6)] == [1, 2, 3, 4, 5, DONE]


def test_after_a_request_to_stop_no_rank_receives_an_item():
    noted = Noted()
    counter = Counter(10, 2, noted)
    assert counter.answer(0, message()) == 2
    assert counter.answer(0, message(stop=True)) == STOP
    assert counter.answer(0, message()) == STOP  # the other rank had no request
    assert noted.items == [0, 1, 2]


def test_a_request_to_stop_after_the_last_item_leaves_nothing_undone():
    counter = Counter(3, 2, Task())
    assert counter.answer(0, message()) == 2
    assert [counter.answer(0, message(stop=True)), counter.answer(0, message())] == [DONE, DONE]


class FakeComm:
    """An MPI communicator on which a test plays the other ranks."""

    def __init__(self):
        self.incoming: queue.Queue = queue.Queue()  # (rank, message, tag)
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

    def answer_to(self, rank, **fields):
        """A rank sends a message to root; the answer that it receives."""
        self.incoming.put((rank, message(**fields), TAG))
        answer, dest, tag = self.sent.get(timeout=10)
        assert (dest, tag) == (rank, TAG)
        return answer


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


def claims_of(progress, n, world):
    return progress.claims(TAG, n, Task(), world, Work())


def test_root_does_not_wait_before_an_item_and_waits_for_every_rank_after_the_last_one(progress):
    comm = progress._comm
    claims = claims_of(progress, 4, world_of(0, 2))
    assert [claims.next(), claims.next()] == [0, 2]
    assert comm.answer_to(1, ended=[1]) == 3
    for index in (0, 2):
        claims.end(index)
    assert claims.next() is None
    ended = threading.Event()
    thread = threading.Thread(target=lambda: (claims.close(), ended.set()), daemon=True)
    thread.start()
    assert not ended.wait(1.5)  # rank 1 still works: a new claim would leave its messages without an answer
    assert comm.answer_to(1, ended=[3]) == DONE
    assert not ended.wait(0.2)
    assert comm.answer_to(1, wish=LEAVE) == DONE
    assert ended.wait(10)
    assert progress._handlers == {}  # the answering thread leaves the tag alone from now on


def test_root_and_the_ranks_stop_together(progress):
    comm, world = progress._comm, world_of(0, 3)
    claims = claims_of(progress, 50, world)
    assert [claims.next(), claims.next()] == [0, 3]
    assert comm.answer_to(1) == 4
    assert comm.answer_to(2, stop=True) == STOP
    assert comm.answer_to(1) == STOP
    assert claims.next() is None


def test_a_rank_works_on_while_it_waits_for_the_answer(progress):
    comm, world = progress._comm, world_of(1, 2)
    claims = claims_of(progress, 50, world)
    assert claims.next(wait=False) == 1  # its first one needs no answer
    assert claims.next(wait=False) is None and claims.next(wait=False) is None
    assert comm.sent.get(timeout=10) == (message(), 0, TAG) and comm.sent.empty()  # one request
    claims.end(1, {"tokens": 7})
    comm.incoming.put((0, 5, TAG))
    assert claims.next(wait=False) == 5
    assert claims.next(wait=False) is None
    sent, _, _ = comm.sent.get(timeout=10)
    assert sent.ended == [(1, {"tokens": 7})]
    comm.incoming.put((0, LATER, TAG))
    assert [claims.next(wait=False) for _ in range(3)] == [None] * 3 and comm.sent.empty()  # it does not ask at once
    claims.end(5)
    assert claims.next(wait=False) is None and comm.sent.get(timeout=10)[0].ended == [(5, {})]


def test_a_rank_reports_its_request_to_stop_and_leaves(progress):
    comm, world = progress._comm, world_of(1, 2)
    claims = claims_of(progress, 50, world)
    assert claims.next() == 1
    world.stop_request.signal_name = "SIGUSR1"
    comm.incoming.put((0, STOP, TAG))
    assert claims.next() is None
    claims.end(1)
    for _ in range(2):
        comm.incoming.put((0, STOP, TAG))
    with pytest.raises(Stopped, match="SIGUSR1"):
        claims.close()
    sent = [comm.sent.get(timeout=10)[0] for _ in range(3)]
    assert [(m.wish, m.stop_requested, len(m.ended)) for m in sent] == [
        (ITEM, True, 0),
        (REPORT, True, 1),
        (LEAVE, True, 0),
    ]


def test_mpi_is_called_now_and_then_also_when_there_is_nothing_to_hand_out(progress):
    for _ in range(3):
        assert progress._comm.probed.get(timeout=10) == 0


def test_a_failure_while_items_are_handed_out_aborts_the_job(progress):
    progress.claims(TAG, 4, Noted(fails_at=2), world_of(0, 2), Work())
    progress._comm.incoming.put((1, message(), TAG))
    assert progress._comm.aborted.get(timeout=10) == 1
