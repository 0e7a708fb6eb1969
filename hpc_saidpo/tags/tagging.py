"""The knowledge points of a pool's questions, by a language model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import settings
from ..errors import Ended, RunError
from ..progress import log
from ..records import Question, Questions, split
from ..store.run import RunDir
from . import batch
from .asking import Task, make_sorting, make_tagging
from .endpoint import Server, identify
from .replies import Answers, Inquiry, Tagger, hash_of
from .reply import normalise

UNTAGGED = "untagged"  # the knowledge point of a question that has neither a readable reply nor a subject


@dataclass(frozen=True)
class Tagging:
    """Questions -> knowledge points, by the tagger of tags.mode. Methods are collective.

    Attributes:
        local: the model in this process, for tags.mode=model.
    """

    config: settings.Tags
    run: RunDir
    local: Tagger | None = None

    def find_points(self, questions: Sequence[Question]) -> list[tuple[str, ...]]:
        """Return the knowledge points of each question, normalised; on every rank, equal ones are one object.

        A question whose reply cannot be read has its subject instead, or else UNTAGGED: both are counted and logged.

        Raises:
            RunError: the tagger cannot answer; or a file of answers or skills is wrong.
            Ended: tags.mode=export has written the requests without a reply.
        """
        texts = questions.text_N if isinstance(questions, Questions) else [q.text for q in questions]
        answers = self._collect(make_tagging(), texts, _ids(questions))
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
        skills = self.run.world.on_root(lambda: read_skills(path))
        distinct = sorted({point for points in set(points_N) for point in points})
        answers = self._collect(make_sorting(skills), distinct, zip(distinct, distinct, strict=True))
        skill_of = dict(zip(distinct, answers.points_N, strict=True))
        n_sorted = len(distinct) - answers.n_unread - answers.n_absent
        log.info("skills: %d of %d knowledge points sorted", n_sorted, len(distinct))
        skills_of = {p: tuple(dict.fromkeys(s for x in p for s in skill_of[x] or (x,))) for p in set(points_N)}
        return [skills_of[points] for points in points_N]

    def _collect(self, task: Task, texts: Sequence[str], ids: Iterable[tuple[str, str]]) -> Answers:
        """Return the stored replies about each text, after requests, an import, or before an export.

        Args:
            ids: (an id that files of answers may use, text) of each text.

        Raises:
            Ended: requests were written to a file.
        """
        config, world = self.config, self.run.world
        tagger = Server(config, world.size) if config.mode == "endpoint" else self.local
        inquiry = Inquiry(task, tagger.identity if tagger else identify(config), texts, self.run)
        if tagger:
            return inquiry.ask(tagger, config.chunk_questions)
        if config.mode == "import":
            imported: dict[str, str] = {}  # on root only
            source = world.on_root(lambda: _import(config, ids, imported))
            return inquiry.add(imported, source)
        n_written = world.on_root(lambda: _export(config, task, inquiry))
        if n_written:
            raise Ended(
                f"the export of {n_written:,} requests to {config.files[0]}: get them answered, then start again with "
                "tags.mode=import tags.file=ANSWERS"
            )
        return inquiry.add({}, "nothing")


def read_skills(path: str) -> list[str]:
    """Read the skills of a file, one a line; skip empty lines and lines that begin with #. Not collective.

    Raises:
        RunError: no such file, no skill in it, or two skills that are equal after normalisation.
    """
    try:
        lines = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"tags.skills={path}: not readable as text ({error})") from error
    skills: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if line and not line.startswith("#"):
            name = normalise(line)
            if not name or name in skills:
                problem = f"is the same as {skills[name]!r}" if name else "is no name of 2 to 60 characters"
                raise RunError(f"tags.skills={path}: line {number}: {line!r} {problem}: mend it")
            skills[name] = line
    if not skills:
        raise RunError(f"tags.skills={path} names no skill: write one a line")
    return list(skills.values())


def _import(config: settings.Tags, ids: Iterable[tuple[str, str]], imported: dict[str, str]) -> str:
    """Fill `imported` with the replies of tags.file by hash of the text; return the hash of its content."""
    replies, n_failed = batch.read(config.files)
    hash_by_id = {id: hash_of(text) for id, text in ids}
    imported.update((hash_by_id.get(id, id), reply) for id, reply in replies.items())
    log.info("tags.file: %d answers, %d requests failed", len(replies), n_failed)
    return hashlib.sha256(repr(sorted(imported.items())).encode("utf-8", "surrogatepass")).hexdigest()


def _export(config: settings.Tags, task: Task, inquiry: Inquiry) -> int:
    """Write the requests without a reply to tags.file; return their number."""
    requests = inquiry.unanswered()
    if requests:
        batch.write(config.files[0], task, requests, config)
    return len(requests)


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
