"""A request to stop on any rank: the ranks finish the work in flight and stop together."""

import time

import pytest

from hpc_saidpo.parallel.stop import Stopped

pytestmark = pytest.mark.mpi


@pytest.fixture
def request_to_stop(world):
    """This rank's request to stop; cleared after the test."""
    yield world.stop_request
    world.stop_request.signal_name = ""


def test_after_a_request_the_world_hands_out_nothing_more_and_every_rank_stops(world, request_to_stop):
    mine = []
    with pytest.raises(Stopped, match="SIGUSR1"):
        for index in world.claim(1000):
            mine.append(index)
            time.sleep(0.001)
            if world.rank == world.size - 1 and len(mine) == 3:
                request_to_stop.signal_name = "SIGUSR1"
    claimed = sorted(index for part in world.gather(mine) for index in part)
    assert claimed == list(range(len(claimed))) and 3 <= len(claimed) < 1000
    assert world.stop_signal() == "SIGUSR1"


def test_a_request_after_the_last_item_leaves_the_work_done(world, request_to_stop):
    mine = []
    for index in world.claim(world.size):
        mine.append(index)
        request_to_stop.signal_name = "SIGTERM"
        world.barrier() if world.size == 1 else time.sleep(0.05)
    assert sorted(index for part in world.gather(mine) for index in part) == list(range(world.size))
    with pytest.raises(Stopped):
        world.stop_if_requested()


def test_ranks_that_take_turns_end_the_same_turn(world, request_to_stop):
    mine = []
    with pytest.raises(Stopped, match="SIGUSR1"):
        for index in world.take_turns(100):
            mine.append(index)
            if world.rank == world.size - 1 and len(mine) == 2:
                request_to_stop.signal_name = "SIGUSR1"
    assert [len(part) for part in world.gather(mine)] == [2] * world.size


def test_without_a_request_nobody_stops(world):
    assert world.stop_signal() == ""
    world.stop_if_requested()
