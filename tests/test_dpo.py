import functools
import itertools
import math
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import load_micro, silent

from hpc_saidpo import arithmetic, dpo
from hpc_saidpo.checkpoint import Checkpoint
from hpc_saidpo.parallel import Stopped, World
from hpc_saidpo.records import Pairs, RunError
from hpc_saidpo.store import Stage


def make_pairs(n=20, seed=0) -> Pairs:
    """Right against wrong answers of arithmetic questions."""
    problems = arithmetic.problems({"trained": 1.0}, n, seed)
    zeros = np.zeros(n, dtype=np.int64)
    yes = np.ones(n, dtype=bool)
    return Pairs(
        np.arange(n), zeros, zeros, zeros + 1, yes, yes, zeros, np.full(n, 0.5), zeros + 2.0, zeros + 9.0,
        [str(i) for i in range(n)],
        [p.text + "\n" for p in problems], [p.solution for p in problems], [p.solution[:-1] + "x" for p in problems],
    )  # fmt: skip


def test_loss_by_hand():
    # beta·[(-1 - -2) - (-5 - -4)] = 0.1·2 = 0.2: -log sigma(0.2) = log(1 + e^-0.2)
    loss, chosen, rejected = dpo.dpo_loss(*torch.tensor([[-1.0], [-5.0], [-2.0], [-4.0]]), beta=0.1)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-0.2)), abs=1e-7)
    assert chosen.item() == pytest.approx(0.1) and rejected.item() == pytest.approx(-0.1)


def test_equal_policies_lose_log_2():
    logps = torch.tensor([-3.0, -700.0])
    assert dpo.dpo_loss(logps, logps, logps, logps, beta=0.1)[0].tolist() == pytest.approx([math.log(2)] * 2)


def test_label_smoothing_is_the_expected_loss_under_flips():
    logps = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    straight = dpo.dpo_loss(*logps, beta=0.3)[0]
    flipped = dpo.dpo_loss(logps[1], logps[0], logps[3], logps[2], beta=0.3)[0]
    smoothed = dpo.dpo_loss(*logps, beta=0.3, label_smoothing=0.1)[0]
    torch.testing.assert_close(smoothed, 0.9 * straight + 0.1 * flipped)


def test_gradient_is_the_papers():
    # Rafailov et al. 2023, section 4: d loss / d log pi(y_w) = -beta·sigma(-margin)
    logps = torch.tensor([[-1.0], [-2.0], [-1.5], [-2.5]], requires_grad=True)
    loss, *_ = dpo.dpo_loss(*logps, beta=0.5)
    (gradient,) = torch.autograd.grad(loss.sum(), logps)
    margin = 0.5 * ((-1.0 + 1.5) - (-2.0 + 2.5))
    slope = 0.5 / (1 + math.exp(margin))
    assert gradient.flatten().tolist() == pytest.approx([-slope, slope, slope, -slope])


def test_loss_equals_trl_on_the_same_model_and_pairs(tmp_path):
    import datasets
    import trl

    policy, reference = load_micro(), load_micro()
    torch.manual_seed(0)
    with torch.no_grad():
        for p in policy.model.parameters():
            p += 0.02 * torch.randn_like(p)
    pairs = make_pairs(8)
    rows = {"prompt": pairs.prompt_B, "chosen": pairs.chosen_B, "rejected": pairs.rejected_B}
    arguments = trl.DPOConfig(
        output_dir=str(tmp_path), beta=0.2, per_device_train_batch_size=8, report_to=[], use_cpu=True, bf16=False,
        gradient_checkpointing=False, disable_dropout=True,
    )  # fmt: skip
    trainer = trl.DPOTrainer(
        model=policy.model, ref_model=reference.model, args=arguments, processing_class=policy.tokenizer,
        train_dataset=datasets.Dataset.from_dict(rows),
    )  # fmt: skip
    theirs = trainer.compute_loss(trainer.model, next(iter(trainer.get_train_dataloader()))).item()

    examples = dpo.tokenise(pairs, policy, chat=False, stop=())
    every = range(8)
    ours_B2 = examples.logps(policy.model, every, 0)
    reference_B2 = examples.logps(reference.model, every, 0)
    loss = dpo.dpo_loss(ours_B2[:, 0], ours_B2[:, 1], reference_B2[:, 0], reference_B2[:, 1], beta=0.2)[0].mean().item()
    assert abs(loss - math.log(2)) > 1e-3  # the comparison is not of two trivial values
    assert loss == pytest.approx(theirs, rel=1e-5)


