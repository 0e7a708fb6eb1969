"""The curves of a sweep, as one PNG."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ..picture import png
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
    "interval, mean ± t·sd/√n, for n ≥ 2 runs; bars without an end continue outside. Grey: mean accuracy before."
)
BANDS = (("", ""), (" in band", "_in_band"))


def curves(sweep: Sweep) -> bytes:
    """Draw accuracy, tokens, pair yield and entropy of the draw, as one PNG."""
    from matplotlib.figure import Figure  # without pyplot: no display, no global state, half the time to import

    marks = Marks(sweep)
    panels = _panels(sweep, marks)
    n_rows = -(-len(panels) // 2)
    figure = Figure(figsize=(12, 4 * n_rows + 1), layout="constrained")
    figure.suptitle(HOW_TO_READ.replace("Bars", "\nBars", 1), fontsize=9)
    axes = list(figure.subplots(n_rows, 2, squeeze=False).flat)
    for axis, (title, unit, draw) in zip(axes, panels, strict=False):
        draw(axis)
        axis.set(title=title, ylabel=unit)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    marks.draw_legend(figure)
    return png(figure)


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
