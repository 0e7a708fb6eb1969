"""The curves of a sweep, as one PNG."""

from __future__ import annotations

import io
import re

import numpy as np
from scipy.special import stdtrit

from .runs import Sweep, evaluated, text_of

SHOWN_CHARACTERS, MAX_LEGEND = 30, 12
HOW_TO_READ = (
    "Dots are runs; hollow ones are unfinished and in no mean. Bars are the mean of the complete runs and its 95 % "
    "interval, mean ± t·sd/√n, where there are n ≥ 2; those without an end go on outside. Grey: mean accuracy before."
)


def short(text: str) -> str:
    """One line of at most SHOWN_CHARACTERS: its end, for that is where names differ."""
    text = " ".join(text.split()) or "-"
    return text if len(text) <= SHOWN_CHARACTERS else "…" + text[1 - SHOWN_CHARACTERS :]


def axes_of(sweep: Sweep) -> tuple[str | None, list[str]]:
    """(the key of the x axis or None for one place per system, the further keys that tell the runs apart).

    A numeric key makes an axis only where runs that agree in all the rest stand at two or more of its values on
    average: a list of systems that happen to differ in a number is no curve over it. Seeds tell no systems apart.
    """
    keys = [key for key in sweep.keys if key.rpartition(".")[2] != "seed"]
    known = [run.settings for run in sweep.runs if run.settings]

    def n_distinct(some):
        return len({_values(settings, some) for settings in known})

    numeric = [key for key in keys if all(type(settings.get(key)) in (int, float) for settings in known)]
    for x in sorted(numeric, key=lambda key: -n_distinct([key])):
        rest = [key for key in keys if key != x]
        if n_distinct(keys) >= 2 * n_distinct(rest):
            return x, rest
    return None, keys


def _values(settings, keys):
    return tuple(text_of(settings.get(key)) for key in keys)


def mean_interval(values) -> tuple[float, float, float]:
    """Mean of n >= 2 values and its 95 % interval, mean ± t·sd/√n with Student's t of n - 1 degrees of freedom."""
    mean, n = float(np.mean(values)), len(values)
    half = float(stdtrit(n - 1, 0.975) * np.std(values, ddof=1) / n**0.5)
    return mean, mean - half, mean + half


