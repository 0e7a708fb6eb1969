"""Pictures of the report as SVG text: lines with intervals, stacked bars, and heat maps as tables.

They are written by hand and not by matplotlib, whose import alone costs more than the whole page: the report is written
again after every stage. Colours are readable on white and on black; texts have the page's colour.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .shell import Html, element, escape, figure, joined

COLOURS = BLUE, ORANGE, GREEN, VIOLET, GREY = "#2f7fd0", "#cc6a14", "#2a9461", "#b8559b", "#808890"
HEAT = "47,127,208"  # red, green, blue of a heat map's full cells
WIDTH, HEIGHT = 400, 230
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 12, 34  # margins of the plot
POINTS = 300  # of a line; more are averaged
BARS_S = 2.5  # half the width of the end of an error bar
LONGEST_NAME = 34  # characters of a name in a legend


@dataclass(frozen=True)
class Line:
    """One line of a picture. A point without a value is left out.

    Attributes:
        low, high: ends of the interval of each point; empty for none.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    low: Sequence[float | None] = ()
    high: Sequence[float | None] = ()

    def values(self) -> list[float]:
        """All values that the picture must have room for."""
        return [v for v in (*self.y, *self.low, *self.high) if v is not None and math.isfinite(v)]

    def thinned(self) -> Line:
        """The same line with at most POINTS points: neighbours are averaged. One with intervals stays as it is."""
        if len(self.x) <= POINTS or self.low:
            return self
        n = -(-len(self.x) // POINTS)
        parts = [range(i, min(i + n, len(self.x))) for i in range(0, len(self.x), n)]
        return Line(self.name, [_mean([self.x[i] for i in p]) or 0.0 for p in parts], [
            _mean([self.y[i] for i in p]) for p in parts
        ])  # fmt: skip


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return sum(known) / len(known) if known else None


@dataclass(frozen=True)
class _Scale:
    """Values -> places in the picture, and the ticks of both axes."""

    x0: float
    x1: float
    y0: float
    y1: float

    def x(self, value: float) -> float:
        return round(LEFT + (value - self.x0) / (self.x1 - self.x0) * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        return round(HEIGHT - BOTTOM - (value - self.y0) / (self.y1 - self.y0) * (HEIGHT - TOP - BOTTOM), 1)


def ticks(low: float, high: float, n: int = 5, whole: bool = False) -> list[float]:
    """Return about n round numbers that cover low .. high.

    Args:
        whole: whole numbers only.
    """
    step = 10.0 ** math.floor(math.log10(max(high - low, 1e-12) / n))
    step *= next(m for m in (1, 2, 5, 10) if (high - low) / (m * step) <= n)
    step = max(1.0, step) if whole else step
    return [round(i * step, 10) for i in range(math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9) + 1)]


def plot(
    caption: str,
    lines: Sequence[Line],
    x_label: str,
    unit: str = "",
    marks: Mapping[str, float] | None = None,
    borders: Sequence[float] = (),
) -> Html:
    """Return a figure with lines, or a sentence where there is no value.

    Args:
        x_label: meaning of the x axis, whose ticks are whole numbers.
        unit: of the values.
        marks: dashed horizontal lines with their names.
        borders: places of dotted vertical lines.
    """
    lines, marks = [line.thinned() for line in lines if line.values()], dict(marks or {})
    if not lines:
        return element("p", f"{caption}: no figure yet.", kind="soft")
    values = [value for line in lines for value in line.values()] + [*marks.values()]
    low, high = min(values), max(values)
    pad = (high - low) * 0.06 or max(abs(high) * 0.1, 10 if unit == "%" else 0.01)
    y_ticks = ticks(low - pad if low else 0.0, high + pad)
    x_all = [x for line in lines for x in line.x]
    x_ticks = ticks(min(x_all), max(max(x_all), min(x_all) + 1), whole=True)
    scale = _Scale(x_ticks[0], x_ticks[-1], y_ticks[0], y_ticks[-1])
    parts = [*_grid(scale, x_ticks, y_ticks, unit), _text(WIDTH - RIGHT, HEIGHT - 4, x_label, "end", "soft")]
    parts += [
        f'<path d="M{scale.x(x)},{TOP}V{HEIGHT - BOTTOM}" stroke="var(--line)" stroke-dasharray="2 3"/>'
        for x in borders
    ]
    for name, value in marks.items():
        y = scale.y(value)
        parts.append(f'<path d="M{LEFT},{y}H{WIDTH - RIGHT}" stroke="var(--soft)" stroke-dasharray="5 4"/>')
        parts.append(_text(WIDTH - RIGHT, y - 3, name, "end", "soft"))
    for line, colour in zip(lines, _colours(len(lines)), strict=True):
        parts += _curve(line, colour, scale)
    return _figure(caption, parts, HEIGHT, {line.name: c for line, c in zip(lines, _colours(len(lines)), strict=True)})


def bars(caption: str, rows: Mapping[str, Mapping[str, float]], colours: Mapping[str, str]) -> Html:
    """Return a figure with a bar of 100 % for each row, in which every name has its share.

    Args:
        rows: name of the row -> share of 1 of each name.
        colours: of each name, in their order from the left.
    """
    if not rows:
        return element("p", f"{caption}: no figure yet.", kind="soft")
    parts, height = [], 26 * len(rows) + 8
    for i, (row, share_of) in enumerate(rows.items()):
        x, y = float(LEFT + 30), 8 + 26 * i
        parts.append(_text(LEFT + 24, y + 13, row, "end"))
        for name, colour in colours.items():
            width = share_of.get(name, 0.0) * (WIDTH - LEFT - 30 - RIGHT)
            parts.append(f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="18" fill="{colour}"/>')
            if width > 30:
                label = f"{100 * share_of[name]:.0f} %"
                parts.append(
                    f'<text x="{x + width / 2:.1f}" y="{y + 13}" text-anchor="middle" fill="#fff">{label}</text>'
                )
            x += width
    return _figure(caption, parts, height, colours)


def heat(value: float | None, text: str, low: float, high: float) -> Html:
    """Return a cell of a heat map: the nearer a value is to `high`, the fuller its colour.

    Args:
        text: the value as words.
    """
    share = 0.0 if value is None or high <= low else min(1.0, max(0.0, (value - low) / (high - low)))
    return Html(f'<span class="heat" style="background:rgba({HEAT},{0.75 * share:.2f})">{escape(text)}</span>')


def _colours(n: int) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(n)]


def _grid(scale: _Scale, x_ticks: Sequence[float], y_ticks: Sequence[float], unit: str) -> list[str]:
    digits = max((len(f"{t:.10g}".partition(".")[2]) for t in y_ticks), default=0)
    parts = []
    for tick in y_ticks:
        y = scale.y(tick)
        parts.append(f'<path d="M{LEFT},{y}H{WIDTH - RIGHT}" stroke="var(--line)"/>')
        parts.append(_text(LEFT - 5, y + 4, f"{tick:.{digits}f}{unit and ' ' + unit}", "end", "soft"))
    for tick in x_ticks:
        parts.append(_text(scale.x(tick), HEIGHT - BOTTOM + 15, f"{tick:.0f}", "middle", "soft"))
    return parts


def _curve(line: Line, colour: str, scale: _Scale) -> list[str]:
    """The line, its error bars and, if there are few, its points."""
    known = [(i, x, y) for i, (x, y) in enumerate(zip(line.x, line.y, strict=True)) if y is not None]
    path = "L".join(f"{scale.x(x)},{scale.y(y)}" for _, x, y in known)
    parts = [f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>']
    for i, x, y in known:
        low, high = (line.low[i], line.high[i]) if line.low else (None, None)
        if low is not None and high is not None:
            at = scale.x(x)
            ends = "".join(f"M{at - BARS_S},{scale.y(v)}h{2 * BARS_S}" for v in (low, high))
            parts.append(f'<path d="M{at},{scale.y(low)}V{scale.y(high)}{ends}" stroke="{colour}" fill="none"/>')
        if len(known) <= 40:
            parts.append(f'<circle cx="{scale.x(x)}" cy="{scale.y(y)}" r="3" fill="{colour}"/>')
    return parts


def _text(x: float, y: float, text: str, anchor: str, kind: str = "ink") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="var(--{kind})">{escape(text)}</text>'


def _figure(caption: str, parts: Sequence[str], height: int, legend: Mapping[str, str]) -> Html:
    """Put the parts into an SVG, with a legend above the caption where there are several names."""
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" font-size="11" '
        f'font-family="system-ui,sans-serif"><title>{escape(caption)}</title>{"".join(parts)}</svg>'
    )
    named = (
        Html(f'<span class="key"><i style="background:{colour}"></i>{escape(name[:LONGEST_NAME])}</span>')
        for name, colour in legend.items()
    )
    return figure(svg, joined(*named, element("div", caption)) if len(legend) > 1 else caption)
