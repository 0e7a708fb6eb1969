"""Collective work of the ranks: claims, failures, sums, gradients. Every body runs on every rank."""

import itertools
import time

import numpy as np
import pytest
import torch
from support.tasks import Noted
from torch import nn

from hpc_saidpo.errors import RunError, origin_of
from hpc_saidpo.parallel import slices
from hpc_saidpo.parallel.gradients import replicate
from hpc_saidpo.parallel.world import World
from hpc_saidpo.policy.stage import require_everywhere

pytestmark = pytest.mark.mpi


def test_every_item_is_claimed_once(world):
    for n in (0, 1, 7, 100):
        noted = Noted()
        mine = list(world.claim(n, noted))
        assert sorted(itertools.chain(*world.gather(mine))) == list(range(n))
        assert mine[:1] == [world.rank] * (world.rank < n)  # nobody has to ask for a first one
        if world.is_root:
            assert sorted(noted.items) == list(range(n)) and noted.n_done == n


def test_spread_work_is_done_once_each(world):
    for n in (0, 1, 20):
        mine = []
        world.spread(n, mine.append)
        assert sorted(itertools.chain(*world.gather(mine))) == list(range(n))


@pytest.mark.parametrize("by", ["all", "last rank"])
def test_the_failure_of_the_lowest_item_is_everyones(world, by):
    done = []

    def do(index):
        time.sleep(0.003)
        if index >= 5 and (by == "all" or world.rank == world.size - 1):
            raise RunError(f"item {index} cannot be done")
        done.append(index)

    with pytest.raises(RunError, match="item 5 cannot" if by == "all" else "item .* cannot") as error:
        world.spread(60, do)
    assert len(set(world.gather(str(error.value)))) == 1
    assert by == "last rank" or max(done, default=0) < 5
    assert world.gather(world.rank) == list(range(world.size))


def test_a_bug_in_spread_work_names_its_rank(world):
    def do(index):
        raise KeyError("lost")

    with pytest.raises((KeyError, RuntimeError), match="lost"):
        world.spread(3 * world.size, do)
    world.barrier()


def test_a_busy_rank_claims_less(world):
    mine = []
    for index in world.claim(40):
        mine.append(index)
        time.sleep(0.05 if world.rank == 0 else 0.002)
    claimed = [len(part) for part in world.gather(mine)]
    assert sum(claimed) == 40
    if world.size > 1:
        assert claimed[0] < min(claimed[1:])


def test_idle_shares_are_everyones(world):
    for index in world.claim(1):
        assert index == world.rank == 0
        time.sleep(0.1)
    idle_W = world.idle_shares()
    assert world.gather(idle_W) == [idle_W] * world.size
    assert 0 <= idle_W[0] < 1 and idle_W[1:] == [1.0] * (world.size - 1)
    if world.size == 1:
        assert idle_W == [0.0]


def test_sum_gather_bcast(world):
    assert world.sum(np.array([1.0, world.rank])).tolist() == [world.size, sum(range(world.size))]
    assert world.gather(world.rank) == list(range(world.size))
    assert world.bcast({"from": world.rank}) == {"from": 0}


def test_roots_failure_is_everyones(world):
    ran_on = []

    def fail():
        ran_on.append(world.rank)
        raise RunError("no such pool")

    with pytest.raises(RunError, match="no such pool"):
        world.on_root(fail)
    assert ran_on == ([0] if world.is_root else [])
    assert world.on_root(lambda: world.rank) == 0


def test_a_failure_on_any_rank_is_everyones_and_the_lowest_ranks_is_raised(world):
    assert world.everywhere(lambda: 10 * world.rank) == 10 * world.rank

    def fail():
        if world.rank >= min(1, world.size - 1):
            raise RunError(f"rank {world.rank} cannot")

    with pytest.raises(RunError, match=f"rank {min(1, world.size - 1)} cannot"):
        world.everywhere(fail)


def test_a_failure_that_cannot_be_pickled_still_arrives(world):
    class Local(Exception):
        pass

    def fail():
        raise Local("lost?")

    with pytest.raises((Local, RuntimeError), match=r"lost\?"):
        world.on_root(fail)


