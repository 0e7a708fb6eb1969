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
        sums = figures.sums_of(torch.zeros(4), rewards_B2, zeros_B2, zeros_B2, n_tokens_B2)
        correlation = figures.step_figures(sums, 4)["length_correlation"]
        assert correlation == (expected if expected is None else pytest.approx(expected, abs=1e-6))


def test_a_gradient_that_is_not_finite_names_all_pairs_of_the_step():
    with pytest.raises(RunError, match=r"step 3: loss 0\.5, gradient norm inf; all pairs .* q0 .*; and 4 more\. Noth"):
        figures.check_finite(3, 0.5, math.inf, make_pairs(20), list(range(12)), [])
    figures.check_finite(3, 0.5, 1.0, make_pairs(20), [0], [])
