"""The knowledge points of a pool's questions, by a language model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import settings
from ..errors import Ended, RunError
from ..progress import log
from ..records import Question, Questions, split
from ..store.run import RunDir
from . import batch
from .asking import Task, sorting, tagging
from .endpoint import Server, identity
from .replies import Answers, Inquiry, Tagger, hash_of
from .reply import normalise

UNTAGGED = "untagged"  # the knowledge point of a question that has neither a readable reply nor a subject


@dataclass(frozen=True)
class Tagging:
    """Whoever answers (tags.mode), and what it is called in the store. Methods are collective.

    Attributes:
        local: the model in this process, for tags.mode=model.
    """

    config: settings.Tags
    store: RunDir
    local: Tagger | None = None

    def of(self, questions: Sequence[Question]) -> list[tuple[str, ...]]:
        """The knowledge points of each question, in one form; on every rank, equal ones one object.

        A question whose reply cannot be read has its subject, or else UNTAGGED: both are counted, and told.

        Raises:
            RunError: nobody answers; or a file of answers or skills is wrong.
            Ended: tags.mode=export has written what is not answered yet.
        """
        texts = questions.text_N if isinstance(questions, Questions) else [q.text for q in questions]
        found = self._answers(tagging(), texts, _ids(questions))
        points_N = found.points_N
        if self.config.skills:
            points_N = self._sorted(points_N)
        if self.config.mode == "export":
            raise Ended("the export of questions: all of them have answers: tags.mode=import or =endpoint goes on")
        return _filled(points_N, questions, found)

    def _sorted(self, points_N: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
        """The same with each point's skill in its place; a point for which none is named stays."""
        skills = self.store.world.on_root(lambda: read_skills(self.config.skills))
        distinct = sorted({point for points in set(points_N) for point in points})
        found = self._answers(sorting(skills), distinct, zip(distinct, distinct, strict=True))
        skill_of = dict(zip(distinct, found.points_N, strict=True))
        log.info(
            "skills: %d of %d knowledge points sorted", len(distinct) - found.n_unread - found.n_absent, len(distinct)
        )
        known = {p: tuple(dict.fromkeys(s for x in p for s in skill_of[x] or (x,))) for p in set(points_N)}
        return [known[points] for points in points_N]

    def _answers(self, task: Task, texts: Sequence[str], ids: Iterator[tuple[str, str]]) -> Answers:
        """What is known about each text after whoever answers was asked.

        Args:
            ids: (a name by which files of answers may call it, text) of each text.
        """
        config, world = self.config, self.store.world
        tagger = Server(config, world.size) if config.mode == "endpoint" else self.local
        inquiry = Inquiry(task, tagger.identity if tagger else identity(config), texts, self.store)
        if tagger:
            return inquiry.ask(tagger, config.chunk_questions)
        given: dict[str, str] = {}  # root's
        if config.mode == "import":
            source = world.on_root(lambda: _import(config, ids, given))
            return inquiry.take(given, source)
        n_written = world.on_root(lambda: _export(config, task, inquiry))
        if n_written:
            raise Ended(
                f"the export of {n_written:,} requests to {config.file}: have them answered, and start again with "
                "tags.mode=import tags.file=ANSWERS"
            )
        return inquiry.take({}, "nothing")


def read_skills(path: str) -> list[str]:
    """The skills of a file, one a line; empty lines and lines from # do not count.

    Raises:
        RunError: no such file, no skill in it, or two that are one after normalisation. Not collective.
    """
    try:
        lines = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"tags.skills={path}: not readable as text ({error})") from error
    known: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if line and not line.startswith("#"):
            name = normalise(line)
            if not name or name in known:
                what = f"is the same as {known[name]!r}" if name else "is no name of 2 to 60 characters"
                raise RunError(f"tags.skills={path}: line {number}: {line!r} {what}: mend it")
            known[name] = line
    if not known:
        raise RunError(f"tags.skills={path} names no skill: one a line")
    return list(known.values())


def _import(config: settings.Tags, ids: Iterator[tuple[str, str]], given: dict[str, str]) -> str:
    """Fill `given` with the replies of tags.file by hash; the hash of what was read."""
    replies, n_failed = batch.read(config.files)
    hash_by_id = {own: hash_of(text) for own, text in ids}
    given.update((hash_by_id.get(own, own), reply) for own, reply in replies.items())
    log.info("tags.file: %d answers, %d requests failed", len(replies), n_failed)
    return hashlib.sha256(repr(sorted(given.items())).encode("utf-8", "surrogatepass")).hexdigest()


def _export(config: settings.Tags, task: Task, inquiry: Inquiry) -> int:
    """Write what is not answered yet; how many requests that is."""
    asked = inquiry.unanswered()
    if asked:
        batch.write(config.file, task, asked, config)
    return len(asked)


def _ids(questions: Sequence[Question]) -> Iterator[tuple[str, str]]:
    if isinstance(questions, Questions):
        return zip(questions.id_N, questions.text_N, strict=True)
    return ((q.id, q.text) for q in questions)


def _filled(
    points_N: Sequence[tuple[str, ...]], questions: Sequence[Question], found: Answers
) -> list[tuple[str, ...]]:
    """The points with subjects in place of none; tells how it went."""
    subject_N = questions.subject_N if isinstance(questions, Questions) else [q.subject for q in questions]
    other = {subject: split(subject) or (UNTAGGED,) for subject in set(subject_N)}
    filled = [points or other[subject] for points, subject in zip(points_N, subject_N, strict=True)]
    n_without = sum(not points for points in points_N)
    n_untagged = sum(points == (UNTAGGED,) for points in filled)
    log.info(
        "tags: %d of %d questions tagged, %d distinct knowledge points; %d have their subject in place of them, %d are "
        "untagged",
        len(points_N) - n_without,
        len(points_N),
        len({point for points in set(points_N) for point in points}),
        n_without - n_untagged,
        n_untagged,
    )
    log.info(
        "  of %d distinct questions, %d were asked for this pool; %d answered readably when asked again; %d replies "
        "cannot be read, %d are lacking",
        found.n_distinct,
        found.n_now,
        found.n_again,
        found.n_unread,
        found.n_absent,
    )
    return filled
