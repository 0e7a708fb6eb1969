"""A DPO round beside TRL's trainer, on the same pairs and model."""

import numpy as np
import pytest
import torch
from support.make import load_micro, make_pairs

from hpc_saidpo import settings
from hpc_saidpo.dpo.examples import Examples, tokenise
from hpc_saidpo.dpo.logps import ResponseLogps
from hpc_saidpo.dpo.schedule import batches
from hpc_saidpo.dpo.train import Lesson, Losses, train
from hpc_saidpo.parallel.gradients import replicate
from hpc_saidpo.parallel.world import World

BATCH, STEPS, SEED = 8, 20, 3
CONFIG = settings.Dpo(lr=1e-3, beta=0.2, warmup=0.0, batch_pairs=BATCH)


def varied(n):
    """Pairs whose responses differ in length."""
    pairs = make_pairs(n)
    pairs.rejected_B[:] = [text[:-1] if i % 2 else text + text[:5] for i, text in enumerate(pairs.rejected_B)]
    return pairs


def trainer_of(policy, pairs, folder):
    """TRL's trainer, that takes the pairs as they come."""
    import datasets
    import trl

    arguments = trl.DPOConfig(
        output_dir=str(folder), per_device_train_batch_size=BATCH, beta=CONFIG.beta, learning_rate=CONFIG.lr,
        lr_scheduler_type="cosine", warmup_steps=0, weight_decay=0.0, max_grad_norm=CONFIG.max_grad_norm,
        num_train_epochs=1, train_sampling_strategy="sequential", precompute_ref_log_probs=True, use_cpu=True,
        bf16=False, gradient_checkpointing=False, logging_steps=1, save_strategy="no", report_to=[], disable_tqdm=True,
    )  # fmt: skip
    rows = {"prompt": list(pairs.prompt_B), "chosen": list(pairs.chosen_B), "rejected": list(pairs.rejected_B)}
    return trl.DPOTrainer(
        model=policy.model, args=arguments, processing_class=policy.tokenizer,
        train_dataset=datasets.Dataset.from_dict(rows),
    )  # fmt: skip


@pytest.fixture(params=["shared", "packed", "padded"])
def arrangement(request):
    return request.param


def examples_of(pairs, policy, arrangement="shared"):
    return Examples(**{**vars(tokenise(pairs, policy, False, ())), "arrangement": arrangement})


def untrained():
    """The micro model with random weights: what it is sure of has log-probabilities too small for a relative error."""
    policy = load_micro()
    torch.manual_seed(0)
    policy.model = type(policy.model)(policy.model.config).eval()
    return policy


def vector(model):
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def test_log_probabilities_and_gradients_are_trls(tmp_path, arrangement):
    policy, theirs = untrained(), untrained()
    trainer = trainer_of(theirs, varied(BATCH), tmp_path)
    examples = examples_of(varied(BATCH), policy, arrangement)
    for name, column in (("prompt_ids", "prompt"), ("chosen_ids", "chosen"), ("rejected_ids", "rejected")):
        assert list(trainer.train_dataset[name]) == getattr(examples, column)

    batch = next(iter(trainer.get_train_dataloader()))
    labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
    response_logps = examples.logps(ResponseLogps(policy.model, 7), range(BATCH))
    with torch.no_grad():
        logps = theirs.model(batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels,
                             fused_lm_head=True).log_probs  # fmt: skip
    by_row = [row[mask] for row, mask in zip(logps, batch["completion_mask"][:, 1:].bool(), strict=True)]
    expected = [one for i in range(BATCH) for one in (by_row[i], by_row[BATCH + i])]
    for ours, wanted in zip(response_logps.by_response, expected, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-5)
    sums_B2 = torch.stack([one.sum() for one in expected]).view(BATCH, 2)
    torch.testing.assert_close(response_logps.sum_BR, sums_B2, rtol=1e-6, atol=0)

    # Rewards that are not all zero, so that every pair has a weight of its own.
    reference_B2 = sums_B2.numpy() + np.random.default_rng(0).normal(size=(BATCH, 2))
    batch["ref_chosen_logps"], batch["ref_rejected_logps"] = torch.tensor(reference_B2, dtype=torch.float32).T
    trainer.compute_loss(trainer.model, batch).backward()
    wanted = vector(theirs.model)
    for micro_pairs in (1, 2, 4):
        config = settings.Dpo(**{**vars(CONFIG), "micro_pairs": micro_pairs})
        schedule = batches(examples.width_B, config, SEED, 0)
        losses = Losses(policy, examples, reference_B2, config, schedule[0])
        with replicate(World(), ResponseLogps(policy.model), False) as replicas:
            replicas.gradient(losses.of_rank(replicas))
        got = vector(policy.model)
        policy.model.zero_grad()
        assert (got - wanted).norm() < 1e-4 * wanted.norm()


@pytest.mark.long
def test_the_loss_curve_is_trls(tmp_path, arrangement):
    policy, theirs, pairs = load_micro(), load_micro(), varied(BATCH * STEPS)
    examples = examples_of(pairs, policy, arrangement)
    order = [i for step in batches(examples.width_B, CONFIG, SEED, 0) for micro in step for i in micro]
    trainer = trainer_of(theirs, pairs.take(order), tmp_path)
    trainer.train()
    expected = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    steps = train(policy, Lesson(pairs, examples, SEED, 0), CONFIG, World())
    losses = [step["loss"] for step in steps]
    assert len(losses) == STEPS and losses[-1] < 0.5 * losses[0]  # it moves
    assert losses == pytest.approx(expected, abs=1e-3)
    rates = [entry["learning_rate"] for entry in trainer.state.log_history if "loss" in entry]
    assert [step["lr"] for step in steps] == pytest.approx(rates)
    for name in ("rewards/chosen", "rewards/rejected", "logps/chosen", "logps/rejected"):
        wanted = [entry[name] for entry in trainer.state.log_history if "loss" in entry]
        assert [step[name] for step in steps] == pytest.approx(wanted, rel=1e-3, abs=1e-3)


CUTS = [{"micro_pairs": 1}, {"micro_pairs": 2}, {"micro_pairs": 4}, {"micro_tokens": 60}, {"micro_tokens": 400}]


def test_the_update_does_not_depend_on_how_pairs_lie_in_rows():
    pairs = varied(7)

    def update(arrangement, cut):
        policy = load_micro()
        config = settings.Dpo(lr=1e-4, batch_pairs=7, nll=0.2, **cut)
        (step,) = train(policy, Lesson(pairs, examples_of(pairs, policy, arrangement), SEED, 0), config, World())
        return torch.cat([p.detach().flatten() for p in policy.model.parameters()]), step["grad_norm"]

    (wanted, norm), before = update("padded", CUTS[0]), load_micro().model.parameters()
    assert (wanted - torch.cat([p.detach().flatten() for p in before])).abs().mean() > 5e-5  # Adam's first: the rate
    for arrangement in ("shared", "packed", "padded"):
        for cut in CUTS:
            result, grad_norm = update(arrangement, cut)
            torch.testing.assert_close(result, wanted, rtol=0, atol=1e-5)
            assert grad_norm == pytest.approx(norm, rel=1e-5)
