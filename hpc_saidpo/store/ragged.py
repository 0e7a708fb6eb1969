"""Datasets of a table's file, and its ragged columns: rows of any length, texts or token ids, end to end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

import h5py
import hdf5plugin
import numpy as np

BLOCK_BYTES = 128 * 1024  # of texts: the least that a random read decompresses
ID_BLOCK_BYTES = 256 * 1024  # of token ids, which are mostly read one after the other
BLOCK_ROWS = 8192
TOKEN_TYPES = (np.uint16, np.int32)
WITH_TOKENS = 3  # the first layout (schema_version) with token ids, tables of prompts, and lengths
_LEVEL = 9  # of Zstandard


def put_attributes(item: h5py.File | h5py.Group | h5py.Dataset, values: Mapping[str, Any]) -> None:
    """Write attributes. Texts get a fixed length: HDF5 reserves 4 KiB in a file that has texts of variable length."""
    for name, value in values.items():
        if isinstance(value, str):
            content = value.encode("utf-8", "surrogatepass") or b"\0"
            item.attrs.create(name, content, dtype=h5py.string_dtype("utf-8", len(content)))
        else:
            item.attrs[name] = value


def attributes(item: h5py.File | h5py.Group | h5py.Dataset) -> dict[str, Any]:
    """Read all attributes."""
    return {
        name: value.decode("utf-8", "surrogatepass") if isinstance(value, bytes) else value
        for name, value in item.attrs.items()
    }


def put(group: h5py.Group, name: str, data: np.ndarray, block: int, shuffle: bool | None = None) -> h5py.Dataset:
    """Write an array as a compressed dataset with checksums, in blocks of `block` rows.

    Args:
        shuffle: group the bytes of a block by their place in a number, which helps small integers and hides repeated
            floats. None: for integers only.
    """
    if data.size == 0:
        return group.create_dataset(name, data=data)
    return group.create_dataset(
        name,
        data=data,
        chunks=(min(block, len(data)), *data.shape[1:]),
        shuffle=data.itemsize > 1 and data.dtype.kind in "iu" if shuffle is None else shuffle,
        fletcher32=True,
        **hdf5plugin.Zstd(clevel=_LEVEL),
    )


def put_ragged(group: h5py.Group, rows: list[Any], is_text: bool) -> None:
    """Write a column of texts or token ids into its group."""
    if is_text:
        data, lengths = _join_texts(rows)
        put(group, "bytes", data, BLOCK_BYTES)
    else:
        data, lengths = _join_ids(rows)
        put(group, "values", data, ID_BLOCK_BYTES // data.itemsize, shuffle=False)  # repeated sequences stay visible
    put(group, "lengths", lengths, BLOCK_ROWS)


def _join_texts(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return all texts end to end in UTF-8, and the length of each in bytes."""
    data = "".join(texts).encode("utf-8", "surrogatepass")
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    if lengths.sum() != len(data):  # characters of several bytes
        lengths = np.array([len(text.encode("utf-8", "surrogatepass")) for text in texts])
    return np.frombuffer(data, dtype=np.uint8), lengths


def _join_ids(rows: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return all token ids end to end, in the smallest of TOKEN_TYPES, and the number of ids in each row."""
    data = np.concatenate([np.zeros(0, dtype=np.int64), *rows])
    largest = int(data.max(initial=0))
    if data.min(initial=0) < 0 or largest > np.iinfo(TOKEN_TYPES[-1]).max:
        raise ValueError(f"token ids from {data.min()} to {largest}: they must be from 0 to 2^31 - 1")
    dtype = next(t for t in TOKEN_TYPES if largest <= np.iinfo(t).max)
    return data.astype(dtype), np.array([len(row) for row in rows], dtype=np.int64)


def dataset(group: h5py.Group, name: str) -> h5py.Dataset:
    """Return a dataset of a file.

    Raises:
        KeyError, TypeError: there is none of this name.
        ValueError: its values lie in other files, which HDF5 would read.
    """
    item = group[name]
    if not isinstance(item, h5py.Dataset):
        raise TypeError(f"{name} is not a dataset")
    storage = item.id.get_create_plist()
    if storage.get_layout() == h5py.h5d.VIRTUAL or storage.get_external_count():
        raise ValueError(f"the values of {name} lie in another file, which is not read")
    return item


class Ragged:
    """One column of texts or token ids of an open file. In a file without token ids every row of them is empty.

    Attributes:
        data: all rows end to end.
        offset: [n_rows + 1], where each row begins and the last one ends.
    """

    def __init__(self, file: h5py.File, name: str):
        n_rows, layout = cast(int, file.attrs["n_rows"]), cast(int, file.attrs["schema_version"])
        if name not in file and layout < WITH_TOKENS:
            self.is_text, self.data = False, np.zeros(0, dtype=np.int32)
            self.offset = np.zeros(n_rows + 1, dtype=np.int64)
            return
        self.is_text = f"{name}/bytes" in file
        self.data = dataset(file, f"{name}/{'bytes' if self.is_text else 'values'}")
        if f"{name}/offsets" in file:  # layout 2
            self.offset = dataset(file, f"{name}/offsets")[:]
        else:
            self.offset = np.concatenate([[0], np.cumsum(dataset(file, f"{name}/lengths")[:])])
        if len(self.offset) - 1 != n_rows or self.offset[-1] != len(self.data):
            raise ValueError(f"the lengths of {name} do not fit")

    def __iter__(self) -> Iterator[Any]:
        return iter(self.read(np.arange(len(self.offset) - 1)))

    def read(self, row: np.ndarray) -> list[Any]:
        """Return ascending rows: str, or int32 [T]. Each block is read and decompressed once, neighbours together."""
        if len(row) == 0:
            return []
        start, end = self.offset[row], self.offset[row + 1]
        chunks = getattr(self.data, "chunks", None)
        block = chunks[0] if chunks else 1
        first, beyond = start // block, -(-end // block)
        new_run = np.flatnonzero(np.r_[True, first[1:] > np.maximum.accumulate(beyond)[:-1]])
        rows: list[Any] = []
        for a, b in zip(new_run, np.r_[new_run[1:], len(row)], strict=True):
            base = int(first[a]) * block
            content = self.data[base : max(base, int(beyond[a:b].max()) * block)]
            bounds = zip((start[a:b] - base).tolist(), (end[a:b] - base).tolist(), strict=True)
            rows += _texts(content.tobytes(), bounds) if self.is_text else _ids(content.astype(np.int32), bounds)
        return rows


def _texts(content: bytes, bounds: Iterable[tuple[int, int]]) -> list[str]:
    return [content[start:end].decode("utf-8", "surrogatepass") for start, end in bounds]


def _ids(content: np.ndarray, bounds: Iterable[tuple[int, int]]) -> list[np.ndarray]:
    return [content[start:end] for start, end in bounds]
