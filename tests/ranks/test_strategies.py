"""Every way to train on several ranks gives what one process gives: weights, figures, checkpoints, files."""

import itertools
import json

import numpy as np
import pytest
import torch
from support.make import MICRO
from support.tasks import Noted
from support.training import (
    STRATEGIES,
    Killed,
    assert_same,
    by_one_process,
    killed_after,
    micro_of,
    train_by,
    watched,
)
from torch import nn
from transformers import AutoModelForCausalLM

from hpc_saidpo import settings
from hpc_saidpo.dpo.logps import ResponseLogps
from hpc_saidpo.parallel import shards
from hpc_saidpo.parallel.gradients import replicate
from hpc_saidpo.parallel.world import World
from hpc_saidpo.policy.model import Policy
from hpc_saidpo.store.stage import Stage

pytestmark = [pytest.mark.mpi, pytest.mark.several]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("tied", [True, False])
def test_a_round_gives_what_one_process_gives(world, strategy, tied):
    start = micro_of(tied).model.state_dict()
    wanted = by_one_process(tied)
    assert min((w - start[name]).abs().max() for name, w in wanted[1].items()) > 2e-4
    result = train_by(world, strategy, policy=micro_of(tied), head_tokens=7, checkpointing=True)
    if strategy == "single" and not world.is_root:
        result = result[0], wanted[1]  # root alone has trained
    assert_same(result, wanted)


def test_shards_are_all_that_a_rank_keeps(world):
    if world.size == 1:
        return
    current = micro_of(tied=False)
    n = sum(p.numel() for p in current.model.parameters())
    with replicate(world, ResponseLogps(current.model), False, "fsdp", current.model.model.layers) as replicas:
        kept = [p.to_local().numel() for p in replicas.parameters().values()]
    assert world.sum(np.array([sum(kept)])) == n
    assert sum(kept) < 1.1 * n / world.size


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_bfloat16_computes_with_weights_and_sums_in_float32(world, strategy):
    steps, weights = train_by(world, strategy, policy=micro_of(precision=torch.bfloat16))
    assert {w.dtype for w in weights.values()} == {torch.float32}
    assert steps[0]["loss"] == pytest.approx(np.log(2), abs=1e-3)  # policy and reference are computed alike
    for a, b in zip(steps, by_one_process()[0], strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=0.02)
        assert a["loss"] != b["loss"] or a["step"] == 0


def weights_after(world, strategy, n_steps=3):
    """SGD on a function of the module that a forward pass without gradient precedes, as the reference's does."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Sequential(nn.Linear(8, 8), nn.Tanh()), nn.Linear(8, 4), nn.Tanh())
    data = torch.randn(6, 8)
    with replicate(world, module, False, strategy, [module[0]]) as replicas:
        with torch.no_grad():
            replicas.bare(data)
        parameters = replicas.parameters()
        optimizer = torch.optim.SGD(parameters.values(), lr=0.1)
        for _ in range(n_steps):
            items = replicas.share(list(range(6)))
            replicas.gradient([lambda m, i=i: m(data[i or 0]).square().sum() * (i is not None) for i in items])
            replicas.clip(1.0)
            optimizer.step()
            optimizer.zero_grad()
            with torch.no_grad():
                replicas.bare(data)
        return [shards.gather(p.detach()).clone() for p in replicas.parameters().values()]


def test_forward_passes_without_gradient_freeze_nothing(world):
    """FSDP2 would train parameters in vain that such a pass leaves gathered (gradients.Shards)."""
    torch.testing.assert_close(weights_after(world, "fsdp"), weights_after(World(), "fsdp"), rtol=0, atol=1e-6)


def test_groups_come_and_go(world):
    first = train_by(world, "fsdp", n=8)
    for _ in range(3):
        assert_same(train_by(world, "fsdp", n=8), first, weights=0, figures=0)
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize("before, after", [("fsdp", "fsdp"), ("fsdp", "ddp"), ("ddp", "single"), ("single", "fsdp")])
def test_a_killed_round_resumes_with_another_strategy_and_number_of_ranks(world, folder, before, after):
    wanted = by_one_process()
    for name, first, second in (("same", world, world), ("fewer", world, World()), ("more", World(), world)):
        stage = Stage(folder / f"{name} {0 if first is world else world.rank}")
        first.on_root(stage.prepare)
        with pytest.raises(Killed), killed_after(2):
            train_by(first, before, checkpoint=(stage, 0.0))
        world.barrier()
        with watched() as labels:
            result = train_by(second, after, checkpoint=(Stage(folder / f"{name} 0"), None))
        assert labels == ["DPO: 20 pairs, from step 2 of 6"]  # and no reference log-probabilities
        if after == "single" and not second.is_root:
            result = result[0], wanted[1]
        assert_same(result, wanted)


def test_a_policy_in_shards_is_saved_file_by_file_as_from_one_process(world, folder):
    for tied in (True, False):
        for strategy in STRATEGIES:
            train_by(world, strategy, folder / f"{strategy} {tied}", policy=micro_of(tied), n=8)
        files = sorted(p.name for p in (folder / f"ddp {tied}" / "model").iterdir())
        assert sum(name.endswith(".safetensors") for name in files) > 3
        for strategy in STRATEGIES:
            saved = folder / f"{strategy} {tied}" / "model"
            assert sorted(p.name for p in saved.iterdir()) == files
            index = json.loads((saved / "model.safetensors.index.json").read_text())
            assert set(index["weight_map"].values()) == {name for name in files if name.endswith(".safetensors")}
            loaded = AutoModelForCausalLM.from_pretrained(saved)
            assert loaded.dtype == torch.float32 and loaded.config.tie_word_embeddings == tied
            assert_same(([], loaded.state_dict()), ([], by_one_process(tied, 8)[1]))
            assert Policy.load(str(saved), settings.Policy(path=MICRO), torch.device("cpu")).eos_ids == {1}


def test_turns_give_every_rank_as_many_items_and_each_at_least_once(world):
    for n in (0, 1, 2, 7):
        noted = Noted()
        own = list(world.take_turns(n, noted))
        of_all = world.gather(own)
        assert len({len(items) for items in of_all}) == 1
        assert set(itertools.chain(*of_all)) == set(range(n))
        assert noted.items == list(range(n)) and noted.n_done == n
