import functools
import itertools
import math
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from support.make import load_micro, make_pairs

from hpc_saidpo import settings
from hpc_saidpo.dpo import train
from hpc_saidpo.dpo.checkpoint import Checkpoint
from hpc_saidpo.dpo.examples import key_of, tokenise
from hpc_saidpo.dpo.logps import ResponseLogps
from hpc_saidpo.dpo.schedule import batches
from hpc_saidpo.dpo.train import Losses, checkpoint_layers
from hpc_saidpo.parallel.stop import Stopped
from hpc_saidpo.parallel.world import World
from hpc_saidpo.store.stage import Stage


def untimed(steps):
    """Figures of steps without what the clock gave."""
    return [{name: value for name, value in step.items() if name != "tokens_per_s"} for step in steps]


def alike(figures, **tolerance):
    """Approximately these figures; None is None."""
    return pytest.approx({k: math.inf if v is None else v for k, v in figures.items()}, **tolerance)


def numbers(figures):
    return {k: math.inf if v is None else v for k, v in figures.items()}


def train(world, exact=True, n=20, checkpoint=None, progress=silent, **config):
    policy = load_micro()
    pairs = make_pairs(n)
    config = settings.Dpo(**{"lr": 1e-3, "batch_pairs": 8, "micro_pairs": 2, "epochs": 2, **config})
    resume = Checkpoint(*checkpoint, key_of(pairs), world) if checkpoint else None
    examples = tokenise(pairs, policy, False, ())
    steps = train.train(policy, pairs, examples, config, world, 0, 0, exact, progress, resume)
    return torch.cat([p.detach().flatten() for p in policy.model.parameters()]), steps


@pytest.mark.mpi
@pytest.mark.parametrize("nll", [0.0, 0.2])
def test_a_round_gives_the_same_weights_on_any_number_of_ranks(world, nll):
    alone, steps_alone = train(World(), nll=nll)
    together, steps_together = train(world, nll=nll)
    assert torch.equal(alone, together)
    for a, b in zip(untimed(steps_alone), untimed(steps_together), strict=True):
        assert numbers(a) == alike(b, rel=1e-9, abs=1e-9)
    fast, _ = train(world, exact=False, nll=nll)
    torch.testing.assert_close(fast, alone, rtol=0, atol=2e-4)


@pytest.mark.mpi
def test_a_round_with_fewer_micro_batches_than_ranks(world):
    alone, _ = train(World(), n=3, batch_pairs=2)
    assert torch.equal(alone, train(world, n=3, batch_pairs=2)[0])


class Killed(Exception):
    pass


def prepared(folder):
    stage = Stage(folder)
    stage.prepare()
    return stage


@contextmanager
def killed_after(n_ticks, label, total):
    """A progress that ends the round after some steps of training."""
    ticks = itertools.count(1)

    def tick(*_):
        if label.startswith("DPO") and next(ticks) == n_ticks:
            raise Killed

    yield tick


@pytest.mark.mpi
@pytest.mark.parametrize("at", [1, 4])
def test_a_killed_round_goes_on_from_its_checkpoint_on_any_number_of_ranks(world, folder, at):
    whole, steps_whole = train(World())
    labels = []

    def watch(label, total):
        labels.append(label)
        return silent(label, total)

    for name, first, second in (("fewer", world, World()), ("more", World(), world)):
        # Alone, every rank kills a round of its own; all go on from root's.
        mine = folder / f"{name} {0 if first is world else world.rank}"
        with pytest.raises(Killed):
            train(first, checkpoint=(prepared(mine), 0), progress=functools.partial(killed_after, at))
        stage = Stage(folder / f"{name} 0")
        world.barrier()
        labels.clear()
        resumed, steps = train(second, checkpoint=(stage, None), progress=watch)
        assert torch.equal(resumed, whole) and untimed(steps) == untimed(steps_whole)
        assert labels == [f"DPO: 20 pairs, from step {at} of 6"]  # no reference log-probabilities either


