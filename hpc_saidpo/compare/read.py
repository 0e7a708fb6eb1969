"""Read all runs under one root."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from ..errors import RunError, shown
from ..store.software import differences, read_starts
from . import evaluations, runs
from .runs import NOT_A_SETTING
from .sweep import Sweep


def read_runs(root: Path, by: Sequence[str] = ()) -> Sweep:
    """Read the runs in ROOT and the stand-alone evaluations in ROOT/evaluate.

    Raises:
        RunError: there is no run, or no such setting. Damage of one of several runs is part of that run.
    """
    every = [run for run in map(runs.read, runs.run_folders(root)) if not run.is_preparation]
    if not every:
        raise RunError(
            f"{shown(root)} holds no run (a folder with a config.yaml): name the folder of the runs (run.root)"
        )
    readable = [run for run in every if run.settings]
    known = dict.fromkeys(key for run in readable for key in run.settings)
    keys = [key for key in known if key not in NOT_A_SETTING and len({run.value(key) for run in readable}) > 1]
    for key in by:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise RunError(
                f"--by {key}: no run has such a setting.{hint} The runs differ in {', '.join(keys) or 'none'}"
            )
    scores = [scores for run in every for r in run.records for scores in (r.scores_before, r.scores)]
    benchmarks = list(dict.fromkeys(name for names in scores for name in names))
    evaluated = root / "evaluate"
    starts = {run.name: read_starts(run.path) for run in every}
    starts |= {f"evaluate/{path.name}": read_starts(path) for path in runs.run_folders(evaluated)}
    by, lines = tuple(dict.fromkeys(by)), tuple(differences(starts))
    return Sweep(root, every, evaluations.read(evaluated), keys, benchmarks, by, lines)
