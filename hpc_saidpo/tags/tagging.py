"""The knowledge points of a pool's questions, from a tagger's replies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import settings
from ..errors import Ended, RunError, shown, words_of
from ..parallel.world import World
from ..progress import log
from ..records import Question, Questions, split
from .asking import Task, make_sorting, make_tagging
from .replies import Answers
from .reply import normalise

UNTAGGED = "untagged"  # the knowledge point of a question that has neither a readable reply nor a subject
# (task, texts, (an id that files of answers may use, text) of each text) -> the replies about each text. Collective.
Collect = Callable[[Task, Sequence[str], Iterable[tuple[str, str]]], Answers]


@dataclass(frozen=True)
class Tagging:
    """Questions -> knowledge points, with replies from `collect`. Methods are collective."""

    config: settings.Tags
    world: World
    collect: Collect

    def find_points(self, questions: Sequence[Question]) -> list[tuple[str, ...]]:
        """Return the knowledge points of each question, normalised; on every rank, equal ones are one object.

        A question whose reply cannot be read has its subject instead, or else UNTAGGED: both are counted and logged.

        Raises:
            RunError: the tagger cannot answer; or a file of answers or skills is wrong.
            Ended: tags.mode=export has written the requests without a reply.
        """
        texts = questions.text_N if isinstance(questions, Questions) else [q.text for q in questions]
        answers = self.collect(make_tagging(), texts, _ids(questions))
        points_N = answers.points_N
        if self.config.skills:
            points_N = self._sort_into_skills(points_N, self.config.skills)
        if self.config.mode == "export":
            raise Ended("the export of questions: all of them have answers: go on with tags.mode=import or =endpoint")
        filled = _fill(points_N, questions)
        _log_answers(answers)
        return filled

    def _sort_into_skills(self, points_N: list[tuple[str, ...]], path: str) -> list[tuple[str, ...]]:
        """Replace each knowledge point by its skill; a point without one stays."""
        skills = self.world.on_root(lambda: read_skills(path))
        distinct = sorted({point for points in set(points_N) for point in points})
        answers = self.collect(make_sorting(skills), distinct, zip(distinct, distinct, strict=True))
        skill_of = dict(zip(distinct, answers.points_N, strict=True))
        n_sorted = len(distinct) - answers.n_unread - answers.n_absent
        log.info("skills: %d of %d knowledge points sorted", n_sorted, len(distinct))
        skills_of = {p: tuple(dict.fromkeys(s for x in p for s in skill_of[x] or (x,))) for p in set(points_N)}
        return [skills_of[points] for points in points_N]


def read_skills(path: str) -> list[str]:
    """Read the skills of a file, one a line; skip empty lines and lines that begin with #. Not collective.

    Raises:
        RunError: no such file, no skill in it, or two skills that are equal after normalisation.
    """
    try:
        lines = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"tags.skills={shown(path)}: not readable as text ({words_of(error)})") from error
    skills: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if line and not line.startswith("#"):
            name = normalise(line)
            if not name or name in skills:
                problem = f"is the same as {skills[name]!r}" if name else "is no name of 2 to 60 characters"
                raise RunError(f"tags.skills={shown(path)}: line {number}: {line!r} {problem}: mend it")
            skills[name] = line
    if not skills:
        raise RunError(f"tags.skills={shown(path)} names no skill: write one a line")
    return list(skills.values())


def _ids(questions: Sequence[Question]) -> Iterator[tuple[str, str]]:
    if isinstance(questions, Questions):
        return zip(questions.id_N, questions.text_N, strict=True)
    return ((q.id, q.text) for q in questions)


def _fill(points_N: Sequence[tuple[str, ...]], questions: Sequence[Question]) -> list[tuple[str, ...]]:
    """Replace missing points by the question's subject, or by UNTAGGED; log the counts."""
    subject_N = questions.subject_N if isinstance(questions, Questions) else [q.subject for q in questions]
    substitute = {subject: split(subject) or (UNTAGGED,) for subject in set(subject_N)}
    filled = [points or substitute[subject] for points, subject in zip(points_N, subject_N, strict=True)]
    n_without = sum(not points for points in points_N)
    n_untagged = sum(points == (UNTAGGED,) for points in filled)
    log.info(
        "tags: %d of %d questions tagged, %d distinct knowledge points; %d have their subject instead, %d are untagged",
        len(points_N) - n_without,
        len(points_N),
        len({point for points in set(points_N) for point in points}),
        n_without - n_untagged,
        n_untagged,
    )
    return filled


def _log_answers(answers: Answers) -> None:
    log.info(
        "  of %d distinct questions, %d were sent to the tagger for this pool; %d replies became readable after a "
        "second request; %d replies cannot be read, %d are missing",
        answers.n_distinct,
        answers.n_now,
        answers.n_again,
        answers.n_unread,
        answers.n_absent,
    )
