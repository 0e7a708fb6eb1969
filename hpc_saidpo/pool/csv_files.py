"""Rows of CSV and TSV files, compressed with gzip or not."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

from ..errors import RunError, shown, words_of
from ..settings.base import Limits
from .text_files import MIB, Columns, Rows, Unreadable, check_header, excerpt, name_some, open_bytes, skip_line


class _TooLong(Exception):
    """A row of a CSV file is longer than the limit."""


class _Lines:
    """The lines of a CSV file for `csv.reader`, which takes one or more of them for a row.

    Attributes:
        number: of the last line, from 1.
        left: characters that the row may still have.
    """

    def __init__(self, file: TextIO):
        self._file, self.number, self.left = file, 0, 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._file.readline(self.left + 1)
        if not line:
            raise StopIteration
        self.number += 1
        self.left -= len(line)
        if self.left < 0:
            if not line.endswith("\n"):
                skip_line(self._file)
            raise _TooLong
        return line


def csv_rows(path: Path, columns: Columns, within: str | None, limits: Limits) -> Rows:
    """Yield (line, row) of a CSV or TSV file. `within` is for JSON files only.

    Raises:
        RunError: the first line is too long or cannot be read, two columns have one name, there are too many columns,
            or there is no column of questions.
    """
    limit = limits.line_mib * MIB
    csv.field_size_limit(limit)
    name = path.name.lower().removesuffix(".gz")
    with open_bytes(path) as data, io.TextIOWrapper(data, "utf-8-sig", "surrogateescape", newline="") as file:
        lines = _Lines(file)
        reader = csv.reader(lines, delimiter="\t" if name.endswith(".tsv") else ",")
        header: list[str] | None = None
        while True:
            lines.left, line = limit, lines.number + 1
            try:
                cells: list[str] | Unreadable = next(reader)
            except StopIteration:
                if header is None:  # an empty file
                    _header(path, [], columns, limits)
                return
            except _TooLong:
                cells = Unreadable(f"the row is too long: {limits.describe('line_mib')}", "")
            except csv.Error as error:
                cells = Unreadable(f"not CSV: {words_of(error)}", "")
            if header is None:
                header = _header(path, cells, columns, limits)
            elif cells:
                yield line, cells if isinstance(cells, Unreadable) else _named(header, cells)


def _header(path: Path, cells: list[str] | Unreadable, columns: Columns, limits: Limits) -> list[str]:
    if isinstance(cells, Unreadable):
        raise RunError(f"{shown(path)}:1: {cells.reason}")
    twice = [name for name, n in Counter(cells).items() if n > 1]
    if twice:
        raise RunError(f"{shown(path)}:1: two columns are called {name_some(list(map(repr, twice)))}: rename one")
    check_header(path, cells, columns, limits)
    return cells


def _named(header: Sequence[str], cells: Sequence[str]) -> Mapping | Unreadable:
    raw = ",".join(cells)
    if len(cells) != len(header):
        return Unreadable(f"{len(cells)} cells where the first line has {len(header)}", excerpt(_escaped(raw)))
    if not raw.isascii() and re.search("[\ud800-\udfff]", raw):
        return Unreadable("not UTF-8", excerpt(_escaped(raw)))
    return dict(zip(header, cells, strict=True))


def _escaped(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
