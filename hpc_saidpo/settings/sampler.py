"""The settings of the group `sampler`."""

from __future__ import annotations

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
