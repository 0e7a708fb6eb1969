"""Do two runs hold the same? Row by row, whatever the ranks, chunks and shards that made them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from ..records import Draw, Pairs, Rollouts
from ..table import Columns
from .layout import iterations_of
from .stage import Stage, stages_of

_MEASURED = ("seconds_R",)  # of the clock, not of the run
_TABLES = {"draw": Draw, "pairs": Pairs}
# How many of the first columns name a row: a rollout is known by question and sample.
_KEYS = {"draw": 1, "pairs": 4}


@dataclass
class Comparison:
    """What a run lacks or has otherwise than another one.

    Attributes:
        lost: rows, stages and policies that the other run has and this one lacks.
        duplicated: rows that this run holds more often than once.
        different: rows, weights and metrics that differ.
        notes: the first of each kind, in words.
    """

    lost: int = 0
    duplicated: int = 0
    different: int = 0
    notes: list[str] = field(default_factory=list)

    def add(self, kind: str, n: int, where: str) -> None:
        if n:
            setattr(self, kind, getattr(self, kind) + n)
            self.notes.append(f"{where}: {n} {kind}")


def compare(run: Path, reference: Path) -> Comparison:
    """Compare every finished stage of a run with the reference's: draws, rollouts, pairs, weights, metrics.

    Raises:
        Damaged: a file of either is not readable.
    """
    found = Comparison()
    own = {str(stage.path.relative_to(run)): stage for stage in stages_of(run) if stage.done}
    for wanted in stages_of(reference):
        name = str(wanted.path.relative_to(reference))
        if name not in own:
            found.add("lost", 1, name)
        elif wanted.path.name == "policy":
            _compare_weights(found, name, own[name], wanted)
        else:
            _compare_tables(found, name, own[name], wanted)
    for _, folder in iterations_of(reference):
        same = _metrics(run / folder.name) == _metrics(folder)
        found.add("different", not same, f"{folder.name}/metrics")
    return found


def rows_of(stage: Stage) -> list[tuple]:
    """The rows of a stage's table, without what is measured by the clock."""
    table = _TABLES.get(stage.path.name, Rollouts)
    content = stage.read_chunks(Rollouts) if table is Rollouts else stage.read(stage.path.name, table)
    return list(zip(*(_plain(content, f.name) for f in fields(content) if f.name not in _MEASURED), strict=True))


def _plain(content: Columns, name: str) -> list:
    column = getattr(content, name)
    return column.tolist() if isinstance(column, np.ndarray) else list(column)


def _compare_tables(found, name, stage, wanted):
    n_key = _KEYS.get(stage.path.name, 2)
    rows, reference = rows_of(stage), rows_of(wanted)
    keys = Counter(row[:n_key] for row in rows)
    found.add("duplicated", sum(n - 1 for n in keys.values()), name)
    found.add("lost", len({row[:n_key] for row in reference} - keys.keys()), name)
    by_key = {row[:n_key]: row for row in rows}
    found.add("different", sum(row != by_key.get(row[:n_key], row) for row in reference), name)
    found.add("different", len(keys.keys() - {row[:n_key] for row in reference}), f"{name} (rows of its own)")
    if stage.path.name in _TABLES and len(rows) == len(reference):
        found.add("different", rows != reference, f"{name} (order)")


def _compare_weights(found, name, stage, wanted):
    own, reference = (_weights(s.path / "model") for s in (stage, wanted))
    found.add("lost", len(reference.keys() - own.keys()), name)
    found.add("different", sum(not torch.equal(own[k], w) for k, w in reference.items() if k in own), name)


def _weights(model: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a model folder; large models are saved as several files."""
    return {name: w for path in sorted(model.glob("*.safetensors")) for name, w in load_file(path).items()}


def _metrics(folder: Path):
    if not (folder / "metrics.json").exists():
        return None
    return {k: v for k, v in Stage(folder).read_json("metrics").items() if not k.endswith("_s") and k != "policy"}
