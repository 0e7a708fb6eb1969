"""Rows of text files: JSON lines, JSON, CSV and TSV, compressed with gzip or not."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from ..errors import RunError

RAW_CHARACTERS = 2000  # of a bad row, at most
MAX_CELL_CHARACTERS = 2**24
# (text, position) -> (value, end). The standard library's stubs lack it.
_SCAN = cast(Callable[[str, int], tuple[Any, int]], json.JSONDecoder().scan_once)  # pyright: ignore[reportAttributeAccessIssue]
_GAP = re.compile(r"[\s,]*")
_BLOCK_BYTES = 2**20
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A row that cannot be read: the reason, and the row as far as it can be decoded."""

    reason: str
    raw: str


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a file that can be read alone.

    Attributes:
        begin, end: bytes of JSON lines; row groups of Parquet.
        n_bytes: size of the part, bytes.
        first: number of the first line or row in the file, from 1; 0: not counted yet.
    """

    begin: int
    end: int
    n_bytes: int
    first: int


Columns = Sequence[Sequence[str]]  # the possible names of each column; the first column must be present
Rows = Iterator[tuple[int, Mapping | Unreadable]]  # line, or number of the row in Parquet and Arrow, from 1


def open_bytes(path: Path) -> BinaryIO:
    """Open a file for reading bytes; a compressed one is decompressed."""
    return cast(BinaryIO, gzip.open(path, "rb")) if path.suffix.lower() == ".gz" else open(path, "rb")


def excerpt(raw: bytes | str) -> str:
    """Return a row for a person: decoded as far as possible, cut where it is long."""
    text = raw.decode("utf-8", "backslashreplace") if isinstance(raw, bytes) else raw
    return text if len(text) <= RAW_CHARACTERS else f"{text[:RAW_CHARACTERS]}... ({len(text)} characters)"


def check_header(path: Path, present: Sequence[str], columns: Columns) -> None:
    """Refuse a table without a column of questions.

    Raises:
        RunError: no such column; names the columns that are present.
    """
    tops = {name.split(".")[0] for name in columns[0]}
    if not tops.union(columns[0]).intersection(present):
        names = " or ".join(map(repr, columns[0]))
        raise RunError(
            f"{path} has no column {names}, but {', '.join(present)}: name its columns with pool.columns.question etc."
        )


def line_spans(path: Path, every: int) -> list[Span]:
    """Cut a file of lines into spans of about `every` bytes that begin with a line; [] for a compressed file."""
    if path.suffix.lower() == ".gz":
        return []
    with open(path, "rb") as file:
        size = file.seek(0, io.SEEK_END)
        cuts = [0]
        for place in range(every, size, every):
            if place > cuts[-1]:  # not so within a line longer than `every`
                file.seek(place - 1)
                file.readline()
                cuts.append(file.tell())
    ends = sorted({*cuts[1:], size})
    return [Span(begin, end, end - begin, int(begin == 0)) for begin, end in zip([0, *ends[:-1]], ends, strict=True)]


def count_lines(path: Path, span: Span) -> int:
    """Count the lines that end in a span."""
    with open(path, "rb") as file:
        file.seek(span.begin)
        blocks = range(span.begin, span.end, _BLOCK_BYTES)
        return sum(file.read(min(_BLOCK_BYTES, span.end - begin)).count(b"\n") for begin in blocks)


def jsonl_rows(path: Path, columns: Columns, within: str | None, span: Span | None = None) -> Rows:
    """Yield (line, row) of a file of JSON lines, or of one of its spans."""
    with open_bytes(path) as file:
        # By bytes: only \n ends a line, not the other line ends that a JSON string may hold.
        for number, line in _lines(file, span) if span else enumerate(file, 1):
            if number == 1:
                line = line.removeprefix(_BOM)
            if line.strip():
                yield number, _parse(line)


def _lines(file: BinaryIO, span: Span) -> Iterator[tuple[int, bytes]]:
    file.seek(span.begin)
    position = span.begin
    for number, line in enumerate(file, span.first):
        if position >= span.end:
            return
        position += len(line)
        yield number, line


def _parse(line: bytes) -> Mapping | Unreadable:
    try:
        text = line.decode("utf-8").strip()
        row, end = _SCAN(text, 0)  # the same as json.loads, without its two searches for white space
        if end < len(text):
            raise ValueError(f"text after its end, at {end + 1}")
    except UnicodeDecodeError as error:
        return Unreadable(f"not UTF-8: byte {error.object[error.start]:#04x} at {error.start + 1}", excerpt(line))
    except StopIteration as error:
        return Unreadable(f"not JSON: expecting a value at {error.value + 1}", excerpt(line))
    except (ValueError, RecursionError) as error:
        return Unreadable(f"not JSON: {error}", excerpt(line))
    return _object(row, line)


def _object(row: Any, raw: bytes | str) -> Mapping | Unreadable:
    if isinstance(row, dict):
        return row
    return Unreadable(f"expected a JSON object, got {type(row).__name__}", excerpt(raw))


def json_rows(path: Path, columns: Columns, within: str | None) -> Rows:
    """Yield (line, row) of a JSON file: of its list, of the value at the key `within`, or of JSON lines."""
    with open_bytes(path) as file:
        data = file.read().removeprefix(_BOM)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise RunError(f"{path}:{line}: not UTF-8: byte {data[error.start]:#04x}: convert the file") from error
    del data
    if within or not text.lstrip().startswith("["):
        yield from _json_whole(path, text, within)
    else:
        yield from _json_list(text)


def _json_whole(path: Path, text: str, within: str | None) -> Rows:
    """Yield the rows at a key; or JSON lines in a file named .json."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        if within or "\n" not in text.strip():
            raise RunError(f"{path}: not JSON: {error}") from error
        yield from jsonl_rows(path, (), None)
        return
    for key in within.split(".") if within else ():
        if not isinstance(value, dict) or key not in value:
            present = ", ".join(list(value)[:12]) if isinstance(value, dict) else type(value).__name__
            raise RunError(f"{path}: has no {within!r} (pool.columns.rows): there is {present}")
        value = value[key]
    if isinstance(value, dict) and not all(isinstance(item, dict) for item in value.values()):
        value = [value]  # one object is one row
    for number, row in enumerate(value.values() if isinstance(value, dict) else value, 1):
        yield number, _object(row, str(row))


