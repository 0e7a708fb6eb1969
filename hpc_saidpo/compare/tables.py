"""Format a sweep: tables for a console, CSV files, an HTML page."""

from __future__ import annotations

import csv
import html
import io
from pathlib import Path
from typing import Any

from ..errors import shown, visible
from ..evaluate.table import interval, percent
from ..store import files
from . import comparison, evaluations
from .curves import HOW_TO_READ, curves
from .marks import short
from .rollouts import PROXIES
from .runs import Run, text_of
from .sweep import Sweep

SHOWN_KEYS = 6
CELL_CHARS, NOTE_CHARS = 100, 1000  # of a cell and of a remark, in tables for reading


def run_rows(sweep: Sweep) -> list[dict]:
    """Return the rows of sweep.csv. Accuracies, their intervals and yields are shares of 1."""
    return [_run_row(sweep, run) for run in sweep.runs]


def _run_row(sweep: Sweep, run: Run) -> dict[str, Any]:
    row: dict[str, Any] = {"name": run.name, **{key: run.value(key) for key in sweep.keys}}
    row |= {"iterations_finished": len(run.records), "iterations_asked": run.requested}
    for name in sweep.benchmarks:
        after = run.after(name)
        row |= {f"{name}_before": run.before(name).accuracy, f"{name}_after": after.accuracy}
        row |= {f"{name}_low95": after.low95, f"{name}_high95": after.high95}
    return row | {
        "mean_pair_yield": run.pair_yield,
        "pairs": sum(r.pairs for r in run.records),
        "explored_questions": sum(r.explored_questions for r in run.records),
        "rollout_tokens": run.drawn.tokens,
        "tokens_per_usable_pair": run.tokens_per_usable_pair,
        **{f"rho_{name}": run.drawn.rho.get(name) for name in PROXIES},
        **{f"rho_{name}_in_band": run.drawn.rho_in_band.get(name) for name in PROXIES},
        "failure_signatures": sum(len(r.signatures) for r in run.records),
        "state": run.state,
    }


def tables(sweep: Sweep) -> list[list[list[str]]]:
    """Return a table of the runs, and one of the evaluations if there are any: a header and rows, shares in percent."""
    keys = sweep.keys[:SHOWN_KEYS]
    scores = [f"{name} before → after [95 %]" for name in sweep.benchmarks]
    runs = [["run", *keys, "iterations", *scores, "pair yield", "pairs", "explored", "signatures", "state"]]
    for run, row in zip(sweep.runs, run_rows(sweep), strict=True):
        scores = [f"{percent(row[f'{b}_before'])} → {interval(*_after(row, b))}" for b in sweep.benchmarks]
        runs.append(
            [run.name, *(short(row[key]) for key in keys), f"{row['iterations_finished']} of {run.requested}", *scores]
            + [percent(row["mean_pair_yield"])]
            + [str(row[key]) for key in ("pairs", "explored_questions", "failure_signatures", "state")]
        )
    evaluated = [["evaluation", "policy", "benchmark", "questions", "samples", "accuracy [95 %]", "state"]]
    for row in sweep.evaluations:
        about = [short(text_of(row[key])) for key in ("name", "policy", "benchmark", "n_questions", "samples")]
        accuracy = interval(row["accuracy"], row["low95"], row["high95"])
        evaluated.append([*about, accuracy, row["state"].partition(":")[0]])
    return [runs, evaluated] if sweep.evaluations else [runs]


def _after(row: dict[str, Any], benchmark: str) -> tuple[float | None, float | None, float | None]:
    """Accuracy after the run, and its 95 % interval."""
    return row[f"{benchmark}_after"], row[f"{benchmark}_low95"], row[f"{benchmark}_high95"]


