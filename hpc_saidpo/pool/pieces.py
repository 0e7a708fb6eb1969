"""Files -> pieces that can be read alone, for any rank. They depend on the files only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..parallel.world import World
from . import read

PIECE_BYTES = 2**25  # of files; small ones share a piece


@dataclass(frozen=True, slots=True)
class Part:
    """A file, or a part of one.

    Attributes:
        file: its number.
        span: which part; None for the whole.
    """

    file: int
    span: read.Span | None


def plan(paths: Sequence[Path], world: World) -> list[list[Part]]:
    """The pieces of these files, each of one or more parts, in the order of the files. Collective.

    Raises:
        RunError: a file cannot be read, or is damaged.
    """
    return _counted(world.on_root(lambda: _cut(paths)), paths, world)


def _cut(paths: Sequence[Path]) -> list[list[Part]]:
    pieces, room = [], -1
    for file, path in enumerate(paths):
        for span in read.spans(path, PIECE_BYTES) or [None]:
            n_bytes = span.n_bytes if span else path.stat().st_size
            if n_bytes > room:
                pieces.append([])
                room = PIECE_BYTES
            pieces[-1].append(Part(file, span))
            room -= n_bytes
    return pieces


def _counted(pieces: list[list[Part]], paths: Sequence[Path], world: World) -> list[list[Part]]:
    """The pieces, every part with the number of its first line; each rank counts lines of some."""
    parts = [part for piece in pieces for part in piece]
    lacking = [i for i, part in enumerate(parts) if part.span and not part.span.first]
    n_lines = np.zeros(len(parts), dtype=np.int64)

    def count(index: int) -> None:
        before = lacking[index] - 1
        n_lines[before] = read.n_lines(paths[parts[before].file], parts[before].span)

    world.spread(len(lacking), count)
    n_lines = world.sum(n_lines)
    for i in lacking:
        first = parts[i - 1].span.first + int(n_lines[i - 1])
        parts[i] = replace(parts[i], span=replace(parts[i].span, first=first))
    flat = iter(parts)
    return [[next(flat) for _ in piece] for piece in pieces]
