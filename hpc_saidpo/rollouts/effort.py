"""The number of responses to each question: waves, early decision, early abandon, more for near misses.

Every decision about a question depends on its own verdicts and on evidence from before the stage. So it is the same on
any number of ranks, and the text of a response has no part in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ..difficulty import measure
from ..records import CORRECT, WRONG, Rollouts


@dataclass(frozen=True)
class Effort:
    """How many responses the questions of a stage receive.

    Attributes:
        waves: responses of each wave.
        min_chance: a question goes on only if its chance of a pair in the next wave, per response, is at least this.
        prior_Q: (a, b) of the Beta distribution of the pass rate, by question, from before the stage. A question
            without one is never abandoned.
    """

    waves: tuple[int, ...]
    min_chance: float = 0.0
    prior_Q: Mapping[int, tuple[float, float]] = field(default_factory=dict)

    def goes_on(self, q: int, rollouts: Rollouts, n_next: int) -> bool:
        """Whether a question receives the next wave.

        Args:
            rollouts: all its rollouts so far.
            n_next: responses of the next wave.
        """
        if decided(rollouts):
            return False
        measured = measure(rollouts)
        if q not in self.prior_Q or not len(measured):
            return True
        n, s = int(measured.n_tried_Q[0]), int(measured.n_correct_Q[0])
        return pair_chance(*self.prior_Q[q], n, s, n_next) >= self.min_chance * n_next


def pair_chance(a: float, b: float, n: int, s: int, n_next: int) -> float:
    """Chance that a question without a pair has one after n_next more responses.

    With a pass rate from Beta(a, b) and s of n responses correct, the next n_next responses are all wrong with the
    probability B(a+s, b+n-s+n_next) / B(a+s, b+n-s), and all correct with B(a+s+n_next, b+n-s) / B(a+s, b+n-s). A
    question with wrong responses only needs a correct one, and the reverse. One with both kinds lacks a correct
    response that ended by itself: it is treated as if all were wrong.
    """
    from scipy.special import betaln  # here, because a finished stage needs none of it

    a, b = a + s, b + n - s
    no_pair = betaln(a + n_next, b) if s == n else betaln(a, b + n_next)
    return float(-np.expm1(no_pair - betaln(a, b)))


def decided(rollouts: Rollouts) -> set[int]:
    """Questions that make a pair: they have a correct response that ended by itself, and a wrong response."""
    is_chosen_R = (rollouts.verdict_R == CORRECT) & rollouts.finished_R
    is_rejected_R = rollouts.verdict_R == WRONG
    return set(rollouts.question_R[is_chosen_R].tolist()) & set(rollouts.question_R[is_rejected_R].tolist())
