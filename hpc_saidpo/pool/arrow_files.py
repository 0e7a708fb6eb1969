"""Rows of Parquet files, and of the Arrow files that `datasets` saves; pyarrow is imported only here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..errors import RunError
from .text_files import Columns, Rows, Span, Unreadable, check_header, shown

BATCH_ROWS = 1024


def parquet_spans(path: Path, every: int) -> list[Span]:
    """A file in spans of at least so many bytes, each of whole row groups."""
    pyarrow = _pyarrow(path)
    with _damaged(path, pyarrow), pyarrow.parquet.ParquetFile(path) as file:
        groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
    found, begin, n_bytes, first, n_rows = [], 0, 0, 1, 0
    for end, group in enumerate(groups, 1):
        n_bytes, n_rows = n_bytes + group.total_byte_size, n_rows + group.num_rows
        if n_bytes >= every or end == len(groups):
            found.append(Span(begin, end, n_bytes, first))
            begin, n_bytes, first, n_rows = end, 0, first + n_rows, 0
    return found


def parquet_rows(path: Path, columns: Columns, within: str | None, span: Span | None = None) -> Rows:
    pyarrow = _pyarrow(path)
    with _damaged(path, pyarrow), pyarrow.parquet.ParquetFile(path) as file:
        wanted = _wanted(path, file.schema_arrow.names, columns)
        groups = range(span.begin, span.end) if span else None
        batches = file.iter_batches(BATCH_ROWS, row_groups=groups, columns=wanted)
        yield from _table_rows(batches, span.first if span else 1)


def arrow_rows(path: Path, columns: Columns, within: str | None) -> Rows:
    pyarrow = _pyarrow(path)
    with _damaged(path, pyarrow), pyarrow.memory_map(str(path)) as file:
        is_stream = file.read(6) != b"ARROW1"
        file.seek(0)
        reader = pyarrow.ipc.open_stream(file) if is_stream else pyarrow.ipc.open_file(file)
        wanted = _wanted(path, reader.schema.names, columns)
        batches = reader if is_stream else (reader.get_batch(i) for i in range(reader.num_record_batches))
        pieces = (b.slice(i, BATCH_ROWS) for b in batches for i in range(0, b.num_rows, BATCH_ROWS))
        yield from _table_rows(piece.select(wanted) for piece in pieces)


def _wanted(path: Path, there: Sequence[str], columns: Columns) -> list[str]:
    """Of a file's columns, those that are wanted whole or in part: a table may carry every text twice."""
    check_header(path, there, columns)
    wanted = {part for names in columns for name in names for part in (name, name.split(".")[0])}
    return [name for name in there if name in wanted]


def _table_rows(batches, number: int = 1) -> Rows:
    for batch in batches:
        try:
            found = batch.to_pylist()
        except UnicodeDecodeError:
            found = [_arrow_row(batch.slice(i, 1)) for i in range(batch.num_rows)]
        for row in found:
            yield number, row
            number += 1


def _arrow_row(one) -> Mapping | Unreadable:
    try:
        return one.to_pylist()[0]
    except UnicodeDecodeError as error:
        return Unreadable("not UTF-8", shown(bytes(error.object)))


@contextmanager
def _damaged(path: Path, pyarrow):
    try:
        yield
    except pyarrow.ArrowException as error:
        raise RunError(f"{path}: is damaged, or is not what its name tells ({error}): copy it again") from error


def _pyarrow(path: Path):
    try:
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError as error:
        raise RunError(f"{path}: reading it needs pyarrow: pip install 'hpc_saidpo[data]'") from error
    return pyarrow
