"""The rules of the sampler: which clusters and questions get a high weight (method, step 3).

A rule is one entry of `RULES`. Weights, metrics, signatures and reports read everything from the entry; none of them
tests the name of a rule.

`sampler.rule=package.module:name` uses an object of the class `Rule` from the user's module in the same way. The module
is imported once per rank. It must be installed, or its folder must be in PYTHONPATH. The functions of a rule must be
pure: their results depend on their arguments alone, so every rank and every restart draws the same questions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .. import settings
from ..plugin import choose
from .betabinomial import Values, deviation, gate, infogain, near_half, usable, usable_error, variance
from .counts import ClusterCounts

KEY = "sampler.rule"
Events = Callable[[ClusterCounts], np.ndarray]
Expected = Callable[..., np.ndarray]


def errors_in_band(counts: ClusterCounts) -> np.ndarray:
    """Errors of the questions in the band: the sum of 1 - s/K per cluster."""
    return counts.error_C


def all_errors(counts: ClusterCounts) -> np.ndarray:
    """Errors of all questions that were tried, the too hard ones included: the sum of 1 - s/K per cluster."""
    return counts.n_C - counts.passed_C


def usable_questions(counts: ClusterCounts) -> np.ndarray:
    """Questions in the band (by default 0 < s < K): their number per cluster."""
    return counts.usable_C


@dataclass(frozen=True)
class Rule:
    """The value of clusters and questions, from which weights follow: (value / value of the whole pool)^alpha.

    There are three kinds of rules. Without `events`, all weights are 1. With `events` alone, the value of a cluster is
    its event rate, shrunk towards the pool's rate, and all questions of a cluster share its weight. With `expected`
    too, the pass rates of a cluster's questions follow a fitted Beta distribution, and the value is an expectation
    under it; a question that was rolled out before has a value from its own counts.

    Attributes:
        summary: the rule in one line.
        events: (evidence of C clusters) -> event mass of each cluster, floats of shape (C,), in questions: at least 0
            and at most `counts.n_C`. If the sum is 0, all weights are 1. None: a uniform rule.
        expected: (k, a, b) -> value of the next k rollouts of a question whose pass rate has the distribution
            Beta(a, b), at least 0. `a` and `b` are floats, or arrays of one shape, which the result has too.
        errors: (evidence of C clusters) -> error mass of each cluster, floats of shape (C,), in questions. Metrics and
            reports show its rate as the error rate of the cluster.
        takes_band: whether `expected` has a fourth argument: the settings `difficulty`, with the bounds `too_hard` and
            `too_easy` between which s/k yields a pair.
    """

    summary: str
    events: Events | None = None
    expected: Expected | None = None
    errors: Events = errors_in_band
    takes_band: bool = False

    def __post_init__(self):
        if self.expected is not None and self.events is None:
            raise ValueError("a Rule with `expected` needs `events` too, such as hpc_saidpo.sampler.rules.all_errors")

    @property
    def is_uniform(self) -> bool:
        """Whether all weights are 1, whatever the evidence."""
        return self.events is None

    def value(self, k: int, a: Values, b: Values, band: settings.Difficulty) -> np.ndarray:
        """Return `expected` of these arguments; the rule must have it."""
        assert self.expected is not None
        return self.expected(k, a, b, band) if self.takes_band else self.expected(k, a, b)

    def distinguishes(self, counts: ClusterCounts) -> bool:
        """Whether there is evidence by which clusters can have different weights."""
        if self.events is None or (self.expected is not None and counts.several_C.sum() == 0):
            return False  # the fit of pass rates needs questions with two rollouts or more
        return bool(self.events(counts).sum() > 0)


# Published rules for the choice of prompts in online reinforcement learning: the expectation of their utility under the
# posterior of the pass rate p. Their papers use the utility in other ways: they take the best of many candidates, or
# keep a bandit's mean for each category.
#   variance       LILO (Foster et al. 2025, arXiv:2502.12272), VCRL (Jiang et al. 2025, arXiv:2509.19803)
#   deviation      SEC (Chen et al. 2025, arXiv:2505.14970), DUMP (Wang et al. 2025, arXiv:2504.09710): the mean
#                  absolute advantage of GRPO, which is 2·√(p·(1-p))
#   infogain       Knapsack RL (Li et al. 2025, arXiv:2509.25849)
#   thompson       MoPPS (Qu et al. 2025, arXiv:2507.04632), BOTS (Shen et al. 2025, arXiv:2510.26374): they take the
#                  questions whose drawn pass rates are nearest to 1/2
#   zero_variance  GRESO (Zheng et al. 2025, arXiv:2506.02177): after z occasions without a pair a question is
#                  explored with probability PASSED^z; here from its last occasion alone, at most a factor of 2
RULES: dict[str, Rule] = {
    "error": Rule("error rate of the cluster, questions in the band only", errors_in_band),
    "error_all": Rule("error rate of the cluster, all questions (ablation)", all_errors, errors=all_errors),
    "frontier": Rule("expected probability of a preference pair", usable_questions, usable, takes_band=True),
    "frontier_error": Rule("expected error mass in the band", usable_questions, usable_error, takes_band=True),
    "variance": Rule("expected variance p(1-p) of a response (LILO, VCRL)", usable_questions, variance),
    "deviation": Rule("expected deviation √(p(1-p)) of a response (SEC, DUMP)", usable_questions, deviation),
    "infogain": Rule("expected information gain p(1-p)² (Knapsack RL)", usable_questions, infogain),
    "thompson": Rule("chance of a pass rate near 1/2 (MoPPS, BOTS)", usable_questions, near_half),
    "zero_variance": Rule("chance to pass a gate against useless questions (GRESO)", usable_questions, gate),
    "uniform": Rule("all questions alike (IDPO)"),
}


def find_rule(name: str) -> Rule:
    """Return the rule that `sampler.rule` names: one of RULES, or `package.module:name`.

    Raises:
        RunError: there is no such rule; the message shows the valid names.
    """
    return choose(KEY, name, RULES, Rule)
