"""Records of bench_claim's trials -> figures of each system with intervals, tables, curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from claim_lab import Trial
from scipy import stats

SYSTEMS = {
    "IDPO": "idpo", "published": "saidpo", "ours": "saidpo_history", "frontier": "frontier",
    "frontier_error": "frontier_error", "- difficulty": "no_difficulty",
}  # fmt: skip
BASELINE, OURS, PUBLISHED, BOLD = "IDPO", "ours", "published", "frontier_error"
NO_CLUSTERS = "- clusters"  # every question weighs 1: IDPO, draw by draw
NOT_RULES = (BASELINE, "- difficulty", NO_CLUSTERS)
QUARTER = "ours, a quarter of the probe"
UNPROBED = "IDPO, no probe"
BOLDER = "ours, kappa 1, history 0.8"  # what makes `frontier_error` bold, for the rule `error`


@dataclass(frozen=True)
class Figures:
    """Figures of one system on one pool: an array each, ordered by seed.

    Attributes:
        gain, greedy_gain, worst_topic: points of accuracy.
        pair_yield: share of the explored questions that are usable.
        tokens_per_pair: tokens generated per usable question.
        accuracy: per cent, [seed, evaluation].
        tokens: generated before each evaluation, mean over the seeds.
    """

    gain: np.ndarray
    greedy_gain: np.ndarray
    worst_topic: np.ndarray
    pair_yield: np.ndarray
    tokens_per_pair: np.ndarray
    accuracy: np.ndarray
    tokens: np.ndarray

    @classmethod
    def of(cls, runs: Sequence[list[dict]]) -> Figures:
        """The figures of the records of one system's runs."""
        first, last = [r[0] for r in runs], [r[-1] for r in runs]
        total = {
            name: np.array([sum(row[name] for row in r[1:]) for r in runs]) for name in ("usable", "explored", "tokens")
        }
        return cls(
            gain=100 * np.array([b["accuracy"] - a["accuracy"] for a, b in zip(first, last, strict=True)]),
            greedy_gain=100 * np.array([b["greedy"] - a["greedy"] for a, b in zip(first, last, strict=True)]),
            worst_topic=100 * np.array([b["worst_topic"] for b in last]),
            pair_yield=total["usable"] / total["explored"],
            tokens_per_pair=total["tokens"] / np.maximum(1, total["usable"]),
            accuracy=100 * np.array([[row["accuracy"] for row in r if "accuracy" in row] for r in runs]),
            tokens=np.mean([evaluated_at(r) for r in runs], axis=0),
        )


Table = dict[str, Figures]  # by system


def evaluated_at(records: Sequence[Mapping]) -> list[int]:
    """Tokens generated before each evaluation."""
    spent = np.cumsum([row["tokens"] for row in records])
    return [int(n) for n, row in zip(spent, records, strict=True) if "accuracy" in row]


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean and its 95 % interval by Student's t; of one value no interval."""
    mean = float(values.mean())
    if len(values) < 2:
        return mean, float("nan"), float("nan")
    half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return mean, mean - half, mean + half


def tables(played: Mapping[Trial, list[dict]]) -> dict[tuple[str, bool], Table]:
    """The figures of each system, by (pool, whether its clusters are the true labels)."""
    grouped: dict[tuple[str, bool], dict[str, list]] = {}
    for trial, records in sorted(played.items(), key=lambda item: item[0].seed):
        grouped.setdefault((trial.pool, trial.labels), {}).setdefault(trial.system, []).append(records)
    by_place = {
        place: {system: Figures.of(runs) for system, runs in systems.items()} for place, systems in grouped.items()
    }
    for (_, labels), table in by_place.items():
        if not labels:
            table[NO_CLUSTERS] = table[BASELINE]
    return by_place


