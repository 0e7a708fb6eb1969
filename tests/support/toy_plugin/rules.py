"""Rules of a user."""

from hpc_saidpo import settings
from hpc_saidpo.sampler.betabinomial import usable
from hpc_saidpo.sampler.rules import Rule, all_errors, usable_questions


def learnable(k, a, b):
    """The expected share of pairs among the next rollouts, for questions that are not hopeless."""
    return usable(k, a, b, settings.Difficulty()) * a / (a + b)


passes = Rule("pass rate of the cluster", lambda counts: counts.passed_C, errors=all_errors)
frontier_easy = Rule("expected pairs, easier questions first", usable_questions, learnable)
n_rules = 2
