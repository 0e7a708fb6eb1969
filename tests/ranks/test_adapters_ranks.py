"""Rounds with LoRA, and with optimizers in 8 bits, on several ranks."""

import pytest
import torch
from peft import PeftModel
from support.training import (
    KINDS,
    LORA,
    STRATEGIES,
    Killed,
    assert_same,
    killed_after,
    micro_of,
    prepared,
    train_by,
    train_micro,
    untimed,
)
from transformers import AutoModelForCausalLM

from hpc_saidpo.parallel.world import World
from hpc_saidpo.store.stage import Stage

EVERY = pytest.mark.parametrize("kind", KINDS)
pytestmark = [
    pytest.mark.mpi, pytest.mark.several,
    pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU"),
]  # fmt: skip


@EVERY
def test_the_same_weights_on_any_number_of_ranks(world, kind):
    alone, steps = train_micro(World(), **KINDS[kind])
    assert torch.equal(train_micro(world, **KINDS[kind])[0], alone)
    fast, _ = train_micro(world, exact=False, **KINDS[kind])
    torch.testing.assert_close(fast, alone, rtol=0, atol=2e-3 if "8bit" in kind else 2e-4)
    assert steps[-1]["rewards/margins"] > 0.01 > abs(steps[0]["rewards/margins"])


@EVERY
def test_a_killed_round_resumes_from_its_checkpoint(world, folder, kind):
    whole, steps_whole = train_micro(World(), **KINDS[kind])
    mine = folder / str(world.rank)
    with pytest.raises(Killed), killed_after(3):
        train_micro(World(), checkpoint=(prepared(mine), 0), **KINDS[kind])
    world.barrier()
    resumed, steps = train_micro(world, checkpoint=(Stage(folder / "0"), None), **KINDS[kind])
    assert torch.equal(resumed, whole) and untimed(steps) == untimed(steps_whole)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_adapters_are_trained_and_merged_by_every_strategy(world, folder, strategy):
    wanted = train_by(World(), "ddp", **LORA)
    result = train_by(world, strategy, folder, **LORA)
    saved = AutoModelForCausalLM.from_pretrained(folder / "model").state_dict()
    assert_same(result if world.is_root else (result[0], saved), wanted)
    assert_same((result[0], saved), wanted)
    rebuilt = PeftModel.from_pretrained(micro_of().model, folder / "adapter").merge_and_unload()
    assert_same((result[0], rebuilt.state_dict()), (result[0], saved), weights=1e-6)
    world.barrier()


def test_shards_of_adapters_are_read_whole(world, folder):
    wanted, stage = train_by(World(), "ddp", **LORA), Stage(folder)
    world.on_root(stage.prepare)
    with pytest.raises(Killed), killed_after(3):
        train_by(world, "fsdp", checkpoint=(stage, 0.0), **LORA)
    world.barrier()
    assert_same(train_by(World(), "ddp", checkpoint=(stage, None), **LORA), wanted)