def gradients(world, exact, n_micro=6):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))
    data = torch.randn(n_micro, 4, 8)
    with replicate(world, model, exact) as replicas:
        mine = range(n_micro)[world.rank :: world.size]
        losses = [lambda m, i=i: m(data[i]).square().sum() for i in mine] or [lambda m: 0.0 * m(data[0]).sum()]
        replicas.gradient(losses)
    return torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.parametrize("n_micro", [6, 1])
def test_exact_gradients_do_not_depend_on_the_ranks(world, n_micro):
    alone = gradients(World(), exact=True, n_micro=n_micro)
    together = gradients(world, exact=True, n_micro=n_micro)
    assert torch.equal(alone, together)


def test_fast_gradients_are_the_same_sum(world):
    alone, together = gradients(World(), exact=True), gradients(world, exact=False)
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)


def test_groups_come_and_go(world):
    first = gradients(world, exact=True)
    for _ in range(3):
        assert torch.equal(gradients(world, exact=True), first)
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize("late", ["root", "last", "whoever has item 0"])
def test_waiting_ranks_leave_the_core_to_others(world, late):
    """Measured CPU time, whatever the machine is busy with: at most 5 % of a core while another rank is at work."""
    world.barrier()
    started, cpu_s = time.monotonic(), time.process_time()
    if world.rank == {"root": 0, "last": world.size - 1}.get(late):
        time.sleep(3.0)
    for index in world.claim(world.size):
        if late == "whoever has item 0" and index == 0:
            time.sleep(3.0)
    world.barrier()
    elapsed = time.monotonic() - started
    assert elapsed > 2.9 and (time.process_time() - cpu_s) / elapsed < 0.05
    assert not torch.distributed.is_initialized()  # nor does a group's thread spin for them


def test_root_receives_what_the_ranks_count_in_their_items(world):
    noted = Noted()
    for index in world.claim(30, noted):
        world.count(tokens=index, items=1)
    world.barrier()
    if world.is_root:
        assert noted.counts == {"tokens": sum(range(30)), "items": 30} and noted.n_done == 30


def test_a_policy_that_one_node_does_not_see_is_said_as_that(world, folder, monkeypatch):
    if world.size == 1:
        require_everywhere(str(folder / "missing"), world)  # on root it is missing too: another message says so
        return
    monkeypatch.setattr(world, "hosts", [f"n{rank}" for rank in range(world.size)])
    here = folder / "here"
    if world.is_root:
        here.mkdir()
        (here / "config.json").write_text("{}")
    world.barrier()
    require_everywhere(str(here), world)
    is_blind = world.rank == world.size - 1
    with pytest.raises(RunError, match=rf"not seen on n{world.size - 1}, but on n0: put it on a file system") as error:
        require_everywhere(str(folder / "elsewhere" if is_blind else here), world)
    assert origin_of(error.value) == ""


def test_the_origin_of_a_failure_is_the_same_on_every_rank(world):
    def fail():
        if world.rank == world.size - 1:
            raise RunError("no room")

    with pytest.raises(RunError, match=r"^no room$") as error:
        world.everywhere(fail)
    assert origin_of(error.value) == ("" if world.size == 1 else world.name_of(world.size - 1))


@pytest.mark.parametrize("limit", [64, 2**30])
def test_messages_longer_than_a_slice_arrive_whole(world, monkeypatch, limit):
    monkeypatch.setattr(slices, "SLICE_BYTES", limit)
    array = np.arange(100, dtype=np.int64)
    assert (world.bcast(array if world.is_root else None) == array).all()
    texts = world.gather("ä" * 40 * world.rank)  # of root nothing, of the others one slice or several
    assert texts == ["ä" * 40 * rank for rank in range(world.size)]
    assert world.on_root(lambda: ["x" * 63, "y" * 64]) == ["x" * 63, "y" * 64]


def test_what_root_keeps_needs_no_memory_elsewhere_and_its_failure_is_everyones(world):
    assert world.kept_on_root(lambda: [world.rank]) == ([0] if world.is_root else None)
    with pytest.raises(RunError, match=r"^no points$"):
        world.kept_on_root(_fail)


def _fail():
    raise RunError("no points")
