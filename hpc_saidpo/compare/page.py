"""Write a sweep's files: the page sweep.html, and its figures as CSV."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..errors import shown
from ..report import shell
from ..report.shell import Html
from ..store import files
from . import comparison, evaluations, paired
from .curves import HOW_TO_READ, curves
from .paired import Pairing
from .sweep import Sweep
from .tables import CELL_CHARS, NOTE_CHARS, as_csv, headline, notes, run_rows, tables

PAGE = "report.html"  # of a run
WORDS = ("run", "system", "evaluation", "policy", "benchmark", "state")  # columns of words; so are settings


def write(sweep: Sweep, pairing: Pairing | None, out: Path) -> list[Path]:
    """Write comparison.csv, paired.csv, sweep.csv, evaluations.csv and sweep.html. Returns their paths.

    Raises:
        RunError: the folder cannot be written.
    """
    contents = {
        "comparison.csv": as_csv(comparison.rows(sweep)),
        "paired.csv": as_csv(paired.rows(pairing) if pairing else [], paired.COLUMNS),
        "sweep.csv": as_csv(run_rows(sweep)),
        "evaluations.csv": as_csv(sweep.evaluations, evaluations.COLUMNS),
        "sweep.html": page(sweep, pairing, out),
    }
    files.make_folder(out)
    for name, content in contents.items():
        files.write_text(out / name, content)
    return [out / name for name in contents]


def page(sweep: Sweep, pairing: Pairing | None, out: Path) -> str:
    """Format the report as one HTML page.

    Args:
        out: the folder that it is written to: links to the runs' pages are relative to it.
    """
    runs, *others = tables(sweep)
    linked = [runs[0], *([_to_page(sweep, name, out), *rest] for name, *rest in runs[1:])]
    explained = " ".join(f"{shown(note, NOTE_CHARS).rstrip('.')}." for note in comparison.notes(sweep))
    csv = ", ".join(shell.link(name, name) for name in ("comparison.csv", "paired.csv", "sweep.csv", "evaluations.csv"))
    problems = notes(sweep)
    return shell.document(
        f"Sweep {shown(sweep.root.resolve().name)}: {len(sweep.runs)} runs",
        shell.element("p", headline(sweep, pairing), kind="lead"),
        *(
            [_table(paired.table(pairing)), shell.element("p", f"{paired.HOW_TO_READ}.", kind="soft")]
            if pairing
            else []
        ),
        shell.section("Systems", _table(comparison.table(sweep)), shell.element("p", explained, kind="soft")),
        shell.section(
            "Curves",
            shell.gallery(map(shell.figure, curves(sweep))),
            shell.element("p", HOW_TO_READ, kind="soft"),
        ),
        shell.section(
            "Unfinished, damaged, or with failure signatures",
            shell.bullets(problems) if problems else shell.element("p", "none"),
        ),
        shell.section("Runs", _table(linked), *map(_table, others)),
        shell.element("p", "As numbers: ", Html(csv)),
    )


def _to_page(sweep: Sweep, name: str, out: Path) -> object:
    """A run's name, as a link to its page if it has one."""
    target = sweep.root / name / PAGE
    if not target.is_file():
        return shown(name, CELL_CHARS)
    return shell.link(os.path.relpath(target.resolve(), out.resolve()), shown(name, CELL_CHARS))


def _table(table: Sequence[Sequence[object]]) -> Html:
    """Return a table. Long cells are cut; a column whose cells begin with a letter is aligned as words."""
    header, *rows = [[cell if isinstance(cell, Html) else shown(cell, CELL_CHARS) for cell in row] for row in table]
    words = {0} | {i for i, name in enumerate(header) if name in WORDS or "." in name.partition(",")[0]}
    return shell.table(header, rows, words)
