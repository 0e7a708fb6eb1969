"""Records of bench_claim's trials -> figures of each system with intervals, tables, curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from scipy import stats

N_RESAMPLED = 2_000  # draws of seeds for the interval of a share of tokens


@dataclass(frozen=True, eq=False)
class Figures:
    """Figures of one system on one pool: an array each, ordered by seed.

    Attributes:
        gain: points of accuracy between the first policy and the last one.
        worst_topic: accuracy of the last policy on the topic where it is lowest, per cent.
        pair_yield: share of the explored questions that are usable.
        tokens_per_pair: tokens generated per usable question, probes included.
        distinct: different questions that were explored.
        accuracy: per cent, [seed, evaluation]; the first is before training.
        tokens: generated before each evaluation, [seed, evaluation].
        everywhere: accuracy on held-out questions of all tasks, where `accuracy` is on those in the model's range.
    """

    gain: np.ndarray
    worst_topic: np.ndarray
    pair_yield: np.ndarray
    tokens_per_pair: np.ndarray
    distinct: np.ndarray
    accuracy: np.ndarray
    tokens: np.ndarray
    everywhere: np.ndarray | None = None

    @classmethod
    def of(cls, runs: Sequence[list[dict]]) -> Figures:
        """The figures of the records of one system's runs."""
        sums = ("usable", "explored", "tokens")
        total = {name: np.array([sum(row[name] for row in r[1:]) for r in runs]) for name in sums}
        return cls(
            gain=100 * np.array([gain_of(r) for r in runs]),
            worst_topic=100 * np.array([r[-1].get("worst_topic", np.nan) for r in runs]),
            pair_yield=total["usable"] / total["explored"],
            tokens_per_pair=total["tokens"] / np.maximum(1, total["usable"]),
            distinct=np.array([r[-1]["distinct"] for r in runs]),
            accuracy=_curves(runs, "accuracy"),
            tokens=np.array([evaluated_at(r) for r in runs]),
            everywhere=_curves(runs, "everything") if "everything" in runs[0][0] else None,
        )

    def on_all_tasks(self) -> Figures:
        """The same with the accuracy on questions of all tasks."""
        assert self.everywhere is not None
        return replace(self, accuracy=self.everywhere, gain=self.everywhere[:, -1] - self.everywhere[:, 0])

    @classmethod
    def mean_of(cls, pools: Sequence[Figures]) -> Figures:
        """The mean over pools, seed by seed. Not of `everywhere`."""
        names = [field.name for field in fields(cls) if field.name != "everywhere"]
        return cls(*(np.mean([getattr(pool, name) for pool in pools], axis=0) for name in names))


def _curves(runs: Sequence[list[dict]], name: str) -> np.ndarray:
    return 100 * np.array([[row[name] for row in r if name in row] for r in runs])


Table = dict[str, Figures]  # by system


def evaluated_at(records: Sequence[Mapping]) -> list[int]:
    """Tokens generated before each evaluation."""
    spent = np.cumsum([row["tokens"] for row in records])
    return [int(n) for n, row in zip(spent, records, strict=True) if "accuracy" in row]


def gain_of(records: Sequence[Mapping]) -> float:
    """Accuracy at the end minus that of the first policy."""
    return records[-1]["accuracy"] - records[0]["accuracy"]


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean and its 95 % interval by Student's t; of one value no interval."""
    mean = float(values.mean())
    if len(values) < 2:
        return mean, float("nan"), float("nan")
    half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return mean, mean - half, mean + half


def tokens_share(system: Figures, baseline: Figures) -> tuple[float, float, float]:
    """Tokens after which a system has the baseline's final accuracy, as a share of the baseline's; with 95 %.

    Of the mean curves, because one seed's curve is too noisy, and linear between evaluations. A policy changes only at
    the end of an iteration: in whole iterations the share is up to one iteration larger. Infinite where the mean curve
    ends below.

    The interval: percentiles over resampled seeds, the same for both systems, and expanded for the small number of
    seeds (Hesterberg, "What Teachers Should Know About the Bootstrap", The American Statistician 69, 2015).
    """
    rng, n = np.random.default_rng(0), len(system.gain)
    share = _share_of(system, baseline, np.arange(n))
    if n < 2:
        return share, float("nan"), float("nan")
    resampled = [_share_of(system, baseline, rng.integers(n, size=n)) for _ in range(N_RESAMPLED)]
    tail = stats.norm.cdf(stats.t.ppf(0.025, n - 1) * np.sqrt(n / (n - 1)))
    low, high = np.quantile(resampled, [tail, 1 - tail], method="nearest")
    return share, float(low), float(high)


def _share_of(system: Figures, baseline: Figures, seeds: np.ndarray) -> float:
    goal, whole = baseline.accuracy[seeds].mean(axis=0)[-1], baseline.tokens[seeds, -1].mean()
    curve, tokens = system.accuracy[seeds].mean(axis=0), system.tokens[seeds].mean(axis=0)
    reached = np.flatnonzero(curve >= goal)
    if len(reached) == 0:
        return float("inf")
    i = max(1, reached[0])
    part = (goal - curve[i - 1]) / max(1e-9, curve[i] - curve[i - 1])
    return float(tokens[i - 1] + np.clip(part, 0, 1) * (tokens[i] - tokens[i - 1])) / whole


