"""A run as text for a console: a line per iteration, the gains, the folder of the policy; what to do next."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..errors import visible
from ..evaluate.table import interval, percent, points
from ..layout import aligned
from ..records import Outcome
from .facts import COMPLETE, Facts
from .verdict import sentence

# Header of a column -> its cell for a record of metrics.jsonl.
COLUMNS: dict[str, Callable[[dict], str]] = {
    "probe pass rate": lambda r: percent(r["probe_pass_rate"]),
    "cluster errors (min/mean/max)": lambda r: _spread([e for e in r["cluster_error_rate"] if e is not None]),
    "explored": lambda r: str(r["explored_questions"]),
    "pair yield": lambda r: percent(r["pair_yield"]),
    "ungradable": lambda r: percent(r.get("ungradable_share")),  # not in runs of earlier versions
    "pairs": lambda r: str(r["pairs"]),
    "DPO loss": lambda r: _number(r.get("dpo/loss"), ".3f"),
    "rewards/margins": lambda r: _number(r.get("dpo/rewards/margins"), "+.3f"),
    "rewards/accuracies": lambda r: percent(r.get("dpo/rewards/accuracies")),
}


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _spread(values: Sequence[float]) -> str:
    """Minimum, mean and maximum."""
    return f"{min(values):.2f}/{sum(values) / len(values):.2f}/{max(values):.2f}" if values else "-"


def rows(outcome: Outcome) -> tuple[list[str], list[list[str]]]:
    """Return a header and one row per iteration. Benchmark columns show accuracy before and after the iteration."""
    header = ["iteration", *COLUMNS, *(f"{name} before → after" for name in outcome.before)]
    body = []
    for record in outcome.iterations:
        scores = [
            f"{_score(record['scores_before'], name)} → {_score(record['scores'], name)}" for name in outcome.before
        ]
        body.append([str(record["iteration"]), *(cell(record) for cell in COLUMNS.values()), *scores])
    return header, body


def _score(scores: Mapping[str, dict], name: str) -> str:
    return percent(scores[name]["accuracy"]) if name in scores else "-"


def gains(outcome: Outcome) -> list[str]:
    """Return a line per benchmark: accuracy before the run and after its last evaluation, with 95 % intervals."""
    lines = []
    for name, before in outcome.before.items():
        after = next((r["scores"][name] for r in reversed(outcome.iterations) if name in r["scores"]), None)
        if after is None or before["accuracy"] is None:
            continue
        lines.append(
            f"{name}: {_interval(before)} before, {_interval(after)} after: "
            f"{points(after['accuracy'] - before['accuracy'])} points ({before['n_questions']} questions)"
        )
    return lines


def _interval(score: Mapping[str, float]) -> str:
    return interval(score["accuracy"], score["low95"], score["high95"])


def table(outcome: Outcome, width: int = 0) -> str:
    """Format a run for a console: a line per iteration, the gains, the folder of the policy.

    Args:
        width: of the terminal, in characters; 0: any.
    """
    header, body = rows(outcome)
    if not body:
        return "\n".join([*gains(outcome), f"policy: {outcome.policy_path}"])
    lines = aligned([header, *body], width, to_the_right=True)
    return visible("\n".join(["", *lines, "", *gains(outcome), f"policy: {outcome.policy_path}"]))


def ending(run: Path, about: Facts) -> str:
    """Format the last lines of a start: the verdict, the report, and three commands to copy."""
    folder = shlex.quote(str(run))
    shown = f"hpc-saidpo show {folder} {'--wrong' if about.state == COMPLETE else '--stage explore'}"
    commands = (
        (shown, "what the model answered"),
        (f"hpc-saidpo export {folder} --what pairs --format jsonl", "the preference pairs, for other programs"),
        (f"hpc-saidpo compare {shlex.quote(str(run.parent))}", "all runs beside it"),
    )
    lines = [f"  {command}   # {words}" for command, words in commands]
    return visible("\n".join(["", sentence(about), f"report: {run / 'report.html'}", *lines]))
