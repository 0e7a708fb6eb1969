"""Format a sweep as tables: for a console, and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from ..errors import shown, visible
from ..evaluate.table import interval, percent
from ..layout import aligned, paragraph
from . import comparison, paired
from .paired import Pairing
from .rollouts import PROXIES
from .runs import Run, short, text_of
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
        "hours": run.hours,
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


def headline(sweep: Sweep, pairing: Pairing | None) -> str:
    """The result in one sentence; without a baseline, how to name one."""
    if pairing:
        return paired.sentence(pairing)
    n = len(sweep.groups())
    if n < 2:
        return f"One system, {len(sweep.runs)} runs: there is nothing to compare it with."
    return f"{n} systems: name the one that the others are compared with, by pairs of runs of one seed: --baseline NAME"


def text(sweep: Sweep, pairing: Pairing | None, width: int = 0) -> str:
    """Format the report for a console: the result in one sentence, the comparison, then the runs.

    Args:
        width: of the terminal, in characters; 0: any.
    """
    explained = [shown(note, NOTE_CHARS) for note in comparison.notes(sweep)]

    def lines_of(table: list[list[str]]) -> list[str]:
        return aligned([[shown(cell, CELL_CHARS) for cell in row] for row in table], width)

    lines = [headline(sweep, pairing), ""]
    if pairing:
        lines += [*lines_of(paired.table(pairing)), "", paired.HOW_TO_READ, ""]
    lines += [*lines_of(comparison.table(sweep)), "", *explained, ""]
    lines += [line for table in tables(sweep) for line in [*lines_of(table), ""]]
    hidden = len(sweep.keys) - SHOWN_KEYS
    lines += [f"The runs differ in {hidden} more settings: see sweep.csv", ""] if hidden > 0 else []
    return "\n".join(paragraph(line, width) for line in [*lines, *notes(sweep)]).rstrip("\n")


def as_csv(rows: list[dict[str, Any]], header: Sequence[str] = ()) -> str:
    """Format rows as CSV; `header` names the columns where there is no row."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, rows[0] if rows else header, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return visible(buffer.getvalue())