def show(pool: str, labels: bool, table: Table, baseline: Figures) -> None:
    """Print one table."""
    print(
        f"\npool {pool}, clusters are {'the true labels' if labels else 'K-Means of knowledge points'}; points, ± 95 %"
    )
    heads = ("gain", f"- {BASELINE}'s", "greedy gain", "worst topic", "pair yield", "tokens per pair")
    print(f"{'system':30}" + "".join(f"{head:>18}" for head in heads))
    for system, row in table.items():
        columns = row.gain, row.gain - baseline.gain, row.greedy_gain, row.worst_topic
        cells = [spread(column) for column in columns]
        cells += [spread(row.pair_yield, 3), spread(row.tokens_per_pair, 0)]
        print(f"{system:30}" + "".join(f"{cell:>18}" for cell in cells))


def spread(values: np.ndarray, digits: int = 1) -> str:
    """A mean with its interval, as text."""
    mean, low, _ = interval(values)
    return f"{mean:.{digits}f}" + f" ± {mean - low:.{digits}f}" * (len(values) > 1)


def figures_of(by_place: dict[tuple[str, bool], Table], pools: Sequence[str]) -> dict[str, float | str]:
    """The flat figures: of the first pool, mostly out of reach, and of the last one, mostly in reach (in_band)."""
    table, last = by_place[pools[0], False], by_place[pools[-1], False]
    base, uniform = table[BASELINE], last[BASELINE]
    rules = [system for system in SYSTEMS if system not in NOT_RULES]
    best = max(rules, key=lambda system: table[system].gain.mean())
    gain = {system: row.gain.mean() / base.gain.mean() for system, row in table.items()}
    share = {system: row.pair_yield.mean() / base.pair_yield.mean() for system, row in table.items()}
    _, low, _ = interval(table[best].gain - base.gain)
    _, low_published, _ = interval(table[best].gain - table[PUBLISHED].gain)
    _, low_ours, _ = interval(table[OURS].gain - base.gain)
    _, low_ours_published, _ = interval(table[OURS].gain - table[PUBLISHED].gain)
    _, low_in_band, high_in_band = interval(last[best].gain - uniform.gain)
    return {
        "best_rule": best,
        "yield_ratio_error": share[OURS],
        "yield_ratio_frontier": share["frontier"],
        "gain_ratio_best": gain[best],
        "gain_ratio_ours": gain[OURS],
        "gain_ratio_published": gain[PUBLISHED],
        "gain_ratio_quarter_probe": gain[QUARTER],
        "gain_ratio_bolder": gain[BOLDER],
        "gain_ratio_best_to_unprobed": table[best].gain.mean() / table[UNPROBED].gain.mean(),
        "paired_gain_low95_best": low,
        "paired_gain_low95_ours": low_ours,
        "paired_vs_published_low95": low_published,
        "paired_vs_published_low95_ours": low_ours_published,
        "paired_gain_low95_in_band": low_in_band,
        "paired_gain_high95_in_band": high_in_band,
        "gain_idpo": float(base.gain.mean()),
        "gain_ours": float(table[OURS].gain.mean()),
        "gain_best": float(table[best].gain.mean()),
    }


def plot(by_place: dict[tuple[str, bool], Table], path: Path) -> None:
    """Draw accuracy over generated tokens, mean and 95 % interval, a panel per pool and kind of clusters."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * len(by_place), 5), layout="constrained")
    panels = figure.subplots(1, len(by_place), squeeze=False, sharey=True)[0]
    systems = dict.fromkeys(system for table in by_place.values() for system in table)
    colour = {system: colormaps["tab20"](i) for i, system in enumerate(systems)}
    for axes, ((pool, labels), table) in zip(panels, by_place.items(), strict=True):
        for system, row in table.items():
            middle, low, high = np.array([interval(column) for column in row.accuracy.T]).T
            thousands, style = row.tokens / 1000, "-" if system in SYSTEMS else ":"
            axes.plot(thousands, middle, color=colour[system], label=system, ls=style)
            axes.fill_between(thousands, low, high, color=colour[system], alpha=0.12, linewidth=0)
        axes.set_title(f"pool {pool}, {'true labels' if labels else 'real clusters'}")
        axes.set_xlabel("tokens generated, thousands")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("accuracy on held-out questions, %")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, fontsize=8)
    figure.savefig(path, dpi=120)
