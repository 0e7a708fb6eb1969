"""Replies about texts, stored by the hashes of the texts: each text needs one request, by the first run that has it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np

from .. import progress
from ..parallel.world import World
from ..records import joined, split
from ..store.stage import Stage
from ..store.tables import Damaged
from ..table import Columns, column
from .asking import Messages, Task


class Tagger(Protocol):
    """A source of replies: a server or a model in this process."""

    @property
    def identity(self) -> str:
        """Everything that its replies depend on, besides the task and the text."""
        ...

    def answer(self, conversations: Sequence[Messages]) -> list[str]:
        """Return a reply to each conversation, in their order."""
        ...


@dataclass(frozen=True)
class Replies(Columns):
    """A tagger's replies about distinct texts."""

    id_Q: list[str] = column(str, "hash of the text that was asked about")
    points_Q: list[str] = column(str, "what was read of the reply, joined by U+001F; empty: it could not be read")
    reply_Q: list[str] = column(str, "the last reply", "UTF-8")
    n_asked_Q: np.ndarray = column(np.int8, "how often it was asked, with an answer given")

    def sorted(self) -> Replies:
        """Sort the rows by hash: the order of chunks, shards and ranks leaves no trace."""
        return self.take(sorted(range(len(self)), key=self.id_Q.__getitem__))


@dataclass(frozen=True)
class Answers:
    """The stored replies about each of many texts.

    Attributes:
        points_N: names in the reply; () where it could not be read, or there is none. Equal ones are one object.
        n_distinct: number of distinct texts, and of these:
        n_now: number of texts with a request for this pool; the others' replies existed before.
        n_again: number of texts whose reply could be read only after a second request.
        n_unread: number of texts with a reply that cannot be read.
        n_absent: number of texts without a reply.
    """

    points_N: list[tuple[str, ...]]
    n_distinct: int
    n_now: int
    n_again: int
    n_unread: int
    n_absent: int


