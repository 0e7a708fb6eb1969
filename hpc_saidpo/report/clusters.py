"""The report's section on the clusters: a heat map of weights and errors over the iterations, and their health."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..clusters.health import describe
from ..evaluate.table import interval, percent
from .charts import heat
from .shell import Html, bullets, element, section, table

POINTS_CHARS = 60  # of the knowledge points of a cluster
COLUMNS = 12  # iterations that the heat map shows; of more, the first and the last ones


def is_shown(health: Mapping[str, Any]) -> bool:
    """Whether the report has a section on clusters: a run with one cluster has none."""
    return health.get("n_clusters", 1) > 1


def clusters(health: Mapping[str, Any], iterations: Sequence[Mapping[str, Any]]) -> Html:
    """Return the section: figures, warnings, and a line for each cluster, the largest first.

    Args:
        health: figures of the clusters, as `clusters.health.health` returns them.
        iterations: the run's records.
    """
    by = f" By {health['backend']} on {health['vectors']} distinct vectors." if "backend" in health else ""
    words = f"{describe(dict(health))}.{by} Silhouette: by cosine distance, of a sample."
    shown = [element("p", words), bullets(health["warnings"])]
    if iterations:
        note = (
            "W is the relative probability that a question of the cluster is drawn, 1 being that of uniform sampling "
            "(colour: its logarithm). Error is the share of wrong answers on questions in the band (colour: from 0 to "
            "the largest); the interval is that of the last iteration."
        )
        shown.append(element("p", note, kind="soft"))
    return section("Clusters", *shown, _table(health, iterations))


def _table(health: Mapping[str, Any], iterations: Sequence[Mapping[str, Any]]) -> Html:
    shown = [*iterations] if len(iterations) <= COLUMNS else [*iterations[: COLUMNS // 2], *iterations[-COLUMNS // 2 :]]
    numbers = [r["iteration"] for r in shown]
    header = ["cluster", "knowledge points", "questions", *(f"W {t}" for t in numbers)]
    header += [*(f"error {t}" for t in numbers), "95 % interval", "drawn"]
    weights = [abs(math.log(w)) for r in shown for w in r["cluster_weight"] if w > 0]
    errors = [e for r in shown for e in r["cluster_error_rate"] if e is not None]
    most = max(weights, default=0.0), max(errors, default=0.0)
    total = sum(health["sizes"])
    rows = []
    for c, (size, tags) in enumerate(zip(health["sizes"], health["top_tags"], strict=True)):
        cells = [c, _points(tags), f"{size:,} ({percent(size / total)})"]
        cells += [_weight(r["cluster_weight"][c], most[0]) for r in shown]
        cells += [heat(r["cluster_error_rate"][c], percent(r["cluster_error_rate"][c]), 0.0, most[1]) for r in shown]
        drawn = sum(r.get("cluster_drawn", {c: 0})[c] for r in iterations)
        rows.append([*cells, _interval(iterations, c), drawn if iterations else "-"])
    return table(header, rows, texts=(1,))


def _points(tags: Sequence[str]) -> str:
    text = "; ".join(tags)
    return text if len(text) <= POINTS_CHARS else f"{text[: POINTS_CHARS - 1]}…"


def _weight(weight: float, most: float) -> Html:
    log = math.log(weight) if weight > 0 else -most
    return heat(log, f"{weight:.2g}", -most, most)


def _interval(iterations: Sequence[Mapping[str, Any]], c: int) -> str:
    last = iterations[-1] if iterations else {}
    if "cluster_error_low95" not in last or last["cluster_error_rate"][c] is None:
        return "-"
    low, high = last["cluster_error_low95"][c], last["cluster_error_high95"][c]
    return interval(last["cluster_error_rate"][c], low, high).partition(" % ")[2]
