"""The report of a run: a table for the console, curves as PNG, one HTML page."""

from __future__ import annotations

import hashlib
import html
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import __version__
from ..errors import visible
from ..evaluate.table import interval, percent
from ..picture import png
from ..reading import read_text
from ..records import Outcome
from ..store.run import RunDir
from . import clusters

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Header of a column -> its cell for a record of metrics.jsonl.
COLUMNS: dict[str, Callable[[dict], str]] = {
    "probe pass rate": lambda r: percent(r["probe_pass_rate"]),
    "cluster errors (min/mean/max)": lambda r: _spread([e for e in r["cluster_error_rate"] if e is not None]),
    "explored": lambda r: str(r["explored_questions"]),
    "pair yield": lambda r: percent(r["pair_yield"]),
    "ungradable": lambda r: percent(r.get("ungradable_share")),  # not in runs of earlier versions
    "pairs": lambda r: str(r["pairs"]),
    "DPO loss": lambda r: _number(r.get("dpo/loss"), ".3f"),
    "rewards/margins": lambda r: _number(r.get("dpo/rewards/margins"), "+.3f"),
    "rewards/accuracies": lambda r: percent(r.get("dpo/rewards/accuracies")),
}


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _spread(values: Sequence[float]) -> str:
    """Minimum, mean and maximum."""
    return f"{min(values):.2f}/{sum(values) / len(values):.2f}/{max(values):.2f}" if values else "-"


def rows(outcome: Outcome) -> tuple[list[str], list[list[str]]]:
    """Return a header and one row per iteration. Benchmark columns show accuracy before and after the iteration."""
    header = ["iteration", *COLUMNS, *(f"{name} before → after" for name in outcome.before)]
    body = []
    for record in outcome.iterations:
        scores = [
            f"{_score(record['scores_before'], name)} → {_score(record['scores'], name)}" for name in outcome.before
        ]
        body.append([str(record["iteration"]), *(cell(record) for cell in COLUMNS.values()), *scores])
    return header, body


def _score(scores: Mapping[str, dict], name: str) -> str:
    return percent(scores[name]["accuracy"]) if name in scores else "-"


def gains(outcome: Outcome) -> list[str]:
    """Return a line per benchmark: accuracy before the run and after its last evaluation, with 95 % intervals."""
    lines = []
    for name, before in outcome.before.items():
        after = next((r["scores"][name] for r in reversed(outcome.iterations) if name in r["scores"]), None)
        if after is None or before["accuracy"] is None:
            continue
        lines.append(
            f"{name}: {_interval(before)} before, {_interval(after)} after: "
            f"{100 * (after['accuracy'] - before['accuracy']):+.1f} points ({before['n_questions']} questions)"
        )
    return lines


def _interval(score: Mapping[str, float]) -> str:
    return interval(score["accuracy"], score["low95"], score["high95"])


