"""Figures of an optimizer step, and the message when one is not finite."""

import math

import numpy as np
import pytest
import torch
from support.make import make_pairs

from hpc_saidpo.dpo import figures
from hpc_saidpo.errors import RunError


def test_a_correlation_with_length_is_reported_where_there_is_one():
    margin = torch.tensor([0.3, -0.2, 0.9, 0.1])
    rewards_B2 = torch.stack([margin, torch.zeros(4)], 1)
    zeros_B2 = torch.zeros(4, 2)
    for chosen, expected in (([5, 2, 9, 1], np.corrcoef(margin, [5, 2, 9, 1])[0, 1]), ([3, 3, 3, 3], None)):
        n_tokens_B2 = torch.tensor([[n + 2, 2] for n in chosen])
        sums = figures.sums_of(torch.zeros(4), torch.zeros(4), rewards_B2, zeros_B2, zeros_B2, n_tokens_B2)
        correlation = figures.step_figures(sums, 4)["length_correlation"]
        assert correlation == (expected if expected is None else pytest.approx(expected, abs=1e-6))


def test_means_are_over_the_pairs_of_a_step():
    loss_B = torch.tensor([0.2, 0.6])
    rewards_B2, logps_B2 = torch.tensor([[0.5, -0.1], [0.1, 0.3]]), torch.tensor([[-5.0, -6.0], [-7.0, -8.0]])
    n_tokens_B2 = torch.tensor([[3, 4], [5, 5]])
    sums = figures.sums_of(loss_B, loss_B - 0.1, rewards_B2, logps_B2, logps_B2 - 1, n_tokens_B2)
    found = figures.step_figures(sums, 2)
    assert found.pop("length_correlation") == pytest.approx(-1)  # the pair whose chosen response is shorter has more
    assert found == pytest.approx({
        "loss": 0.4, "preference_loss": 0.3, "rewards/chosen": 0.3, "rewards/rejected": 0.1, "rewards/margins": 0.2,
        "rewards/accuracies": 0.5, "logps/chosen": -6.0, "logps/rejected": -7.0,
        "ref_logps/chosen": -7.0, "ref_logps/rejected": -8.0,
    })  # fmt: skip


@pytest.mark.parametrize("spread, is_reported", [(0.0009, False), (0.0015, True)])
def test_rounding_of_the_margins_is_no_correlation(spread, is_reported):
    rewards_B2 = torch.tensor([[spread, 0.0], [-spread, 0.0]])
    zeros_B2, n_tokens_B2 = torch.zeros(2, 2), torch.tensor([[3, 2], [2, 3]])
    sums = figures.sums_of(torch.zeros(2), torch.zeros(2), rewards_B2, zeros_B2, zeros_B2, n_tokens_B2)
    assert (figures.step_figures(sums, 2)["length_correlation"] is not None) == is_reported


def test_a_gradient_that_is_not_finite_names_all_pairs_of_the_step():
    with pytest.raises(RunError, match=r"step 3: loss 0\.5, gradient norm inf; all pairs .* q0 .*; and 4 more\. Noth"):
        figures.check_finite(3, 0.5, math.inf, make_pairs(20), list(range(12)), [])
    figures.check_finite(3, 0.5, 1.0, make_pairs(20), [0], [])
