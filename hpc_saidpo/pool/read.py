"""Files of questions -> rows, one reader per format, streaming."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

from ..records import RunError
from .arrow_files import arrow_rows, parquet_rows
from .text_files import Columns, Rows, Unreadable, csv_rows, json_rows, jsonl_rows, shown

__all__ = ["Rows", "Unreadable", "format_of", "rows", "shown"]
_READERS: dict[str, Callable[[Path, Columns, str | None], Rows]] = {
    ".jsonl": jsonl_rows, ".ndjson": jsonl_rows, ".json": json_rows, ".csv": csv_rows, ".tsv": csv_rows,
    ".parquet": parquet_rows, ".arrow": arrow_rows,
}  # fmt: skip
_COMPRESSED = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")  # Parquet and Arrow compress their own columns


def format_of(path: Path) -> str:
    """The format that a file's name tells, as a suffix; "" when it tells none that can be read."""
    name = path.name.lower()
    suffix = Path(name.removesuffix(".gz")).suffix
    return suffix if suffix in (_COMPRESSED if name.endswith(".gz") else _READERS) else ""


def rows(path: Path, columns: Columns, within: str | None = None) -> Rows:
    """The rows of a file, in its order, with their lines.

    Args:
        columns: those that will be looked at, the question's first; Parquet and Arrow read no others.
        within: the key of a JSON file under which its rows stand; None: the file is the list of them.

    Raises:
        RunError: the file cannot be read, is damaged, or is of a format that its name does not tell.
    """
    form = format_of(path)
    if not form:
        known = f"{', '.join(_READERS)}, or {', '.join(_COMPRESSED)} with .gz"
        raise RunError(f"{path}: its name does not tell its format: {known}")
    with _told(path):
        yield from _READERS[form](path, columns, within)


@contextmanager
def _told(path: Path):
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise RunError(f"{path}: its compressed content is damaged or cut off ({error}): copy it again") from error
    except OSError as error:
        remedy = "check pool.path (or evaluate.benchmarks)"
        raise RunError(f"question file {path} cannot be read: {error.strerror or error}: {remedy}") from error
