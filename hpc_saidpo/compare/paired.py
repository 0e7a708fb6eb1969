"""Differences between systems and a baseline, run by run: runs of the same seed and otherwise equal settings.

Two runs of one seed share the pool, its held-out questions and the first policy. Their difference lacks what these
contribute, so its interval is narrower than that of two separate means.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import RunError, shown
from .comparison import Measure, benchmarks, mean_interval, measures
from .runs import Run
from .sweep import Group, Sweep

COLUMNS = ("name", "baseline", "measure", "pairs", "mean", "low95", "high95")  # of paired.csv
MEASURES = ("pair_yield", "rollout_tokens", "hours")  # besides the gain on each benchmark
HOW_TO_READ = (
    "Differences of the gain between runs of one seed and otherwise equal settings, mean ± t·sd/√n over these pairs of "
    "runs: the 95 % interval. Tokens and hours: cost"
)


@dataclass(frozen=True)
class Difference:
    """A system minus the baseline, over the pairs of their complete runs.

    Attributes:
        gains: mean over the benchmarks of the difference in gain, points, one of each pair of runs.
        by_measure: key of a measure -> differences in its unit for reading, one of each pair of runs.
    """

    group: Group
    gains: list[float]
    by_measure: dict[str, list[float]]


@dataclass(frozen=True)
class Pairing:
    """All systems of a sweep against one of them.

    Attributes:
        shown: the measures of the table.
        n_benchmarks: benchmarks that all systems have a gain of.
    """

    baseline: Group
    differences: list[Difference]
    shown: list[Measure]
    n_benchmarks: int


def find_baseline(sweep: Sweep, name: str | None) -> Group | None:
    """Return the group that others are compared with.

    Args:
        name: its label; a setting and its value as KEY=VALUE; or the name of one of its runs. None: the group with
            uniform sampling if there is one, else the first of two groups, else none.

    Raises:
        RunError: no group, or several, have this name.
    """
    groups = sweep.groups()
    if name is None:
        uniform = [g for g in groups if g.runs[0].settings.get("sampler.rule") == "uniform"]
        chosen = uniform if len(uniform) == 1 else groups[:1] if len(groups) == 2 else []
        return chosen[0] if chosen and len(groups) > 1 else None
    key, _, value = name.partition("=")
    for fits in (
        lambda g: g.label == name,
        lambda g: name in [run.name for run in g.runs],
        lambda g: "=" in name and {run.value(key) for run in g.runs} == {value},
    ):
        if found := [group for group in groups if fits(group)]:
            break
    if len(found) == 1:
        return found[0]
    labels = [group.label for group in groups]
    near = difflib.get_close_matches(name, labels, n=1)
    problem = "several systems are" if found else "no system is"
    hint = f"did you mean {shown(near[0])}? " if near else ""
    raise RunError(f"--baseline {shown(name)}: {problem} called that: {hint}there are {_listed(labels)}")


def _listed(labels: Sequence[str]) -> str:
    return "; ".join(shown(label, 80) for label in labels[:12])


def pair(sweep: Sweep, name: str | None) -> Pairing | None:
    """Return the differences of all systems from the baseline; None where there is nothing to compare with.

    Raises:
        RunError: as `find_baseline`.
    """
    baseline = find_baseline(sweep, name)
    if baseline is None:
        return None
    by_key = {measure.key: measure for measure in measures(sweep)}
    gains = [by_key[key] for key in (f"{b}_gain" for b in benchmarks(sweep)) if key in by_key]
    shown_measures = [*gains, *(by_key[key] for key in MEASURES if key in by_key)]
    others = [group for group in sweep.groups() if group.values != baseline.values]
    differences = [_difference(sweep, group, baseline, gains, shown_measures) for group in others]
    return Pairing(baseline, differences, shown_measures, len(gains))


def _difference(
    sweep: Sweep, group: Group, baseline: Group, gains: Sequence[Measure], every: Sequence[Measure]
) -> Difference:
    apart = [key for key in sweep.keys if key not in sweep.compared]

    def by_block(runs: Sequence[Run]) -> dict[tuple[str, ...], Run]:
        return {tuple(run.value(key) for key in apart): run for run in runs if run.complete}

    ours, theirs = by_block(group.runs), by_block(baseline.runs)
    pairs = [(ours[block], theirs[block]) for block in ours if block in theirs]

    def of(measure: Measure) -> list[float]:
        both = [(measure.by_run.get(a.name), measure.by_run.get(b.name)) for a, b in pairs]
        return [measure.factor * (a - b) for a, b in both if a is not None and b is not None]

    by_measure = {measure.key: of(measure) for measure in every}
    of_gains = [by_measure[measure.key] for measure in gains if len(by_measure[measure.key]) == len(pairs)]
    means = np.mean(of_gains, axis=0).tolist() if of_gains and len(of_gains) == len(gains) else []
    return Difference(group, means, by_measure)


def sentence(pairing: Pairing) -> str:
    """Return the result in one sentence: the system that is furthest above the baseline, or the only one."""
    compared = [difference for difference in pairing.differences if difference.gains]
    base = shown(pairing.baseline.label, 80)
    if not compared:
        return f"No complete run has a partner among those of {base}: same seed, same other settings, an accuracy."
    best = max(compared, key=lambda difference: float(np.mean(difference.gains)))
    n, mean = len(best.gains), float(np.mean(best.gains))
    where = f" on average over {pairing.n_benchmarks} benchmarks" if pairing.n_benchmarks > 1 else ""
    of = f"Of {len(compared)} systems, " if len(compared) > 1 else ""
    name = shown(best.group.label, 80)
    verb = "is ahead of" if mean >= 0 else "is behind"
    if n == 1:
        text = f"{of}{name} {verb} {base} by {abs(mean):.1f} points{where}, one seed: without an interval"
        return f"{text}, it may be chance."
    half = mean - mean_interval(best.gains)[1]
    clear = abs(mean) > half
    verb = ("beats" if mean > 0 else "loses to") if clear else verb
    amount = f"{abs(mean):.1f} ± {half:.1f} points{where}, {n} seeds, paired"
    end = "." if clear else f": the interval includes 0, so {n} seeds do not decide."
    return f"{of}{name} {verb} {base} by {amount}{end}"


def table(pairing: Pairing) -> list[list[str]]:
    """Return the differences for reading, the largest first: a header and rows."""
    header = [f"minus {shown(pairing.baseline.label, 60)}", "pairs of runs", *map(_label, pairing.shown)]
    ordered = sorted(pairing.differences, key=lambda d: -float(np.mean(d.gains)) if d.gains else np.inf)
    rows = []
    for difference in ordered:
        n = max(map(len, difference.by_measure.values()), default=0)
        cells = [_cell(difference.by_measure[measure.key], measure) for measure in pairing.shown]
        rows.append([difference.group.label, str(n), *cells])
    return [header, *rows]


def _label(measure: Measure) -> str:
    name = measure.key.removesuffix("_gain")
    return f"{name}, points" if measure.key.endswith("_gain") else measure.label


def _cell(values: Sequence[float], measure: Measure) -> str:
    form = "+" + measure.form.lstrip("+")
    if not values:
        return "-"
    if len(values) == 1:
        return format(values[0], form)
    mean, low, _ = mean_interval(values)
    return f"{mean:{form}} ± {mean - low:{measure.form.lstrip('+')}}"


def rows(pairing: Pairing) -> list[dict]:
    """Return the rows of paired.csv: one for each system and measure; mean, low95, high95 in the unit of the table."""
    made = []
    for difference in pairing.differences:
        for measure in pairing.shown:
            values = difference.by_measure[measure.key]
            spread = mean_interval(values) if len(values) > 1 else (*values, None, None) if values else (None,) * 3
            row = {"name": difference.group.label, "baseline": pairing.baseline.label, "measure": measure.key}
            made.append(row | {"pairs": len(values)} | dict(zip(("mean", "low95", "high95"), spread, strict=True)))
    return made