@pytest.mark.mpi
def test_a_round_that_is_told_to_stop_writes_its_checkpoint_at_once(world, folder):
    whole, steps_whole = train(World())
    stage = Stage(folder)

    @contextmanager
    def told_after_two(label, total):
        ticks = itertools.count(1)

        def tick(*_):
            if label.startswith("DPO") and next(ticks) == 2 and world.rank == world.size - 1:
                world.stop_request.signal_name = "SIGTERM"

        yield tick

    with pytest.raises(Stopped, match="SIGTERM"):
        train(world, checkpoint=(stage, 10.0), progress=told_after_two)
    world.stop_request.signal_name = ""
    resumed, steps = train(world, checkpoint=(stage, None))
    assert torch.equal(resumed, whole) and untimed(steps) == untimed(steps_whole)
    assert [p.name for p in folder.iterdir()] == ["checkpoint-000003"]


def test_a_short_round_writes_no_checkpoint_and_one_of_other_pairs_is_not_taken_up(folder):
    stage = Stage(folder)
    train(World(), checkpoint=(stage, 10.0))
    assert list(folder.iterdir()) == []
    with pytest.raises(Killed):
        train(World(), n=16, checkpoint=(stage, 0.0), progress=functools.partial(killed_after, 2))
    assert [p.name for p in folder.iterdir()] == ["checkpoint-000002"]
    resumed, _ = train(World(), checkpoint=(stage, None))
    assert torch.equal(resumed, train(World())[0])


CUTS = [{"micro_pairs": 1}, {"micro_pairs": 2}, {"micro_pairs": 4}, {"micro_tokens": 1}, {"micro_tokens": 60},
        {"micro_tokens": 150}, {"head_tokens": 1}, {"head_tokens": 7}]  # fmt: skip


def step_gradient(world, exact, **cut) -> torch.Tensor:
    """The gradient of a step of 7 pairs, which no micro-batch size divides, as one vector."""
    policy = load_micro()
    examples = tokenise(make_pairs(7), policy, False, ())
    config = settings.Dpo(**{"nll": 0.2, "batch_pairs": 7, "micro_pairs": 7, **cut})
    losses = Losses(policy, examples, np.full((7, 2), -5.0), config, batches(examples.width_B, config, 0, 0)[0])
    with world.replicas(ResponseLogps(policy.model, config.head_tokens), exact) as replicas:
        replicas.gradient(losses.of_rank(replicas))
    return torch.cat([p.grad.flatten() for p in policy.model.parameters()])


@pytest.mark.mpi
@pytest.mark.parametrize("exact", [True, False])
def test_how_a_batch_is_cut_does_not_change_the_update(world, exact):
    wanted = step_gradient(World(), True)
    for cut in CUTS:
        assert (step_gradient(world, exact, **cut) - wanted).norm() < 1e-5 * wanted.norm(), cut
    # The first step of Adam is the rate times the gradient's sign, so that rounding of a gradient of next to nothing is
    # a change of weights: of few of them, and of a fraction of the rate.
    (weights, _), start = train(World(), n=7, epochs=1, lr=1e-4, micro_pairs=7), load_micro().model.parameters()
    assert (weights - torch.cat([p.detach().flatten() for p in start])).abs().mean() > 5e-5
    for cut in CUTS:
        found, _ = train(world, exact, n=7, epochs=1, lr=1e-4, **{"micro_pairs": 7, **cut})
        torch.testing.assert_close(found, weights, rtol=0, atol=1e-5)


def test_training_prefers_the_chosen():
    _, steps = train(World(), n=40, epochs=4)
    assert steps[0]["loss"] == pytest.approx(math.log(2), rel=1e-4)  # the reference is the policy as it starts
    last = steps[-1]
    assert last["rewards/margins"] > 0.1 and last["rewards/accuracies"] > 0.9 and last["loss"] < steps[0]["loss"]


def test_checkpointing_changes_memory_not_the_result():
    torch.testing.assert_close(train(World(), checkpointing=True)[0], train(World())[0], rtol=0, atol=1e-6)


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
