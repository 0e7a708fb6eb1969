"""Files -> pieces that any rank can read alone. The pieces depend on the files only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..parallel.world import World
from . import read

PIECE_BYTES = 2**25  # of files; small files share a piece


@dataclass(frozen=True, slots=True)
class Part:
    """A file, or a part of one.

    Attributes:
        file: number of the file.
        span: the part; None for the whole file.
    """

    file: int
    span: read.Span | None


def plan(paths: Sequence[Path], world: World) -> list[list[Part]]:
    """Cut files into pieces of one or more parts, in the order of the files. Collective.

    Raises:
        RunError: a file cannot be read, or is damaged.
    """
    return _number_lines(world.on_root(lambda: _cut(paths)), paths, world)


def _cut(paths: Sequence[Path]) -> list[list[Part]]:
    pieces, room = [], -1
    for file, path in enumerate(paths):
        for span in read.cut(path, PIECE_BYTES) or [None]:
            n_bytes = span.n_bytes if span else path.stat().st_size
            if n_bytes > room:
                pieces.append([])
                room = PIECE_BYTES
            pieces[-1].append(Part(file, span))
            room -= n_bytes
    return pieces


def _number_lines(pieces: list[list[Part]], paths: Sequence[Path], world: World) -> list[list[Part]]:
    """Add the number of the first line to every span that lacks it. Ranks share the counting of lines. Collective.

    The first span of a file has its number: before a span without one there is always another span of the same file.
    """
    files = [part.file for piece in pieces for part in piece]
    spans = [part.span for piece in pieces for part in piece]
    lacking = [i for i, span in enumerate(spans) if span and not span.first]
    n_lines = np.zeros(len(spans), dtype=np.int64)

    def count(index: int) -> None:
        before = lacking[index] - 1
        if span := spans[before]:
            n_lines[before] = read.count_lines(paths[files[before]], span)

    world.spread(len(lacking), count)
    n_lines = world.sum(n_lines)
    for i in lacking:
        span, before = spans[i], spans[i - 1]
        if span and before:
            spans[i] = replace(span, first=before.first + int(n_lines[i - 1]))
    numbered = iter(spans)
    return [[replace(part, span=next(numbered)) for part in piece] for piece in pieces]
