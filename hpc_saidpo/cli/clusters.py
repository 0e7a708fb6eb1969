"""Suggest a number of clusters: cluster a run's pool for several n.

    hpc-saidpo clusters pool.path=pool.jsonl policy.path=- probe.fraction=0.02
    hpc-saidpo clusters --n 10,20,40 --png clusters.png experiment=demo

Takes the overrides of a run, and shares knowledge points and embeddings with
the runs under the same run.root. Shows for each n the inertia, the silhouette
(by cosine distance, of a sample), the largest share, the effective number
exp(H), the clusters with fewer than 5 questions, and the probed questions per
cluster. Then it suggests one n, with the reason.
Exits 0, or 2 on a problem that you can solve.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import RunError
from ..layout import aligned
from ..screen import output_width
from ..terminal import complain
from .help import parser

COLUMNS = {
    "n": ("n", "d"),
    "inertia": ("inertia", ".1f"),
    "silhouette": ("silhouette", ".3f"),
    "largest": ("largest_share", ".1%"),
    "effective": ("effective_clusters", ".1f"),
    "under 5": ("clusters_under_5", "d"),
    "probed each": ("probed_per_cluster", ".1f"),
}


def rows_of(overrides: Sequence[str], ns: Sequence[int]) -> list[dict[str, Any]]:
    """Return the health of the pool's clusters for each n.

    Raises:
        RunError: an override is wrong, an input is missing, or n is larger than the pool.
    """
    from .compose import from_overrides

    config = from_overrides(overrides)  # a wrong override is reported before torch is imported
    from ..clusters.embed import Embedding, texts
    from ..clusters.stage import embed_all
    from ..clusters.suggest import sweep
    from ..parallel.world import World
    from ..pool.stage import load_pool
    from ..store.run import RunDir
    from ..tags.stage import tag

    run = RunDir(Path(config.run.root) / config.run.name, World(), {}, print)
    questions = load_pool(config.pool, run).questions
    text_N = texts(tag(questions, config.tags, config.policy, config.rollouts.generate, run))
    vectors = embed_all(text_N, config.clusters, run).read_chunks(Embedding)
    return list(sweep(text_N, vectors, ns, config.clusters, config.probe.fraction, run.world.device))


def table(rows: list[dict[str, Any]], width: int = 0) -> str:
    """Return the rows as text, one line for each n, for a terminal of a width in characters (0: any)."""

    def cells(row: dict[str, Any]) -> list[str]:
        return ["-" if row[key] is None else format(row[key], form) for key, form in COLUMNS.values()]

    return "\n".join(aligned([list(COLUMNS), *map(cells, rows)], width, to_the_right=True))


def plot(rows: list[dict[str, Any]], suggested: int, path: Path) -> None:
    """Draw every column over n, and mark the suggested n."""
    from matplotlib.figure import Figure

    from ..picture import png

    shown = [name for name in COLUMNS if name != "n"]
    figure = Figure(figsize=(12, 6), layout="constrained")
    for axis, name in zip(figure.subplots(2, 3).flat, shown, strict=True):
        key, _ = COLUMNS[name]
        axis.plot([row["n"] for row in rows], [row[key] for row in rows], marker="o")
        axis.axvline(suggested, color="grey", linestyle="--", linewidth=0.8)
        axis.set(title=name, xlabel="clusters.n")
    path.write_bytes(png(figure))


def main(arguments: Sequence[str]) -> int:
    """Print the table and the suggestion. Returns the exit code."""
    options = parser("clusters", __doc__)
    options.add_argument("--n", default="50,100,150,200,250", help="the numbers to try (default: those of the paper)")
    options.add_argument("--png", type=Path, metavar="FILE", help="draw the table to this file")
    options.add_argument("overrides", nargs="*", help="the overrides of the run")
    values = options.parse_intermixed_args(arguments)
    try:
        ns = sorted({int(n) for n in values.n.split(",")})
    except ValueError:
        options.error(f"--n {values.n}: numbers, with commas between them")
    try:
        rows = rows_of(values.overrides, ns)
    except RunError as error:
        complain("clusters", error)
        return 2
    from ..clusters.suggest import suggest

    n, reason = suggest(rows)
    print(f"{table(rows, output_width())}\n\nclusters.n={n}: {reason}")
    if values.png:
        plot(rows, n, values.png)
    return 0
