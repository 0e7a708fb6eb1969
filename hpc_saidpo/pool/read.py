"""Files of questions -> rows, one reader per format, streaming."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

from ..errors import RunError
from .arrow_files import arrow_rows, parquet_rows, parquet_spans
from .text_files import Columns, Rows, Span, Unreadable, count_lines, csv_rows, json_rows, jsonl_rows, line_spans, shown

__all__ = ["Rows", "Span", "Unreadable", "format_of", "n_lines", "rows", "shown", "spans"]
_READERS: dict[str, Callable[[Path, Columns, str | None], Rows]] = {
    ".jsonl": jsonl_rows, ".ndjson": jsonl_rows, ".json": json_rows, ".csv": csv_rows, ".tsv": csv_rows,
    ".parquet": parquet_rows, ".arrow": arrow_rows,
}  # fmt: skip
_SPANS = {".jsonl": line_spans, ".ndjson": line_spans, ".parquet": parquet_spans}  # of which a part can be read alone
_COMPRESSED = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")  # Parquet and Arrow compress their own columns


def format_of(path: Path) -> str:
    """The format that a file's name tells, as a suffix; "" when it tells none that can be read."""
    name = path.name.lower()
    suffix = Path(name.removesuffix(".gz")).suffix
    return suffix if suffix in (_COMPRESSED if name.endswith(".gz") else _READERS) else ""


def rows(path: Path, columns: Columns, within: str | None = None, span: Span | None = None) -> Rows:
    """The rows of a file, in its order, with their lines.

    Args:
        columns: those that will be looked at, the question's first; Parquet and Arrow read no others.
        within: the key of a JSON file under which its rows stand; None: the file is the list of them.
        span: one of `spans`, its first line counted; None for the whole file.

    Raises:
        RunError: the file cannot be read, is damaged, or is of a format that its name does not tell.
    """
    form = format_of(path)
    if not form:
        known = f"{', '.join(_READERS)}, or {', '.join(_COMPRESSED)} with .gz"
        raise RunError(f"{path}: its name does not tell its format: {known}")
    with _told(path):
        yield from _READERS[form](path, columns, within, **({"span": span} if span else {}))


def spans(path: Path, every: int) -> list[Span]:
    """Parts of a file of about so many bytes, in its order; [] where it can only be read from its start.

    Raises:
        RunError: as `rows` does.
    """
    with _told(path):
        return _SPANS[format_of(path)](path, every) if format_of(path) in _SPANS else []


def n_lines(path: Path, span: Span) -> int:
    """How many lines end in a span. Raises as `rows` does."""
    with _told(path):
        return count_lines(path, span)


@contextmanager
def _told(path: Path):
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise RunError(f"{path}: its compressed content is damaged or cut off ({error}): copy it again") from error
    except OSError as error:
        remedy = "check pool.path (or evaluate.benchmarks)"
        raise RunError(f"question file {path} cannot be read: {error.strerror or error}: {remedy}") from error
