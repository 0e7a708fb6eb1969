"""Compare two runs row by row. The numbers of ranks, chunks and shards do not matter."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import load_file

from ..records import Draw, Pairs, Rollouts
from ..table import Columns
from .layout import iterations_of
from .stage import Stage, stages_of

_MEASURED = ("seconds_R",)  # by the clock: differs between equal runs
_TABLES: dict[str, type[Columns]] = {"draw": Draw, "pairs": Pairs}
# Number of first columns that identify a row: a rollout is identified by question and sample.
_KEYS = {"draw": 1, "pairs": 4}


@dataclass
class Comparison:
    """Differences of a run from a reference run.

    Attributes:
        lost: number of rows, stages and policies of the reference that this run lacks.
        duplicated: number of extra copies of rows in this run.
        different: number of rows, weights and metrics that differ.
        notes: one line per difference.
    """

    lost: int = 0
    duplicated: int = 0
    different: int = 0
    notes: list[str] = field(default_factory=list)

    def add(self, kind: Literal["lost", "duplicated", "different"], n: int, where: str) -> None:
        """Add n differences of one kind."""
        if n:
            setattr(self, kind, getattr(self, kind) + n)
            self.notes.append(f"{where}: {n} {kind}")


def compare(run: Path, reference: Path) -> Comparison:
    """Compare every finished stage of a run with the reference: draws, rollouts, pairs, weights, metrics.

    Raises:
        Damaged: a file of either run is not readable.
    """
    result = Comparison()
    finished = {str(stage.path.relative_to(run)): stage for stage in stages_of(run) if stage.done}
    for wanted in stages_of(reference):
        name = str(wanted.path.relative_to(reference))
        if name not in finished:
            result.add("lost", 1, name)
        elif wanted.path.name == "policy":
            _compare_weights(result, name, finished[name], wanted)
        else:
            _compare_tables(result, name, finished[name], wanted)
    for _, folder in iterations_of(reference):
        same = _metrics(run / folder.name) == _metrics(folder)
        result.add("different", not same, f"{folder.name}/metrics")
    return result


def rows_of(stage: Stage) -> list[tuple]:
    """Return the rows of a stage's table without the columns that are measured by the clock."""
    table = _TABLES.get(stage.path.name)
    content: Columns = stage.read(stage.path.name, table) if table else stage.read_chunks(Rollouts)
    return list(zip(*(_plain(content, f.name) for f in fields(content) if f.name not in _MEASURED), strict=True))


def _plain(content: Columns, name: str) -> list:
    column = getattr(content, name)
    if isinstance(column, np.ndarray):
        return column.tolist()
    return [tuple(row.tolist()) if isinstance(row, np.ndarray) else row for row in column]


def _compare_tables(result: Comparison, name: str, stage: Stage, wanted: Stage) -> None:
    n_key = _KEYS.get(stage.path.name, 2)
    rows, reference = rows_of(stage), rows_of(wanted)
    keys = Counter(row[:n_key] for row in rows)
    wanted_keys = {row[:n_key] for row in reference}
    result.add("duplicated", sum(n - 1 for n in keys.values()), name)
    result.add("lost", len(wanted_keys - keys.keys()), name)
    by_key = {row[:n_key]: row for row in rows}
    result.add("different", sum(row != by_key.get(row[:n_key], row) for row in reference), name)
    result.add("different", len(keys.keys() - wanted_keys), f"{name} (rows that the reference lacks)")
    if stage.path.name in _TABLES and len(rows) == len(reference):
        result.add("different", rows != reference, f"{name} (order)")


def _compare_weights(result: Comparison, name: str, stage: Stage, wanted: Stage) -> None:
    if "model" in (*stage.discarded(), *wanted.discarded()):  # loop.keep
        return
    weights, reference = (_weights(s.path / "model") for s in (stage, wanted))
    result.add("lost", len(reference.keys() - weights.keys()), name)
    result.add("different", sum(not torch.equal(weights[k], w) for k, w in reference.items() if k in weights), name)


def _weights(model: Path) -> dict[str, torch.Tensor]:
    """Return every tensor of a model folder. Large models are saved as several files."""
    return {name: w for path in sorted(model.glob("*.safetensors")) for name, w in load_file(path).items()}


def _metrics(folder: Path) -> dict[str, Any] | None:
    if not (folder / "metrics.json").exists():
        return None
    return {k: v for k, v in Stage(folder).read_json("metrics", dict).items() if not k.endswith("_s") and k != "policy"}
