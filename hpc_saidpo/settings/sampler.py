"""The settings of the group `sampler`."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field

from .base import Count, Name, Positive, group


@group
class Budget:
    """What an exploration may find or spend before it ends (sampler.budget)."""

    pairs: Positive | None = None
    tokens: Positive | None = None
    rounds: Positive = 8

    @property
    def is_set(self) -> bool:
        """Whether there is a budget."""
        return bool(self.pairs or self.tokens)

    def is_spent(self, n_usable: int, n_tokens: int) -> bool:
        """Whether so many questions that yield a pair, or so many generated tokens, are enough."""
        return bool((self.pairs and n_usable >= self.pairs) or (self.tokens and n_tokens >= self.tokens))

    def next_round(self, n_drawn: int, n_explored: int, n_usable: int, n_tokens: int) -> int:
        """How many questions are explored next; 0: the budget is spent, or no drawn question is left.

        First n_drawn / rounds. Then as many as the rest of the budget needs by what has been found, but at most as many
        as have been explored, so that a first round that misleads does no harm, and at least a quarter of the first.
        """
        if self.is_spent(n_usable, n_tokens):
            return 0
        first = math.ceil(n_drawn / self.rounds)
        found = ((self.pairs, n_usable), (self.tokens, n_tokens))
        needed = [math.ceil(n_explored * (limit - n) / n) for limit, n in found if limit and n]
        size = min([n_explored, *needed]) if n_explored else first
        return min(max(size, math.ceil(first / 4)), n_drawn - n_explored)


@group
class Sampler:
    """The dynamic sampler: which questions an iteration explores."""

    rule: Name = "frontier_error"  # of sampler/rules.py, or package.module:name: `sampler.rules.find_rule` checks it
    alpha: Annotated[float, Field(ge=0)] = 3.0
    temper: bool = False
    history: Annotated[float, Field(ge=0, le=1)] = 0.8
    kappa: Annotated[float, Field(gt=0)] = 1.0
    thompson: bool = False
    n_questions: Positive = 1000
    budget: Budget = Field(default_factory=Budget)
    exclude_iterations: Count = 0

    @property
    def explored_at_once(self) -> int:
        """Questions explored before the ranks first wait for each other: all M, or a budget's first round."""
        return self.budget.next_round(self.n_questions, 0, 0, 0) if self.budget.is_set else self.n_questions
