"""Read a run's stored rollouts: their tokens, and the correlation of each proxy of difficulty with the pass rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .. import difficulty, settings
from ..errors import RunError
from ..records import Difficulty, Rollouts
from ..store.stage import Stage, stages_of

PROXIES = tuple(name for name in difficulty.KEYS if name != "pass_rate")


@dataclass(frozen=True)
class Drawn:
    """Figures of the probes and explorations of a run's iterations.

    Attributes:
        tokens: generated response tokens; None when the rollouts of an iteration were removed.
        rho: proxy -> Spearman's rank correlation with the pass rate over the questions of an iteration, mean
            over the iterations that have one; negative where the proxy agrees.
        rho_in_band: the same over the questions neither too hard nor too easy; only these become pairs.
        damage: the reason why the other figures are missing; "" without damage.
    """

    tokens: int | None = None
    rho: dict[str, float] = field(default_factory=dict)
    rho_in_band: dict[str, float] = field(default_factory=dict)
    damage: str = ""


def drawn(run: Path, configured: Mapping[str, Any], n_iterations: int) -> Drawn:
    """Read the rollouts of a run's first n iterations. An exploration does not repeat rollouts of its probe.

    Args:
        configured: the run's flattened configuration, which has the bounds of the band.
    """
    bounds = {name: configured.get(f"difficulty.{name}", None) for name in ("too_hard", "too_easy")}
    try:
        band = settings.Difficulty(**{name: bound for name, bound in bounds.items() if bound is not None})
        tables = [_read(stages) for stages in _stages(run, n_iterations)]
    except (RunError, OSError, ValueError) as error:
        return Drawn(damage=str(error))
    whole = [table for table in tables if table is not None]
    if not tables or len(whole) < len(tables):
        return Drawn()
    measured = [difficulty.measure(table) for table in whole]
    usable = [hard.take(np.flatnonzero(difficulty.in_band(hard, band))) for hard in measured]
    tokens = sum(int(table.n_tokens_R.sum()) for table in whole)
    return Drawn(tokens, _mean_correlations(measured), _mean_correlations(usable))


def _stages(run: Path, n_iterations: int) -> list[list[Stage]]:
    """The finished probe and explore stages of each iteration."""
    finished: list[list[Stage]] = [[] for _ in range(n_iterations)]
    for stage in stages_of(run):
        t = stage.facts["iteration"]
        if 0 <= t < n_iterations and stage.facts["stage"] in ("probe", "explore") and stage.done:
            finished[t].append(stage)
    return finished


def _read(stages: Sequence[Stage]) -> Rollouts | None:
    """The rollouts of an iteration; None when a stage is missing."""
    if len(stages) < 2:
        return None
    for stage in stages:
        stage.check_complete()
    return Rollouts.concat(stage.read_chunks(Rollouts) for stage in stages)


def _mean_correlations(measured: Sequence[Difficulty]) -> dict[str, float]:
    """Mean over the iterations of each proxy's correlation.

    Iterations are not pooled: the policy, and with it every pass rate, changes between them.
    """
    every = {name: [difficulty.proxy_correlation(hard, name) for hard in measured] for name in PROXIES}
    defined = {name: [rho for rho in rhos if rho is not None] for name, rhos in every.items()}
    return {name: float(np.mean(rhos)) for name, rhos in defined.items() if rhos}
