"""What is kept of every row of a pool's files until all are read: small numbers, by which the rows are compared.

Beside the shape letters of `records`, N are rows here, and H the two halves of a 128-bit hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np

from ..records import Questions
from ..table import Columns, column
from . import clean
from .decontaminate import Filter

# The fields of a Row by the names that columns give them.
_NAMES = [f.name.removesuffix("_N").replace("text", "question") for f in fields(Questions)]


@dataclass(frozen=True)
class Marks(Columns):
    """The rows that are questions, each by itself."""

    order_N: np.ndarray = column(np.int64, "ascending in the order of the files; bad rows have their own numbers")
    file_N: np.ndarray = column(np.int32, "which file")
    line_N: np.ndarray = column(np.int64, "its line, or number of the row, from 1")
    text_NH: np.ndarray = column(np.uint64, "hash of the question, that equal ones have in common")
    id_NH: np.ndarray = column(np.uint64, "hash of the id")
    row_NH: np.ndarray = column(np.uint64, "hash of id, question and answer")
    known_N: np.ndarray = column(np.int32, "number of the benchmark question that it matches; -1: none")
    exact_N: np.ndarray = column(np.bool_, "the match is exact")
    overlap_N: np.ndarray = column(np.float64, "share of common n-grams with the match")
    filled_N: np.ndarray = column(np.uint16, "which texts it has, of those asked for: a bit for each field")


@dataclass(frozen=True)
class Bad(Columns):
    """The rows that are none."""

    order_N: np.ndarray = column(np.int64, "ascending in the order of the files")
    where_N: list[str] = column(str, "file:line")
    reason_N: list[str] = column(str, "why it is no question")
    raw_N: list[str] = column(str, "the row, as far as it can be decoded")


@dataclass(frozen=True)
class Split(Columns):
    """Which of the written rows are questions of the pool."""

    row_N: np.ndarray = column(np.int64, "number of the row among all that are written")
    held_out_N: np.ndarray = column(np.bool_, "the question is held out: never trained on")


def of(
    order_N: Sequence[int],
    file_N: Sequence[int],
    line_N: Sequence[int],
    texts: Sequence[Sequence[str]],
    known: Filter,
    asked: Collection[str],
) -> Marks:
    """The marks of some rows.

    Args:
        order_N, file_N, line_N: where they stand.
        texts: one sequence [N] for each field of a Row.
        known: what they are compared with.
        asked: names of fields for `filled_N`.
    """
    matches = known.matches(texts[clean.TEXT])
    return Marks(
        np.array(order_N, dtype=np.int64),
        np.array(file_N, dtype=np.int32),
        np.array(line_N, dtype=np.int64),
        _halves(map(clean.key_of, texts[clean.TEXT])),
        _halves(_hash(id) for id in texts[clean.ID]),
        _halves(
            _hash(f"{len(id)} {len(text)} {id}{text}{answer}") for id, text, answer in zip(*texts[:3], strict=True)
        ),
        np.array([-1 if match is None else match.number for match in matches], dtype=np.int32),
        np.array([match is not None and match.kind == "exact" for match in matches], dtype=bool),
        np.array([0.0 if match is None else match.overlap for match in matches]),
        _filled(texts, asked),
    )


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _halves(hashes: Iterable[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(hashes), dtype="<u8").reshape(-1, 2)


def _filled(texts: Sequence[Sequence[str]], asked: Collection[str]) -> np.ndarray:
    filled_N = np.zeros(len(texts[0]), dtype=np.uint16)
    for bit, name in enumerate(_NAMES):
        if name in asked:
            filled_N |= np.fromiter(map(bool, texts[bit]), np.uint16, len(filled_N)) << bit
    return filled_N


def has(filled: int, name: str) -> bool:
    """Whether a mark, or several joined by or, says that this field has a text."""
    return bool(filled >> _NAMES.index(name) & 1)


def first_of(hash_NH: np.ndarray) -> np.ndarray:
    """[N] index of the first row with the same hash: its own for most."""
    hash_NH = hash_NH.reshape(-1, 2)  # also of no rows
    order = np.lexsort((hash_NH[:, 1], hash_NH[:, 0]))  # stable: of equal ones the first stays first
    is_new = np.ones(len(order), dtype=bool)
    is_new[1:] = (np.diff(hash_NH[order], axis=0) != 0).any(axis=1)
    first_N = np.empty(len(order), dtype=np.int64)
    first_N[order] = order[is_new][np.cumsum(is_new) - 1]
    return first_N
