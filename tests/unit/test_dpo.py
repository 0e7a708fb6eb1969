"""A DPO round in one process."""

import math

import pytest
import torch
from support.make import load_micro, make_pairs
from support.training import Killed, killed_after, train_micro

from hpc_saidpo.dpo.examples import Examples, tokenise
from hpc_saidpo.dpo.logps import ResponseLogps
from hpc_saidpo.dpo.train import checkpoint_layers
from hpc_saidpo.parallel.world import World
from hpc_saidpo.store.stage import Stage


def test_a_short_round_writes_no_checkpoint_and_one_of_other_pairs_is_not_read(folder):
    stage = Stage(folder)
    train_micro(World(), checkpoint=(stage, 10.0))
    assert list(folder.iterdir()) == []
    with pytest.raises(Killed), killed_after(2):
        train_micro(World(), n=16, checkpoint=(stage, 0.0))
    assert [p.name for p in folder.iterdir()] == ["checkpoint-000002"]
    resumed, _ = train_micro(World(), checkpoint=(stage, None))
    assert torch.equal(resumed, train_micro(World())[0])


def test_training_prefers_the_chosen():
    _, steps = train_micro(World(), n=40, epochs=4)
    assert steps[0]["loss"] == pytest.approx(math.log(2), rel=1e-4)  # the reference is the policy as it starts
    last = steps[-1]
    assert last["rewards/margins"] > 0.1 and last["rewards/accuracies"] > 0.9 and last["loss"] < steps[0]["loss"]


def test_checkpointing_changes_memory_not_the_result():
    torch.testing.assert_close(train_micro(World(), checkpointing=True)[0], train_micro(World())[0], rtol=0, atol=1e-6)


def test_checkpointing_computes_every_layer_again_and_switches_no_dropout_on():
    policy = load_micro()
    examples = tokenise(make_pairs(2), policy, False, ())
    layers, calls = policy.model.model.layers, []
    for layer in layers:
        layer.self_attn.register_forward_pre_hook(lambda *_: calls.append(1))

    def forward_and_backward():
        calls.clear()
        examples.logps(ResponseLogps(policy.model), [0, 1]).sum_BR.sum().backward()
        return len(calls)

    assert forward_and_backward() == len(layers)
    checkpoint_layers(policy.model)
    assert forward_and_backward() == 2 * len(layers)
    assert not any(part.training for layer in layers for part in layer.children())


@pytest.mark.parametrize(
    "arrangement, tokens, width",
    [
        ("shared", [3 + 4 + 1, 1 + 2 + 5], [8, 8]),  # the prompt once
        ("packed", [2 * 3 + 4 + 1, 2 * 1 + 2 + 5], [11, 9]),  # the prompt before each response
        ("padded", [11, 9], [2 * (3 + 4), 2 * (1 + 5)]),  # two rows, both as wide as the longer response
    ],
)
def test_tokens_and_width_of_a_pair_by_its_arrangement(arrangement, tokens, width):
    examples = Examples([[5] * 3, [5]], [[6] * 4, [6] * 2], [[7], [7] * 5], 0, arrangement)
    assert examples.tokens_B.tolist() == tokens and examples.width_B.tolist() == width
