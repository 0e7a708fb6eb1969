"""Tables as HDF5 files: the only module that knows the layout of a column on disk.

One file is one table. Its attributes describe the file (format, schema_version, table, n_rows) and its origin (run,
iteration, stage, policy_hash, config_hash, seed, and further facts of the stage). A numeric column is a dataset of
n_rows values. A column of texts is a group of `bytes`, all texts end to end in UTF-8, and `lengths` [n_rows] in bytes.
A column of token ids is a group of `values`, all rows end to end as uint16, or as int32 where an id needs it, and
`lengths` in ids. Every column has the attributes `meaning` and `unit`. Every dataset is compressed with Zstandard in
blocks that can be read alone, and carries a Fletcher32 checksum of each block.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np

from ..errors import RunError, is_transient, shown, words_of
from ..reading import open_file
from ..table import Columns, Ids
from .ragged import Ragged, attributes, dataset, put, put_attributes, put_ragged

FORMAT = "hpc_saidpo table"
SCHEMA_VERSION = 3
READABLE = (2, 3)
BLOCK_ROWS = 8192
READ_ERRORS = (OSError, KeyError, RuntimeError, ValueError, TypeError, IndexError)  # of h5py, for a damaged file
C = TypeVar("C", bound=Columns)
Inspect = Callable[[Path, Mapping], None]
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
            f"{shown(path)}: {problem}. Set it aside with `hpc-saidpo verify RUN --repair`, and start the same command "
            "again: the content of this file is computed again, and nothing else"
        )


def encode(table: Columns, facts: Mapping[str, Any]) -> bytes:
    """Return the bytes of a table's file. It is built in memory: HDF5 never writes to a full disk."""
    # Not the image of a file in memory: that of an open file has a wrong checksum in versions of HDF5 before 2.0.
    image = io.BytesIO()
    with h5py.File(image, "w", libver="v110") as file:
        about = {
            "format": FORMAT,
            "schema_version": SCHEMA_VERSION,
            "table": type(table).__name__,
            "n_rows": len(table),
        }
        put_attributes(file, {**about, **facts})
        for f in fields(table):
            _put_column(file, f, getattr(table, f.name))
    return image.getvalue()


def on_disk_name(field_name: str) -> str:
    """Return a column's name in the file: the field's name without the shape letters."""
    return field_name.rpartition("_")[0]


def is_ragged(field: Field) -> bool:
    """Whether the rows of a column have different lengths: texts or token ids."""
    return field.metadata["dtype"] in (str, Ids)


def _put_column(file: h5py.File, field: Field, column: Any) -> None:
    name = on_disk_name(field.name)
    about = {"meaning": field.metadata["meaning"], "unit": field.metadata["unit"]}
    if is_ragged(field):
        place = file.create_group(name)
        put_ragged(place, list(column), field.metadata["dtype"] is str)
    else:
        place = put(file, name, np.asarray(column, dtype=field.metadata["dtype"]), BLOCK_ROWS)
    put_attributes(place, about)


def check_layout(path: Path, version: Any, readable: tuple[int, ...]) -> None:
    """Check the layout (schema_version) of a file.

    Raises:
        RunError: it is none of the readable ones.
    """
    if version not in readable:
        layouts = " and ".join(map(str, readable))
        raise RunError(
            f"{shown(path)}: has layout {version}, this version {'resumes' if len(readable) == 1 else 'reads'} "
            f"{layouts}: continue with the version that made the run, or start a new run with run.name=..."
        )


@contextmanager
def open_table(path: Path, table: type[Columns] | None = None) -> Iterator[h5py.File]:
    """Open a table's file for reading. Every error while it is read is raised as `Damaged`.

    Args:
        table: the class that the file must hold; None for any.

    Raises:
        OSError: the file system failed in a way that passes: read inside `disk.persist`.
        Damaged: the file is missing, truncated, empty, foreign, of another kind, or its checksums do not fit.
        RunError: another version wrote the file, in another layout.
    """
    try:
        os.close(open_file(path))  # HDF5 would wait for the writer of a pipe
        # One writer per file, and files appear finished: no lock is needed, and Lustre or NFS may have none.
        with h5py.File(path, "r", locking=False) as file:
            _require_own_content(file)
            facts = attributes(file)
            if facts.get("format") != FORMAT:
                raise Damaged(path, "is an HDF5 file of another program")
            check_layout(path, facts["schema_version"], READABLE)
            if table is not None and facts["table"] != table.__name__:
                raise Damaged(path, f"holds {facts['table']}, not {table.__name__}")
            yield file
    except READ_ERRORS as error:
        if is_transient(error):
            raise
        raise explain(path, error) from error