def hash_of(text: str) -> str:
    """Return the hash of a text: 32 hex digits."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class Inquiry:
    """One task about the texts of one pool, for one tagger: what is stored, requested and loaded.

    Methods are collective unless they say otherwise.

    Args:
        identity: of the tagger.
        find_stages: name -> the finished stages of replies under this name, newest first; called on root.

    Attributes:
        name: of the stages of replies: the same for all pools.
        digest: hash of the set of distinct texts.
    """

    def __init__(
        self,
        task: Task,
        identity: str,
        texts: Sequence[str],
        find_stages: Callable[[str], Iterable[Stage]],
        world: World,
    ):
        self._task, self._texts, self._find_stages, self._world = task, texts, find_stages, world
        tagger = hashlib.sha256(f"{task.version} {identity}".encode()).hexdigest()[:12]
        self.name = f"{task.name}-{tagger}"
        self._id_N: list[str] = []  # on root only: a pool may be large
        self._row_of: dict[str, int] = {}
        self.digest = world.on_root(self._number)

    def _number(self) -> str:
        """Hash every text; return the hash of the set of distinct texts."""
        first: dict[str, str] = {}
        for row, text in enumerate(self._texts):
            id = hash_of(text)
            self._id_N.append(first.setdefault(id, id))
            self._row_of.setdefault(id, row)
        return hashlib.sha256("".join(sorted(self._row_of)).encode()).hexdigest()

    def request(self, stage: Stage, tagger: Tagger, chunk: int) -> None:
        """Request and store a reply to every text without one. A killed job loses only its unfinished chunks.

        Args:
            chunk: number of texts that are sent and stored together.

        Raises:
            RunError: as the tagger.
        """
        world = self._world
        todo = world.on_root(lambda: self._write_known(stage, {}))
        chunks = [todo[i : i + chunk] for i in range(0, len(todo), chunk)]
        finished = world.on_root(stage.finished_chunks)
        left = [i for i in range(len(chunks)) if i not in finished]

        def make(index: int) -> None:
            texts = [self._texts[int(row)] for row in chunks[left[index]]]
            stage.write_chunk(left[index], ask(self._task, tagger, texts))

        n_left = sum(len(chunks[i]) for i in left)
        label = f"{self._task.name}: {n_left} requests"
        with progress.show(label, len(chunks), world.is_root, len(finished), left) as task:
            world.spread(len(left), make, task)
        shards = stage.shards(list(map(len, chunks)))
        world.spread(len(shards), lambda i: stage.seal(shards[i], Replies))

    def add(self, stage: Stage, answers: Mapping[str, str]) -> None:
        """Store answers from elsewhere, beside the existing replies.

        Args:
            answers: hash of a text -> reply; only root's value is used.
        """
        self._world.on_root(lambda: self._write_known(stage, answers))

    def load(self, stage: Stage) -> Answers:
        """Read what `request` or `add` stored. Not collective: root only."""
        known, new = _read_parts(stage)
        id_Q, text_Q = [*known.id_Q, *new.id_Q], [*known.points_Q, *new.points_Q]  # replies stay on disk
        points = {text: split(text) for text in set(text_Q)}
        points_of = {id: points[text] for id, text in zip(id_Q, text_Q, strict=True)}
        is_read_Q = np.array([bool(text) for text in text_Q], dtype=bool)
        n_asked_Q = np.concatenate([known.n_asked_Q, new.n_asked_Q])
        return Answers(
            [points_of.get(id, ()) for id in self._id_N],
            len(self._row_of),
            len(new),
            int((is_read_Q & (n_asked_Q == 2)).sum()),
            int((~is_read_Q).sum()),
            len(self._row_of) - len(points_of),
        )

    def list_unanswered(self) -> list[tuple[str, str]]:
        """Return (hash, text) of each distinct text without a reply in any run. Not collective: root only."""
        rows = _merge(self._existing())
        return [(id, self._texts[row]) for id, row in sorted(self._row_of.items()) if id not in rows]

    def _write_known(self, stage: Stage, answers: Mapping[str, str]) -> np.ndarray:
        """Write the existing replies, once; return the rows of the texts without one, in the order of their hashes."""
        if not stage.has("known"):
            rows = _merge(self._existing())
            for id in self._row_of.keys() & answers.keys() - rows.keys():
                rows[id] = (id, joined(self._task.read(answers[id])), answers[id], 1)
            stage.write("known", Replies.from_rows(rows[id] for id in sorted(rows)))
        known = set(stage.read("known", Replies).id_Q)
        return np.array([row for id, row in sorted(self._row_of.items()) if id not in known], dtype=np.int64)

    def _existing(self) -> Iterable[Replies]:
        """Yield the replies about these texts in other stages of this tagger."""
        for stage in self._find_stages(self.name):
            try:
                for replies in _read_parts(stage):
                    yield replies.take([i for i, id in enumerate(replies.id_Q) if id in self._row_of])
            except Damaged:  # the next run that needs it makes it again
                continue


def ask(task: Task, tagger: Tagger, texts: Sequence[str]) -> Replies:
    """Request a reply to each text; where it cannot be read, a second one with a reminder of the form."""
    replies = tagger.answer([task.messages(text) for text in texts])
    again = [i for i, reply in enumerate(replies) if not task.read(reply)]
    for i, reply in zip(again, tagger.answer([task.second_messages(texts[i]) for i in again]), strict=True):
        replies[i] = reply
    return Replies.from_rows(
        (hash_of(text), joined(task.read(reply)), reply, 2 if i in set(again) else 1)
        for i, (text, reply) in enumerate(zip(texts, replies, strict=True))
    )


def _read_parts(stage: Stage) -> tuple[Replies, Replies]:
    """Read a stage: the replies from before it, and its new ones; the texts of the latter stay on disk."""
    return stage.read("known", Replies), stage.read_chunks(Replies)


def _merge(tables: Iterable[Replies]) -> dict[str, tuple]:
    """Return rows by hash; of several rows with one hash, the first."""
    rows: dict[str, tuple] = {}
    for table in tables:
        for row in zip(*(getattr(table, f.name) for f in fields(table)), strict=True):
            rows.setdefault(row[0], row)
    return rows
