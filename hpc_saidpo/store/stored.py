"""Columns of texts and of token ids that stay on disk: rows of any number of files, read on access."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np

from ..errors import is_transient
from . import disk
from .ragged import Ragged, attributes, dataset
from .tables import READ_ERRORS, C, Damaged, Inspect, explain, is_ragged, on_disk_name, open_table

OPEN_FILES = 512  # that a reader keeps open: half of the default limit of a process
OPEN_COLUMNS = 16  # of all files, whose offsets (8 bytes per row) a reader keeps: memory does not grow with the pool
# HDF5 would keep 1 MiB of decompressed blocks of each column of each file; a block is seldom read twice in a row.
CACHE_BYTES = 0


class _Readers:
    """Open files and columns, most recently used last. Each process opens the files itself."""

    def __init__(self):
        self._files: dict[Path, h5py.File] = {}
        self._columns: dict[tuple[Path, str], Ragged] = {}

    def __reduce__(self):
        return _Readers, ()

    def rows(self, path: Path, column: str, row: np.ndarray) -> list[Any]:
        """Return ascending rows of a column of one file.

        Raises:
            Damaged, RunError: as `tables.read`.
        """
        return disk.persist(path, lambda: self._rows(path, column, row))

    def _rows(self, path: Path, column: str, row: np.ndarray) -> list[Any]:
        try:
            file = self._file(path)
            ragged = self._columns.pop((path, column), None) or Ragged(file, column)
            while len(self._columns) >= OPEN_COLUMNS:
                self._columns.pop(next(iter(self._columns)))
            self._columns[path, column] = ragged
            return ragged.read(row)
        except READ_ERRORS as error:
            self._forget(path)  # it is opened again at the next access
            if is_transient(error):
                raise
            raise explain(path, error) from error

    def _file(self, path: Path) -> h5py.File:
        file = self._files.pop(path, None)
        if file is None:
            with open_table(path):
                file = h5py.File(path, "r", locking=False, rdcc_nbytes=CACHE_BYTES)
            while len(self._files) >= OPEN_FILES:
                self._forget(next(iter(self._files)))
        self._files[path] = file
        return file

    def _forget(self, path: Path) -> None:
        """Close a file, if it is open."""
        self._columns = {key: ragged for key, ragged in self._columns.items() if key[0] != path}
        file = self._files.pop(path, None)
        if file is not None:
            file.close()


class StoredRows(Sequence):
    """A column of texts (str) or token ids (int32 [T]) of any number of files that stays on disk: read on access.

    It is pickled as file names and row numbers. Each process opens the files itself.

    Args:
        files: the files.
        column: name of the column in the files.
        file_R, row_R: file of each row, and its place in that file.
        readers: open files to share with other columns.
    """

    FEW, BATCH = 32, 4096  # rows that are read at once: at first, and at most
    BATCH_LENGTH = 2**24  # characters or tokens that are read at once, about

    def __init__(
        self,
        files: Sequence[Path],
        column: str,
        file_R: np.ndarray,
        row_R: np.ndarray,
        readers: _Readers | None = None,
    ):
        self.files, self.column, self.file_R, self.row_R = list(files), column, file_R, row_R
        self._readers = readers or _Readers()

    @staticmethod
    def locations(n_rows: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return the file of every row, and its row in that file, for files with these numbers of rows."""
        file_R = np.repeat(np.arange(len(n_rows), dtype=np.int32), n_rows)
        return file_R, np.concatenate([np.arange(n, dtype=np.int32) for n in n_rows])

    def __len__(self) -> int:
        return len(self.row_R)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.take(np.arange(*index.indices(len(self))))
        return self.read([range(len(self))[index]])[0]

    def __iter__(self) -> Iterator[Any]:
        start, size = 0, self.FEW
        while start < len(self):
            values = self.read(np.arange(start, min(start + size, len(self))))
            yield from values
            start += len(values)
            # As many rows as usual ones; fewer where they are long.
            size = min(self.BATCH, 4 * size, max(1, size * self.BATCH_LENGTH // max(1, sum(map(len, values)))))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        pairs = zip(self, other, strict=False)
        return len(self) == len(other) and all(a == b if isinstance(a, str) else np.array_equal(a, b) for a, b in pairs)

    def take(self, rows: np.ndarray | Sequence[int]) -> StoredRows:
        """Return the column of these rows. Nothing is read."""
        return StoredRows(self.files, self.column, self.file_R[rows], self.row_R[rows], self._readers)

    @classmethod
    def concat(cls, parts: Sequence[StoredRows]) -> StoredRows:
        """Join several columns of the same name. Nothing is read."""
        files = list(dict.fromkeys(path for part in parts for path in part.files))
        position = {path: i for i, path in enumerate(files)}
        renumbered = [np.array([position[p] for p in part.files], dtype=np.int32)[part.file_R] for part in parts]
        return cls(files, parts[0].column, np.concatenate(renumbered), np.concatenate([p.row_R for p in parts]))

    def read(self, rows: np.ndarray | Sequence[int]) -> list[Any]:
        """Return these rows, in their order.

        Raises:
            Damaged: a file is missing, or its checksums do not fit.
        """
        rows = np.asarray(rows, dtype=np.int64)
        file, row = self.file_R[rows], self.row_R[rows]
        order = np.lexsort((row, file))
        found: list[Any] = [None] * len(order)
        for positions in np.split(order, np.flatnonzero(np.diff(file[order])) + 1) if len(order) else []:
            of_file = self._readers.rows(self.files[file[positions[0]]], self.column, row[positions])
            for position, content in zip(positions.tolist(), of_file, strict=True):
                found[position] = content
        return found


def read_many(paths: Sequence[Path], table: type[C], inspect: Inspect, rows: np.ndarray | None = None) -> C:
    """Read several files as one table, in the order of the files: numbers to memory, texts and token ids stay on disk.

    Args:
        rows: rows to return, in this order; None for all.

    Raises:
        Damaged, RunError: as `tables.read`.
    """
    numbers: dict[str, list[np.ndarray]] = {f.name: [] for f in fields(table) if not is_ragged(f)}

    def read_numbers(path: Path) -> tuple[int, list[np.ndarray]]:
        with open_table(path, table) as file:
            inspect(path, attributes(file))
            n = int(cast(int, file.attrs["n_rows"]))
            columns = [dataset(file, on_disk_name(name))[:] for name in numbers]
        for name, column in zip(numbers, columns, strict=True):
            if len(column) != n:
                raise Damaged(path, f"has {len(column)} rows of {name} where there should be {n}")
        return n, columns

    n_rows = []
    for path in paths:
        n, columns = disk.persist(path, lambda path=path: read_numbers(path))
        n_rows.append(n)
        for parts, column in zip(numbers.values(), columns, strict=True):
            parts.append(column)
    if not paths:
        return table.concat([])
    chosen = slice(None) if rows is None else rows
    # the same arrays for every column
    file_R, row_R = (location_R[chosen] for location_R in StoredRows.locations(n_rows))
    readers = _Readers()
    return table(
        *(
            StoredRows(paths, on_disk_name(f.name), file_R, row_R, readers)
            if is_ragged(f)
            else np.concatenate(numbers[f.name])[chosen]
            for f in fields(table)
        )
    )
