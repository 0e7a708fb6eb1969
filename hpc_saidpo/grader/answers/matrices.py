"""The rows of matrices and vectors, however they are written."""

from __future__ import annotations

from .shape import Group, Matrix, Several, Shape

Rows = tuple[tuple[Shape, ...], ...]


def rows_of(node: Shape) -> Rows | None:
    """The rows of a matrix, of [[1, 2], [3, 4]], of [1, 2; 3, 4], or of a tuple as a column; None for other nodes."""
    if isinstance(node, Matrix):
        return node.rows
    if not isinstance(node, Group) or node.opener == "\\{":
        return None
    rows = [_cells(item) for item in node.items]
    if rows and all(row is not None and len(row) == len(rows[0] or ()) for row in rows):
        return tuple(row for row in rows if row is not None)
    return tuple((item,) for item in node.items)


def _cells(row: Shape) -> tuple[Shape, ...] | None:
    """The cells of a row of [[1, 2], [3, 4]] or [1, 2; 3, 4]; None for any other item."""
    if isinstance(row, Several):
        return row.items if row.by == "," else None
    return row.items if isinstance(row, Group) and row.opener in "([" else None
