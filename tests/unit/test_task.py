"""Which rank works on which item for how long, and who is silent."""

import pytest

from hpc_saidpo.parallel import task as module
from hpc_saidpo.parallel.task import ALL_RANKS, Silence, Task
from hpc_saidpo.parallel.world import World


@pytest.fixture
def clock(monkeypatch):
    """The time in seconds, which a test sets: clock[0] = 5.0."""
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_a_rank_is_silent_after_three_times_the_longest_item(clock):
    task = Task(total=9, names=[40, 41, 42, 43])
    task.begin(0, 0)
    task.begin(1, 1)
    clock[0] = 100.0
    assert task.silences() == []  # no item is finished: nobody knows how long one takes
    task.end(0, 0)
    task.begin(0, 2)
    clock[0] = 300.0
    assert task.silences() == []  # three times 100 s is not yet exceeded
    clock[0] = 301.0
    assert task.silences() == [Silence(rank=1, item=41, seconds=301.0, longest_s=100.0)]
    clock[0] = 401.0
    assert [silence.rank for silence in task.silences()] == [0, 1]
    task.end(1, 1)
    assert task.silences() == []  # its item became the longest one


def test_no_rank_is_silent_after_seconds(clock):
    task = Task()
    task.begin(0, 0)
    clock[0] = 0.01
    task.end(0, 0)
    task.begin(ALL_RANKS, 1)
    clock[0] = 30.0
    assert task.silences() == []
    clock[0] = 31.0
    assert [(s.rank, s.item) for s in task.silences()] == [(ALL_RANKS, 1)]
    assert task.silences(least_s=60) == []


def test_a_rank_with_several_items_is_reported_once_with_the_oldest(clock):
    task = Task()
    for rank, index in ((0, 0), (1, 1), (0, 2)):
        task.begin(rank, index)
        clock[0] += 10.0
    task.end(1, 1)
    clock[0] = 95.0
    assert [(s.rank, s.item, s.seconds) for s in task.silences()] == [(0, 0, 95.0)]
    task.end(0, 0)
    assert task.silences() == []  # its other item is not too old


def test_items_and_counts_add_up_and_an_end_without_a_begin_counts_nothing():
    shown = []
    task = Task(total=5, n_done=2, advance=lambda: shown.append(1))
    task.begin(3, 0)
    task.end(3, 0, {"tokens": 5})
    task.end(3, 0, {"tokens": 7})
    task.end(4, 0)
    task.begin(3, 1)
    task.end(3, 1, {"tokens": 2, "usable": 1})
    assert (task.n_done, task.n_before, len(shown)) == (4, 2, 2)
    assert task.counts == {"tokens": 7, "usable": 1}


def test_one_process_counts_its_items_too():
    world, task = World(), Task(total=3)
    for index in world.claim(3, task):
        world.count(tokens=index)
    assert task.n_done == 3 and task.counts == {"tokens": 3}


def test_the_time_of_a_rank_with_several_items_is_counted_once(clock):
    task = Task(total=4)
    for at, what, rank, index in (
        (0, task.begin, 0, 0), (2, task.begin, 0, 1), (5, task.end, 0, 0), (7, task.begin, 1, 2), (9, task.end, 0, 1),
        (12, task.begin, 0, 3), (13, task.end, 0, 3), (17, task.end, 1, 2),
    ):  # fmt: skip
        clock[0] = float(at)
        what(rank, index)
    assert task.work == {0: (10.0, 0), 1: (10.0, 0)} and task.longest_s == 10.0