def curves(sweep: Sweep) -> bytes:
    """Accuracy at the end and over the iterations, pair yield, entropy of the draw, as one PNG."""
    from matplotlib.figure import Figure  # without pyplot: no display, no global state, half the time to import

    marks = Marks(sweep)
    panels = []  # (title, label of the x axis, how it is drawn, values by run)
    for name in sweep.benchmarks:
        ends = {run.name: (run.before(name).accuracy, run.after(name).accuracy) for run in marks.runs}
        panels.append((f"{name}: accuracy after the last iteration", marks.axis_label, marks.draw_ends, ends))
        lines = {run.name: _accuracies(run, name) for run in marks.runs}
        panels.append((f"{name}: accuracy", "rounds of training", marks.draw_lines, lines))
    apart = dict.fromkeys(row["benchmark"] for row in sweep.evaluations if row["state"] == "done")
    for name in [name for name in apart if name not in sweep.benchmarks]:
        ends = {run.name: evaluated(sweep, run, name) for run in marks.runs}
        panels.append((f"{name}: accuracy, evaluated apart", marks.axis_label, marks.draw_ends, ends))
    for title, key in (("Pair yield", "pair_yield"), ("Entropy of the draw (100 %: uniform)", "entropy_share")):
        lines = {run.name: [(r.iteration, getattr(r, key)) for r in run.records] for run in marks.runs}
        panels.append((title, "iteration", marks.draw_lines, lines))
    n_rows = -(-len(panels) // 2)
    figure = Figure(figsize=(12, 4 * n_rows + 1), layout="constrained")
    figure.suptitle(HOW_TO_READ.replace("Bars", "\nBars", 1), fontsize=9)
    axes = list(figure.subplots(n_rows, 2, squeeze=False).flat)
    for axis, (title, label, draw, values) in zip(axes, panels, strict=False):
        draw(axis, values)
        axis.set(title=title, xlabel=label, ylabel="%")
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    marks.draw_legend(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _accuracies(run, benchmark):
    """(rounds of training, accuracy), the policy before the run first."""
    after = [(r.iteration + 1, r.scores[benchmark].accuracy) for r in run.records if benchmark in r.scores]
    return [(0, run.before(benchmark).accuracy), *after]


class Marks:
    """Where a run stands on the x axis and in which colour; draws the panels."""

    def __init__(self, sweep):
        from matplotlib import colormaps

        self.x, self.rest = axes_of(sweep)
        self.runs = [run for run in sweep.runs if run.settings]
        by = [self.x] if self.x and not self.rest else self.rest
        self.key = {run.name: _values(run.settings, by) for run in self.runs}
        if self.x:
            self.place = {run.name: run.settings[self.x] for run in self.runs}
            self.places = sorted(set(self.place.values()))
        else:
            self.place, self.places = self.key, list(dict.fromkeys(self.key.values()))
        if self.rest:
            keys = list(dict.fromkeys(self.key.values()))
            name = "tab10" if len(keys) <= 10 else "turbo"
            colours = colormaps[name](range(len(keys)) if name == "tab10" else np.linspace(0.05, 0.95, len(keys)))
        else:
            keys = [(text_of(place),) for place in self.places] if self.x else self.places
            colours = colormaps["viridis"](np.linspace(0, 0.85, len(keys)))  # ordered, as the values are
        self.colour = dict(zip(keys, colours, strict=True))
        self.label, self.title = self._labels(keys, by)
        uneven = self.x and np.ptp(np.diff(self.places)) > 1e-9 * max(map(abs, self.places))
        self.axis_label = f"{self.x} (not to scale)" if uneven else self.x or "system"

    def _labels(self, keys, by):
        if self.x:
            return {key: short(", ".join(key)) for key in keys}, ", ".join(by)
        labels = {}
        for key in keys:
            names = {re.sub(r"[-_,.=]*seed[-_,.=]*\d+", "", r.name) for r in self.runs if self.key[r.name] == key}
            labels[key] = short(names.pop() if len(names) == 1 else ", ".join(key) or "all runs")
        return labels, "system"

    def draw_ends(self, axis, ends):
        """A dot per run over its place, mean and interval beside them, the mean before as a grey line.

        Args:
            ends: run name -> (accuracy before, accuracy after), shares of 1.
        """
        lines = list(dict.fromkeys(_values(run.settings, self.rest) for run in self.runs))
        seen = [100 * share for both in ends.values() for share in both if share is not None]
        for number, line in enumerate(lines):
            room = 0.6 / len(lines) if self.x else 0.6  # lines stand side by side, systems have a place of their own
            shift = (number - (len(lines) - 1) / 2) * room if self.x else 0.0
            means = []
            for at, place in enumerate(self.places):
                own = [r for r in self.runs if self.place[r.name] == place and _values(r.settings, self.rest) == line]
                own = [run for run in own if ends[run.name][1] is not None]
                if not own:
                    continue
                colour = self.colour[self.key[own[0].name]]
                for run in own:
                    face = colour if run.state == "complete" else "none"
                    axis.scatter(at + shift, 100 * ends[run.name][1], s=28, color=face, edgecolors=[colour], zorder=3)
                complete = [100 * ends[run.name][1] for run in own if run.state == "complete"]
                if len(complete) > 1:
                    mean, low, high = mean_interval(complete)
                    means.append((at + shift + room / 4, mean))
                    seen += [low, high] if len(complete) > 2 else []
                    axis.errorbar(
                        *means[-1], [[mean - low], [high - mean]], fmt="_", color=colour, markersize=10, capsize=3
                    )
            if self.x and means:
                axis.plot(*zip(*means, strict=True), color=colour if self.rest else "0.4", linewidth=1, zorder=1)
        before = [before for before, _ in ends.values() if before is not None]
        if before:
            axis.axhline(100 * np.mean(before), color="grey", linewidth=1, linestyle="--")
        labels = [str(place) if self.x else self.label[place] for place in self.places]
        slanted = {"rotation": 30, "ha": "right"} if max(map(len, labels), default=0) * len(labels) > 60 else {}
        axis.set_xticks(range(len(labels)), labels, **slanted)
        if seen:
            # Two runs have an interval 13 times their distance wide: it would flatten everything else.
            margin = 0.08 * (max(seen) - min(seen)) or 1.0
            axis.set_ylim(min(seen) - margin, max(seen) + margin)

    def draw_lines(self, axis, lines):
        """A thin line per run.

        Args:
            lines: run name -> its points (rounds or iteration, share of 1 or None).
        """
        from matplotlib.ticker import MaxNLocator

        for name, points in lines.items():
            points = [(t, 100 * share) for t, share in points if share is not None]
            if points:
                axis.plot(*zip(*points, strict=True), color=self.colour[self.key[name]], linewidth=1, marker=".")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))

    def draw_legend(self, figure):
        """Colours by name; of too many to read, none: the first panel names them along its axis."""
        from matplotlib.lines import Line2D

        if 1 < len(self.colour) <= MAX_LEGEND:
            handles = [Line2D([], [], color=c, marker=".", label=self.label[key]) for key, c in self.colour.items()]
            figure.legend(handles=handles, title=self.title, loc="outside lower center", ncols=6)
