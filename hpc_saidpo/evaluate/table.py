"""The figures of an evaluation as Markdown, aligned for a console too."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ..errors import shown

NAME_CHARS, NOTE_CHARS = 60, 1000  # of a subject or level, and of a remark, in a table
HEADER = ("questions", "responses", "accuracy [95 %]", "pass@k", "majority", "truncated", "tokens", "ungradable")


def percent(share: float | None) -> str:
    """A share of 1 as a percentage; "-" for None."""
    return "-" if share is None else f"{100 * share:.1f} %"


def points(change: float, sign: str = "+") -> str:
    """A change of a share as percentage points. A half is rounded away from zero, however it is computed."""
    return format(100 * change + math.copysign(1e-9, change), f"{sign}.1f")


def interval(accuracy: float | None, low95: float | None, high95: float | None) -> str:
    """Accuracy and its 95 % interval as percentages; "-" for None."""
    return (
        "-"
        if accuracy is None or low95 is None or high95 is None
        else f"{percent(accuracy)} [{100 * low95:.1f}, {100 * high95:.1f}]"
    )


def text(policy: str, rows: Sequence[Mapping], notes: Sequence[str]) -> str:
    """An evaluation as Markdown: a row for each benchmark, then a table of its subjects and one of its levels.

    Args:
        rows: rows of `score.rows`, each with the benchmark's name.
        notes: remarks for readers of the figures; a line each.
    """
    whole = [row for row in rows if row["by"] == "all"]
    parts = [f"# Evaluation of {shown(policy)}", _table("benchmark", [(row["benchmark"], row) for row in whole])]
    parts += ["\n".join(f"- {shown(note, NOTE_CHARS)}" for note in notes)] if notes else []
    for benchmark in (row["benchmark"] for row in whole):
        for by in ("subject", "level"):
            part = [(row["value"] or "-", row) for row in rows if (row["benchmark"], row["by"]) == (benchmark, by)]
            if part:
                parts += [f"## {shown(benchmark)} by {by}", _table(by, part)]
    return "\n\n".join(parts) + "\n"


def _table(first: str, rows: Sequence[tuple[str, Mapping]]) -> str:
    table = [(first, *HEADER), *((shown(name, NAME_CHARS).replace("|", "/"), *_cells(row)) for name, row in rows)]
    used = [i for i in range(len(table[0])) if i < 4 or {line[i] for line in table[1:]} - {"-", "0"}]
    widths = [max(len(line[i]) for line in table) for i in used]
    ruler = ["-" * widths[0], *(f"{'-' * (width - 1)}:" for width in widths[1:])]
    lines = [[line[i] for i in used] for line in table]
    aligned = [[line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in [lines[0], *lines[1:]]]
    return "\n".join(f"| {' | '.join(line)} |" for line in [aligned[0], ruler, *aligned[1:]])


def _cells(row: Mapping) -> tuple[str, ...]:
    k = row["n_samples"]
    most = max((int(key.removeprefix("pass_at_")) for key in row if key.startswith("pass_at_")), default=0)
    return (
        str(row["n_questions"]),
        f"{k} greedy" if row["temperature"] == 0 else f"{k} at {row['temperature']:g}",
        interval(row["accuracy"], row["low95"], row["high95"]),
        f"{percent(row[f'pass_at_{most}'])} (k={most})" if most else "-",
        percent(row["majority"]),
        percent(row["truncated"]),
        "-" if row["tokens"] is None else f"{row['tokens']:.0f}",
        str(row["ungradable"]),
    )
