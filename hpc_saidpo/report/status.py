"""The state of every run under a root, read from the run folders alone. Imports nothing heavy."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import RunError, shown, visible
from ..progress import duration
from ..store import life
from ..store.layout import iterations_of
from ..store.time_left import time_left

SILENT, UNKNOWN, WAITING = "silent", "unknown", "waiting"
MISSED_BEATS = 6  # so many signs of life are missing before a run counts as silent
WIDTH, MESSAGE_CHARS = 80, 1000


@dataclass(frozen=True)
class State:
    """One run at a moment. A figure that is not known is None.

    Attributes:
        name: its folder, relative to the root.
        state: running, waiting, stopped, failed, complete, silent (no sign of life) or unknown (of an earlier version).
        iteration, iterations: number of finished iterations, and of all; 0 and 0 for an evaluation.
        stage: the stage in progress, such as iter-001/explore; "" for none.
        done, total: chunks (or optimizer steps) of that stage.
        tokens_per_s: of that stage, in this start.
        pair_yield: share of the questions that make a pair, in this stage so far, else in the last iteration.
        left_s: estimate of the time until the run is complete.
        left_is_least: some stages have not been measured yet, so `left_s` counts only the others.
        seen_s: since the last sign of life.
        job: the Slurm job; "" outside of Slurm.
        restarts: starts after the first one.
        hosts: nodes of the last start.
        message: what it waits for, why it ended, how it failed.
        silent: ranks that are silent, with host and chunk.
    """

    name: str
    state: str
    iteration: int = 0
    iterations: int = 0
    stage: str = ""
    done: int | None = None
    total: int | None = None
    tokens_per_s: float | None = None
    pair_yield: float | None = None
    left_s: float | None = None
    left_is_least: bool = False
    seen_s: float | None = None
    job: str = ""
    restarts: int = 0
    hosts: list[str] = field(default_factory=list)
    message: str = ""
    silent: list[str] = field(default_factory=list)


def read_states(root: Path) -> list[State]:
    """Return the state of each run in a folder, and of the evaluations in its folder `evaluate`; or of one run.

    Raises:
        RunError: there is no run.
    """
    if not root.is_dir():
        raise RunError(f"{shown(root)}: no such folder: name the folder that holds the runs (run.root), or one run")
    if (root / "config.yaml").is_file():
        return [read_state(root, root.resolve().name)]
    runs = [path.parent for place in (root, root / "evaluate") for path in sorted(place.glob("*/config.yaml"))]
    if not runs:
        raise RunError(f"{shown(root)}: no run in it: name the folder that holds the runs (run.root), or one run")
    return [read_state(run, str(run.relative_to(root))) for run in runs]


def read_state(run: Path, name: str) -> State:
    """Return the state of one run.

    Args:
        name: how to call it.
    """
    record, failure = life.read_progress(run), life.read(run / life.FAILURE)
    starts = life.read_list(run / "env.json")
    start = starts[-1] if starts else {}
    finished = sum((folder / "DONE").exists() for _, folder in iterations_of(run))
    hosts = start.get("hosts")
    about = {"job": _job(start.get("slurm")), "restarts": max(0, len(starts) - 1)}
    about["hosts"] = [*map(str, hosts)] if isinstance(hosts, list) else []
    if not record:
        return State(name, UNKNOWN, finished, **about)
    seen_s = max(0.0, time.time() - record["written"])
    state, message = record["state"], record["message"]
    if state == life.RUNNING:
        if failure:
            state, message = life.FAILED, str(failure.get("message", ""))
        elif seen_s > MISSED_BEATS * record["beat_s"]:
            state, message = SILENT, "no sign of life: killed, suspended, or its disk hangs. Start it again to resume"
        elif record["waits_for"]:
            state, message = WAITING, record["waits_for"]
    about |= {"state": state, "message": message, "iteration": finished, "iterations": record["iterations"]}
    if state not in (life.RUNNING, WAITING, SILENT):
        return State(name, seen_s=seen_s, pair_yield=_last_yield(run), **about)
    left_s, is_least = time_left(record)
    counts, task_s = record["counts"], record["task_s"]
    return State(
        name,
        stage=record["place"],
        done=record["done"],
        total=record["total"],
        tokens_per_s=counts["tokens"] / task_s if counts.get("tokens") and task_s else None,
        pair_yield=_yield(record) or _last_yield(run),
        left_s=left_s,
        left_is_least=is_least,
        seen_s=seen_s,
        silent=record["silent"],
        **about,
    )


def _yield(record: dict[str, Any]) -> float | None:
    counts = record["counts"]
    if not record["place"].endswith(("/probe", "/explore")) or not counts.get("questions"):
        return None
    return counts.get("usable", 0) / counts["questions"]


def _last_yield(run: Path) -> float | None:
    folders = [folder for _, folder in iterations_of(run)]
    known = [life.read(folder / "metrics.json").get("pair_yield") for folder in folders]
    return next((value for value in reversed(known) if life.is_number(value)), None)


def _job(slurm: object) -> str:
    ids = slurm if isinstance(slurm, dict) else {}
    array, task = ids.get("SLURM_ARRAY_JOB_ID", ""), ids.get("SLURM_ARRAY_TASK_ID", "")
    return f"{array}_{task}" if array and task else str(ids.get("SLURM_JOB_ID", ""))


def table(states: Sequence[State]) -> str:
    """Return one line of at most 80 columns for each run, then what needs a look."""
    lines = [_line("run", ("iter", "stage", "chunks", "tok/s", "yield", "left", "seen", "job", "re"))]
    lines += [_line(state.name, _cells(state)) for state in states]
    for state in states:
        for message in [*([state.message] if state.message else []), *state.silent]:
            text = f"{shown(state.name)}: {shown(message, MESSAGE_CHARS)}"
            lines.append(textwrap.fill(text, WIDTH, subsequent_indent="  "))
    return "\n".join(lines)


_WIDTHS = (5, 10, 9, 6, 5, 6, 5, 9, 3)  # with a space before each: 67 columns


def _line(name: str, cells: Sequence[str]) -> str:
    left = WIDTH - sum(width + 1 for width in _WIDTHS)
    name, cells = visible(name[:WIDTH], kept=""), [visible(cell[:WIDTH], kept="") for cell in cells]
    short = name if len(name) <= left else name[: left - 1] + "…"
    padded = [
        f"{cell[:width]:<{width}}" if number == 1 else f"{cell[-width:]:>{width}}"
        for number, (cell, width) in enumerate(zip(cells, _WIDTHS, strict=True))
    ]
    return f"{short:<{left}} {' '.join(padded)}".rstrip()


def _cells(state: State) -> tuple[str, ...]:
    chunks = f"{state.done}/{state.total}" if state.total is not None else "-"
    left = "-" if state.left_s is None else (">" if state.left_is_least else "") + duration(state.left_s)
    stage = state.stage.partition("/")[2].replace("evaluate/", "eval ") or state.stage or "prepare"
    at_work = state.state == life.RUNNING
    return (
        f"{state.iteration}/{state.iterations}" if state.iterations else "-",
        stage if at_work else state.state.upper() if state.state in (life.FAILED, SILENT) else state.state,
        chunks if state.state in (life.RUNNING, SILENT) else "-",
        "-" if state.tokens_per_s is None or not at_work else f"{state.tokens_per_s:.0f}",
        "-" if state.pair_yield is None else f"{state.pair_yield:.2f}",
        left if at_work else "-",
        "-" if state.seen_s is None else duration(state.seen_s),
        state.job or "-",
        str(state.restarts),
    )