def _json_list(text: str) -> Rows:
    """Yield the items of a list one by one: they are never all in memory."""
    decode = json.JSONDecoder().raw_decode
    position, line, counted = text.index("[") + 1, 1, 0
    while True:
        position = _after_gap(text, position)
        line += text.count("\n", counted, position)
        counted = position
        if text[position : position + 1] == "]":
            return
        try:
            row, end = decode(text, position)
        except (ValueError, RecursionError) as error:
            yield line, Unreadable(f"not JSON, and nothing after it can be read: {error}", excerpt(text[position:]))
            return
        yield line, _object(row, text[position : position + RAW_CHARACTERS])
        position = end


def _after_gap(text: str, position: int) -> int:
    gap = _GAP.match(text, position)  # matches nothing at least
    return gap.end() if gap else position


def csv_rows(path: Path, columns: Columns, within: str | None) -> Rows:
    """Yield (line, row) of a CSV or TSV file. `within` is for JSON files only.

    Raises:
        RunError: two columns have one name, or there is no column of questions.
    """
    csv.field_size_limit(MAX_CELL_CHARACTERS)
    name = path.name.lower().removesuffix(".gz")
    with open_bytes(path) as data, io.TextIOWrapper(data, "utf-8-sig", "surrogateescape", newline="") as file:
        reader = csv.reader(file, delimiter="\t" if name.endswith(".tsv") else ",")
        header, line = next(reader, []), reader.line_num + 1
        twice = sorted({c for c in header if header.count(c) > 1})
        if twice:
            raise RunError(f"{path}:1: two columns are called {', '.join(map(repr, twice))}: rename one")
        check_header(path, header, columns)
        while True:
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield line, Unreadable(f"not CSV: {error}", "")
                line = reader.line_num + 1
                continue
            if cells:
                yield line, _named(header, cells)
            line = reader.line_num + 1


def _named(header: Sequence[str], cells: Sequence[str]) -> Mapping | Unreadable:
    raw = ",".join(cells)
    if len(cells) != len(header):
        return Unreadable(f"{len(cells)} cells where the first line has {len(header)}", excerpt(_escaped(raw)))
    if not raw.isascii() and re.search("[\ud800-\udfff]", raw):
        return Unreadable("not UTF-8", excerpt(_escaped(raw)))
    return dict(zip(header, cells, strict=True))


def _escaped(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
