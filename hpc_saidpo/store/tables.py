"""Tables as HDF5 files: the only module that knows the layout of a column on disk.

One file is one table. Its attributes describe the file (format, schema_version, table, n_rows) and its origin (run,
iteration, stage, policy_hash, config_hash, seed, and further facts of the stage). A numeric column is a dataset of
n_rows values. A text column is a group of `bytes`, all texts end to end in UTF-8, and `offsets` [n_rows + 1] into them.
Every dataset has the attributes `meaning` and `unit`, is compressed with Zstandard in blocks that can be read alone,
and carries a Fletcher32 checksum of each block.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, TypeVar

import h5py
import hdf5plugin
import numpy as np

from ..errors import RunError
from ..table import Columns

FORMAT = "hpc_saidpo table"
SCHEMA_VERSION = 2
BLOCK_BYTES = 32 * 1024  # of text: the least that a random read decompresses
BLOCK_ROWS = 8192
READ_ERRORS = (OSError, KeyError, RuntimeError, ValueError, TypeError, IndexError)  # of h5py, for a damaged file
C = TypeVar("C", bound=Columns)
Inspect = Callable[[Path, Mapping], None]
_LEVEL = 1  # of Zstandard
_CHECKED_BYTES = 2**24  # read at once by `check`


class Damaged(RunError):
    """A damaged file of a run.

    Attributes:
        path: the file.
        problem: the damage, as the end of a sentence that begins with the path.
    """

    def __init__(self, path: Path, problem: str):
        self.path, self.problem = path, problem
        super().__init__(
            f"{path}: {problem}. Set it aside with `hpc-saidpo verify RUN --repair`, and start the same command again: "
            "the content of this file is computed again, and nothing else"
        )


def encode(table: Columns, attributes: Mapping[str, Any]) -> bytes:
    """Return the bytes of a table's file. It is built in memory: HDF5 never writes to a full disk."""
    with h5py.File("image", "w", driver="core", backing_store=False, libver="v110") as file:
        file.attrs.update(
            format=FORMAT, schema_version=SCHEMA_VERSION, table=type(table).__name__, n_rows=len(table), **attributes
        )
        for f in fields(table):
            _put_column(file, f, getattr(table, f.name))
        file.flush()
        return file.id.get_file_image()


def on_disk_name(field_name: str) -> str:
    """Return a column's name in the file: the field's name without the shape letters."""
    return field_name.rpartition("_")[0]


def _put_column(file: h5py.File, field: Field, column: Any) -> None:
    name = on_disk_name(field.name)
    about = {"meaning": field.metadata["meaning"], "unit": field.metadata["unit"]}
    if not is_text(field):
        _put(file, name, np.asarray(column, dtype=field.metadata["dtype"]), BLOCK_ROWS).attrs.update(about)
        return
    group = file.create_group(name)
    group.attrs.update(about)
    data, offsets = _join(list(column))
    _put(group, "bytes", np.frombuffer(data, dtype=np.uint8), BLOCK_BYTES)
    _put(group, "offsets", offsets, BLOCK_ROWS)


def _join(texts: list[str]) -> tuple[bytes, np.ndarray]:
    """Return all texts end to end, and the offsets at which each text begins and the last one ends."""
    data = "".join(texts).encode("utf-8", "surrogatepass")
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    if lengths.sum() != len(data):  # characters of several bytes
        lengths = np.array([len(text.encode("utf-8", "surrogatepass")) for text in texts])
    return data, np.concatenate([[0], np.cumsum(lengths)])


def _put(group: h5py.Group, name: str, data: np.ndarray, block: int) -> h5py.Dataset:
    if data.size == 0:
        return group.create_dataset(name, data=data)
    return group.create_dataset(
        name,
        data=data,
        chunks=(min(block, len(data)), *data.shape[1:]),
        shuffle=data.itemsize > 1,
        fletcher32=True,
        **hdf5plugin.Zstd(clevel=_LEVEL),
    )


@contextmanager
def open_table(path: Path, table: type[Columns] | None = None) -> Iterator[h5py.File]:
    """Open a table's file for reading. Every error while it is read is raised as `Damaged`.

    Args:
        table: the class that the file must hold; None for any.

    Raises:
        Damaged: the file is missing, truncated, empty, foreign, of another kind, or its checksums do not fit.
        RunError: another version wrote the file, in another layout.
    """
    try:
        # One writer per file, and files appear finished: no lock is needed, and Lustre or NFS may have none.
        with h5py.File(path, "r", locking=False) as file:
            if file.attrs.get("format") != FORMAT:
                raise Damaged(path, "is an HDF5 file of another program")
            if file.attrs["schema_version"] != SCHEMA_VERSION:
                raise RunError(
                    f"{path}: has layout {file.attrs['schema_version']}, this version reads {SCHEMA_VERSION}: resume "
                    "with the version that made the run, or start a new run with run.name=..."
                )
            if table is not None and file.attrs["table"] != table.__name__:
                raise Damaged(path, f"holds {file.attrs['table']}, not {table.__name__}")
            yield file
    except READ_ERRORS as error:
        raise explain(path, error) from error


