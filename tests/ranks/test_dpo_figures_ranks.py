"""The figures of a DPO round's steps on several ranks, and its end when a figure is not finite."""

import math

import numpy as np
import pytest
import torch
from support.make import load_micro, make_pairs
from support.training import Killed, alike, killed_after, numbers, untimed

from hpc_saidpo import settings
from hpc_saidpo.dpo.checkpoint import Checkpoint
from hpc_saidpo.dpo.examples import Examples, key_of, tokenise
from hpc_saidpo.dpo.logps import ResponseLogps
from hpc_saidpo.dpo.schedule import batches
from hpc_saidpo.dpo.train import Lesson, train
from hpc_saidpo.errors import RunError
from hpc_saidpo.store.stage import Stage

pytestmark = pytest.mark.mpi


def test_the_figures_of_a_step_are_those_of_its_pairs(world):
    policy = load_micro()
    pairs = make_pairs(6)
    examples = tokenise(pairs, policy, False, ())
    config = settings.Dpo(lr=1e-3, beta=0.2, batch_pairs=6, micro_pairs=2, epochs=3, warmup=0)
    module = ResponseLogps(load_micro().model)
    with torch.no_grad():
        reference_B2 = examples.logps(module, range(6)).sum_BR.double().numpy()
    steps = train(policy, Lesson(pairs, examples, 0, 0, True), config, world)
    # The last step's figures were taken before its update: once more without it.
    earlier = load_micro()
    shorter = settings.Dpo(lr=1e-3, beta=0.2, batch_pairs=6, micro_pairs=2, epochs=3, warmup=0)
    with pytest.raises(Killed), killed_after(2):
        train(earlier, Lesson(pairs, examples, 0, 0, True), shorter, world)
    with torch.no_grad():
        logps_B2 = examples.logps(ResponseLogps(earlier.model), range(6)).sum_BR.double().numpy()
    reward_B2 = 0.2 * (logps_B2 - reference_B2)
    margin_B = reward_B2[:, 0] - reward_B2[:, 1]
    longer_B = np.array([len(c) - len(r) for c, r in zip(examples.chosen, examples.rejected, strict=True)])
    correlation = np.corrcoef(margin_B, longer_B)[0, 1] if longer_B.std() else None
    loss = np.log1p(np.exp(-margin_B)).mean()
    expected = {
        "step": 2, "pairs": 6, "loss": loss, "preference_loss": loss, "rewards/chosen": reward_B2[:, 0].mean(),
        "rewards/rejected": reward_B2[:, 1].mean(), "rewards/margins": margin_B.mean(),
        "rewards/accuracies": (margin_B > 0).mean(), "logps/chosen": logps_B2[:, 0].mean(),
        "logps/rejected": logps_B2[:, 1].mean(), "ref_logps/chosen": reference_B2[:, 0].mean(),
        "ref_logps/rejected": reference_B2[:, 1].mean(), "length_correlation": correlation,
    }  # fmt: skip
    last = untimed(steps)[-1]
    assert last.pop("grad_norm") > 0 and last.pop("lr") > 0 and steps[-1]["tokens_per_s"] > 0
    assert numbers(last) == alike(expected, rel=1e-4, abs=1e-4)
    assert margin_B.mean() > 0.1


class Spoilt(Examples):
    """Examples of which one pair has no finite log-probability."""

    def logps(self, module, rows):
        logps = super().logps(module, rows)
        if self.chosen_of_bad not in [self.chosen[i] for i in rows] or not torch.is_grad_enabled():
            return logps
        factor_N = torch.cat([
            torch.full((len(ids),), math.nan if ids is self.chosen_of_bad else 1.0)
            for i in rows for ids in (self.chosen[i], self.rejected[i])
        ])  # fmt: skip
        return type(logps)(logps.token_N * factor_N, logps.n_tokens_BR)


def test_a_loss_that_is_not_finite_stops_with_the_step_and_the_pair_and_overwrites_nothing(world, folder):
    policy, pairs = load_micro(), make_pairs(20)
    config = settings.Dpo(lr=1e-3, batch_pairs=8, micro_pairs=2)
    whole = tokenise(pairs, policy, False, ())
    bad = next(i for i in batches(whole.width_B, config, 0, 0)[1][0])  # a pair of the second step
    examples = Spoilt(whole.prompt, whole.chosen, whole.rejected, whole.pad_id, whole.arrangement)
    object.__setattr__(examples, "chosen_of_bad", examples.chosen[bad])
    stage = Stage(folder)
    resume = Checkpoint(stage, 0.0, key_of(pairs), world)
    with pytest.raises(RunError) as error:
        train(policy, Lesson(pairs, examples, 0, 0, True), config, world, resume)
    said = str(error.value)
    assert "DPO step 1: loss nan" in said and f": q{bad} (pool index {100 + bad}, samples 0 and 1). Nothing" in said
    assert "Lower dpo.lr" in said and "pairs.h5" in said
    assert said.count("pool index") == 1
    # Neither the weights in memory nor the checkpoint of the step before have seen the bad step.
    assert all(p.isfinite().all() for p in policy.model.parameters())
    kept = load_micro()
    module = ResponseLogps(kept.model)
    steps, _ = Checkpoint(stage, None, key_of(pairs), world).restore(
        dict(module.named_parameters()), torch.optim.AdamW(module.parameters())
    )
    assert len(steps) == 1
    for a, b in zip(kept.model.parameters(), policy.model.parameters(), strict=True):
        assert torch.equal(a, b)
