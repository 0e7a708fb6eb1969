"""Small facts about every row of a pool's files, by which rows of different files are compared.

Shape letters in addition to those of `records`: N are rows here, H the two halves of a 128-bit hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np

from ..records import Questions
from ..table import Columns, column
from . import clean

# The fields of a Row by the names in `columns.FIELDS`.
_NAMES = [f.name.removesuffix("_N").replace("text", "question") for f in fields(Questions)]


@dataclass(frozen=True)
class Marks(Columns):
    """Facts about the rows that are questions, each row considered alone."""

    order_N: np.ndarray = column(np.int64, "ascending in the order of the files; bad rows are counted too")
    file_N: np.ndarray = column(np.int32, "number of the file")
    line_N: np.ndarray = column(np.int64, "line in the file, or number of the row, from 1")
    text_NH: np.ndarray = column(np.uint64, "hash of the question text; equal questions have equal hashes")
    id_NH: np.ndarray = column(np.uint64, "hash of the id")
    row_NH: np.ndarray = column(np.uint64, "hash of id, question and answer")
    filled_N: np.ndarray = column(np.uint16, "a bit for each requested field: set where the row has a text")


@dataclass(frozen=True)
class Bad(Columns):
    """The rows that are no questions."""

    order_N: np.ndarray = column(np.int64, "ascending in the order of the files")
    where_N: list[str] = column(str, "file:line")
    reason_N: list[str] = column(str, "reason why it is no question")
    raw_N: list[str] = column(str, "the row, as far as it can be decoded")


@dataclass(frozen=True)
class Split(Columns):
    """The written rows that are questions of the pool."""

    row_N: np.ndarray = column(np.int64, "number of the row among all that are written")
    held_out_N: np.ndarray = column(np.bool_, "the question is held out: never trained on")


@dataclass(frozen=True)
class Places:
    """The places of some rows: order among all rows, number of the file, line in the file."""

    order_N: Sequence[int]
    file_N: Sequence[int]
    line_N: Sequence[int]


def mark(places: Places, texts: Sequence[Sequence[str]], requested: Collection[str]) -> Marks:
    """Compute the marks of some rows.

    Args:
        texts: one sequence [N] for each field of a Row.
        requested: names of the fields for `filled_N`.
    """
    return Marks(
        np.array(places.order_N, dtype=np.int64),
        np.array(places.file_N, dtype=np.int32),
        np.array(places.line_N, dtype=np.int64),
        _halves(map(clean.key_of, texts[clean.TEXT])),
        _halves(_hash(id) for id in texts[clean.ID]),
        _halves(
            _hash(f"{len(id)} {len(text)} {id}{text}{answer}") for id, text, answer in zip(*texts[:3], strict=True)
        ),
        _filled(texts, requested),
    )


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _halves(hashes: Iterable[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(hashes), dtype="<u8").reshape(-1, 2)


def _filled(texts: Sequence[Sequence[str]], requested: Collection[str]) -> np.ndarray:
    filled_N = np.zeros(len(texts[0]), dtype=np.uint16)
    for bit, name in enumerate(_NAMES):
        if name in requested:
            filled_N |= np.fromiter(map(bool, texts[bit]), np.uint16, len(filled_N)) << bit
    return filled_N


def has_text(filled: int, name: str) -> bool:
    """Whether a value of `filled_N`, or several joined by `or`, says that this field has a text."""
    return bool(filled >> _NAMES.index(name) & 1)


def first_of(hash_NH: np.ndarray) -> np.ndarray:
    """Return the index [N] of the first row with the same hash; for most rows it is their index."""
    hash_NH = hash_NH.reshape(-1, 2)  # also for no rows
    order = np.lexsort((hash_NH[:, 1], hash_NH[:, 0]))  # stable: the first of equal rows stays first
    is_new = np.ones(len(order), dtype=bool)
    is_new[1:] = (np.diff(hash_NH[order], axis=0) != 0).any(axis=1)
    first_N = np.empty(len(order), dtype=np.int64)
    first_N[order] = order[is_new][np.cumsum(is_new) - 1]
    return first_N
