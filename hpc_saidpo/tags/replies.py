"""Replies about texts, kept by the texts' hashes: each is asked about once, by whichever run comes first."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np

from .. import progress
from ..records import joined, split
from ..store.run import RunDir
from ..store.stage import Stage
from ..store.tables import Damaged
from ..table import Columns, column
from .asking import Messages, Task


class Tagger(Protocol):
    """Whoever answers. `identity` says all that its replies depend on, besides the task and the text."""

    identity: str

    def answer(self, conversations: Sequence[Messages]) -> list[str]:
        """A reply to each conversation, in their order."""


@dataclass(frozen=True)
class Replies(Columns):
    """What a tagger said about distinct texts."""

    id_Q: list[str] = column(str, "hash of the text that was asked about")
    points_Q: list[str] = column(str, "what was read of the reply, joined by U+001F; empty: it could not be read")
    reply_Q: list[str] = column(str, "the last reply", "UTF-8")
    n_asked_Q: np.ndarray = column(np.int8, "how often it was asked, with an answer given")

    def sorted(self) -> Replies:
        """The same rows ordered by hash: chunk, shard and rank order never show."""
        return self.take(sorted(range(len(self)), key=self.id_Q.__getitem__))


@dataclass(frozen=True)
class Answers:
    """What is known about each of many texts.

    Attributes:
        points_N: what its reply names; () where it could not be read, or there is none. Equal ones are one object.
        n_distinct: distinct texts. Of these:
        n_now: asked for this pool; the others' replies were known before.
        n_again: read only when they were asked a second time.
        n_unread: that have a reply which cannot be read.
        n_absent: that have no reply.
    """

    points_N: list[tuple[str, ...]]
    n_distinct: int
    n_now: int
    n_again: int
    n_unread: int
    n_absent: int


def hash_of(text: str) -> str:
    """What a text is known by: 32 hex digits."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class Inquiry:
    """One task about texts of one pool, for one tagger. Methods are collective unless they say otherwise."""

    def __init__(self, task: Task, identity: str, texts: Sequence[str], store: RunDir):
        self.task, self.texts, self.store, self.world = task, texts, store, store.world
        tagger = hashlib.sha256(f"{task.version} {identity}".encode()).hexdigest()[:12]
        self.name = f"{task.name}-{tagger}"
        self._id_N: list[str] = []  # on root alone: a pool may be large
        self._row_of: dict[str, int] = {}
        self._digest = self.world.on_root(self._number)

    def _number(self) -> str:
        first: dict[str, str] = {}
        for row, text in enumerate(self.texts):
            own = hash_of(text)
            self._id_N.append(first.setdefault(own, own))
            self._row_of.setdefault(own, row)
        return hashlib.sha256("".join(sorted(self._row_of)).encode()).hexdigest()

    def ask(self, tagger: Tagger, chunk: int) -> Answers:
        """Have every text answered that no run has had answered yet; a job that is killed loses the chunk in flight.

        Args:
            chunk: texts that are asked about together.

        Raises:
            RunError: as the tagger does.
        """

        def compute(stage: Stage):
            todo = self.world.on_root(lambda: self._prepare(stage, {}))
            chunks = [todo[i : i + chunk] for i in range(0, len(todo), chunk)]
            finished = self.world.on_root(stage.finished_chunks)
            left = [i for i in range(len(chunks)) if i not in finished]

            def make(index: int):
                texts = [self.texts[row] for row in chunks[left[index]]]
                stage.write_chunk(left[index], ask(self.task, tagger, texts))

            n_left = sum(len(chunks[i]) for i in left)
            with progress.show(f"{self.task.name}: {n_left} to be asked", len(left), self.world.is_root) as tick:
                self.world.spread(len(left), make, tick)
            shards = stage.shards(list(map(len, chunks)))
            self.world.spread(len(shards), lambda i: stage.seal(shards[i], Replies))

        return self.store.shared(self.name, f"{chunk} {self._digest}", compute, self._load, resumes=True)

    def take(self, answers: Mapping[str, str], source: str) -> Answers:
        """Keep answers from elsewhere, beside those that are known.

        Args:
            answers: text's hash -> reply; root's count.
            source: hash of where they come from, the same on every rank.
        """

        def compute(stage: Stage):
            self.world.on_root(lambda: self._prepare(stage, answers))

        return self.store.shared(self.name, f"{source} {self._digest}", compute, self._load)

    def unanswered(self) -> list[tuple[str, str]]:
        """(hash, text) of each distinct text that no run has a reply to. Not collective: root only."""
        found = _together(self._known())
        return [(own, self.texts[row]) for own, row in sorted(self._row_of.items()) if own not in found]

    def _prepare(self, stage: Stage, answers: Mapping[str, str]) -> np.ndarray:
        """Write what is known already, once; give the rows of the texts that are left, by their hashes' order."""
        if not stage.has("known"):
            rows = _together(self._known())
            for own in self._row_of.keys() & answers.keys() - rows.keys():
                rows[own] = (own, joined(self.task.read(answers[own])), answers[own], 1)
            stage.write("known", Replies.from_rows(rows[own] for own in sorted(rows)))
        known = set(stage.read("known", Replies).id_Q)
        return np.array([row for own, row in sorted(self._row_of.items()) if own not in known], dtype=np.int64)

    def _known(self) -> Iterable[Replies]:
        """What other artefacts of this tagger hold about these texts."""
        for stage in self.store.shared_before(self.name):
            try:
                for replies in _parts(stage):
                    yield replies.take([i for i, own in enumerate(replies.id_Q) if own in self._row_of])
            except Damaged:  # it is made again by whoever needs it
                continue

    def _load(self, stage: Stage) -> Answers:
        known, asked = _parts(stage)
        id_Q, text_Q = [*known.id_Q, *asked.id_Q], [*known.points_Q, *asked.points_Q]  # replies stay on disk
        points = {text: split(text) for text in set(text_Q)}
        points_of = {own: points[text] for own, text in zip(id_Q, text_Q, strict=True)}
        is_read_Q = np.array([bool(text) for text in text_Q], dtype=bool)
        n_asked_Q = np.concatenate([known.n_asked_Q, asked.n_asked_Q])
        return Answers(
            [points_of.get(own, ()) for own in self._id_N],
            len(self._row_of),
            len(asked),
            int((is_read_Q & (n_asked_Q == 2)).sum()),
            int((~is_read_Q).sum()),
            len(self._row_of) - len(points_of),
        )


def ask(task: Task, tagger: Tagger, texts: Sequence[str]) -> Replies:
    """Ask about texts; about those whose reply cannot be read, a second time, insisting on the form."""
    replies = tagger.answer([task.messages(text) for text in texts])
    again = [i for i, reply in enumerate(replies) if not task.read(reply)]
    for i, reply in zip(again, tagger.answer([task.again(texts[i]) for i in again]), strict=True):
        replies[i] = reply
    return Replies.from_rows(
        (hash_of(text), joined(task.read(reply)), reply, 2 if i in set(again) else 1)
        for i, (text, reply) in enumerate(zip(texts, replies, strict=True))
    )


def _parts(stage: Stage) -> tuple[Replies, Replies]:
    """Of an artefact, what was known before it, and what it asked; the latter's texts stay on disk."""
    return stage.read("known", Replies), stage.read_chunks(Replies)


def _together(tables: Iterable[Replies]) -> dict[str, tuple]:
    """Rows by hash; of several, the first."""
    rows: dict[str, tuple] = {}
    for table in tables:
        for row in zip(*(getattr(table, f.name) for f in fields(table)), strict=True):
            rows.setdefault(row[0], row)
    return rows
