"""Rows of a pool that ask known questions: the matches on disk, and the lists of them.

Shape letters in addition to those of `records`: N are rows here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np

from ..records import Questions
from ..table import Columns, column
from .decontaminate import KINDS, LEAKS, Filter

EXAMPLES, HELD_OUT = "pool.examples", "held_out"  # as benchmarks in lists
_NUMBER_OF_KIND = {kind: number for number, kind in enumerate(KINDS)}


@dataclass(frozen=True)
class Matches(Columns):
    """For each row, the known question that it asks too (`decontaminate`)."""

    known_N: np.ndarray = column(np.int32, "number of the known question; -1: none")
    kind_N: np.ndarray = column(np.int8, "class of the match, its place in decontaminate.KINDS; -1: none")
    overlap_N: np.ndarray = column(np.float64, "share of common n-grams")

    @classmethod
    def none(cls, n: int) -> Matches:
        """Return the table of n rows without a match."""
        return cls(np.full(n, -1, np.int32), np.full(n, -1, np.int8), np.zeros(n))


def compare(texts: Sequence[str], known: Filter) -> Matches:
    """Compare the questions of some rows with known ones."""
    matches = known.compare(texts)
    return Matches(
        np.array([-1 if match is None else match.number for match in matches], dtype=np.int32),
        np.array([-1 if match is None else _NUMBER_OF_KIND[match.kind] for match in matches], dtype=np.int8),
        np.array([0.0 if match is None else match.overlap for match in matches]),
    )


@dataclass(frozen=True)
class Comparison:
    """All rows compared with known questions.

    Attributes:
        named: (benchmark, id) of every known question.
        matches: of every row.
    """

    named: Sequence[tuple[str, str]]
    matches: Matches

    def of_kinds(self, kinds: Sequence[str]) -> np.ndarray:
        """Return which rows have a match of these classes: bool [N]."""
        return np.isin(self.matches.kind_N, [_NUMBER_OF_KIND[kind] for kind in kinds])

    def of_benchmarks(self, *names: str) -> np.ndarray:
        """Return which rows have a match with one of these benchmarks: bool [N]."""
        is_one = np.array([benchmark in names for benchmark, _ in self.named] + [False])
        return is_one[self.matches.known_N]  # the last one for rows without a match

    def joined(self, other: Comparison, except_N: np.ndarray) -> Comparison:
        """Return the better match of two comparisons: a leak before other numbers, then the first comparison's.

        Args:
            except_N: rows whose matches in the other comparison do not count: bool [N].
        """
        mine, others = self.matches, other.matches
        leaks, other_leaks = self.of_kinds(LEAKS), other.of_kinds(LEAKS)
        takes_N = (others.known_N >= 0) & ~except_N & ~leaks & ((mine.known_N < 0) | other_leaks)
        shifted = Matches(others.known_N + np.int32(len(self.named)), others.kind_N, others.overlap_N)
        columns = (np.where(takes_N, getattr(shifted, f.name), getattr(mine, f.name)) for f in fields(Matches))
        return Comparison([*self.named, *other.named], Matches(*columns))

    def lines(self, rows: np.ndarray, questions: Questions) -> Iterator[dict]:
        """Yield the matches of some rows as lines of a list, each with its known question.

        Args:
            questions: of all rows; texts may be on disk.
        """
        matches, some = self.matches.take(rows), questions.take(rows)
        columns = (
            some.id_N,
            some.text_N,
            matches.known_N.tolist(),
            matches.kind_N.tolist(),
            matches.overlap_N.tolist(),
        )
        for id, text, number, kind, overlap in zip(*columns, strict=True):
            benchmark, known = self.named[number]
            source = {"benchmark": benchmark, "benchmark_id": known}
            yield {"id": id, "question": text, **source, "kind": KINDS[kind], "overlap": overlap}
