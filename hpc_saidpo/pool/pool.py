"""What a pool is, however it was made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

from ..records import Question

Count = Annotated[int, Field(ge=0)]


@dataclass(frozen=True)
class Pool:
    """What a run learns from.

    Attributes:
        questions: the pool itself; stages name a question by its index here.
        held_out: questions of the same source that are never trained on.
        examples: few-shot examples by subject.
        notes: what a person should know of its making.
        fingerprint: hash of its questions; "" where the configuration alone decides them.
    """

    questions: Sequence[Question]
    held_out: Sequence[Question] = field(default_factory=list)
    examples: Mapping[str, Sequence[Question]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    fingerprint: str = ""


def by_subject(questions: Iterable[Question]) -> dict[str, list[Question]]:
    """Questions grouped by subject, in their order."""
    groups: dict[str, list[Question]] = {}
    for question in questions:
        groups.setdefault(question.subject, []).append(question)
    return groups
