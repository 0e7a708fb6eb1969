"""What the stored rollouts of a run cost, and how far each proxy of difficulty says what the pass rate says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .. import difficulty, settings
from ..errors import RunError
from ..records import Rollouts
from ..store.stage import Stage, stages_of

PROXIES = tuple(name for name in difficulty.KEYS if name != "pass_rate")


@dataclass(frozen=True)
class Drawn:
    """Of the probes and explorations of a run's iterations.

    Attributes:
        tokens: response tokens that were drawn; None where an iteration's rollouts are not there any more.
        rho: proxy -> Spearman's rank correlation with the pass rate over the questions of an iteration, mean
            over the iterations in which there is one; negative where the proxy agrees.
        rho_in_band: the same over the questions neither too hard nor too easy, which alone become pairs.
        damage: why there is nothing of these.
    """

    tokens: int | None = None
    rho: dict[str, float] = field(default_factory=dict)
    rho_in_band: dict[str, float] = field(default_factory=dict)
    damage: str = ""


def drawn(run: Path, configured: Mapping, n_iterations: int) -> Drawn:
    """Read the rollouts of a run's first n iterations; an exploration holds no rollout that the probe had made.

    Args:
        configured: the run's flattened configuration: the bounds of the band.
    """
    bounds = {name: configured.get(f"difficulty.{name}", None) for name in ("too_hard", "too_easy")}
    band = settings.Difficulty(**{name: bound for name, bound in bounds.items() if bound is not None})
    try:
        tables = [_read(stages) for stages in _stages(run, n_iterations)]
    except (RunError, OSError) as error:
        return Drawn(damage=str(error))
    if not tables or None in tables:
        return Drawn()
    measured = [difficulty.measure(table) for table in tables]
    usable = [hard.take(np.flatnonzero(difficulty.in_band(hard, band))) for hard in measured]
    tokens = sum(int(table.n_tokens_R.sum()) for table in tables)
    return Drawn(tokens, _mean_correlations(measured), _mean_correlations(usable))


def _stages(run, n_iterations) -> list[list[Stage]]:
    found = [[] for _ in range(n_iterations)]
    for stage in stages_of(run):
        t = stage.facts["iteration"]
        if 0 <= t < n_iterations and stage.facts["stage"] in ("probe", "explore") and stage.done:
            found[t].append(stage)
    return found


def _read(stages) -> Rollouts | None:
    if len(stages) < 2:
        return None
    for stage in stages:
        stage.check_complete()
    return Rollouts.concat(stage.read_chunks(Rollouts) for stage in stages)


def _mean_correlations(measured) -> dict[str, float]:
    """Of iterations one by one: the policy, and with it every pass rate, changes between them."""
    found = {name: [difficulty.proxy_correlation(hard, name) for hard in measured] for name in PROXIES}
    known = {name: [rho for rho in own if rho is not None] for name, own in found.items()}
    return {name: float(np.mean(own)) for name, own in known.items() if own}
