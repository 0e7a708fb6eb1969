"""Rows of text files: JSON lines and JSON, compressed with gzip or not."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import re
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

from ..errors import RunError, shown, words_of
from ..reading import read_bounded
from ..settings.base import Limits

RAW_CHARACTERS = 2000  # of a bad row, at most
SHOWN_COLUMNS = 12  # of a table, in a message
# (text, position) -> (value, end). The standard library's stubs lack it.
_SCAN = cast(Callable[[str, int], tuple[Any, int]], json.JSONDecoder().scan_once)  # pyright: ignore[reportAttributeAccessIssue]
_GAP = re.compile(r"[\s,]*")
MIB = _BLOCK_BYTES = 2**20
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


def check_header(path: Path, present: Sequence[str], columns: Columns, limits: Limits) -> None:
    """Refuse a table with too many columns, or without a column of questions.

    Raises:
        RunError: too many columns; no such column: names some columns that are present.
    """
    if len(present) > limits.columns:
        raise RunError(f"{shown(path)} has {len(present):,} columns: {limits.describe('columns')}")
    tops = {name.split(".")[0] for name in columns[0]}
    if not tops.union(columns[0]).intersection(present):
        names = " or ".join(map(repr, columns[0]))
        raise RunError(
            f"{shown(path)} has no column {names}, but {name_some(present)}: {how_to_name('question', present)} etc."
        )


# Names that data sets give to a column.
USUAL = {
    "question": ("problem", "prompt", "query", "instruction", "input", "text"),
    "answer": ("final_answer", "target", "gold", "label", "expected_answer", "ground_truth", "output"),
}


def how_to_name(field: str, present: Container[str]) -> str:
    """Return what to write if a column has another name: with that name, if it is a usual one."""
    usual = next((name for name in USUAL.get(field, ()) if name in present), "")
    return f"set pool.columns.{field}={usual}" if usual else f"name its column with pool.columns.{field}=..."


def name_some(names: Sequence[object]) -> str:
    """Return the first of some names of columns, keys or files, for a message."""
    listed = ", ".join(shown(name, 80) for name in names[:SHOWN_COLUMNS])
    return listed + ", ..." * (len(names) > SHOWN_COLUMNS)


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
                skip_line(file)
                cuts.append(file.tell())
    ends = sorted({*cuts[1:], size})
    return [Span(begin, end, end - begin, int(begin == 0)) for begin, end in zip([0, *ends[:-1]], ends, strict=True)]


def count_lines(path: Path, span: Span) -> int:
    """Count the lines that end in a span."""
    with open(path, "rb") as file:
        file.seek(span.begin)
        blocks = range(span.begin, span.end, _BLOCK_BYTES)
        return sum(file.read(min(_BLOCK_BYTES, span.end - begin)).count(b"\n") for begin in blocks)


def skip_line(file: BinaryIO | TextIO) -> int:
    """Read to the end of a line, however long it is, in bounded memory. Returns the length."""
    n = 0
    while part := file.readline(_BLOCK_BYTES):
        n += len(part)
        if part[-1:] in ("\n", b"\n"):
            break
    return n


def lines_of(file: BinaryIO, limit: int, span: Span | None = None) -> Iterator[tuple[int, bytes]]:
    """Yield (number, line) of a file, or of one of its spans; of a longer line no more than `limit` + 1 bytes.

    Only \\n ends a line, not the other line ends that a JSON string may hold.
    """
    position, end = (file.seek(span.begin), span.end) if span else (0, None)
    for number in itertools.count(span.first if span else 1):
        line = file.readline(limit + 1) if end is None or position < end else b""
        if not line:
            return
        position += len(line)
        if len(line) > limit and not line.endswith(b"\n"):
            position += skip_line(file)
        yield number, line


def jsonl_rows(path: Path, columns: Columns, within: str | None, limits: Limits, span: Span | None = None) -> Rows:
    """Yield (line, row) of a file of JSON lines, or of one of its spans."""
    limit = limits.line_mib * MIB
    with open_bytes(path) as file:
        for number, line in lines_of(file, limit, span):
            if number == 1:
                line = line.removeprefix(_BOM)
            if len(line) > limit:
                yield number, Unreadable(f"the line is too long: {limits.describe('line_mib')}", excerpt(line))
            elif line.strip():
                yield number, _parse(line)


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
        return Unreadable(f"not JSON: {words_of(error)}", excerpt(line))
    return _object(row, line)


def _object(row: Any, raw: bytes | str) -> Mapping | Unreadable:
    if isinstance(row, dict):
        return row
    return Unreadable(f"expected a JSON object, got {type(row).__name__}", excerpt(raw))


def json_rows(path: Path, columns: Columns, within: str | None, limits: Limits) -> Rows:
    """Yield (line, row) of a JSON file: of its list, of the value at the key `within`, or of JSON lines."""
    with open_bytes(path) as file:
        data = read_bounded(file, limits.json_mib * MIB).removeprefix(_BOM)
    if len(data) > limits.json_mib * MIB:
        raise RunError(f"{shown(path)} is too long: {limits.describe('json_mib')}: turn it into JSON lines")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise RunError(f"{shown(path)}:{line}: not UTF-8: byte {data[error.start]:#04x}: convert the file") from error
    del data
    if within or not text.lstrip().startswith("["):
        yield from _json_whole(path, text, within, limits)
    else:
        yield from _json_list(text)


def _json_whole(path: Path, text: str, within: str | None, limits: Limits) -> Rows:
    """Yield the rows at a key; or JSON lines in a file named .json."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        if within or "\n" not in text.strip():
            raise RunError(f"{shown(path)}: not JSON: {words_of(error)}") from error
        yield from jsonl_rows(path, (), None, limits)
        return
    for key in within.split(".") if within else ():
        if not isinstance(value, dict) or key not in value:
            present = name_some(list(value)) if isinstance(value, dict) else type(value).__name__
            raise RunError(f"{shown(path)}: has no {within!r} (pool.columns.rows): there is {present}")
        value = value[key]
    if isinstance(value, dict) and not all(isinstance(item, dict) for item in value.values()):
        value = [value]  # one object is one row
    if not isinstance(value, dict | list):
        raise RunError(f"{shown(path)}: expected a list of JSON objects, got {type(value).__name__}")
    for number, row in enumerate(value.values() if isinstance(value, dict) else value, 1):
        yield number, row if isinstance(row, dict) else _object(row, shown(row, RAW_CHARACTERS))


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
            reason = f"not JSON, and nothing after it can be read: {words_of(error)}"
            yield line, Unreadable(reason, excerpt(text[position:]))
            return
        yield line, _object(row, text[position : position + RAW_CHARACTERS])
        position = end


def _after_gap(text: str, position: int) -> int:
    gap = _GAP.match(text, position)  # matches nothing at least
    return gap.end() if gap else position
