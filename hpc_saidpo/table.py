"""A table: columns of equal length, each with the type, meaning and unit with which it is stored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import Field, field, fields
from typing import Any, ClassVar, Self

import numpy as np


class Ids:
    """The type of a column of token ids, for `column`: each row is an integer array [T] of any length."""


NO_IDS = np.zeros(0, dtype=np.int32)  # the row of a text whose token ids are not known


def column(dtype: type, meaning: str, unit: str = "1", earlier: float | str | None = None) -> Any:
    """Declare a stored column of a table: its type on disk, its meaning, its unit.

    Args:
        dtype: a numpy type, `str` for texts, or `Ids` for token ids. A column of token ids may be left out when a table
            is made: then every row is empty.
        earlier: value of every row in a file of an earlier version without this column, or the name on disk of the
            column whose values it has.
    """
    metadata = {"dtype": dtype, "meaning": meaning, "unit": unit, "earlier": earlier}
    return field(metadata=metadata, default=None) if dtype is Ids else field(metadata=metadata)


class Columns:
    """A table: every field is a numpy array, or a sequence of texts or of token ids, all of the same length.

    Subclasses are frozen dataclasses. Stored ones declare their fields with `column`. Texts are a list of str, token
    ids a list of arrays. Either may be a sequence that leaves its rows on disk and has the methods `take` and `concat`
    (`store.stored.StoredRows`).
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]  # every subclass is a dataclass

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))

    def __post_init__(self):
        for f in fields(self):
            if getattr(self, f.name) is None:
                object.__setattr__(self, f.name, [NO_IDS] * len(self))
        lengths = {f.name: len(getattr(self, f.name)) for f in fields(self)}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"{type(self).__name__}: columns of different lengths: {lengths}")

    @classmethod
    def from_rows(cls, rows: Iterable[Sequence[Any]]) -> Self:
        """Return the table of these rows; values of a row are in the order of the fields. Token ids may be left out."""
        types = [f.metadata["dtype"] for f in fields(cls)]
        columns = list(zip(*rows, strict=True)) or [()] * len(types)
        return cls(*(_column(values, dtype) for values, dtype in zip(columns, types[: len(columns)], strict=True)))

    def take(self, rows: Sequence[int] | np.ndarray) -> Self:
        """Return the table of these rows (integer positions), in their order."""
        rows = np.asarray(rows, dtype=np.int64)
        return type(self)(*(_take(getattr(self, f.name), rows) for f in fields(self)))

    def sorted(self) -> Self:
        """Return the rows in the order in which a stage stores them. Tables written in chunks override this."""
        raise NotImplementedError(f"{type(self).__name__} has no order")

    def equals(self, other: Self) -> bool:
        """Whether both tables hold the same rows in the same order, in memory or on disk."""
        return len(self) == len(other) and all(
            _equal(getattr(self, f.name), getattr(other, f.name), f.metadata.get("dtype")) for f in fields(self)
        )

    @classmethod
    def concat(cls, tables: Iterable[Self]) -> Self:
        """Return one table of the rows of several; no tables make the empty table."""
        tables = list(tables)
        return cls(*(_concat([getattr(t, f.name) for t in tables], f.metadata.get("dtype")) for f in fields(cls)))


def _column(values: Sequence[Any], dtype: type) -> Any:
    if dtype is Ids:
        return [np.asarray(row, dtype=np.int32) for row in values]
    return list(values) if dtype is str else np.array(values, dtype=dtype)


def _take(column: Any, rows: np.ndarray) -> Any:
    if isinstance(column, list):
        return [column[row] for row in rows]
    return column[rows] if isinstance(column, np.ndarray) else column.take(rows)


def _equal(a: Any, b: Any, dtype: type | None) -> bool:
    if dtype is Ids:
        return all(map(np.array_equal, a, b))
    return list(a) == list(b) if dtype is str else np.array_equal(a, b)


def _concat(parts: list[Any], dtype: type | None) -> Any:
    if dtype in (str, Ids):
        if not parts or any(isinstance(part, list) for part in parts):
            return [row for part in parts for row in part]
        return type(parts[0]).concat(parts)
    return np.concatenate(parts) if parts else np.zeros(0, dtype=dtype)