def train(world, exact=True, n=20, checkpoint=None, progress=silent, **config):
    policy = load_micro()
    pairs = make_pairs(n)
    config = dpo.Config(**{"lr": 1e-3, "batch_pairs": 8, "micro_pairs": 2, "epochs": 2, **config})
    resume = Checkpoint(*checkpoint, dpo.key_of(pairs), world) if checkpoint else None
    examples = dpo.tokenise(pairs, policy, False, ())
    steps = dpo.train(policy, pairs, examples, config, world, 0, 0, exact, progress, resume)
    return torch.cat([p.detach().flatten() for p in policy.model.parameters()]), steps


@pytest.mark.mpi
@pytest.mark.parametrize("nll", [0.0, 0.2])
def test_a_round_gives_the_same_weights_on_any_number_of_ranks(world, nll):
    alone, steps_alone = train(World(), nll=nll)
    together, steps_together = train(world, nll=nll)
    assert torch.equal(alone, together)
    for a, b in zip(steps_alone, steps_together, strict=True):
        assert a == pytest.approx(b, rel=1e-9)
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
        assert torch.equal(resumed, whole) and steps == steps_whole
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
                world.told.by = "SIGTERM"

        yield tick

    with pytest.raises(Stopped, match="SIGTERM"):
        train(world, checkpoint=(stage, 10.0), progress=told_after_two)
    world.told.by = ""
    resumed, steps = train(world, checkpoint=(stage, None))
    assert torch.equal(resumed, whole) and steps == steps_whole
    assert (folder / "checkpoint.safetensors").exists()


def test_a_short_round_writes_no_checkpoint_and_one_of_other_pairs_is_not_taken_up(folder):
    stage = Stage(folder)
    train(World(), checkpoint=(stage, 10.0))
    assert list(folder.iterdir()) == []
    with pytest.raises(Killed):
        train(World(), n=16, checkpoint=(stage, 0.0), progress=functools.partial(killed_after, 2))
    assert [p.name for p in folder.iterdir()] == ["checkpoint.safetensors"]
    resumed, _ = train(World(), checkpoint=(stage, None))
    assert torch.equal(resumed, train(World())[0])


@pytest.mark.mpi
def test_the_micro_batch_size_does_not_change_the_update(world):
    one, _ = train(world, micro_pairs=1)
    eight, _ = train(world, micro_pairs=8)
    torch.testing.assert_close(one, eight, rtol=0, atol=2e-4)


def test_training_prefers_the_chosen():
    _, steps = train(World(), n=40, epochs=4)
    assert steps[0]["loss"] == pytest.approx(math.log(2), rel=1e-4)  # the reference is the policy as it starts
    assert steps[-1]["margin"] > 0.1 and steps[-1]["accuracy"] > 0.9 and steps[-1]["loss"] < steps[0]["loss"]


def test_checkpointing_changes_memory_not_the_result():
    torch.testing.assert_close(train(World(), checkpointing=True)[0], train(World())[0], rtol=0, atol=1e-6)


def test_the_schedule_covers_every_pair_once_an_epoch():
    examples = SimpleNamespace(prompt=[[0]] * 21, chosen=[[0]] * 21, rejected=[[0]] * 21)
    schedule = dpo.batches(examples, dpo.Config(batch_pairs=8, micro_pairs=3, epochs=2), 0, 0)
    assert [sum(map(len, step)) for step in schedule] == [8, 8, 5, 8, 8, 5]
    epochs = [sorted(i for step in half for micro in step for i in micro) for half in (schedule[:3], schedule[3:])]
    assert epochs == [list(range(21))] * 2
    assert schedule[:3] != schedule[3:]


def test_the_rate_warms_up_and_falls_to_zero_without_ever_being_it():
    rates = [dpo.rate(i, 20, 0.2) for i in range(20)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert all(a > b for a, b in itertools.pairwise(rates[4:])) and 0 < rates[-1] < 0.05
    assert dpo.rate(0, 1, 0.1) == 1.0


def test_a_loss_that_is_not_finite_stops_with_the_step_and_the_questions():
    with pytest.raises(RunError, match=r"DPO step \d+: .*nan.*questions"):
        train(World(), lr=1e30, max_grad_norm=1e30)
