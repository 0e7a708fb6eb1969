"""Texts of any number of files that stay on disk until they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import h5py
import numpy as np

from ..table import Columns
from .tables import Damaged, Inspect, Texts, is_text, on_disk_name, opened, told

OPEN_FILES = 512  # a reader keeps this many open: half of what a process may open by default


class _Readers:
    """Open files, the last ones used; each process opens its own."""

    def __init__(self):
        self._open: dict[Path, tuple[h5py.File, dict[str, Texts]]] = {}

    def __reduce__(self):
        return _Readers, ()

    def texts(self, path: Path, column: str, row: np.ndarray) -> list[str]:
        """Texts of ascending rows of one file. Raises as `opened` does."""
        try:
            file, columns = self._open.pop(path, (None, {}))
            if file is None:
                with opened(path):
                    file = h5py.File(path, "r", locking=False)
                while len(self._open) >= OPEN_FILES:
                    self._open.pop(next(iter(self._open)))[0].close()
            self._open[path] = file, columns
            if column not in columns:
                columns[column] = Texts(file, column)
            return columns[column].read(row)
        except (OSError, KeyError, RuntimeError, ValueError, TypeError, IndexError) as error:
            raise told(path, error) from error


class StoredText(Sequence):
    """A text column of any number of files that stays on disk: rows are read when they are asked for.

    Travels between processes as file names and row numbers; each process opens the files itself.
    """

    BATCH = 4096

    def __init__(self, files: Sequence[Path], column: str, file_R: np.ndarray, row_R: np.ndarray, readers=None):
        self.files, self.column, self.file_R, self.row_R = list(files), column, file_R, row_R
        self._readers = readers or _Readers()

    @staticmethod
    def locations(n_rows: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """(file, row in the file) of every row of files with so many rows."""
        file_R = np.repeat(np.arange(len(n_rows), dtype=np.int32), n_rows)
        return file_R, np.concatenate([np.arange(n, dtype=np.int32) for n in n_rows])

    def __len__(self) -> int:
        return len(self.row_R)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return self.take(np.arange(*index.indices(len(self))))
        return self.read([range(len(self))[index]])[0]

    def __iter__(self):
        for start in range(0, len(self), self.BATCH):
            yield from self.read(np.arange(start, min(start + self.BATCH, len(self))))

    def __eq__(self, other):
        return list(self) == list(other) if isinstance(other, Sequence) else NotImplemented

    def take(self, rows) -> StoredText:
        """The column of these rows; nothing is read."""
        return StoredText(self.files, self.column, self.file_R[rows], self.row_R[rows], self._readers)

    @classmethod
    def concat(cls, parts: Sequence[StoredText]) -> StoredText:
        """One column from several of the same name; nothing is read."""
        files = list(dict.fromkeys(path for part in parts for path in part.files))
        position = {path: i for i, path in enumerate(files)}
        renumbered = [np.array([position[p] for p in part.files], dtype=np.int32)[part.file_R] for part in parts]
        return cls(files, parts[0].column, np.concatenate(renumbered), np.concatenate([p.row_R for p in parts]))

    def read(self, rows) -> list[str]:
        """The texts of these rows, in their order.

        Raises:
            Damaged: a file is gone, or its checksums do not fit.
        """
        rows = np.asarray(rows, dtype=np.int64)
        file, row = self.file_R[rows], self.row_R[rows]
        order = np.lexsort((row, file))
        texts: list[str] = [""] * len(order)
        for own in np.split(order, np.flatnonzero(np.diff(file[order])) + 1) if len(order) else []:
            found = self._readers.texts(self.files[file[own[0]]], self.column, row[own])
            for position, text in zip(own.tolist(), found, strict=True):
                texts[position] = text
        return texts


def read_many(paths: Sequence[Path], table: type[Columns], inspect: Inspect, rows: np.ndarray | None = None) -> Columns:
    """Tables in several files as one, in the order of the files: numbers in memory, texts left on disk.

    Args:
        rows: which rows of all, in which order; None for all.

    Raises as `read` does.
    """
    numbers: dict[str, list[np.ndarray]] = {f.name: [] for f in fields(table) if not is_text(f)}
    n_rows = []
    for path in paths:
        with opened(path, table) as file:
            inspect(path, file.attrs)
            n_rows.append(int(file.attrs["n_rows"]))
            for name, parts in numbers.items():
                parts.append(file[on_disk_name(name)][:])
                if len(parts[-1]) != n_rows[-1]:
                    raise Damaged(path, f"has {len(parts[-1])} rows of {name} where there should be {n_rows[-1]}")
    if not paths:
        return table.concat([])
    chosen = slice(None) if rows is None else rows
    where = [location_R[chosen] for location_R in StoredText.locations(n_rows)]  # the same arrays for every column
    readers = _Readers()
    return table(
        *(
            StoredText(paths, on_disk_name(f.name), *where, readers)
            if is_text(f)
            else np.concatenate(numbers[f.name])[chosen]
            for f in fields(table)
        )
    )
