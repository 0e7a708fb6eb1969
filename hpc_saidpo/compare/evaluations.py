"""The stand-alone evaluations beside the runs of a sweep, and the policy of each."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .. import difficulty
from ..errors import RunError
from ..evaluate.intervals import accuracy
from ..records import Rollouts
from ..store.layout import folder_of
from ..store.stage import Stage, stages_of
from .runs import Run, settings_of

COLUMNS = ("name", "policy", "benchmark", "n_questions", "samples", "accuracy", "low95", "high95", "state")


def read(folders: Iterable[Path]) -> list[dict]:
    """Return the rows of evaluations.csv, one for each evaluation and benchmark. A row's state names its damage."""
    return [row for path in folders for row in _rows(path)]


def _rows(path: Path) -> list[dict[str, Any]]:
    """The rows of one evaluation."""
    row: dict[str, Any] = {**dict.fromkeys(COLUMNS), "name": path.name}
    try:
        settings = settings_of(path / "config.yaml")
    except (RunError, OSError) as error:
        return [{**row, "state": f"damaged: {error}"}]
    stages = {s.path.name: s for s in stages_of(path) if s.facts["iteration"] == -1}
    named = settings.get("evaluate.benchmarks")
    requested = dict.fromkeys([*(Path(str(b)).stem for b in (named if isinstance(named, list) else [])), *stages])
    row["policy"] = str(settings.get("policy.path") or "")
    if not requested:
        return [{**row, **_evaluated(None)}]
    return [{**row, "benchmark": b, **_evaluated(stages.get(b))} for b in requested]


def _evaluated(stage: Stage | None) -> dict[str, Any]:
    """State and accuracy of an evaluation's stage; None: it has not begun."""
    if stage is None or not stage.done:
        return {"state": "unfinished"}
    try:
        stage.check_complete()
        scores = accuracy(difficulty.measure(stage.read_chunks(Rollouts)))
    except (RunError, OSError) as error:
        return {"state": f"damaged: {error}"}
    return {"samples": scores.pop("n_samples"), **scores, "state": "done"}


def accuracies(evaluations: list[dict], run: Run, benchmark: str) -> tuple[float | None, float | None]:
    """Return (before, after): accuracies of the first and the last policy of a run.

    Of several evaluations of one policy, the one with most rollouts counts.

    Args:
        evaluations: rows as `read` returns them.
    """
    # policy.path names the place where the run was made; the root may have been moved since.
    made_at = Path(str(run.settings.get("run.root")), str(run.settings.get("run.name")))
    done = [row for row in evaluations if row["state"] == "done" and row["benchmark"] == benchmark]
    done.sort(key=lambda row: row["n_questions"] * row["samples"])

    def last_of(*paths: Path) -> float | None:
        return next((row["accuracy"] for row in reversed(done) if Path(row["policy"] or ".") in paths), None)

    newest = Path(folder_of(len(run.records) - 1), "policy", "model")
    after = [folder / newest for folder in (made_at, run.path, run.path.resolve())]
    return last_of(Path(str(run.settings.get("policy.path") or "."))), last_of(*after)
