"""Files of questions -> rows: one streaming reader per format."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import RunError, is_transient, shown, try_again, words_of
from ..settings.base import Limits
from . import text_files
from .arrow_files import arrow_rows, parquet_rows, parquet_spans
from .csv_files import csv_rows
from .text_files import Columns, Rows, Span, Unreadable, excerpt, json_rows, jsonl_rows, line_spans

__all__ = ["Rows", "Span", "Unreadable", "count_lines", "cut", "excerpt", "format_of", "rows"]
_READERS: dict[str, Callable[..., Rows]] = {
    ".jsonl": jsonl_rows, ".ndjson": jsonl_rows, ".json": json_rows, ".csv": csv_rows, ".tsv": csv_rows,
    ".parquet": parquet_rows, ".arrow": arrow_rows,
}  # fmt: skip
DEFAULT_LIMITS = Limits()
# Formats of which a part can be read alone.
_SPANS = {".jsonl": line_spans, ".ndjson": line_spans, ".parquet": parquet_spans}
_COMPRESSED = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")  # Parquet and Arrow compress their columns themselves


def format_of(path: Path) -> str:
    """Return the format of a file by its name, as a suffix; "" for one that cannot be read."""
    name = path.name.lower()
    suffix = Path(name.removesuffix(".gz")).suffix
    return suffix if suffix in (_COMPRESSED if name.endswith(".gz") else _READERS) else ""


def rows(
    path: Path,
    columns: Columns,
    within: str | None = None,
    span: Span | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Rows:
    """Yield (line, row) of a file, in its order.

    Args:
        columns: the columns that are needed, the question's first; Parquet and Arrow read no others.
        within: the key of a JSON file that holds its rows; None: the file is the list of them.
        span: a span of `cut`, its first line numbered; None for the whole file.
        limits: the largest rows, tables and JSON files that are read.

    Raises:
        RunError: the file cannot be read, is damaged, or its name shows no format that can be read.
    """
    form = format_of(path)
    if not form:
        readable = f"{', '.join(_READERS)}, or {', '.join(_COMPRESSED)} with .gz"
        raise RunError(f"{shown(path)}: its name must end with its format: {readable}")
    with _failures_as_run_error(path):
        yield from _READERS[form](path, columns, within, limits, **({"span": span} if span else {}))


def cut(path: Path, every: int) -> list[Span]:
    """Cut a file into spans of about `every` bytes, in its order; [] where it can only be read from its start.

    Raises:
        RunError: as `rows`.
    """
    with _failures_as_run_error(path):
        return _SPANS[format_of(path)](path, every) if format_of(path) in _SPANS else []


def count_lines(path: Path, span: Span) -> int:
    """Count the lines that end in a span.

    Raises:
        RunError: as `rows`.
    """
    with _failures_as_run_error(path):
        return text_files.count_lines(path, span)


@contextmanager
def _failures_as_run_error(path: Path) -> Iterator[None]:
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        words = words_of(error)
        raise RunError(
            f"{shown(path)}: its compressed content is damaged or cut off ({words}): copy it again"
        ) from error
    except MemoryError as error:
        raise RunError(f"{shown(path)}: memory does not suffice to read it: cut it into smaller files") from error
    except OSError as error:
        if is_transient(error):
            raise try_again(f"question file {shown(path)} cannot be read: {error.strerror or error}") from error
        remedy = "check pool.path (or evaluate.benchmarks)"
        words = error.strerror or words_of(error)
        raise RunError(f"question file {shown(path)} cannot be read: {words}: {remedy}") from error
