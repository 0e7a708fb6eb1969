"""Rows of files -> texts of questions; for every other row, its place and the reason."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .. import settings
from ..errors import RunError, shown, visible
from ..unicode import nfkc
from . import columns, read

Kind = Literal["bad", "duplicate", "conflict"]
FIRST = 5  # problems that a message lists
ID, TEXT = 0, 1  # positions in a Row


@dataclass(frozen=True, slots=True)
class Problem:
    """A row that does not become a question.

    Attributes:
        where: file:line.
        kind: bad; duplicate: the same question as an earlier one; conflict: the same question with another answer.
        raw: the row, as far as it can be decoded.
    """

    where: str
    kind: Kind
    reason: str
    raw: str


def rows(
    path: Path,
    label: str,
    config: settings.Columns,
    span: read.Span | None = None,
    verifier: str = "math",
    limits: settings.Limits = read.DEFAULT_LIMITS,
) -> Iterator[tuple[int, columns.Row | Problem]]:
    """Yield (line, texts) of every question of a file, in its order; a problem replaces the texts of a bad row.

    Args:
        label: start of the ids of questions without an id.
        span: a part of the file; None for the whole.
        verifier: for rows that name none.
        limits: the largest input that is read.

    Raises:
        RunError: the file is damaged or cannot be read.
    """
    texts_of = columns.make_mapper(config, verifier, limits)
    place = visible(str(path), kept="")
    names = [columns.as_tuple(getattr(config, field)) for field in columns.FIELDS]
    for line, row in read.rows(path, names, config.rows, span, limits):
        where = f"{place}:{line}"
        if isinstance(row, read.Unreadable):
            yield line, Problem(where, "bad", row.reason, row.raw)
            continue
        try:
            texts = texts_of(row)
            texts = texts if texts[ID] else (f"{label}-{line}", *texts[1:])
            _check_encodable(texts)
        except columns.BadRow as error:
            yield line, Problem(where, "bad", str(error), show(row))
        except RecursionError:
            yield line, Problem(where, "bad", "its lists or objects are nested too deep", "")
        else:
            yield line, texts


def describe_used_id(id: str, where: str) -> str:
    """Return the reason why a question with the id of an earlier one (at `where`) is bad."""
    return f"id {shown(repr(id))} was already used in {shown(where)}: ids name stored rollouts and must be unique"


def key_of(text: str) -> bytes:
    """Return a 16-byte hash that is equal for texts which differ only in Unicode form (NFKC) or white space."""
    plain = nfkc(text)
    if "  " in plain or "\n" in plain or "\t" in plain or not plain.isascii():
        plain = " ".join(plain.split())
    return hashlib.blake2b(plain.encode(), digest_size=16).digest()


def _check_encodable(texts: columns.Row) -> None:
    whole = "".join(texts)
    try:
        _ = whole.isascii() or whole.encode()
    except UnicodeEncodeError as error:
        surrogate = whole[error.start].encode("unicode_escape").decode()
        raise columns.BadRow(f"contains half of a character ({surrogate}, a lone surrogate)") from error


def show(row: Mapping) -> str:
    """Return a row as JSON for a person; long ones are cut."""
    return read.excerpt(json.dumps(row, ensure_ascii=False, default=str).encode("utf-8", "backslashreplace"))


def list_first(problems: Sequence[Problem]) -> str:
    """Return the first problems as lines of a message."""
    return "".join(f"\n  {shown(p.where)}: {shown(p.reason)}" for p in problems[:FIRST])


def bad_rows_error(problems: Sequence[Problem], n_bad: int, n_read: int, remedy: str) -> RunError:
    """Make one error of all bad rows: the first ones, and their number."""
    listed = list_first(problems)
    more = f"\n  and {n_bad - FIRST} more" if n_bad > FIRST else ""
    return RunError(f"{n_bad} of {n_read} rows cannot be used as questions:{listed}{more}\n{remedy}")
