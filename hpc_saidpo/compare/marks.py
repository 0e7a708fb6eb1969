"""Draw the panels of a figure: the place of each run on the x axis, its colour, the legend."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .comparison import Measure, mean_interval
from .runs import short, text_of
from .sweep import Group, Sweep

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_LEGEND, MAX_BANDS = 12, 6
STYLES = ("-", "--", ":", "-.")  # of lines that have one colour
ROOM_CHARACTERS = 56  # along the x axis of a panel


def axes_of(sweep: Sweep) -> tuple[str | None, list[str]]:
    """Return the key of the x axis (None: one place per group), and the other keys in which the groups differ.

    A numeric key makes an axis only if groups that agree in all other keys have two or more of its values on average:
    a list of systems that also differ in a number is no curve over it.
    """
    keys, groups = sweep.compared, sweep.groups()

    def n_distinct(some: Sequence[str]) -> int:
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
        x: key of the x axis; None: each group has its place.
        groups, names: the groups of the sweep, and their names as a figure shows them.
        ticks: labels of the places.
        place, colour: values of a group -> its place on the x axis, and its colour.
        lines: the groups that one line connects over the x axis; without an axis, all groups, not connected.
        title, axis_label: titles of the legend and of the x axis.
    """

    def __init__(self, sweep: Sweep):
        self.x, rest = axes_of(sweep)
        self.groups = sweep.groups()
        is_value = len(sweep.compared) == 1 and bool(sweep.by or self.x)
        self.names = [short(group.values[0] if is_value else group.label) for group in self.groups]
        if self.x:
            at = [group.runs[0].settings[self.x] for group in self.groups]
            places = sorted(set(at))
            self.ticks, index = [text_of(place) for place in places], [places.index(place) for place in at]
            lines = [tuple(group.runs[0].value(key) for key in rest) for group in self.groups]
        else:
            places, index = [], range(len(self.groups))
            self.ticks = self.names
            lines = [()] * len(self.groups)
        self.place = {group.values: i for group, i in zip(self.groups, index, strict=True)}
        self.lines = {line: [g for g, of_g in zip(self.groups, lines, strict=True) if of_g == line] for line in lines}
        by_line = bool(self.x and rest)  # else a colour for each place
        self._names = [short(", ".join(line)) for line in self.lines] if by_line else self.ticks
        self._palette = _palette(len(self._names), ordered=bool(self.x) and not by_line)
        numbers = [list(self.lines).index(line) for line in lines] if by_line else index
        self.colour = {group.values: self._palette[i] for group, i in zip(self.groups, numbers, strict=True)}
        by_keys = self.x or sweep.by  # else by name
        self.title = (", ".join(rest) if by_keys else "system") if rest else self.x or "system"
        uneven = self.x and np.ptp(np.diff(places)) > 1e-9 * max(map(abs, places))
        self.axis_label = f"{self.x} (not to scale)" if uneven else self.x or self.title

    def draw_groups(self, axis: Axes, measure: Measure, baseline: float | None = None) -> None:
        """Draw a dot for each run over its group's place, with mean and interval beside the dots.

        Args:
            baseline: value of a grey line; None: no line.
        """
        shown = [] if baseline is None else [measure.factor * baseline]
        room = 0.6 / len(self.lines)  # lines are side by side
        for number, line in enumerate(self.lines.values()):
            shift = (number - (len(self.lines) - 1) / 2) * room
            means = []
            for group in line:
                values, mean = self._draw_group(axis, measure, group, self.place[group.values] + shift, room)
                shown += values
                means += [mean] if mean else []
            if self.x and means:
                joined = self.colour[line[-1].values] if len(self.lines) > 1 else "0.4"
                axis.plot(*zip(*means, strict=True), color=joined, linewidth=1, zorder=1)
        if baseline is not None:
            axis.axhline(measure.factor * baseline, color="grey", linewidth=1, linestyle="--")
        axis.set_xlabel(self.axis_label)
        label_places(axis, self.ticks)
        limit(axis, shown)
        if len(self.lines) > 1:
            self.draw_legend(axis)

    def _draw_group(
        self, axis: Axes, measure: Measure, group: Group, at: float, room: float
    ) -> tuple[list[float], tuple[float, float] | None]:
        """Draw one group. Returns the values that the axis must show, and the position of the mean or None.

        Args:
            at: position on the x axis.
            room: width of the group on the x axis.
        """
        colour = self.colour[group.values]
        runs = [run for run in group.runs if run.name in measure.by_run]
        for run in runs:
            face = colour if run.complete else "none"
            y = measure.factor * measure.by_run[run.name]
            axis.scatter(at, y, s=47 * room, color=face, edgecolors=[colour], zorder=3)
        shown = [measure.factor * measure.by_run[run.name] for run in runs]
        complete = [measure.factor * value for value in measure.values(runs)]
        if len(complete) < 2:
            return shown, None
        mean, low, high = mean_interval(complete)
        beside = at + room / 4
        axis.errorbar(beside, mean, [[mean - low], [high - mean]], fmt="_", color=colour, markersize=10, capsize=3)
        # The interval of two runs is 13 times as wide as their distance: it would flatten everything else.
        return shown + [low, high] * (len(complete) > 2), (beside, mean)

    def draw_lines(self, axis: Axes, lines: Mapping[str, list[tuple[int, float | None]]], label: str) -> None:
        """Draw a line for each group, the mean of its runs, and a band from the lowest of them to the highest.

        Args:
            lines: name of a run -> its points (rounds or iteration, share of 1 or None).
            label: label of the x axis.
        """
        from matplotlib.ticker import MaxNLocator

        for group, name in zip(self.groups, self.names, strict=True):
            at: dict[int, list[float]] = {}
            for run in group.runs:
                for t, share in lines[run.name]:
                    at.setdefault(t, []).extend([] if share is None else [100 * share])
            places = [t for t in sorted(at) if at[t]]
            if places:
                colour, mean = self.colour[group.values], [float(np.mean(at[t])) for t in places]
                style = STYLES[self.place[group.values] % len(STYLES)] if self.x else "-"  # groups share colours
                axis.plot(places, mean, color=colour, linewidth=1.5, linestyle=style, marker=".", label=name)
                low, high = ([end(at[t]) for t in places] for end in (min, max))
                if len(self.groups) <= MAX_BANDS:
                    axis.fill_between(places, low, high, color=colour, alpha=0.18, linewidth=0)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_xlabel(label)
        if 1 < len(self.groups) <= MAX_LEGEND:
            axis.legend(fontsize=8)

    def draw_side_by_side(self, axis: Axes, measures: Mapping[str, Measure]) -> None:
        """Draw several measures of one scale, each at a separate place, with the groups beside each other."""
        shown = [0.0]
        for place, measure in enumerate(measures.values()):
            for number, group in enumerate(self.groups):
                room = 0.7 / len(self.groups)
                at = place + (number - (len(self.groups) - 1) / 2) * room
                shown += self._draw_group(axis, measure, group, at, room)[0]
        axis.axhline(0, color="grey", linewidth=1, linestyle="--")
        label_places(axis, list(measures))
        limit(axis, shown)
        for group, name in zip(self.groups, self.names, strict=True):
            axis.scatter([], [], color=self.colour[group.values], label=name)
        if 1 < len(self.groups) <= MAX_LEGEND:
            axis.legend(fontsize=8)

    def draw_legend(self, axis: Axes) -> None:
        """Draw the names of the lines that a panel has side by side; without such lines, its axis has the names."""
        from matplotlib.lines import Line2D

        if self.x and 1 < len(self._names) <= MAX_LEGEND:
            named = zip(self._palette, self._names, strict=True)
            handles = [Line2D([], [], color=colour, marker=".", label=name) for colour, name in named]
            axis.legend(handles=handles, title=self.title, fontsize=8, title_fontsize=8)


def _palette(n: int, ordered: bool) -> np.ndarray:
    """n colours, [n, 4] RGBA: in the order of the values, or as different as possible."""
    from matplotlib import colormaps

    if n <= 10 and not ordered:
        return colormaps["tab10"](range(n))
    return colormaps["viridis" if ordered else "turbo"](np.linspace(0, 0.85, n))


def label_places(axis: Axes, labels: list[str]) -> None:
    """Write the names of the places along an axis: in several lines, or slanted where a name is too long for that."""
    width = max(8, ROOM_CHARACTERS // max(1, len(labels)))
    wrapped = ["\n".join(textwrap.wrap(label, width, break_long_words=False)) for label in labels]
    longest = max((len(line) for label in wrapped for line in label.splitlines()), default=0)
    slanted = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if longest > width else {}
    axis.set_xticks(range(len(labels)), labels if slanted else wrapped, **slanted)


def limit(axis: Axes, shown: list[float]) -> None:
    """Fit the y axis to the values that it must show."""
    if shown:
        margin = 0.08 * (max(shown) - min(shown)) or 1.0
        axis.set_ylim(min(shown) - margin, max(shown) + margin)
