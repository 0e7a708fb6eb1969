"""A DPO round on several ranks: the same weights, also when it is killed, stopped and resumed."""

import numpy as np
import pytest
import torch
from support.make import load_micro, make_pairs
from support.training import Killed, after_steps, alike, killed_after, numbers, prepared, train_micro, untimed, watched

from hpc_saidpo import settings
from hpc_saidpo.dpo.examples import tokenise
from hpc_saidpo.dpo.logps import ResponseLogps
from hpc_saidpo.dpo.schedule import batches
from hpc_saidpo.dpo.train import Losses
from hpc_saidpo.parallel.gradients import replicate
from hpc_saidpo.parallel.stop import Stopped
from hpc_saidpo.parallel.world import World
from hpc_saidpo.store.stage import Stage

pytestmark = pytest.mark.mpi


@pytest.mark.parametrize("nll", [0.0, 0.2])
def test_a_round_gives_the_same_weights_on_any_number_of_ranks(world, nll):
    alone, steps_alone = train_micro(World(), nll=nll)
    together, steps_together = train_micro(world, nll=nll)
    assert torch.equal(alone, together)
    for a, b in zip(untimed(steps_alone), untimed(steps_together), strict=True):
        assert numbers(a) == alike(b, rel=1e-9, abs=1e-9)
    fast, _ = train_micro(world, exact=False, nll=nll)
    torch.testing.assert_close(fast, alone, rtol=0, atol=2e-4)


def test_a_round_with_fewer_micro_batches_than_ranks(world):
    alone, _ = train_micro(World(), n=3, batch_pairs=2)
    assert torch.equal(alone, train_micro(world, n=3, batch_pairs=2)[0])


@pytest.mark.parametrize("at", [1, 4])
def test_a_killed_round_resumes_from_its_checkpoint_on_any_number_of_ranks(world, folder, at):
    whole, steps_whole = train_micro(World())
    for name, first, second in (("fewer", world, World()), ("more", World(), world)):
        # Alone, every rank kills a round of its own; all resume from root's.
        mine = folder / f"{name} {0 if first is world else world.rank}"
        with pytest.raises(Killed), killed_after(at):
            train_micro(first, checkpoint=(prepared(mine), 0))
        stage = Stage(folder / f"{name} 0")
        world.barrier()
        with watched() as labels:
            resumed, steps = train_micro(second, checkpoint=(stage, None))
        assert torch.equal(resumed, whole) and untimed(steps) == untimed(steps_whole)
        assert labels == [f"DPO: 20 pairs, from step {at} of 6"]  # no reference log-probabilities either


def test_a_round_that_is_signalled_to_stop_writes_its_checkpoint_at_once(world, folder):
    whole, steps_whole = train_micro(World())
    stage = Stage(folder)

    def signal():
        if world.rank == world.size - 1:
            world.stop_request.signal_name = "SIGTERM"

    with pytest.raises(Stopped, match="SIGTERM"), watched(after_steps(2, signal)):
        train_micro(world, checkpoint=(stage, 10.0))
    world.stop_request.signal_name = ""
    resumed, steps = train_micro(world, checkpoint=(stage, None))
    assert torch.equal(resumed, whole) and untimed(steps) == untimed(steps_whole)
    assert [p.name for p in folder.iterdir()] == ["checkpoint-000003"]


CUTS = [{"micro_pairs": 1}, {"micro_pairs": 2}, {"micro_pairs": 4}, {"micro_tokens": 1}, {"micro_tokens": 60},
        {"micro_tokens": 150}, {"head_tokens": 1}, {"head_tokens": 7}]  # fmt: skip


def step_gradient(world, exact, **cut) -> torch.Tensor:
    """The gradient of a step of 7 pairs, which no micro-batch size divides, as one vector."""
    policy = load_micro()
    examples = tokenise(make_pairs(7), policy, False, ())
    config = settings.Dpo(**{"nll": 0.2, "batch_pairs": 7, "micro_pairs": 7, **cut})
    losses = Losses(policy, examples, np.full((7, 2), -5.0), config, batches(examples.width_B, config, 0, 0)[0])
    with replicate(world, ResponseLogps(policy.model, config.head_tokens), exact) as replicas:
        replicas.gradient(losses.of_rank(replicas))
    return torch.cat([p.grad.flatten() for p in policy.model.parameters()])


@pytest.mark.several
@pytest.mark.parametrize("exact", [True, False])
def test_how_a_batch_is_cut_does_not_change_the_update(world, exact):
    wanted = step_gradient(World(), True)
    for cut in CUTS:
        assert (step_gradient(world, exact, **cut) - wanted).norm() < 1e-5 * wanted.norm(), cut
    # The first step of Adam is the rate times the gradient's sign, so that rounding of a gradient of next to nothing is
    # a change of weights: of few of them, and of a fraction of the rate.
    (weights, _), start = train_micro(World(), n=7, epochs=1, lr=1e-4, micro_pairs=7), load_micro().model.parameters()
    assert (weights - torch.cat([p.detach().flatten() for p in start])).abs().mean() > 5e-5
    for cut in CUTS:
        result, _ = train_micro(world, exact, n=7, epochs=1, lr=1e-4, **{"micro_pairs": 7, **cut})
        torch.testing.assert_close(result, weights, rtol=0, atol=1e-5)
