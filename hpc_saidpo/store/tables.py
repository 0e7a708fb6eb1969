"""Tables as HDF5 files: the only module that knows how a column lies on disk.

One file is one table. Its attributes say what it is (format, schema_version, table, n_rows) and where it comes from
(run, iteration, stage, policy_hash, config_hash, seed, and what else the stage knows). A numeric column is a dataset of
n_rows; a text column is a group of `bytes`, all texts end to end in UTF-8, and `offsets` [n_rows + 1] into them. Every
dataset has attributes `meaning` and `unit`, is compressed with Zstandard in blocks that can be read alone, and carries
a Fletcher32 checksum of each block.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np

from ..errors import RunError
from ..table import Columns

FORMAT = "hpc_saidpo table"
SCHEMA_VERSION = 2
BLOCK_BYTES = 32 * 1024  # of text: what a random read decompresses at least
BLOCK_ROWS = 8192
Inspect = Callable[[Path, Mapping], None]
_LEVEL = 1  # of Zstandard
_CHECKED_BYTES = 2**24  # read at once by `check`


class Damaged(RunError):
    """A file of a run that cannot be trusted.

    Attributes:
        path: the file.
        what: what happened to it, in words.
    """

    def __init__(self, path: Path, what: str):
        self.path, self.what = path, what
        super().__init__(
            f"{path}: {what}. Set it aside with tools/verify_run.py RUN --repair, and start the same command again: "
            "what it held is made again, and nothing else"
        )


def image(table: Columns, attributes: Mapping) -> bytes:
    """The bytes of a table's file. Built in memory: HDF5 never meets a disk that is full."""
    with h5py.File("image", "w", driver="core", backing_store=False, libver="v110") as file:
        file.attrs.update(
            format=FORMAT, schema_version=SCHEMA_VERSION, table=type(table).__name__, n_rows=len(table), **attributes
        )
        for f in fields(table):
            _put_column(file, f, getattr(table, f.name))
        file.flush()
        return file.id.get_file_image()


def on_disk_name(field_name: str) -> str:
    """A column's name in the file: the field's, without the shape letters."""
    return field_name.rpartition("_")[0]


def _put_column(file, field, column):
    name = on_disk_name(field.name)
    about = {"meaning": field.metadata["meaning"], "unit": field.metadata["unit"]}
    if field.metadata["dtype"] is not str:
        _put(file, name, np.asarray(column, dtype=field.metadata["dtype"]), BLOCK_ROWS).attrs.update(about)
        return
    group = file.create_group(name)
    group.attrs.update(about)
    data, offsets = _encode(list(column))
    _put(group, "bytes", np.frombuffer(data, dtype=np.uint8), BLOCK_BYTES)
    _put(group, "offsets", offsets, BLOCK_ROWS)


def _encode(texts: list[str]) -> tuple[bytes, np.ndarray]:
    """All texts end to end, and where each begins and the last one ends."""
    data: bytes = "".join(texts).encode("utf-8", "surrogatepass")
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    if lengths.sum() != len(data):  # characters of several bytes
        lengths = np.array([len(text.encode("utf-8", "surrogatepass")) for text in texts])
    return data, np.concatenate([[0], np.cumsum(lengths)])


def _put(group, name, data, block):
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
def opened(path: Path, table: type[Columns] | None = None) -> Iterator[h5py.File]:
    """A table's file, open for reading; whatever goes wrong while reading it is told as `Damaged`.

    Args:
        table: the class that the file must hold; None for any.

    Raises:
        Damaged: no such file, or truncated, empty, foreign, of another kind, or its checksums do not fit.
        RunError: written by a version with another layout.
    """
    try:
        # One writer per file, and files appear finished: no lock is needed, and Lustre or NFS may have none.
        with h5py.File(path, "r", locking=False) as file:
            if file.attrs.get("format") != FORMAT:
                raise Damaged(path, "is an HDF5 file of another program")
            if file.attrs["schema_version"] != SCHEMA_VERSION:
                raise RunError(
                    f"{path}: has layout {file.attrs['schema_version']}, this version reads {SCHEMA_VERSION}: go on "
                    "with the version that made the run, or start a new one with run.name=..."
                )
            if table is not None and file.attrs["table"] != table.__name__:
                raise Damaged(path, f"holds {file.attrs['table']}, not {table.__name__}")
            yield file
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, IndexError) as error:
        raise told(path, error) from error


def told(path: Path, error: Exception) -> RunError:
    """What happened to a file that could not be read."""
    try:
        with open(path, "rb") as file:
            start = file.read(8)
    except FileNotFoundError:
        return Damaged(path, "is missing")
    except OSError as unreadable:
        return RunError(f"{path}: cannot be read: {unreadable.strerror}. Make it readable, and start again")
    if "unable to lock" in str(error):
        return RunError(
            f"{path}: HDF5_USE_FILE_LOCKING={os.environ.get('HDF5_USE_FILE_LOCKING')} asks for a lock that the file "
            "system does not give. No lock is needed: unset it, or set it to FALSE"
        )
    if not start:
        return Damaged(path, "is empty (zero length)")
    if start != b"\x89HDF\r\n\x1a\n":
        return Damaged(path, "is not an HDF5 file" if start.strip(b"\0") else "holds zeros where its content should be")
    if "truncated" in str(error):
        return Damaged(path, "is truncated")
    return Damaged(path, f"is damaged: a checksum or its structure does not fit ({error})")


def read(path: Path, table: type[Columns], inspect: Inspect) -> Columns:
    """A whole table, texts included. Raises as `opened` does, and as `inspect`, which is shown the attributes, does."""
    with opened(path, table) as file:
        inspect(path, file.attrs)
        columns = (
            list(Texts(file, on_disk_name(f.name))) if is_text(f) else file[on_disk_name(f.name)][:]
            for f in fields(table)
        )
        return _checked(table(*columns), file)


def check(path: Path) -> dict:
    """Read a whole file, every checksum with it; its attributes.

    Raises as `opened` does.
    """
    with opened(path) as file:
        n_rows = file.attrs["n_rows"]
        for name, item in file.items():
            if isinstance(item, h5py.Group):
                for start in range(0, item["bytes"].shape[0], _CHECKED_BYTES):
                    item["bytes"][start : start + _CHECKED_BYTES]
                Texts(file, name)
            elif len(item[:]) != n_rows:
                raise ValueError(f"{len(item)} rows of {name} where there should be {n_rows}")
        return dict(file.attrs)


def is_text(field) -> bool:
    return field.metadata["dtype"] is str


def _checked(table, file):
    if len(table) != file.attrs["n_rows"]:
        raise ValueError(f"{len(table)} rows where there should be {file.attrs['n_rows']}")
    return table


class Texts:
    """One text column of an open file."""

    def __init__(self, file, name):
        self.data, self.offset = file[f"{name}/bytes"], file[f"{name}/offsets"][:]
        if len(self.offset) != file.attrs["n_rows"] + 1 or self.offset[-1] != len(self.data):
            raise ValueError(f"the offsets of {name} do not fit")

    def __iter__(self):
        return iter(self.read(np.arange(len(self.offset) - 1)))

    def read(self, row: np.ndarray) -> list[str]:
        """Texts of ascending rows. Each block is read and decompressed once; adjacent ones together."""
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