def _require_own_content(file: h5py.File) -> None:
    """Make sure that everything in a file lies in this file: HDF5 follows links to others. Datasets: see `dataset`.

    Raises:
        ValueError: it has a link to another file, or by name to another object.
    """

    def is_foreign(name: bytes, link: Any) -> bytes | None:
        hard = h5py.h5l.TYPE_HARD  # pyright: ignore[reportAttributeAccessIssue] - the stubs leave the module out
        return None if link.type == hard else name

    if name := file.id.links.visit(is_foreign, info=True):
        raise ValueError(f"{name.decode(errors='replace')} is a link, which is not followed")


def explain(path: Path, error: Exception) -> RunError:
    """Return the exception for a file that could not be read: `Damaged`, or RunError if the file may be intact."""
    try:
        with open(open_file(path), "rb") as file:
            start = file.read(8)
    except ValueError as foreign:
        return Damaged(path, f"is not an HDF5 file ({foreign})")
    except FileNotFoundError:
        return Damaged(path, "is missing")
    except OSError as unreadable:
        if is_transient(unreadable):
            raise
        return RunError(f"{shown(path)}: cannot be read: {unreadable.strerror}. Make it readable, and start again")
    if "unable to lock" in str(error):
        return RunError(
            f"{shown(path)}: HDF5_USE_FILE_LOCKING={os.environ.get('HDF5_USE_FILE_LOCKING')} requires a lock that the "
            "file system does not grant. No lock is needed: unset the variable, or set it to FALSE"
        )
    if not start:
        return Damaged(path, "is empty (zero length)")
    if start != b"\x89HDF\r\n\x1a\n":
        return Damaged(path, "is not an HDF5 file" if start.strip(b"\0") else "holds zeros where its content should be")
    if "truncated" in str(error):
        return Damaged(path, "is truncated")
    return Damaged(path, f"is damaged: a checksum or its structure does not fit ({words_of(error)})")


def read(path: Path, table: type[C], inspect: Inspect) -> C:
    """Read a whole table, texts and token ids included.

    Args:
        inspect: called with the path and the attributes of the file; may raise.

    Raises:
        OSError, Damaged, RunError: as `open_table`, and as `inspect`.
    """
    with open_table(path, table) as file:
        inspect(path, attributes(file))
        columns = (
            list(Ragged(file, on_disk_name(f.name))) if is_ragged(f) else _numbers(file, f) for f in fields(table)
        )
        content = table(*columns)
        if len(content) != file.attrs["n_rows"]:
            raise ValueError(f"{len(content)} rows where there should be {file.attrs['n_rows']}")
        return content


def _numbers(file: h5py.File, column: Field) -> np.ndarray:
    """Read a numeric column; one that a file of an earlier version lacks has the values that its table names."""
    name, earlier = on_disk_name(column.name), column.metadata["earlier"]
    if name in file or earlier is None or attributes(file)["schema_version"] >= SCHEMA_VERSION:
        return dataset(file, name)[:]
    if isinstance(earlier, str):
        return dataset(file, earlier)[:]
    return np.full(int(attributes(file)["n_rows"]), earlier, dtype=column.metadata["dtype"])


def check(path: Path) -> dict[str, Any]:
    """Read a whole file and with it every checksum. Return the file's attributes.

    Raises:
        Damaged, RunError: as `open_table`.
    """
    with open_table(path) as file:
        n_rows = file.attrs["n_rows"]
        for name, item in file.items():
            if isinstance(item, h5py.Group):
                data = Ragged(file, name).data
                for start in range(0, len(data), _CHECKED_BYTES):
                    data[start : start + _CHECKED_BYTES]
            elif (n_read := len(dataset(file, name)[:])) != n_rows:
                raise ValueError(f"{n_read} rows of {name} where there should be {n_rows}")
        return attributes(file)
