"""Knowledge points that the pool contains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..errors import RunError
from ..records import Question, Questions, split


def read_points(questions: Sequence[Question]) -> list[tuple[str, ...]]:
    """Return the knowledge points of each question: its tags, or else its subject. Equal ones are one object.

    Raises:
        RunError: a question has neither; names the first one.
    """
    distinct: dict[tuple[str, ...], tuple[str, ...]] = {}
    points_N = [distinct.setdefault(points, points) for points in _points(questions)]
    if () in distinct:
        raise RunError(
            f"{points_N.count(())} of {len(questions)} questions have neither tags nor a subject (first: "
            f"{questions[points_N.index(())].id!r}): add a `tags` list to the pool, name the column that holds it "
            "(pool.columns.tags or .subject), let a language model tag them (tags.mode), or set clusters.n=1 to do "
            "without knowledge points"
        )
    return points_N


def _points(questions: Sequence[Question]) -> Iterator[tuple[str, ...]]:
    if isinstance(questions, Questions):  # of a table on disk, read no more than these two columns
        for tags, subject in zip(questions.tags_N, questions.subject_N, strict=True):
            yield split(tags or subject)
    else:
        for question in questions:
            yield question.tags or split(question.subject)
