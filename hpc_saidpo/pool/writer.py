"""Files -> the questions of a pool on disk, and lists of the rows left out. Ranks share the pieces of files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np

from .. import settings
from ..errors import RunError, shown
from ..parallel.world import World
from ..progress import log
from ..records import Questions
from ..store.stage import Stage
from ..store.tables import C
from . import clean, columns, leaks, marks, merge, pieces, sources
from .decontaminate import Filter

BATCH_ROWS = 4096
BATCH_CHARACTERS = 2**25  # a batch ends with the row that reaches it
CHUNK_ROWS = 65_536  # rows of a file on disk, at most ...
CHUNK_CHARACTERS = 2**26  # ... or this many characters and one batch
_CHUNKS = 1_000_000  # numbers reserved for the chunks of one piece: chunk-3000007 is the eighth of the fourth piece
_ROWS = 2**40  # numbers reserved for the rows of one piece
_TEMPORARY = ("marks", "bad", "matches", "near")  # folders that exist while the pool is being made
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
    chunks = [piece * _CHUNKS + i for piece, n in enumerate(n_chunks) for i in range(n)]
    on_root: list[merge.Merge] = []  # the merged rows stay there

    def draw_held_out() -> list[tuple[str, str]]:
        on_root.append(merge.Merge(config, paths, stage, writer.read(chunks)))
        return on_root[0].held_out_texts() if config.decontaminate else []

    near = Filter({leaks.HELD_OUT: world.on_root(draw_held_out)}, config.ngram_words, config.overlap)
    if near:
        writer.compare(chunks, near, world)

    def finish() -> None:
        rows = on_root[0]
        rows.write(writer.read_known(chunks), writer.read_near(near, len(rows)))
        writer.clear()

    world.on_root(finish)


class Writer:
    """Pieces of files -> chunks of questions, their marks, and bad rows, on disk."""

    def __init__(self, config: settings.Files, paths: Sequence[Path], known: Filter, stage: Stage):
        self._config, self._paths, self._known, self._stage = config, paths, known, stage
        self._labels = sources.labels(paths)
        self._requested = frozenset(columns.list_renamed(config.columns))
        self._marks, self._bad, self._matches, self._near = (Stage(stage.path / name) for name in _TEMPORARY)

    def prepare(self) -> None:
        """Make the temporary folders. Not collective: root only."""
        for stage in (self._marks, self._bad, self._matches, self._near):
            stage.prepare()

    def clear(self) -> None:
        """Remove the temporary folders. Not collective: root only."""
        for name in _TEMPORARY:
            self._stage.remove(name)

    def write(self, piece: int, parts: Sequence[pieces.Part]) -> int:
        """Write a piece in chunks, within bounded memory. Returns the number of chunks."""
        items, order, number = self._items(parts), piece * _ROWS, 0
        while True:
            chunk = Chunk(self._known, self._requested)
            while chunk.has_room and (batch := _batch(items)):
                chunk.add(order, batch)
                order += len(batch)
            if not chunk.n_items:
                return number
            index = piece * _CHUNKS + number
            self._stage.write_chunk(index, Questions(*chunk.texts))
            self._marks.write_chunk(index, marks.Marks.concat(chunk.marks))
            self._bad.write_chunk(index, marks.Bad.from_rows(chunk.bad))
            self._matches.write_chunk(index, leaks.Matches.concat(chunk.matches))
            number += 1

    def _items(self, parts: Sequence[pieces.Part]) -> Iterator[Item]:
        for part in parts:
            path, label = self._paths[part.file], self._labels[part.file]
            config = self._config
            for line, row in clean.rows(path, label, config.columns, part.span, config.verifier, config.limits):
                yield part.file, line, row

    def compare(self, chunks: Sequence[int], near: Filter, world: World) -> None:
        """Compare all written rows with further questions, in blocks of rows. Collective."""
        self._stage.await_chunks(chunks)
        questions = self._stage.read_chunks(Questions)

        def compare(block: int) -> None:
            texts = questions.take(np.arange(block * CHUNK_ROWS, min((block + 1) * CHUNK_ROWS, len(questions)))).text_N
            parts = [leaks.compare(texts[i : i + BATCH_ROWS], near) for i in range(0, len(texts), BATCH_ROWS)]
            self._near.write_chunk(block, leaks.Matches.concat(parts))

        world.spread(-(-len(questions) // CHUNK_ROWS), compare)

    def read(self, chunks: Sequence[int]) -> merge.Written:
        """Read the rows that all ranks have written; texts stay on disk. Not collective: root only.

        Raises:
            RunError: a file is missing.
        """
        return merge.Written(
            self._read(self._stage, chunks, Questions),
            self._read(self._marks, chunks, marks.Marks),
            self._read(self._bad, chunks, marks.Bad),
        )

    def read_known(self, chunks: Sequence[int]) -> leaks.Comparison:
        """Read the comparison of all rows with benchmarks and examples. Not collective. Raises as `read` does."""
        return leaks.Comparison(self._known.named, self._read(self._matches, chunks, leaks.Matches))

    def read_near(self, near: Filter, n_rows: int) -> leaks.Comparison:
        """Read the comparison that `compare` has made. Not collective. Raises as `read` does."""
        if not near:
            return leaks.Comparison([], leaks.Matches.none(n_rows))
        return leaks.Comparison(near.named, self._read(self._near, range(-(-n_rows // CHUNK_ROWS)), leaks.Matches))

    def _read(self, stage: Stage, chunks: Sequence[int], table: type[C]) -> C:
        stage.await_chunks(chunks)
        if stage.finished_chunks() != set(chunks):
            raise RunError(
                f"{shown(stage.path)}: files that other ranks have written do not appear here: check the file system"
            )
        return stage.read_chunks(table)


def _batch(items: Iterator[Item]) -> list[Item]:
    """Take the next rows: BATCH_ROWS of them, or fewer long ones."""
    batch, n_characters = [], 0
    for item in items:
        batch.append(item)
        n_characters += sum(map(len, item[2])) if isinstance(item[2], tuple) else 0
        if len(batch) == BATCH_ROWS or n_characters >= BATCH_CHARACTERS:
            break
    return batch


class Chunk:
    """Some rows in memory, before they are written."""

    def __init__(self, known: Filter, requested: frozenset[str]):
        self._known, self._requested = known, requested
        self.texts: list[list[str]] = [[] for _ in fields(Questions)]
        self.marks: list[marks.Marks] = []
        self.matches: list[leaks.Matches] = []
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
        self.marks.append(marks.mark(places, texts, self._requested))
        self.matches.append(leaks.compare(texts[clean.TEXT], self._known))
        for column, more in zip(self.texts, texts, strict=True):
            column += more
            self._n_characters += sum(map(len, more))
