"""Files -> the questions of a pool on disk, and lists of what was left out. Every rank reads pieces of the files."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
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
CHUNK_ROWS = 65_536  # of a file on disk, at most ...
CHUNK_CHARACTERS = 2**26  # ... or so many characters, and one batch
_CHUNKS = 1_000_000  # numbers for the chunks of one piece: chunk-3000007 is the eighth of the fourth
_ROWS = 2**40  # the same for its rows
Item = tuple[int, int, columns.Row | clean.Problem]  # file, line, what stands there


def make(
    config: settings.Files,
    paths: Sequence[Path],
    avoided: Mapping[str, Sequence[tuple[str, str]]],
    stage: Stage,
    world: World,
) -> None:
    """Write the pool's questions, and what was left out. Collective; the same files on any number of ranks.

    Args:
        avoided: (id, text) of every benchmark question, by benchmark; root's counts.

    Raises:
        RunError: as `load` does, on every rank.
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
        written = [piece * _CHUNKS + i for piece, n in enumerate(n_chunks) for i in range(n)]
        merge.Merge(config, paths, known, stage, *writer.written(written)).write()
        writer.clear()

    world.on_root(on_root)


class Writer:
    """Pieces of files -> chunks of questions, and of what is known about them."""

    def __init__(self, config: settings.Files, paths: Sequence[Path], known: Filter, stage: Stage):
        self._config, self._paths, self._known, self._stage = config, paths, known, stage
        self._labels = sources.labels(paths)
        self._asked = frozenset(columns.renamed(config.columns))
        # For as long as the pool is being made.
        self._marks, self._bad = Stage(stage.path / "marks"), Stage(stage.path / "bad")

    def prepare(self) -> None:
        self._marks.prepare()
        self._bad.prepare()

    def clear(self) -> None:
        self._stage.remove("marks")
        self._stage.remove("bad")

    def write(self, piece: int, parts: Sequence[pieces.Part]) -> int:
        """Write a piece in chunks, bounded in memory however large it is; how many there are."""
        items, order = self._items(parts), piece * _ROWS
        for number in itertools.count():
            chunk = Chunk(self._known, self._asked)
            while chunk.has_room and (batch := list(itertools.islice(items, BATCH_ROWS))):
                chunk.add(order, batch)
                order += len(batch)
            if not chunk.n_items:
                return number
            index = piece * _CHUNKS + number
            self._stage.write_chunk(index, Questions(*chunk.texts))
            self._marks.write_chunk(index, marks.Marks.concat(chunk.marks))
            self._bad.write_chunk(index, marks.Bad.from_rows(chunk.bad))

    def _items(self, parts):
        for part in parts:
            path, label = self._paths[part.file], self._labels[part.file]
            for line, row in clean.rows(path, label, self._config.columns, part.span, self._config.verifier):
                yield part.file, line, row

    def written(self, chunks: Sequence[int]) -> tuple[Questions, marks.Marks, marks.Bad]:
        """What all ranks have written.

        Raises:
            RunError: a file is lacking.
        """
        tables = []
        for stage, table in ((self._stage, Questions), (self._marks, marks.Marks), (self._bad, marks.Bad)):
            stage.await_chunks(chunks)
            if stage.finished_chunks() != set(chunks):
                raise RunError(f"{stage.path}: files that other ranks have written do not show: mend the file system")
            tables.append(stage.read_chunks(table))
        return tuple(tables)


class Chunk:
    """Some rows, until they are written."""

    def __init__(self, known: Filter, asked: frozenset[str]):
        self._known, self._asked = known, asked
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
        """Args:
        first: the order of the first one; the others follow.
        """
        bad = [(first + i, item[-1]) for i, item in enumerate(batch) if isinstance(item[-1], clean.Problem)]
        self.bad += [(order, problem.where, problem.reason, problem.raw) for order, problem in bad]
        good = [(first + i, *item) for i, item in enumerate(batch) if not isinstance(item[-1], clean.Problem)]
        order_N, file_N, line_N, rows = zip(*good, strict=True) if good else ((), (), (), ())
        texts = list(zip(*rows, strict=True)) or [()] * len(self.texts)
        self.marks.append(marks.of(order_N, file_N, line_N, texts, self._known, self._asked))
        for own, more in zip(self.texts, texts, strict=True):
            own += more
            self._n_characters += sum(map(len, more))
