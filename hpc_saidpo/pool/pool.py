"""The question pool, from files or generated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..records import Question


@dataclass(frozen=True)
class Pool:
    """The questions that a run learns from.

    Attributes:
        questions: the pool itself; stages name a question by its index here.
        held_out: questions of the same source that are never trained on.
        examples: few-shot examples by subject.
        notes: lines for the log: the rows that were read and left out.
        fingerprint: hash of the questions; "" where the configuration alone determines them.
        too_long: indices of the questions that are too long for the policy: they are neither probed nor drawn.
    """

    questions: Sequence[Question]
    held_out: Sequence[Question] = field(default_factory=list)
    examples: Mapping[str, Sequence[Question]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    fingerprint: str = ""
    too_long: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64), compare=False)


def by_subject(questions: Iterable[Question]) -> dict[str, list[Question]]:
    """Group questions by subject, in their order."""
    groups: dict[str, list[Question]] = {}
    for question in questions:
        groups.setdefault(question.subject, []).append(question)
    return groups
