"""Compare the systems of a sweep: means over the seeds with their 95 % intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from . import evaluations
from .rollouts import PROXIES
from .runs import Run
from .sweep import MAX_KEYS, Group, Sweep

SOME_KEYS = 5  # that a note names
HOW_TO_READ = (
    "Means over the complete runs of each row and their 95 % intervals, ± t·sd/√n. Gain: from before the first to "
    "after the last iteration. Tokens: of all rollouts, the probes' too. Hours: of all stages of all starts. A usable "
    "pair is an explored question in the band, neither too hard nor too easy"
)
ABOUT_PROXIES = (
    "ρ: Spearman's rank correlation of the pass rate with each proxy over the probed and explored questions of an "
    "iteration, mean over the iterations; negative where the proxy agrees. In band: over the questions that can become "
    "pairs"
)
ORDER_WITHOUT_EFFECT = (
    "difficulty.order had no effect: pairs.share was 1, and in no iteration was pairs.budget below the number of "
    "possible pairs. With a lower one it decides which questions become pairs"
)


@dataclass(frozen=True)
class Measure:
    """One figure of every run.

    Attributes:
        key: name in comparison.csv, which holds the values without `factor`.
        label: name in tables for reading, with its unit.
        form: format of a value in tables for reading, after multiplication by `factor`.
        by_run: name of a run -> value; runs without a value are left out.
    """

    key: str
    label: str
    form: str
    factor: float
    by_run: dict[str, float]

    def values(self, runs: Sequence[Run]) -> list[float]:
        """Return the values of the complete runs among `runs`."""
        return [self.by_run[run.name] for run in runs if run.complete and run.name in self.by_run]


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return mean, low and high of n >= 2 values.

    The 95 % interval is mean ± t·sd/√n, with Student's t of n - 1 degrees of freedom.
    """
    mean, n = float(np.mean(values)), len(values)
    half = float(stdtrit(n - 1, 0.975) * np.std(values, ddof=1) / n**0.5)
    return mean, mean - half, mean + half


def accuracies(sweep: Sweep, run: Run, benchmark: str) -> tuple[float | None, float | None]:
    """Return accuracy before and after a run, from its evaluations, or from stand-alone ones where no run has any."""
    if benchmark in sweep.benchmarks:
        return run.before(benchmark).accuracy, run.after(benchmark).accuracy
    return evaluations.accuracies(sweep.evaluations, run, benchmark)


def benchmarks(sweep: Sweep) -> list[str]:
    """Return the benchmarks of the runs, then those that only stand-alone evaluations have."""
    apart = (row["benchmark"] for row in sweep.evaluations if row["state"] == "done")
    return list(dict.fromkeys([*sweep.benchmarks, *apart]))


def measures(sweep: Sweep) -> list[Measure]:
    """Return all measures that some run has a value of."""
    every: list[Measure] = []

    def add(key: str, label: str, form: str, factor: float, value: Callable[[Run], float | None]) -> None:
        by_run = {run.name: value(run) for run in sweep.runs}
        every.append(Measure(key, label, form, factor, {run: v for run, v in by_run.items() if v is not None}))

    for name in benchmarks(sweep):
        both = {run.name: accuracies(sweep, run, name) for run in sweep.runs}
        gain = {
            run: None if before is None or after is None else after - before for run, (before, after) in both.items()
        }
        add(f"{name}_before", f"{name} before, %", ".1f", 100, lambda run, both=both: both[run.name][0])
        add(f"{name}_after", "after, %", ".1f", 100, lambda run, both=both: both[run.name][1])
        add(f"{name}_gain", "gain, points", "+.1f", 100, lambda run, gain=gain: gain[run.name])
    add("pair_yield", "pair yield, %", ".1f", 100, lambda run: run.pair_yield)
    add("pairs", "pairs", ",.0f", 1, lambda run: sum(r.pairs for r in run.records) if run.complete else None)
    add("rollout_tokens", "1,000 tokens", ",.0f", 1e-3, lambda run: run.drawn.tokens if run.complete else None)
    add("tokens_per_usable_pair", "tokens/usable pair", ",.0f", 1, lambda run: run.tokens_per_usable_pair)
    add("hours", "hours", ".3g", 1, lambda run: run.hours if run.complete else None)
    for name in PROXIES:
        add(f"rho_{name}", f"ρ {name}", ".2f", 1, lambda run, name=name: run.drawn.rho.get(name))
        add(f"rho_{name}_in_band", "in band", ".2f", 1, lambda run, name=name: run.drawn.rho_in_band.get(name))
    return [measure for measure in every if measure.by_run]


