"""The stand-alone evaluations beside the runs of a sweep, and which policy each is of."""

from __future__ import annotations

from pathlib import Path

from .. import difficulty
from ..errors import RunError
from ..evaluate.intervals import accuracy
from ..records import Rollouts
from ..store.layout import folder_of
from ..store.stage import stages_of
from .runs import Run, run_folders, settings_of

COLUMNS = ("name", "policy", "benchmark", "n_questions", "samples", "accuracy", "low95", "high95", "state")


def read(folder: Path) -> list[dict]:
    """The rows of evaluations.csv: one for each evaluation and benchmark. What is wrong with one is told in its row."""
    return [row for path in run_folders(folder) for row in _rows(path)]


def _rows(path):
    row = dict.fromkeys(COLUMNS)
    row["name"] = path.name
    try:
        settings = settings_of(path / "config.yaml")
    except (RunError, OSError) as error:
        return [{**row, "state": f"damaged: {error}"}]
    stages = {s.path.name: s for s in stages_of(path) if s.facts["iteration"] == -1}
    asked = dict.fromkeys([*(Path(b).stem for b in settings.get("evaluate.benchmarks") or []), *stages])
    row["policy"] = settings.get("policy.path")
    return [{**row, "benchmark": b, **_evaluated(stages.get(b))} for b in asked or [None]]


def _evaluated(stage):
    if stage is None or not stage.done:
        return {"state": "unfinished"}
    try:
        stage.check_complete()
        scores = accuracy(difficulty.measure(stage.read_chunks(Rollouts)))
    except (RunError, OSError) as error:
        return {"state": f"damaged: {error}"}
    return {"samples": scores.pop("n_samples"), **scores, "state": "done"}


def accuracies(evaluations: list[dict], run: Run, benchmark: str) -> tuple[float | None, float | None]:
    """(before, after): accuracies of the policies that a run began and ended with.

    Of several evaluations of one policy, the one with most rollouts counts.

    Args:
        evaluations: rows as `read` gives them.
    """
    # A root that was moved is known by the place where the run was made: policy.path names that.
    made_at = Path(str(run.settings.get("run.root")), str(run.settings.get("run.name")))
    done = [row for row in evaluations if row["state"] == "done" and row["benchmark"] == benchmark]
    done.sort(key=lambda row: row["n_questions"] * row["samples"])

    def of(*paths):
        return next((row["accuracy"] for row in reversed(done) if Path(row["policy"] or ".") in paths), None)

    newest = Path(folder_of(len(run.records) - 1), "policy", "model")
    last = [folder / newest for folder in (made_at, run.path, run.path.resolve())]
    return of(Path(run.settings.get("policy.path") or ".")), of(*last)
