"""Tables and paragraphs for a terminal. A width is a number of characters; 0: any, for a file or a pipe."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Sequence

GAP = 2  # characters between two columns


def output_width() -> int:
    """The width of standard output if it is a terminal; else the variable COLUMNS, or 0."""
    if sys.stdout.isatty():
        return shutil.get_terminal_size().columns
    columns = os.environ.get("COLUMNS", "")
    return int(columns) if columns.isdecimal() else 0


def aligned(table: Sequence[Sequence[str]], width: int = 0, to_the_right: bool = False) -> list[str]:
    """Return the lines of a table. One that is too wide goes on below, the first column repeated beside the next ones.

    Args:
        table: rows of equal length, the header first.
        to_the_right: cells end at the right edge of their column.
    """
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    parts, used = [[0]], 0
    for i, n in enumerate(widths[1:], 1):
        if width and len(parts[-1]) > 1 and widths[0] + used + GAP + n > width:
            parts, used = [*parts, [0]], 0
        parts[-1].append(i)
        used += GAP + n
    pad = str.rjust if to_the_right else str.ljust
    lines: list[str] = []
    for part in parts:
        lines += [""] * bool(lines)
        lines += [(" " * GAP).join(pad(row[i], widths[i]) for i in part).rstrip() for row in table]
    return lines


def paragraph(text: str, width: int = 0, head: str = "") -> str:
    """Return a text behind a head, in lines of at most `width`; they begin below the text, not below the head."""
    if not width or len(head) + len(text) <= width:
        return head + text
    return textwrap.fill(
        text, max(width, len(head) + 20), initial_indent=head, subsequent_indent=" " * len(head),
        break_on_hyphens=False, break_long_words=False,
    )  # fmt: skip
