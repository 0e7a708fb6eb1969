"""Files -> the questions of a pool on disk, and lists of the rows left out. Ranks share the pieces of files."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np

from .. import settings
from ..errors import RunError
from ..parallel.world import World
from ..progress import log
from ..records import Questions
from ..store.stage import Stage
from . import clean, columns, marks, merge, pieces, sources
from .decontaminate import Filter

BATCH_ROWS = 4096
CHUNK_ROWS = 65_536  # rows of a file on disk, at most ...
CHUNK_CHARACTERS = 2**26  # ... or this many characters and one batch
_CHUNKS = 1_000_000  # numbers reserved for the chunks of one piece: chunk-3000007 is the eighth of the fourth piece
_ROWS = 2**40  # numbers reserved for the rows of one piece
Item = tuple[int, int, columns.Row | clean.Problem]  # file, line, row


def write_pool(
    config: settings.Files,
    paths: Sequence[Path],
    avoided: Mapping[str, Sequence[tuple[str, str]]],
    stage: Stage,
    world: World,
) -> None:
    """Write the pool's questions and the lists of what is left out. Collective; the same files on any number of ranks.

    Args:
        avoided: (id, text) of every benchmark question, by benchmark; only root's value is used.

    Raises:
        RunError: as `stage.load_pool`, on every rank.
    """
    if world.is_root:
        log.info("pool: reading %d file%s, %s", len(paths), "s" * (len(paths) > 1), paths[0])
    plan = pieces.plan(paths, world)
    known = Filter(world.bcast(avoided), config.ngram_words, config.overlap)
    writer = Writer(config, paths, known, stage)
    world.on_root(writer.prepare)
    n_chunks = np.zeros(len(plan), dtype=np.int64)

    def write(index: int) -> None:
        n_chunks[index] = writer.write(index, plan[index])

    world.spread(len(plan), write)
    n_chunks = world.sum(n_chunks).tolist()

    def on_root() -> None:
        chunks = [piece * _CHUNKS + i for piece, n in enumerate(n_chunks) for i in range(n)]
        merge.Merge(config, paths, known, stage, writer.read(chunks)).write()
        writer.clear()

    world.on_root(on_root)


class Writer:
    """Pieces of files -> chunks of questions, their marks, and bad rows, on disk."""

    def __init__(self, config: settings.Files, paths: Sequence[Path], known: Filter, stage: Stage):
        self._config, self._paths, self._known, self._stage = config, paths, known, stage
        self._labels = sources.labels(paths)
        self._requested = frozenset(columns.list_renamed(config.columns))
        # These exist only while the pool is being made.
        self._marks, self._bad = Stage(stage.path / "marks"), Stage(stage.path / "bad")

    def prepare(self) -> None:
        """Make the temporary folders. Not collective: root only."""
        self._marks.prepare()
        self._bad.prepare()

    def clear(self) -> None:
        """Remove the temporary folders. Not collective: root only."""
        self._stage.remove("marks")
        self._stage.remove("bad")

    def write(self, piece: int, parts: Sequence[pieces.Part]) -> int:
        """Write a piece in chunks, within bounded memory. Returns the number of chunks."""
        items, order, number = self._items(parts), piece * _ROWS, 0
        while True:
            chunk = Chunk(self._known, self._requested)
            while chunk.has_room and (batch := list(itertools.islice(items, BATCH_ROWS))):
                chunk.add(order, batch)
                order += len(batch)
            if not chunk.n_items:
                return number
            index = piece * _CHUNKS + number
            self._stage.write_chunk(index, Questions(*chunk.texts))
            self._marks.write_chunk(index, marks.Marks.concat(chunk.marks))
            self._bad.write_chunk(index, marks.Bad.from_rows(chunk.bad))
            number += 1

    def _items(self, parts: Sequence[pieces.Part]) -> Iterator[Item]:
        for part in parts:
            path, label = self._paths[part.file], self._labels[part.file]
            for line, row in clean.rows(path, label, self._config.columns, part.span, self._config.verifier):
                yield part.file, line, row

    def read(self, chunks: Sequence[int]) -> merge.Written:
        """Read the rows that all ranks have written; texts stay on disk. Not collective: root only.

        Raises:
            RunError: a file is missing.
        """
        for stage in (self._stage, self._marks, self._bad):
            stage.await_chunks(chunks)
            if stage.finished_chunks() != set(chunks):
                raise RunError(
                    f"{stage.path}: files that other ranks have written do not appear here: check the file system"
                )
        return merge.Written(
            self._stage.read_chunks(Questions), self._marks.read_chunks(marks.Marks), self._bad.read_chunks(marks.Bad)
        )


class Chunk:
    """Some rows in memory, before they are written."""

    def __init__(self, known: Filter, requested: frozenset[str]):
        self._known, self._requested = known, requested
        self.texts: list[list[str]] = [[] for _ in fields(Questions)]
        self.marks: list[marks.Marks] = []
        self.bad: list[tuple[int, str, str, str]] = []
        self._n_characters = 0

    @property
    def n_items(self) -> int:
        return len(self.texts[0]) + len(self.bad)

    @property
    def has_room(self) -> bool:
        return self.n_items < CHUNK_ROWS and self._n_characters < CHUNK_CHARACTERS

    def add(self, first: int, batch: Sequence[Item]) -> None:
        """Add rows.

        Args:
            first: order of the first row among all rows; the others follow.
        """
        good: list[tuple[int, int, int]] = []
        rows: list[columns.Row] = []
        for order, (file, line, row) in enumerate(batch, first):
            if isinstance(row, clean.Problem):
                self.bad.append((order, row.where, row.reason, row.raw))
            else:
                good.append((order, file, line))
                rows.append(row)
        places = marks.Places(*zip(*good, strict=True)) if good else marks.Places((), (), ())
        texts = list(zip(*rows, strict=True)) or [()] * len(self.texts)
        self.marks.append(marks.mark(places, texts, self._known, self._requested))
        for column, more in zip(self.texts, texts, strict=True):
            column += more
            self._n_characters += sum(map(len, more))
