"""Read all runs under one root."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..errors import RunError, shown
from ..store.software import differences, read_starts
from . import evaluations, runs
from .runs import NOT_A_SETTING, Run
from .sweep import Sweep


def read_runs(root: Path, by: Sequence[str] = ()) -> Sweep:
    """Read the runs below a root, and the stand-alone evaluations there.

    Of several runs with one configuration and seed, one counts: the one with most finished iterations, and of these one
    that still has the name that it was made with.

    Raises:
        RunError: there is no run, or no such setting. Damage of one of several runs is part of that run.
    """
    found = [run for run in map(runs.read, runs.run_folders(root)) if not run.is_preparation]
    every, again = _once(run for run in found if not run.is_evaluation)
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
    evaluated = [*(run.path for run in found if run.is_evaluation), *runs.run_folders(root / "evaluate")]
    starts = {str(path.relative_to(root)): read_starts(path) for path in [*(run.path for run in every), *evaluated]}
    by, lines = tuple(dict.fromkeys(by)), tuple(differences(starts))
    return Sweep(root, every, evaluations.read(evaluated), keys, benchmarks, by, lines, again)


def _once(found: Iterable[Run]) -> tuple[list[Run], dict[str, str]]:
    """Return the runs, one of each configuration and seed, in their order; and (name -> name of the one that counts).

    A run whose configuration is damaged is one of its own.
    """
    alike: dict[str, list[Run]] = {}
    every = list(found)
    for run in every:
        settings = [(key, run.value(key)) for key in sorted(run.settings.keys() - NOT_A_SETTING)]
        alike.setdefault(repr(settings or run.name), []).append(run)

    def worth(run: Run) -> tuple[int, bool]:
        return len(run.records), run.value("run.name") == run.name

    best = {run.name: max(same, key=worth).name for same in alike.values() for run in same}
    return [run for run in every if best[run.name] == run.name], {a: b for a, b in best.items() if a != b}
