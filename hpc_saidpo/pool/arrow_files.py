"""Rows of Parquet files, and of the Arrow files that `datasets` saves; pyarrow is imported only here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import RunError, shown, words_of
from ..settings.base import Limits
from .text_files import MIB, Columns, Rows, Span, Unreadable, check_header, excerpt

BATCH_ROWS = 1024


def parquet_spans(path: Path, every: int) -> list[Span]:
    """Cut a file into spans of whole row groups, each of at least `every` bytes."""
    pyarrow = _pyarrow(path)
    with _damage_as_run_error(path, pyarrow), pyarrow.parquet.ParquetFile(path) as file:
        groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
    spans, begin, n_bytes, first, n_rows = [], 0, 0, 1, 0
    for end, group in enumerate(groups, 1):
        n_bytes, n_rows = n_bytes + group.total_byte_size, n_rows + group.num_rows
        if n_bytes >= every or end == len(groups):
            spans.append(Span(begin, end, n_bytes, first))
            begin, n_bytes, first, n_rows = end, 0, first + n_rows, 0
    return spans


def parquet_rows(path: Path, columns: Columns, within: str | None, limits: Limits, span: Span | None = None) -> Rows:
    """Yield (row number, row) of a Parquet file, or of one of its spans. `within` is for JSON files only."""
    pyarrow = _pyarrow(path)
    with _damage_as_run_error(path, pyarrow), pyarrow.parquet.ParquetFile(path) as file:
        selected = _select(path, file.schema_arrow.names, columns, limits)
        groups = range(span.begin, span.end) if span else None
        batches = file.iter_batches(BATCH_ROWS, row_groups=groups, columns=selected)
        yield from _table_rows(batches, limits, span.first if span else 1)


def arrow_rows(path: Path, columns: Columns, within: str | None, limits: Limits) -> Rows:
    """Yield (row number, row) of an Arrow file or stream. `within` is for JSON files only."""
    pyarrow = _pyarrow(path)
    with _damage_as_run_error(path, pyarrow), pyarrow.memory_map(str(path)) as file:
        is_stream = file.read(6) != b"ARROW1"
        file.seek(0)
        reader = pyarrow.ipc.open_stream(file) if is_stream else pyarrow.ipc.open_file(file)
        selected = _select(path, reader.schema.names, columns, limits)
        batches = reader if is_stream else (reader.get_batch(i) for i in range(reader.num_record_batches))
        pieces = (b.slice(i, BATCH_ROWS) for b in batches for i in range(0, b.num_rows, BATCH_ROWS))
        yield from _table_rows((piece.select(selected) for piece in pieces), limits)


def _select(path: Path, present: Sequence[str], columns: Columns, limits: Limits) -> list[str]:
    """Return the file's columns that are needed, as a whole or in part: a table may hold every text twice."""
    check_header(path, present, columns, limits)
    needed = {part for names in columns for name in names for part in (name, name.split(".")[0])}
    return [name for name in present if name in needed]


def _table_rows(batches: Iterable[Any], limits: Limits, number: int = 1) -> Rows:
    """Yield the rows of pyarrow record batches, numbered from `number`."""
    for batch in batches:
        # A text of a dictionary is stored once, and repeated in each row: such rows are read one by one.
        is_small = batch.nbytes <= limits.line_mib * MIB and "dictionary<" not in str(batch.schema)
        try:
            rows = batch.to_pylist() if is_small else None
        except (ValueError, OverflowError):
            rows = None
        for row in rows if rows is not None else (_arrow_row(batch.slice(i, 1), limits) for i in range(batch.num_rows)):
            yield number, row
            number += 1


def _arrow_row(batch: Any, limits: Limits) -> Mapping | Unreadable:
    """Return the row of a pyarrow record batch that has one row."""
    if batch.nbytes > limits.line_mib * MIB:
        return Unreadable(f"the row is too long: {limits.describe('line_mib')}", "")
    try:
        return batch.to_pylist()[0]
    except UnicodeDecodeError as error:
        return Unreadable("not UTF-8", excerpt(bytes(error.object)))
    except (ValueError, OverflowError) as error:  # a date that Python does not have
        return Unreadable(words_of(error), "")


@contextmanager
def _damage_as_run_error(path: Path, pyarrow: ModuleType) -> Iterator[None]:
    try:
        yield
    except UnicodeEncodeError as error:
        raise RunError(f"{shown(path)}: pyarrow opens no file with such a name: rename it") from error
    except pyarrow.ArrowException as error:
        words = words_of(error)
        raise RunError(
            f"{shown(path)}: damaged, or its format is not the one of its name ({words}): copy it again"
        ) from error


def _pyarrow(path: Path) -> ModuleType:
    try:
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError as error:
        raise RunError(f"{shown(path)}: reading it needs pyarrow: pip install 'hpc_saidpo[data]'") from error
    return pyarrow