def notes(sweep: Sweep) -> list[str]:
    """Return a line for each run or evaluation that is damaged, unfinished, or shows failure signatures."""
    lines = [f"{run.name}: {note}" for run in sweep.runs for note in run.notes()]
    lines += [
        f"evaluate/{row['name']}: {row['benchmark'] or 'no benchmark'}: {row['state']}"
        for row in sweep.evaluations
        if row["state"] != "done"
    ]
    return [shown(" ".join(note.split()), NOTE_CHARS) for note in lines]


def text(sweep: Sweep) -> str:
    """Format the report for a console; the comparison comes last, where the reader looks first."""
    lines = [line for table in tables(sweep) for line in [*_aligned(table), ""]]
    hidden = len(sweep.keys) - SHOWN_KEYS
    lines += [f"The runs differ in {hidden} more settings: see sweep.csv", ""] if hidden > 0 else []
    lines += [*notes(sweep), ""] if notes(sweep) else []
    explained = [shown(note, NOTE_CHARS) for note in comparison.notes(sweep)]
    return "\n".join([*lines, *_aligned(comparison.table(sweep)), "", *explained])


def _aligned(table: list[list[str]]) -> list[str]:
    table = [[shown(cell, CELL_CHARS) for cell in row] for row in table]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in table]


def write(sweep: Sweep, out: Path) -> list[Path]:
    """Write comparison.csv, sweep.csv, evaluations.csv, sweep.png and sweep.html. Returns their paths.

    Raises:
        RunError: the folder cannot be written.
    """
    contents = {
        "comparison.csv": _csv(comparison.rows(sweep)).encode(),
        "sweep.csv": _csv(run_rows(sweep)).encode(),
        "evaluations.csv": _csv(sweep.evaluations).encode(),
        "sweep.png": curves(sweep),
        "sweep.html": page(sweep).encode(),
    }
    files.make_folder(out)
    for name, content in contents.items():
        files.write_bytes(out / name, content)
    return [out / name for name in contents]


def _csv(rows: list[dict[str, Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, rows[0] if rows else evaluations.COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return visible(buffer.getvalue())


def page(sweep: Sweep) -> str:
    """Format the report as one HTML page, which shows sweep.png of its folder."""
    compared, *others = map(_html_table, [comparison.table(sweep), *tables(sweep)])
    explained = html.escape(" ".join(f"{shown(note, NOTE_CHARS).rstrip('.')}." for note in comparison.notes(sweep)))
    bullets = "".join(f"<li>{html.escape(note)}</li>" for note in notes(sweep))
    return f"""<!doctype html><meta charset="utf-8"><title>Sweep {html.escape(shown(sweep.root.resolve().name))}</title>
<style>body{{font:15px system-ui,sans-serif;max-width:90em;margin:2em auto;padding:0 1em}}
table{{border-collapse:collapse;margin:1em 0}}
td,th{{border:1px solid #ccc;padding:.2em .5em;text-align:left}}th{{background:#f3f3f3}}img{{max-width:100%}}</style>
<h1>Sweep {html.escape(shown(sweep.root))}: {len(sweep.runs)} runs</h1>
{compared}<p>{explained} As numbers: <a href="comparison.csv">comparison.csv</a></p>
<img src="sweep.png" alt="accuracy, tokens, pair yield and entropy of the runs"><p>{HOW_TO_READ}</p>
<h2>Unfinished, damaged, or with failure signatures</h2>{f"<ul>{bullets}</ul>" if bullets else "<p>none</p>"}
<h2>Runs</h2>{"".join(others)}<p>All settings in which the runs differ: <a href="sweep.csv">sweep.csv</a></p>
"""


def _html_table(table: list[list[str]]) -> str:
    cells = [[html.escape(shown(cell, CELL_CHARS)) for cell in row] for row in table]
    head = "".join(f"<th>{cell}</th>" for cell in cells[0])
    body = "".join("<tr>" + "".join(f"<td>{c}</td>" for c in row) + "</tr>" for row in cells[1:])
    return f'<div style="overflow-x:auto"><table><tr>{head}</tr>{body}</table></div>'
