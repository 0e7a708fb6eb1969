"""The curves of a sweep, as panels for its page."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ..picture import svg
from .comparison import Measure, benchmarks, compares_proxies, measures
from .marks import Marks
from .rollouts import PROXIES
from .runs import Run
from .sweep import Sweep

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Panel = tuple[str, str, Callable[["Axes"], None]]  # title, unit of the y axis, function that draws it
HOW_TO_READ = (
    "Dots are runs; hollow ones are unfinished and in no mean. Bars are the mean of the complete runs and its 95 % "
    "interval, mean ± t·sd/√n, for n ≥ 2 runs; bars without an end continue outside. Dashed: mean accuracy before. "
    "Lines over rounds or iterations are means over the runs of a system; bands reach from its lowest run to its "
    "highest (up to six systems)."
)
BANDS = (("", ""), (" in band", "_in_band"))


def curves(sweep: Sweep) -> list[str]:
    """Draw accuracy, tokens, hours, pair yield and entropy of the draw: the SVG of each panel."""

    def drawn(number: int, panel: Panel) -> str:
        title, unit, draw = panel

        def whole(axis: Axes) -> None:
            draw(axis)
            axis.set(title=title, ylabel=unit)

        return svg(f"panel-{number}", whole)

    return [drawn(number, panel) for number, panel in enumerate(_panels(sweep, Marks(sweep)))]


def _panels(sweep: Sweep, marks: Marks) -> list[Panel]:
    """The panels of the figure, in order."""
    by_key = {measure.key: measure for measure in measures(sweep)}
    panels: list[Panel] = []

    def over_groups(key: str, title: str, unit: str, before: Measure | None = None) -> None:
        if key in by_key:
            baseline = float(np.mean([*before.by_run.values()])) if before else None
            panels.append((title, unit, lambda axis: marks.draw_groups(axis, by_key[key], baseline)))

    def over_time(title: str, label: str, lines: dict[str, list[tuple[int, float | None]]]) -> None:
        panels.append((title, "%", lambda axis: marks.draw_lines(axis, lines, label)))

    for name in benchmarks(sweep):
        in_runs = name in sweep.benchmarks
        when = "accuracy after the last iteration" if in_runs else "accuracy, evaluated apart"
        over_groups(f"{name}_after", f"{name}: {when}", "%", by_key.get(f"{name}_before"))
        if in_runs:
            lines = {run.name: _accuracies(run, name) for run in sweep.runs}
            over_time(f"{name}: accuracy", "rounds of training", lines)
    over_groups("rollout_tokens", "Tokens of all rollouts", "thousands")
    over_groups("tokens_per_usable_pair", "Tokens per usable pair", "tokens")
    over_groups("hours", "Time of all stages", "hours")
    for title, key in (("Pair yield", "pair_yield"), ("Entropy of the draw (100 %: uniform)", "entropy_share")):
        lines = {run.name: [(r.iteration, getattr(r, key)) for r in run.records] for run in sweep.runs}
        over_time(title, "iteration", lines)
    if compares_proxies(sweep):
        rho = {f"{name}{where}": by_key.get(f"rho_{name}{suffix}") for name in PROXIES for where, suffix in BANDS}
        rho = {label: measure for label, measure in rho.items() if measure}
        title = "Rank correlation with the pass rate (negative: agrees)"
        panels.append((title, "Spearman's ρ", lambda axis: marks.draw_side_by_side(axis, rho)))
    return panels


def _accuracies(run: Run, benchmark: str) -> list[tuple[int, float | None]]:
    """Return (rounds of training, accuracy) of the policy before the run and after each iteration."""
    after = [(r.iteration + 1, r.scores[benchmark].accuracy) for r in run.records if benchmark in r.scores]
    return [(0, run.before(benchmark).accuracy), *after]
