"""Removal of a run's old policies (loop.keep): never one that the run, or another run, still needs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from ..reading import parse_yaml, read_text
from . import disk, run_facts
from .layout import iterations_of
from .stage import Stage

MODEL = "model"
_NAMING = (("policy", "path"), ("tags", "model"))  # settings that name a policy


def remove_policies(run: Path, keep: Literal["all", "last", "best"]) -> list[int]:
    """Remove the policies of finished iterations that nothing needs any more. Not collective: root only.

    Kept are the newest policy, with which the run continues; with keep=best the best one; and every policy that the
    configuration of another run or evaluation under the same run.root names.

    Returns:
        The iterations whose policies were removed now.
    """
    finished = [(t, folder) for t, folder in iterations_of(run) if disk.exists(folder / "DONE")]
    if keep == "all" or not finished:
        return []
    kept = {finished[-1][0], best(finished) if keep == "best" else None}
    removed = []
    for t, folder in finished:
        stage = Stage(folder / "policy")
        if t not in kept and disk.exists(stage.path / MODEL) and not _is_named(stage.path / MODEL, run):
            stage.discard(MODEL)
            removed.append(t)
    return removed


def best(finished: list[tuple[int, Path]]) -> int | None:
    """Return the iteration with the highest mean accuracy over the benchmarks; of equal ones the latest.

    None if no iteration was evaluated.
    """
    accuracy = {t: _accuracy(run_facts.read_figures(folder)) for t, folder in finished}
    return max(((value, t) for t, value in accuracy.items() if value is not None), default=(0.0, None))[1]


def _accuracy(record: Mapping[str, Any]) -> float | None:
    values = [score["accuracy"] for score in record.get("scores", {}).values() if score["accuracy"] is not None]
    return sum(values) / len(values) if values else None


def _is_named(model: Path, run: Path) -> bool:
    """Whether the configuration of another run names this policy. An unreadable one counts as such."""
    place = model.resolve()
    for name in disk.names_in(run.parent):
        path = run.parent / name / "config.yaml"
        if name == run.name or not disk.exists(path):
            continue
        try:
            text = disk.persist(path, lambda path=path: read_text(path))
            if run.name not in text:
                continue
            config = parse_yaml(text)
            named = [(config.get(group) or {}).get(key) for group, key in _NAMING]
        except (OSError, ValueError, AttributeError):
            return True
        if any(isinstance(value, str) and Path(value).resolve() == place for value in named):
            return True
    return False