def rows(sweep: Sweep) -> list[dict]:
    """Return the rows of comparison.csv: mean, low95 and high95 of every measure. Rates are shares of 1.

    A single run has no interval.
    """
    shown = measures(sweep)
    return [_row(sweep, group, shown) for group in sweep.groups()]


def _row(sweep: Sweep, group: Group, shown: Sequence[Measure]) -> dict:
    row = {"name": group.label, **dict(zip(sweep.compared, group.values, strict=True))}
    row |= {"runs": len(group.runs), "complete": sum(run.complete for run in group.runs)}
    for measure in shown:
        values = measure.values(group.runs)
        spread = mean_interval(values) if len(values) > 1 else (*values, None, None) if values else (None,) * 3
        row |= {f"{measure.key}_{part}": value for part, value in zip(("mean", "low95", "high95"), spread, strict=True)}
    return row


def table(sweep: Sweep) -> list[list[str]]:
    """Return the comparison for reading: a header and rows."""
    shown = [m for m in measures(sweep) if compares_proxies(sweep) or not m.key.startswith("rho_")]
    groups = sweep.groups()
    keys = sweep.compared if sweep.by or len(sweep.compared) <= MAX_KEYS else []
    has_names = not keys or any(group.is_name for group in groups)
    body = [[*(["system"] if has_names else []), *keys, "runs", *(measure.label for measure in shown)]]
    for group in groups:
        complete = sum(run.complete for run in group.runs)
        n = str(complete) if complete == len(group.runs) else f"{complete} of {len(group.runs)}"
        about = [*([group.label] if has_names else []), *(group.values if keys else [])]
        body.append([*about, n, *(_cell(m, group) for m in shown)])
    return body


def _cell(measure: Measure, group: Group) -> str:
    values = [measure.factor * value for value in measure.values(group.runs)]
    if len(values) < 2:
        return format(values[0], measure.form) if values else "-"
    mean, low, _ = mean_interval(values)
    return f"{mean:{measure.form}} ± {mean - low:{measure.form.lstrip('+')}}"


def compares_proxies(sweep: Sweep) -> bool:
    """Whether the compared orders of difficulty include one that begins with a proxy, so that ρ is of interest."""
    orders = [run.settings.get("difficulty.order") or [""] for run in sweep.runs]
    return "difficulty.order" in sweep.compared and any(order[0] in PROXIES for order in orders)


def notes(sweep: Sweep) -> list[str]:
    """Return explanations of the comparison and its limits; one line each."""
    lines = [HOW_TO_READ]
    if compares_proxies(sweep):
        lines.append(ABOUT_PROXIES)
    cut = any(
        r.pairs >= (run.settings.get("pairs.budget") or np.inf) or run.settings.get("pairs.share", 1) < 1
        for run in sweep.runs
        for r in run.records
    )
    if "difficulty.order" in sweep.compared and not cut:
        lines.append(ORDER_WITHOUT_EFFECT)
    lines += [f"{name} has the configuration and seed of {first}: counted once" for name, first in sweep.again.items()]
    apart = [key for key in sweep.compared if key.startswith(("pool.", "policy."))]
    if apart and not sweep.by:
        lines.append(
            f"The systems differ in {_some(apart)}, too: they start from other policies or learn from other questions. "
            "Name the settings to compare by --by"
        )
    if sweep.mixed:
        lines.append(f"Runs of one row differ in {_some(sweep.mixed)} too: --by with these keys separates them")
    return lines + [f"Compared {line}" for line in sweep.software]


def _some(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - SOME_KEYS} more" if len(keys) > SOME_KEYS else ""
    return ", ".join(keys[:SOME_KEYS]) + more
