"""Knowledge points that the pool carries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..errors import RunError
from ..records import Question, Questions, split


def of(questions: Sequence[Question]) -> list[tuple[str, ...]]:
    """The knowledge points of each question: its tags, or else its subject. Equal ones are one object.

    Raises:
        RunError: a question has neither; names the first one.
    """
    known: dict[tuple[str, ...], tuple[str, ...]] = {}
    points_N = [known.setdefault(points, points) for points in _points(questions)]
    if () in known:
        raise RunError(
            f"{points_N.count(())} of {len(questions)} questions carry neither tags nor a subject (first: "
            f"{questions[points_N.index(())].id!r}): add a `tags` list to the pool, name the column that holds it "
            "(pool.columns.tags or .subject), have a language model tag them (tags.mode; README, Knowledge points), or "
            "set clusters.n=1 to do without knowledge points"
        )
    return points_N


def _points(questions: Sequence[Question]) -> Iterator[tuple[str, ...]]:
    if isinstance(questions, Questions):  # of a table on disk, read no more than these two columns
        for tags, subject in zip(questions.tags_N, questions.subject_N, strict=True):
            yield split(tags or subject)
    else:
        for question in questions:
            yield question.tags or split(question.subject)