def table(outcome: Outcome) -> str:
    """Format a run for a console: a line per iteration, the gains, the folder of the policy."""
    header, body = rows(outcome)
    if not body:
        return "\n".join([*gains(outcome), f"policy: {outcome.policy_path}"])
    widths = [max(len(row[i]) for row in [header, *body]) for i in range(len(header))]
    lines = ["  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in [header, *body]]
    return visible("\n".join(["", *lines, "", *gains(outcome), f"policy: {outcome.policy_path}"]))


def write(run: RunDir, outcome: Outcome, plain: dict[str, Any]) -> None:
    """Write report.html and its pictures into the run folder. Not collective: root only.

    The pictures are drawn again only when their figures have changed: importing matplotlib and drawing take a second.

    Args:
        plain: the run's configuration as plain values.
    """
    text, pictures = page(run.path.name, outcome, plain), {}
    draw = {"curves.png": lambda: curves(outcome)}
    if clusters.is_shown(outcome.health):
        draw["clusters.png"] = lambda: clusters.sizes(outcome.health)
    try:
        is_drawn = figures_stamp(outcome) in read_text(run.path / "report.html")
    except (OSError, ValueError):
        is_drawn = False
    if not (is_drawn and all((run.path / name).exists() for name in draw)):
        pictures = {name: picture() for name, picture in draw.items()}
    run.write_report({**pictures, "report.html": text})


def figures_stamp(outcome: Outcome) -> str:
    """The line of report.html that identifies the figures in its pictures."""
    figures = json.dumps([__version__, outcome.before, outcome.iterations, outcome.health], sort_keys=True, default=str)
    return f'<meta name="figures" content="{hashlib.sha256(figures.encode()).hexdigest()}">'


def curves(outcome: Outcome) -> bytes:
    """Draw accuracy, pass rate and yield, cluster weights and DPO figures over the iterations, as one PNG."""
    from matplotlib.figure import Figure  # without pyplot: no display, no global state, half the time to import
    from matplotlib.ticker import MaxNLocator

    done = outcome.iterations
    t = [r["iteration"] for r in done]
    figure = Figure(figsize=(11, 7), layout="constrained")
    axes = figure.subplots(2, 2)
    _draw_accuracy(axes[0, 0], outcome)
    for key, label in (("probe_pass_rate", "probe pass rate"), ("pair_yield", "pair yield")):
        axes[0, 1].plot(t, [100 * r[key] for r in done], marker="o", label=label)
    axes[0, 1].set(title="Pass rate and pair yield", xlabel="iteration", ylabel="%", ylim=(0, 100))
    for record in done:
        ranked = sorted(record["cluster_weight"], reverse=True)
        axes[1, 0].plot(range(1, len(ranked) + 1), ranked, marker=".", label=f"iteration {record['iteration']}")
    axes[1, 0].axhline(1, color="grey", linewidth=0.8, linestyle="--")
    axes[1, 0].set(title="Cluster weights, ranked", xlabel="cluster rank", ylabel="W(i)")
    for name in ("loss", "rewards/margins", "rewards/accuracies"):
        axes[1, 1].plot(t, [r.get(f"dpo/{name}", np.nan) for r in done], marker="o", label=name)
    axes[1, 1].set(title="DPO, mean over steps", xlabel="iteration")
    for axis in axes.flat:
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        if axis.get_legend_handles_labels()[1]:
            axis.legend(fontsize=8)
    return png(figure)


def _draw_accuracy(axis: Axes, outcome: Outcome) -> None:
    """Draw the accuracy on each benchmark over the rounds of training, with 95 % intervals."""
    for name, before in outcome.before.items():
        after = ((r["iteration"] + 1, r["scores"][name]) for r in outcome.iterations if name in r["scores"])
        points = [(x, score) for x, score in [(0, before), *after] if score["accuracy"] is not None]
        mean = [100 * score["accuracy"] for _, score in points]
        error = [
            [100 * (score["accuracy"] - score["low95"]) for _, score in points],
            [100 * (score["high95"] - score["accuracy"]) for _, score in points],
        ]
        axis.errorbar([x for x, _ in points], mean, yerr=error, marker="o", capsize=3, label=name)
    axis.set(title="Benchmark accuracy, 95 % interval", xlabel="rounds of training", ylabel="%")


def page(name: str, outcome: Outcome, plain: dict[str, Any]) -> str:
    """Format the report as one HTML page, which shows curves.png and clusters.png of its folder.

    Args:
        name: name of the run.
        plain: the run's configuration as plain values.
    """
    header, body = rows(outcome)
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    lines = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in body)
    warnings = [f"iteration {r['iteration']}: {text}" for r in outcome.iterations for text in r["signatures"]]
    warnings += [outcome.stopped] if outcome.stopped else []

    def bullets(items: Sequence[str]) -> str:
        return "<ul>" + "".join(f"<li>{html.escape(item)}</li>" for item in items) + "</ul>" if items else "<p>none</p>"

    text = f"""<!doctype html><meta charset="utf-8"><title>{html.escape(name)}</title>
{figures_stamp(outcome)}
<style>body{{font:15px system-ui,sans-serif;max-width:75em;margin:2em auto;padding:0 1em}}
table{{border-collapse:collapse}}
td,th{{border:1px solid #ccc;padding:.3em .6em;text-align:right}}
td.text,th.text{{text-align:left}}th{{background:#f3f3f3}}img{{max-width:100%}}
pre{{background:#f7f7f7;padding:1em;overflow:auto}}</style>
<h1>SAI-DPO run {html.escape(name)}</h1>
{bullets(gains(outcome))}
<div style="overflow-x:auto"><table><tr>{head}</tr>{lines}</table></div>
<p>Policy: <code>{html.escape(outcome.policy_path)}</code></p>
<h2>Curves</h2><img src="curves.png" alt="curves over the iterations">
<h2>Failure signatures</h2>{bullets(warnings)}
{clusters.section(outcome.health, outcome.iterations) if clusters.is_shown(outcome.health) else ""}
<h2>Configuration</h2><pre>{html.escape(json.dumps(plain, indent=1))}</pre>
"""
    return visible(text)