def explain(path: Path, error: Exception) -> RunError:
    """Return the exception for a file that could not be read: `Damaged`, or RunError if the file may be intact."""
    try:
        with open(path, "rb") as file:
            start = file.read(8)
    except FileNotFoundError:
        return Damaged(path, "is missing")
    except OSError as unreadable:
        return RunError(f"{path}: cannot be read: {unreadable.strerror}. Make it readable, and start again")
    if "unable to lock" in str(error):
        return RunError(
            f"{path}: HDF5_USE_FILE_LOCKING={os.environ.get('HDF5_USE_FILE_LOCKING')} requires a lock that the file "
            "system does not grant. No lock is needed: unset the variable, or set it to FALSE"
        )
    if not start:
        return Damaged(path, "is empty (zero length)")
    if start != b"\x89HDF\r\n\x1a\n":
        return Damaged(path, "is not an HDF5 file" if start.strip(b"\0") else "holds zeros where its content should be")
    if "truncated" in str(error):
        return Damaged(path, "is truncated")
    return Damaged(path, f"is damaged: a checksum or its structure does not fit ({error})")


def read(path: Path, table: type[C], inspect: Inspect) -> C:
    """Read a whole table, texts included.

    Args:
        inspect: called with the path and the attributes of the file; may raise.

    Raises:
        Damaged, RunError: as `open_table`, and as `inspect`.
    """
    with open_table(path, table) as file:
        inspect(path, file.attrs)
        columns = (
            list(Texts(file, on_disk_name(f.name))) if is_text(f) else dataset(file, on_disk_name(f.name))[:]
            for f in fields(table)
        )
        content = table(*columns)
        if len(content) != file.attrs["n_rows"]:
            raise ValueError(f"{len(content)} rows where there should be {file.attrs['n_rows']}")
        return content


def check(path: Path) -> dict[str, Any]:
    """Read a whole file and with it every checksum. Return the file's attributes.

    Raises:
        Damaged, RunError: as `open_table`.
    """
    with open_table(path) as file:
        n_rows = file.attrs["n_rows"]
        for name, item in file.items():
            if isinstance(item, h5py.Group):
                texts = dataset(item, "bytes")
                for start in range(0, texts.shape[0], _CHECKED_BYTES):
                    texts[start : start + _CHECKED_BYTES]
                Texts(file, name)
            elif (n_read := len(dataset(file, name)[:])) != n_rows:
                raise ValueError(f"{n_read} rows of {name} where there should be {n_rows}")
        return dict(file.attrs)


def dataset(group: h5py.Group, name: str) -> h5py.Dataset:
    """Return a dataset of a file.

    Raises:
        KeyError, TypeError: there is none of this name.
    """
    item = group[name]
    if not isinstance(item, h5py.Dataset):
        raise TypeError(f"{name} is not a dataset")
    return item


def is_text(field: Field) -> bool:
    """Whether a column holds texts."""
    return field.metadata["dtype"] is str


class Texts:
    """One text column of an open file."""

    def __init__(self, file: h5py.File, name: str):
        self.data, self.offset = dataset(file, f"{name}/bytes"), dataset(file, f"{name}/offsets")[:]
        if len(self.offset) - 1 != file.attrs["n_rows"] or self.offset[-1] != len(self.data):
            raise ValueError(f"the offsets of {name} do not fit")

    def __iter__(self) -> Iterator[str]:
        return iter(self.read(np.arange(len(self.offset) - 1)))

    def read(self, row: np.ndarray) -> list[str]:
        """Return the texts of ascending rows. Each block is read and decompressed once, neighbours together."""
        if len(row) == 0:
            return []
        start, end = self.offset[row], self.offset[row + 1]
        block = self.data.chunks[0] if self.data.chunks else 1
        first, beyond = start // block, -(-end // block)
        new_run = np.flatnonzero(np.r_[True, first[1:] > np.maximum.accumulate(beyond)[:-1]])
        texts = []
        for a, b in zip(new_run, np.r_[new_run[1:], len(row)], strict=True):
            base = int(first[a]) * block
            content = self.data[base : max(base, int(beyond[a:b].max()) * block)].tobytes()
            texts += [
                content[s:e].decode("utf-8", "surrogatepass")
                for s, e in zip((start[a:b] - base).tolist(), (end[a:b] - base).tolist(), strict=True)
            ]
        return texts
