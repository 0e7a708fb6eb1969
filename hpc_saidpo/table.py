"""A table: columns of equal length, each with the type, meaning and unit with which it is stored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import Field, field, fields
from typing import Any, ClassVar, Self

import numpy as np


def column(dtype: type, meaning: str, unit: str = "1") -> Any:
    """Declare a stored column of a table: its type on disk (`str` for texts), its meaning, its unit."""
    return field(metadata={"dtype": dtype, "meaning": meaning, "unit": unit})


class Columns:
    """A table: every field is a numpy array or a sequence of texts, all of the same length.

    Subclasses are frozen dataclasses. Stored ones declare their fields with `column`. Texts are a list of str, or a
    sequence that leaves them on disk and has the methods `take` and `concat` (`store.texts.StoredText`).
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]  # every subclass is a dataclass

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))

    def __post_init__(self):
        lengths = {f.name: len(getattr(self, f.name)) for f in fields(self)}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"{type(self).__name__}: columns of different lengths: {lengths}")

    @classmethod
    def from_rows(cls, rows: Iterable[Sequence[Any]]) -> Self:
        """Return the table of these rows; values of a row are in the order of the fields."""
        types = [f.metadata["dtype"] for f in fields(cls)]
        columns = list(zip(*rows, strict=True)) or [()] * len(types)
        return cls(*(list(c) if t is str else np.array(c, dtype=t) for c, t in zip(columns, types, strict=True)))

    def take(self, rows: Sequence[int] | np.ndarray) -> Self:
        """Return the table of these rows (integer positions), in their order."""
        rows = np.asarray(rows, dtype=np.int64)
        return type(self)(*(_take(getattr(self, f.name), rows) for f in fields(self)))

    def sorted(self) -> Self:
        """Return the rows in the order in which a stage stores them. Tables written in chunks override this."""
        raise NotImplementedError(f"{type(self).__name__} has no order")

    @classmethod
    def concat(cls, tables: Iterable[Self]) -> Self:
        """Return one table of the rows of several; no tables make the empty table."""
        tables = list(tables)
        return cls(*(_concat([getattr(t, f.name) for t in tables], f.metadata.get("dtype")) for f in fields(cls)))


def _take(column: Any, rows: np.ndarray) -> Any:
    if isinstance(column, list):
        return [column[row] for row in rows]
    return column[rows] if isinstance(column, np.ndarray) else column.take(rows)


def _concat(parts: list[Any], dtype: type | None) -> Any:
    if dtype is str:
        if not parts or any(isinstance(part, list) for part in parts):
            return [text for part in parts for text in part]
        return type(parts[0]).concat(parts)
    return np.concatenate(parts) if parts else np.zeros(0, dtype=dtype)
