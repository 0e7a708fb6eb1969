"""Rows of files -> texts of questions, and what is wrong with the rest: where, and why."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..records import RunError
from . import columns, read, sources

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
    files: Sequence[Path], config: columns.Config, keep_duplicates: bool = False
) -> Iterator[columns.Row | Problem]:
    """The texts of every question of these files, in order, and the problems where there is none.

    Args:
        keep_duplicates: for benchmarks, which are as they are.

    Raises:
        RunError: a file is damaged or cannot be read.
    """
    texts_of = columns.mapper(config)
    wanted = [columns.names(getattr(config, name)) for name in columns.WANTED]
    first_use = FirstUse(keep_duplicates)
    for path, label in zip(files, sources.labels(files), strict=True):
        for line, row in read.rows(path, wanted, config.rows):
            where = f"{path}:{line}"
            if isinstance(row, read.Unreadable):
                yield Problem(where, "bad", row.reason, row.raw)
                continue
            try:
                texts = texts_of(row)
                texts = texts if texts[ID] else (f"{label}-{line}", *texts[1:])
                _check_encodable(texts)
                repeated = first_use.of(texts, where)
            except columns.BadRow as error:
                yield Problem(where, "bad", str(error), _raw(row))
                continue
            yield Problem(where, *repeated, _raw(row)) if repeated else texts


class FirstUse:
    """Where each id and each question was met first."""

    def __init__(self, keep_duplicates: bool):
        self._keep = keep_duplicates
        self._id: dict[str, str] = {}
        self._text: dict[bytes, tuple[str, str]] = {}

    def of(self, texts: columns.Row, where: str) -> tuple[Kind, str] | None:
        """Note a question; what it repeats, if it does.

        Raises:
            BadRow: another question has its id.
        """
        first, answer = self._text.setdefault(key_of(texts[TEXT]), (where, texts[ANSWER]))
        if first != where and not self._keep:
            if answer == texts[ANSWER]:
                return "duplicate", f"the same question as {first}"
            return "conflict", f"the same question as {first}, where the answer is {answer!r}"
        used = self._id.setdefault(texts[ID], where)
        if used != where:
            raise columns.BadRow(
                f"id {texts[ID]!r} was used in {used} already: ids name stored rollouts and must be unique"
            )
        return None


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


def _raw(row: Mapping) -> str:
    return read.shown(json.dumps(row, ensure_ascii=False, default=str).encode("utf-8", "backslashreplace"))


def told(problems: Sequence[Problem], n_bad: int, n_read: int, remedy: str) -> RunError:
    """The bad rows as one error: the first ones, and how many there are."""
    listed = "".join(f"\n  {p.where}: {p.reason}" for p in problems[:FIRST])
    more = f"\n  and {n_bad - FIRST} more" if n_bad > FIRST else ""
    return RunError(f"{n_bad} of {n_read} rows cannot be used as questions:{listed}{more}\n{remedy}")
