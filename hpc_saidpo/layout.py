"""Tables and paragraphs that fit a terminal. A width is a number of columns; 0: no limit, as in a file or a pipe."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from rich.cells import cell_len

GAP = 2  # characters between two columns


def aligned(table: Sequence[Sequence[str]], width: int = 0, to_the_right: bool = False) -> list[str]:
    """Return the lines of a table. One that is too wide goes on below, the first column repeated beside the next ones.

    Args:
        table: rows of equal length, the header first.
        to_the_right: cells end at the right edge of their column.
    """
    widths = [max(map(cell_len, column)) for column in zip(*table, strict=True)]  # a Chinese letter takes two columns
    parts, used = [[0]], 0
    for i, n in enumerate(widths[1:], 1):
        if width and len(parts[-1]) > 1 and widths[0] + used + GAP + n > width:
            parts, used = [*parts, [0]], 0
        parts[-1].append(i)
        used += GAP + n
    lines: list[str] = []

    def padded(cell: str, i: int) -> str:
        blanks = " " * (widths[i] - cell_len(cell))
        return blanks + cell if to_the_right else cell + blanks

    for part in parts:
        lines += [""] * bool(lines)
        lines += [(" " * GAP).join(padded(row[i], i) for i in part).rstrip() for row in table]
    return lines


def paragraph(text: str, width: int = 0, head: str = "") -> str:
    """Return a text behind a head, in lines of at most `width`; they begin below the text, not below the head."""
    if not width or len(head) + len(text) <= width:
        return head + text
    return textwrap.fill(
        text, max(width, len(head) + 20), initial_indent=head, subsequent_indent=" " * len(head),
        break_on_hyphens=False, break_long_words=False,
    )  # fmt: skip