def show(title: str, table: Table, baselines: Sequence[str] = ()) -> None:
    """Print one table, in Markdown.

    Args:
        baselines: names of systems in it. Gains are compared with each of them, tokens with the first; none: with the
            system in the first row.
    """
    names = {table[name]: name for name in baselines} or {next(iter(table.values())): "the first row"}
    first, name = next(iter(names.items()))
    second = "worst topic, %" if first.everywhere is None else "gain, all tasks"
    heads = ["system", "gain", *(f"minus {name}" for name in names.values()), f"tokens to that of {name}", second]
    rows = [[*heads, "pair yield", "tokens per pair", "questions"]]
    for system, row in table.items():
        others = [spread(row.gain - other.gain) if row is not other else "" for other in names]
        values = row.worst_topic if row.everywhere is None else row.on_all_tasks().gain
        cells = [spread(row.gain), *others, _shares(row, first), spread(values), spread(row.pair_yield, 2)]
        rows.append([system, *cells, spread(row.tokens_per_pair, 0), spread(row.distinct, 0)])
    before = f"{first.accuracy[:, 0].mean():.1f} % before training"
    if first.everywhere is not None:
        before += f", {first.everywhere[:, 0].mean():.1f} % on all tasks"
    _print(f"{title}; means ± 95 %; {before}", rows)


def show_pairs(title: str, table: Table, pairs: Sequence[tuple[str, str]]) -> None:
    """Print how systems differ, in Markdown: points gained, seed by seed, and the ratio of their tokens per pair.

    Args:
        pairs: of systems; those of which one is not in the table are left out.
    """
    rows = [["systems", "difference of gains", "all tasks", "ratio of tokens per pair"]]
    for one, other in pairs:
        if one in table and other in table:
            a, b = table[one], table[other]
            of_all = "" if a.everywhere is None else _range(a.on_all_tasks().gain - b.on_all_tasks().gain)
            ratio = a.tokens_per_pair.mean() / b.tokens_per_pair.mean()
            rows.append([f"{one} − {other}", _range(a.gain - b.gain), of_all, f"{ratio:.2f}"])
    if len(rows) > 1:
        _print(f"{title}: pairs of systems; mean (95 % interval)", rows)


def show_spent(title: str, table: Table, baseline: str, budget: int) -> None:
    """Print the tokens that systems left, and their tokens to the baseline's final accuracy in whole iterations.

    Args:
        budget: tokens of a run.
    """
    first = table[baseline]
    goal, whole = first.accuracy.mean(axis=0)[-1], first.tokens[:, -1].mean()
    rows = [["system", f"tokens to that of {baseline}, whole iterations", "tokens left"]]
    for system, row in table.items():
        tokens = row.tokens.mean(axis=0)[row.accuracy.mean(axis=0) >= goal]
        share = f"{tokens[0] / whole:.2f}" if len(tokens) else "never"
        rows.append([system, share, f"{max(0, 100 - 100 * row.tokens[:, -1].mean() / budget):.0f} %"])
    _print(title, rows)


def _range(values: np.ndarray) -> str:
    mean, low, high = interval(values)
    return f"{mean:.1f} ({low:.1f} to {high:.1f})"


def _print(title: str, rows: list[list[str]]) -> None:
    """Print a table in Markdown; the first row has the headings."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print(f"\n{title}\n")
    for cells in (rows[0], ["-" * width for width in widths], *rows[1:]):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |")


def _shares(row: Figures, baseline: Figures) -> str:
    if row is baseline:
        return "1"
    share, low, high = tokens_share(row, baseline)
    return f"{share:.2f} [{low:.2f}, {high:.2f}]" if len(row.gain) > 1 else f"{share:.2f}"


def spread(values: np.ndarray, digits: int = 1) -> str:
    """A mean with its interval, as text."""
    mean, low, _ = interval(values)
    return f"{mean:.{digits}f}" + f" ± {mean - low:.{digits}f}" * (len(values) > 1)


def plot(tables: Mapping[str, Table], path: Path, labels: Mapping[str, str], one_scale: bool = True) -> None:
    """Draw accuracy over generated tokens, mean and 95 % interval, a panel per pool, into a PNG or SVG file.

    Args:
        labels: the systems to draw where a table has them, and their names in the legend.
        one_scale: the panels have the same scale of accuracy.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": path.stem, "font.size": 9}):
        figure = Figure(figsize=(4.2 * len(tables), 3.4), layout="constrained")
        panels = figure.subplots(1, len(tables), squeeze=False, sharey=one_scale)[0]
        for axes, (pool, table) in zip(panels, tables.items(), strict=True):
            for colour, (system, label) in enumerate(labels.items()):
                if (row := table.get(system)) is None:
                    continue
                middle, low, high = np.array([interval(column) for column in row.accuracy.T]).T
                thousands = row.tokens.mean(axis=0) / 1000
                axes.plot(thousands, middle, color=f"C{colour}", label=label)
                axes.fill_between(thousands, low, high, color=f"C{colour}", alpha=0.12, linewidth=0)
            axes.set_title(pool, fontsize="medium")
            axes.set_xlabel("tokens generated, thousands")
            axes.grid(alpha=0.25)
            axes.spines[["right", "top"]].set_visible(False)
        panels[0].set_ylabel("held-out accuracy, %")
        fullest = max(panels, key=lambda axes: len(axes.lines))
        fullest.legend(loc="lower right", frameon=False)
        figure.savefig(path, dpi=110, metadata={"Date": None} if path.suffix == ".svg" else None)
