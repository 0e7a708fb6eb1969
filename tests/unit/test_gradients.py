"""Gradients of several ranks, in one process: what DDP and FSDP average, and what is summed here."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.distributed.fsdp import fully_shard

from hpc_saidpo.parallel import gradients, shards
from hpc_saidpo.parallel.gradients import Replicas, RootOnly, Shards, replicas_class, replicate
from hpc_saidpo.parallel.world import World

N_RANKS = 3


@pytest.fixture
def group():
    """A real process group with this process as its only rank."""
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.fixture
def data():
    return torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))


def make_module():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1))


def losses(data):
    return [lambda m, batch=batch: m(batch).square().sum() for batch in data]


def of_the_sum(data):
    """The gradient of the sum of all losses, by plain torch."""
    module = make_module()
    sum(loss(module) for loss in losses(data)).backward()
    return grads(module)


def grads(module):
    return torch.cat([shards.gather(p.grad).flatten() for p in module.parameters()])


def ranks(n, rank=0):
    world = World()
    world.rank, world.size = rank, n
    return world


def test_one_rank_needs_no_scale_and_no_group(data):
    module = make_module()
    with replicate(World(), module, exact=False) as replicas:
        assert replicas.module is module
        replicas.gradient(losses(data))
    torch.testing.assert_close(grads(module), of_the_sum(data))


def test_the_exact_sum_is_reduced_over_the_ranks_and_not_scaled(group, data, monkeypatch):
    """Every other rank has the same gradient here, so the sum over the ranks is N_RANKS times this rank's."""
    reduced = []

    def all_reduce(total):
        assert total.dtype == torch.float64
        reduced.append(total.shape)
        total.mul_(N_RANKS)

    module = make_module()
    replicas = Replicas(module, ranks(N_RANKS), exact=True)
    assert isinstance(replicas.module, nn.parallel.DistributedDataParallel)
    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    replicas.gradient(losses(data))
    assert reduced == [p.shape for p in module.parameters()]
    torch.testing.assert_close(grads(module), N_RANKS * of_the_sum(data))


def test_the_average_of_ddp_becomes_the_sum(group, data):
    """DDP averages over the one rank of the group; on N_RANKS ranks the loss is scaled by their number."""
    module = make_module()
    Replicas(module, ranks(N_RANKS), exact=False).gradient(losses(data))
    torch.testing.assert_close(grads(module), N_RANKS * of_the_sum(data))


def test_ddp_synchronises_once_after_the_last_micro_batch(group, data, monkeypatch):
    replicas = Replicas(make_module(), ranks(N_RANKS), exact=False)
    synchronised = []
    replicas.gradient(
        [
            lambda m, batch=batch: (synchronised.append(m.require_backward_grad_sync), m(batch).sum())[1]
            for batch in data
        ]
    )
    assert synchronised == [False, True]


def sharded(data, precision, size=1):
    module = make_module()
    sharding = Shards(module, World(), exact=False, layers=[module[0], module[2]], precision=precision)
    sharding._world = SimpleNamespace(size=size)  # whose ranks would have to compute too
    return module, sharding


@pytest.mark.parametrize("size", [1, N_RANKS])
def test_the_average_of_fsdp_becomes_the_sum(group, data, size):
    module, sharding = sharded(data, None, size)
    sharding.gradient(losses(data))
    torch.testing.assert_close(grads(module), size * of_the_sum(data))


@pytest.mark.parametrize(
    ("precision", "computed"),
    [(torch.bfloat16, torch.bfloat16), (torch.float32, torch.float32), (None, torch.float32)],
)
def test_shards_compute_in_the_precision_and_sum_in_float32(group, data, precision, computed, monkeypatch):
    policies = []

    def spied(part, mesh, mp_policy):
        policies.append((mp_policy.param_dtype or torch.float32, mp_policy.reduce_dtype or mp_policy.param_dtype))
        return fully_shard(part, mesh=mesh, mp_policy=mp_policy)

    monkeypatch.setattr(gradients, "fully_shard", spied)
    module, sharding = sharded(data, precision)
    assert {*policies} == {(computed, torch.float32 if computed != torch.float32 else None)} and len(policies) == 3
    computed_in = []
    sharding.gradient([lambda m: (computed_in.append(m(data[0]).dtype), m(data[0]).sum())[1]])
    assert computed_in == [computed]
    assert {p.grad.dtype for p in module.parameters()} == {torch.float32} == {p.dtype for p in module.parameters()}


def test_sharded_gradients_have_no_exact_sum(group):
    with pytest.raises(ValueError, match="no exact sum"):
        Shards(make_module(), World(), exact=True)


def test_the_ranks_share_the_items_and_have_equally_many():
    shares = [Replicas(make_module(), ranks(N_RANKS, rank), exact=False).share(list("abcd")) for rank in range(N_RANKS)]
    assert shares == [["a", "d"], ["b", None], ["c", None]]


def test_root_alone_has_all_items_and_all_parameters():
    module = make_module()
    root, other = (RootOnly(module, ranks(2, rank), exact=False) for rank in range(2))
    assert (root.share(list("abc")), other.share(list("abc"))) == (["a", "b", "c"], [])
    assert (len(root.parameters()), other.parameters()) == (4, {})


def test_one_rank_trains_the_plain_module_whatever_the_strategy():
    assert {replicas_class(strategy, False) for strategy in ("ddp", "fsdp", "single")} == {Replicas}
    assert [replicas_class(strategy, True) for strategy in ("ddp", "fsdp", "single")] == [Replicas, Shards, RootOnly]
