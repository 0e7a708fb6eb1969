"""Rows of files -> texts of questions, and what is wrong with the rest: where, and why."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .. import settings
from ..errors import RunError
from . import columns, read

Kind = Literal["bad", "duplicate", "conflict"]
FIRST = 5  # problems that a message lists
ID, TEXT, ANSWER = 0, 1, 2  # in a Row


@dataclass(frozen=True, slots=True)
class Problem:
    """A row that does not become a question.

    Attributes:
        where: file:line.
        kind: bad; duplicate: the same question as an earlier one; conflict: the same, with another answer.
        raw: the row, as far as it can be decoded.
    """

    where: str
    kind: Kind
    reason: str
    raw: str


def rows(
    path: Path, label: str, config: settings.Columns, span: read.Span | None = None, verifier: str = "math"
) -> Iterator[tuple[int, columns.Row | Problem]]:
    """(line, texts) of every question of a file, in its order; in place of the texts the problem, where there is none.

    Args:
        label: what the ids of questions without one begin with.
        span: a part of the file; None for the whole.
        verifier: of rows that name none.

    Raises:
        RunError: the file is damaged or cannot be read.
    """
    texts_of = columns.mapper(config, verifier)
    wanted = [columns.names(getattr(config, name)) for name in columns.WANTED]
    for line, row in read.rows(path, wanted, config.rows, span):
        if isinstance(row, read.Unreadable):
            yield line, Problem(f"{path}:{line}", "bad", row.reason, row.raw)
            continue
        try:
            texts = texts_of(row)
            texts = texts if texts[ID] else (f"{label}-{line}", *texts[1:])
            _check_encodable(texts)
        except columns.BadRow as error:
            yield line, Problem(f"{path}:{line}", "bad", str(error), raw(row))
            continue
        yield line, texts


def used(id: str, where: str) -> str:
    """Why a question is bad whose id another one has, which stands at `where`."""
    return f"id {id!r} was used in {where} already: ids name stored rollouts and must be unique"


def key_of(text: str) -> bytes:
    """What the same question has in common, written otherwise: a hash of it in NFKC, blanks made one."""
    plain = text if text.isascii() else unicodedata.normalize("NFKC", text)
    if "  " in plain or "\n" in plain or "\t" in plain or not plain.isascii():
        plain = " ".join(plain.split())
    return hashlib.blake2b(plain.encode(), digest_size=16).digest()


def _check_encodable(texts: columns.Row) -> None:
    whole = "".join(texts)
    try:
        _ = whole.isascii() or whole.encode()
    except UnicodeEncodeError as error:
        found = whole[error.start].encode("unicode_escape").decode()
        raise columns.BadRow(f"holds half of a character ({found}, a lone surrogate)") from error


def raw(row: Mapping) -> str:
    """A row for a person."""
    return read.shown(json.dumps(row, ensure_ascii=False, default=str).encode("utf-8", "backslashreplace"))


def told(problems: Sequence[Problem], n_bad: int, n_read: int, remedy: str) -> RunError:
    """The bad rows as one error: the first ones, and how many there are."""
    listed = "".join(f"\n  {p.where}: {p.reason}" for p in problems[:FIRST])
    more = f"\n  and {n_bad - FIRST} more" if n_bad > FIRST else ""
    return RunError(f"{n_bad} of {n_read} rows cannot be used as questions:{listed}{more}\n{remedy}")
