"""Knowledge points of each question (README, method step 0.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from .records import Question, RunError, settings


@settings()
class Config:
    mode: Literal["column"] = "column"


def of(questions: Sequence[Question], config: Config) -> list[tuple[str, ...]]:
    """The knowledge points of each question: its tags, or else its subject.

    Raises:
        RunError: a question has neither; names the first one.
    """
    untagged = [q for q in questions if not q.tags and not q.subject]
    if untagged:
        raise RunError(
            f"{len(untagged)} of {len(questions)} questions carry neither tags nor a subject (first: "
            f"{untagged[0].id!r}): add a `tags` list to the pool, or set clusters.n=1 to do without knowledge points"
        )
    return [q.tags or (q.subject,) for q in questions]
