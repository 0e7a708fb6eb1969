"""How many clusters? Clusters a run's pool for several n, before the job.

    hpc-saidpo clusters pool.path=pool.jsonl policy.path=- probe.fraction=0.02
    hpc-saidpo clusters --n 10,20,40 --png clusters.png experiment=demo

Takes a run's overrides. Knowledge points and their vectors are the run's own: what a run under the same run.root has
embedded is used, what is embedded here is used by runs. Shows for each n the inertia, the silhouette (by cosine
distance, of a sample), the largest share, the effective number exp(H), clusters under 5 questions, and questions probed
per cluster; then one n, and why. Exits 0, or 2 when something is missing or wrong.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ..clusters.embed import Embedding, texts
from ..clusters.stage import embed_all
from ..clusters.suggest import suggest, sweep
from ..errors import RunError
from ..parallel.world import World
from ..pool.stage import load_pool
from ..store.run import RunDir
from ..tags.stage import tag
from .compose import from_overrides

COLUMNS = {
    "n": ("n", "d"),
    "inertia": ("inertia", ".1f"),
    "silhouette": ("silhouette", ".3f"),
    "largest": ("largest_share", ".1%"),
    "effective": ("effective_clusters", ".1f"),
    "under 5": ("clusters_under_5", "d"),
    "probed each": ("probed_per_cluster", ".1f"),
}


def rows_of(overrides: Sequence[str], ns: Sequence[int]) -> list[dict]:
    """The health of the pool's clusters for each n."""
    config = from_overrides(overrides)
    run = RunDir(Path(config.run.root) / config.run.name, World(), {}, print)
    questions = load_pool(config.pool, run).questions
    text_N = texts(tag(questions, config.tags, config.policy, config.rollouts.generate, run))
    vectors = embed_all(text_N, config.clusters, run).read_chunks(Embedding)
    return list(sweep(text_N, vectors, ns, config.clusters, config.probe.fraction, run.world.device))


def table(rows: list[dict]) -> str:
    lines = ["  ".join(f"{name:>11s}" for name in COLUMNS)]
    for row in rows:
        cells = ("-" if row[key] is None else format(row[key], form) for key, form in COLUMNS.values())
        lines.append("  ".join(f"{cell:>11s}" for cell in cells))
    return "\n".join(lines)


def plot(rows: list[dict], suggested: int, path: Path) -> None:
    from matplotlib.figure import Figure

    shown = [name for name in COLUMNS if name != "n"]
    figure = Figure(figsize=(12, 6), layout="constrained")
    for axis, name in zip(figure.subplots(2, 3).flat, shown, strict=True):
        key, _ = COLUMNS[name]
        axis.plot([row["n"] for row in rows], [row[key] for row in rows], marker="o")
        axis.axvline(suggested, color="grey", linestyle="--", linewidth=0.8)
        axis.set(title=name, xlabel="clusters.n")
    figure.savefig(path, dpi=110)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, prog="hpc-saidpo clusters", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", default="50,100,150,200,250", help="what to try (default: the paper's)")
    parser.add_argument("--png", type=Path, help="draw the table here")
    parser.add_argument("overrides", nargs="*", help="a run's overrides")
    asked = parser.parse_args(arguments)
    try:
        ns = sorted({int(n) for n in asked.n.split(",")})
    except ValueError:
        parser.error(f"--n {asked.n}: numbers, with commas between them")
    try:
        rows = rows_of(asked.overrides, ns)
    except RunError as error:
        print(f"clusters: {error}", file=sys.stderr)
        return 2
    n, why = suggest(rows)
    print(f"{table(rows)}\n\nclusters.n={n}: {why}")
    if asked.png:
        plot(rows, n, asked.png)
    return 0
