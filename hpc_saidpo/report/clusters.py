"""The report's section on the clusters: sizes, frequent knowledge points, error rates and drawn questions."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np

from ..clusters.health import describe
from ..evaluate.table import percent
from ..picture import png


def is_shown(health: dict) -> bool:
    """Whether the report has a section on clusters: a run with one cluster has none."""
    return health.get("n_clusters", 1) > 1


def sizes(health: dict) -> bytes:
    """Draw the sizes of the clusters, and the cumulative share of the pool in the largest ones, as PNG."""
    from matplotlib.figure import Figure

    size_C = np.array(health["sizes"])
    rank_C = np.arange(1, len(size_C) + 1)
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.bar(rank_C, size_C, width=0.9)
    left.axhline(size_C.mean(), color="grey", linewidth=0.8, linestyle="--", label=f"mean {size_C.mean():.1f}")
    left.set(title="Questions of each cluster", xlabel="cluster, by size", ylabel="questions")
    left.legend(fontsize=8)
    right.plot(rank_C, 100 * np.cumsum(size_C) / size_C.sum(), marker=".", label="these")
    right.plot(rank_C, 100 * rank_C / len(size_C), color="grey", linewidth=0.8, linestyle="--", label="equal sizes")
    right.set(title="Held by the largest clusters", xlabel="clusters", ylabel="% of the pool", ylim=(0, 102))
    right.legend(fontsize=8)
    return png(figure)


def section(health: dict, iterations: Sequence[dict]) -> str:
    """Format the section as HTML: figures, warnings, sizes, and a line for each cluster, the largest first.

    Args:
        health: figures of the clusters, as `clusters.health.health` returns them.
        iterations: the run's records. Error rates are of the last one, drawn questions of all.
    """
    header = ["cluster", "questions", "share", "error rate", "drawn"]
    head = "".join(f"<th>{cell}</th>" for cell in header) + '<th class="text">frequent knowledge points</th>'
    error_C = iterations[-1]["cluster_error_rate"] if iterations else [None] * health["n_clusters"]
    drawn_C = np.sum([r["cluster_drawn"] for r in iterations], axis=0) if iterations else [0] * health["n_clusters"]
    total, lines = sum(health["sizes"]), []
    for c, (size, tags) in enumerate(zip(health["sizes"], health["top_tags"], strict=True)):
        cells = [str(c), str(size), percent(size / total), percent(error_C[c]), str(drawn_C[c])]
        shown = "".join(f"<td>{cell}</td>" for cell in cells)
        lines.append(f'<tr>{shown}<td class="text">{html.escape("; ".join(tags))}</td></tr>')
    warnings = "".join(f"<li>{html.escape(text)}</li>" for text in health["warnings"])
    by = f" By {html.escape(health['backend'])} on {health['vectors']} distinct vectors." if "backend" in health else ""
    return f"""<h2>Clusters</h2><p>{html.escape(describe(health))}.{by} Silhouette: by cosine distance, of a sample.</p>
{f"<ul>{warnings}</ul>" if warnings else ""}
<img src="clusters.png" alt="sizes of the clusters">
<div style="overflow:auto;max-height:40em"><table><tr>{head}</tr>{"".join(lines)}</table></div>"""
