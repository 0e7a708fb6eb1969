"""Where a run stands on the x axis and in which colour; draws a panel of a figure."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

import numpy as np

from .comparison import Measure, mean_interval
from .runs import text_of
from .sweep import Sweep

SHOWN_CHARACTERS, MAX_LEGEND = 30, 12
ROOM_CHARACTERS = 56  # along the x axis of a panel


def short(text: str) -> str:
    """One line of at most SHOWN_CHARACTERS: its end, for that is where names differ."""
    text = " ".join(text.split()) or "-"
    return text if len(text) <= SHOWN_CHARACTERS else "…" + text[1 - SHOWN_CHARACTERS :]


def axes_of(sweep: Sweep) -> tuple[str | None, list[str]]:
    """(the key of the x axis or None for one place per group, the further keys that tell the groups apart).

    A numeric key makes an axis only where groups that agree in all the rest stand at two or more of its values on
    average: a list of systems that happen to differ in a number is no curve over it.
    """
    keys, groups = sweep.compared, sweep.groups()

    def n_distinct(some):
        return len({tuple(group.runs[0].value(key) for key in some) for group in groups})

    numeric = [k for k in keys if all(type(group.runs[0].settings.get(k)) in (int, float) for group in groups)]
    for x in sorted(numeric, key=lambda key: -n_distinct([key])):
        rest = [key for key in keys if key != x]
        if len(groups) >= 2 * n_distinct(rest):
            return x, rest
    return None, keys


class Marks:
    """Places, colours and names of the groups of a sweep.

    Attributes:
        lines: the groups that one line joins over the x axis; without an axis, all of them, unjoined.
    """

    def __init__(self, sweep: Sweep):
        self.x, rest = axes_of(sweep)
        self.groups = sweep.groups()
        if self.x:
            at = [group.runs[0].settings[self.x] for group in self.groups]
            places = sorted(set(at))
            self.ticks, index = [text_of(place) for place in places], [places.index(place) for place in at]
            lines = [tuple(group.runs[0].value(key) for key in rest) for group in self.groups]
        else:
            places, index = [], range(len(self.groups))
            self.ticks = [short(group.label) for group in self.groups]
            lines = [()] * len(self.groups)
        self.place = {group.values: i for group, i in zip(self.groups, index, strict=True)}
        self.lines = {line: [g for g, own in zip(self.groups, lines, strict=True) if own == line] for line in lines}
        by_line = bool(self.x and rest)  # else a colour for each place
        self._names = [short(", ".join(line)) for line in self.lines] if by_line else self.ticks
        self._palette = _palette(len(self._names), ordered=bool(self.x) and not by_line)
        numbers = [list(self.lines).index(line) for line in lines] if by_line else index
        self.colour = {group.values: self._palette[i] for group, i in zip(self.groups, numbers, strict=True)}
        by_keys = self.x or sweep.by or len(rest) == 1  # else by name
        self.title = (", ".join(rest) if by_keys else "system") if rest else self.x or "system"
        uneven = self.x and np.ptp(np.diff(places)) > 1e-9 * max(map(abs, places))
        self.axis_label = f"{self.x} (not to scale)" if uneven else self.x or self.title

    def draw_groups(self, axis, measure: Measure, baseline: float | None = None) -> None:
        """A dot per run over its group's place, mean and interval beside them.

        Args:
            baseline: drawn as a grey line, if there is one.
        """
        shown = [] if baseline is None else [measure.factor * baseline]
        room = 0.6 / len(self.lines)  # lines stand side by side
        for number, line in enumerate(self.lines.values()):
            shift = (number - (len(self.lines) - 1) / 2) * room
            means = []
            for group in line:
                at, colour = self.place[group.values] + shift, self.colour[group.values]
                values, mean = self._draw_group(axis, measure, group, at, room, colour)
                shown += values
                means += [mean] if mean else []
            if self.x and means:
                joined = colour if len(self.lines) > 1 else "0.4"
                axis.plot(*zip(*means, strict=True), color=joined, linewidth=1, zorder=1)
        if baseline is not None:
            axis.axhline(measure.factor * baseline, color="grey", linewidth=1, linestyle="--")
        axis.set_xlabel(self.axis_label)
        label_places(axis, self.ticks)
        limit(axis, shown)

    def _draw_group(self, axis, measure, group, at, room, colour):
        """Draws, and gives (what the axis must show, where the mean is or None)."""
        own = [run for run in group.runs if run.name in measure.of]
        for run in own:
            face = colour if run.complete else "none"
            y = measure.factor * measure.of[run.name]
            axis.scatter(at, y, s=47 * room, color=face, edgecolors=[colour], zorder=3)
        shown = [measure.factor * measure.of[run.name] for run in own]
        complete = [measure.factor * value for value in measure.values(own)]
        if len(complete) < 2:
            return shown, None
        mean, low, high = mean_interval(complete)
        beside = at + room / 4
        axis.errorbar(beside, mean, [[mean - low], [high - mean]], fmt="_", color=colour, markersize=10, capsize=3)
        # Two runs have an interval 13 times their distance wide: it would flatten everything else.
        return shown + [low, high] * (len(complete) > 2), (beside, mean)

    def draw_lines(self, axis, lines: Mapping[str, list[tuple[int, float | None]]], label: str) -> None:
        """A thin line per run.

        Args:
            lines: run name -> its points (rounds or iteration, share of 1 or None).
        """
        from matplotlib.ticker import MaxNLocator

        for group in self.groups:
            for run in group.runs:
                points = [(t, 100 * share) for t, share in lines[run.name] if share is not None]
                if points:
                    axis.plot(*zip(*points, strict=True), color=self.colour[group.values], linewidth=1, marker=".")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_xlabel(label)

    def draw_side_by_side(self, axis, measures: Mapping[str, Measure]) -> None:
        """Several measures of one scale, each over a place of its own, the groups beside each other."""
        shown = [0.0]
        for place, measure in enumerate(measures.values()):
            for number, group in enumerate(self.groups):
                room = 0.7 / len(self.groups)
                at = place + (number - (len(self.groups) - 1) / 2) * room
                shown += self._draw_group(axis, measure, group, at, room, self.colour[group.values])[0]
        axis.axhline(0, color="grey", linewidth=1, linestyle="--")
        label_places(axis, list(measures))
        limit(axis, shown)

    def draw_legend(self, figure) -> None:
        """Colours by name; of too many to read, none: the first panel names them along its axis."""
        from matplotlib.lines import Line2D

        if 1 < len(self._names) <= MAX_LEGEND:
            named = zip(self._palette, self._names, strict=True)
            handles = [Line2D([], [], color=colour, marker=".", label=name) for colour, name in named]
            figure.legend(handles=handles, title=self.title, loc="outside lower center", ncols=6)


def _palette(n, ordered):
    """n colours: in the order of the values they stand for, or as different as can be."""
    from matplotlib import colormaps

    if n <= 10 and not ordered:
        return colormaps["tab10"](range(n))
    return colormaps["viridis" if ordered else "turbo"](np.linspace(0, 0.85, n))


def label_places(axis, labels: list[str]) -> None:
    """Name the places of an axis, in several lines or slanted where they would run into each other."""
    width = max(8, ROOM_CHARACTERS // max(1, len(labels)))
    wrapped = ["\n".join(textwrap.wrap(label, width, break_long_words=False)) for label in labels]
    longest = max((len(line) for label in wrapped for line in label.splitlines()), default=0)
    slanted = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if longest > width else {}
    axis.set_xticks(range(len(labels)), labels if slanted else wrapped, **slanted)


def limit(axis, shown: list[float]) -> None:
    """Fit the y axis to what it must show."""
    if shown:
        margin = 0.08 * (max(shown) - min(shown)) or 1.0
        axis.set_ylim(min(shown) - margin, max(shown) + margin)
