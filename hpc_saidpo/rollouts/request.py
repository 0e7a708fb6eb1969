"""A request for rollouts, the tables of its prompts and questions, and the stored rollouts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from .. import settings
from ..errors import RunError, shown
from ..records import Prompts, Questions, Rollouts
from ..settings.rollouts import Sampling
from ..store.stage import Stage
from .prompts import Renderer


@dataclass(frozen=True)
class Request:
    """A request for the rollouts of one stage.

    Attributes:
        question_Q: indices into `renderer.questions`.
        k: rollouts of each question.
        seed: (run seed, iteration, stage name).
        expected_Q: expected tokens of a response, by question; may be incomplete (`chunks.expected_tokens`).
        prior_Q: what is known of pass rates, by question (`effort.Effort`).
        budget: what ends the exploration before all questions are explored, in their order (`rounds`).
        band: of the pass rates of questions that yield a pair; the budget counts them.
        round: number of the round of an exploration with a budget; None: these are all questions of the stage.
        drained: begin no chunk on a rank before the one before it is complete. Batches, and so their rounding, then do
            not depend on the ranks.
    """

    renderer: Renderer
    question_Q: np.ndarray
    k: int
    sampling: Sampling
    seed: tuple[int, int, str]
    expected_Q: Mapping[int, float] = field(default_factory=dict)
    prior_Q: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    budget: settings.Budget = field(default_factory=settings.Budget)
    band: settings.Difficulty = field(default_factory=settings.Difficulty)
    round: int | None = None
    drained: bool = False


def write_prompts(stage: Stage, request: Request) -> None:
    """Write the tables of the prompts and of their questions, unless the stage has them. Not collective.

    Raises:
        RunError: a prompt has no token, or one that the model has no embedding of.
    """
    if stage.has("prompts") and stage.has("questions"):
        return
    rendered = request.renderer.table(request.question_Q)
    _check_tokens(rendered, request.renderer)
    # Beside the prompts, in their order: a run folder shows its questions and gold answers wherever it is copied.
    questions = request.renderer.questions
    stage.write("questions", Questions.of(questions[q] for q in rendered.question_Q.tolist()))
    stage.write("prompts", rendered)


def _check_tokens(prompts: Prompts, renderer: Renderer) -> None:
    from ..policy.read import n_embeddings  # imports transformers: a finished stage needs none of it

    policy = renderer.policy
    n = n_embeddings(policy.model)
    for question, ids in zip(prompts.question_Q.tolist(), prompts.tokens_Q, strict=True):
        if len(ids) == 0:
            raise RunError(
                f"question {renderer.questions[question].id!r}: its prompt has no token, because the tokenizer at "
                f"{shown(policy.path)} knows none of its characters: use the tokenizer of the model, or another policy"
            )
        if max(ids) >= n:
            token = policy.token_name(int(max(ids)))
            raise RunError(
                f"question {renderer.questions[question].id!r}: its prompt has the token {token!r}, and the model at "
                f"{shown(policy.path)} has no embedding of it: remove it from the question, the prompt "
                "(rollouts.prompt) or the chat template"
            )


def load_rollouts(stage: Stage) -> Rollouts:
    """Every rollout of a finished stage, sorted by question and sample. Texts and token ids stay on disk until used."""
    return stage.read_chunks(Rollouts).sorted()
