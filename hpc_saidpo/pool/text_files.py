"""Rows of text files: JSON lines, JSON, CSV; with gzip or without."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import RunError

RAW_CHARACTERS = 2000  # of a bad row, at most
MAX_CELL_CHARACTERS = 2**24
_SCAN = json.JSONDecoder().scan_once
_BLOCK_BYTES = 2**20
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Unreadable:
    """What stands where a row should be: why it is none, and it itself as far as it can be decoded."""

    reason: str
    raw: str


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a file that can be read alone.

    Attributes:
        begin, end: bytes of JSON lines; row groups of Parquet.
        n_bytes: how much there is to read.
        first: number of the first line or row in the file, from 1; 0: not counted yet.
    """

    begin: int
    end: int
    n_bytes: int
    first: int


Columns = Sequence[Sequence[str]]  # the names that each column may have; the first one must be there
Rows = Iterator[tuple[int, Mapping | Unreadable]]  # line, or number of the row in Parquet and Arrow, from 1


def opened(path: Path):
    """A file's bytes; those inside, where it is compressed."""
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else open(path, "rb")


def shown(raw: bytes | str) -> str:
    """A row for a person: decoded as far as it goes, and not too long."""
    text = raw.decode("utf-8", "backslashreplace") if isinstance(raw, bytes) else raw
    return text if len(text) <= RAW_CHARACTERS else f"{text[:RAW_CHARACTERS]}... ({len(text)} characters)"


def check_header(path: Path, there: Sequence[str], columns: Columns) -> None:
    """Refuse a table without the column that makes it one of questions.

    Raises:
        RunError: names the columns that there are.
    """
    tops = {name.split(".")[0] for name in columns[0]}
    if not tops.union(columns[0]).intersection(there):
        wanted = " or ".join(map(repr, columns[0]))
        raise RunError(f"{path} has no column {wanted}, but {', '.join(there)}: pool.columns says which one is which")


def line_spans(path: Path, every: int) -> list[Span]:
    """A file of lines in spans of so many bytes; each begins with a line. Of a compressed one, none."""
    if path.suffix.lower() == ".gz":
        return []
    with open(path, "rb") as file:
        size = file.seek(0, io.SEEK_END)
        cuts = [0]
        for place in range(every, size, every):
            if place > cuts[-1]:  # not so within a line longer than that
                file.seek(place - 1)
                file.readline()
                cuts.append(file.tell())
    ends = sorted({*cuts[1:], size})
    return [Span(begin, end, end - begin, int(begin == 0)) for begin, end in zip([0, *ends[:-1]], ends, strict=True)]


def count_lines(path: Path, span: Span) -> int:
    """How many lines end in a span."""
    with open(path, "rb") as file:
        file.seek(span.begin)
        blocks = range(span.begin, span.end, _BLOCK_BYTES)
        return sum(file.read(min(_BLOCK_BYTES, span.end - begin)).count(b"\n") for begin in blocks)


def jsonl_rows(path: Path, columns: Columns, within: str | None, span: Span | None = None) -> Rows:
    with opened(path) as file:
        # By bytes: a line ends at \n only, not at the other line ends that a JSON string may hold.
        for number, line in _lines(file, span) if span else enumerate(file, 1):
            if number == 1:
                line = line.removeprefix(_BOM)
            if line.strip():
                yield number, _parsed(line)


def _lines(file, span: Span) -> Iterator[tuple[int, bytes]]:
    file.seek(span.begin)
    position = span.begin
    for number, line in enumerate(file, span.first):
        if position >= span.end:
            return
        position += len(line)
        yield number, line


def _parsed(line: bytes) -> Mapping | Unreadable:
    try:
        text = line.decode("utf-8").strip()
        row, end = _SCAN(text, 0)  # what json.loads comes to, without its two searches for blanks
        if end < len(text):
            raise ValueError(f"something stands behind its end, at {end + 1}")
    except UnicodeDecodeError as error:
        return Unreadable(f"not UTF-8: byte {error.object[error.start]:#04x} at {error.start + 1}", shown(line))
    except StopIteration as error:
        return Unreadable(f"not JSON: expecting a value at {error.value + 1}", shown(line))
    except (ValueError, RecursionError) as error:
        return Unreadable(f"not JSON: {error}", shown(line))
    return _object(row, line)


def _object(row, raw: bytes | str) -> Mapping | Unreadable:
    if isinstance(row, dict):
        return row
    return Unreadable(f"expected a JSON object, got {type(row).__name__}", shown(raw))


def json_rows(path: Path, columns: Columns, within: str | None) -> Rows:
    with opened(path) as file:
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


def _json_whole(path, text: str, within: str | None) -> Rows:
    """Rows below a key; or JSON lines that call themselves JSON."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        if within or "\n" not in text.strip():
            raise RunError(f"{path}: not JSON: {error}") from error
        yield from jsonl_rows(path, (), None)
        return
    for key in within.split(".") if within else ():
        if not isinstance(value, dict) or key not in value:
            there = ", ".join(list(value)[:12]) if isinstance(value, dict) else type(value).__name__
            raise RunError(f"{path}: has no {within!r} (pool.columns.rows): there is {there}")
        value = value[key]
    if isinstance(value, dict) and not all(isinstance(item, dict) for item in value.values()):
        value = [value]  # one object is one row
    for number, row in enumerate(value.values() if isinstance(value, dict) else value, 1):
        yield number, _object(row, str(row))


def _json_list(text: str) -> Rows:
    """The items of a list one by one: they never are all in memory."""
    decode, gap = json.JSONDecoder().raw_decode, re.compile(r"[\s,]*")
    position, line, counted = text.index("[") + 1, 1, 0
    while True:
        position = gap.match(text, position).end()
        line += text.count("\n", counted, position)
        counted = position
        if text[position : position + 1] == "]":
            return
        try:
            row, end = decode(text, position)
        except (ValueError, RecursionError) as error:
            yield line, Unreadable(f"not JSON, and nothing behind it can be read: {error}", shown(text[position:]))
            return
        yield line, _object(row, text[position : position + RAW_CHARACTERS])
        position = end


def csv_rows(path: Path, columns: Columns, within: str | None) -> Rows:
    csv.field_size_limit(MAX_CELL_CHARACTERS)
    name = path.name.lower().removesuffix(".gz")
    with opened(path) as data, io.TextIOWrapper(data, "utf-8-sig", "surrogateescape", newline="") as file:
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
        return Unreadable(f"{len(cells)} cells where the first line has {len(header)}", shown(_escaped(raw)))
    if not raw.isascii() and re.search("[\ud800-\udfff]", raw):
        return Unreadable("not UTF-8", shown(_escaped(raw)))
    return dict(zip(header, cells, strict=True))


def _escaped(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
