#!/usr/bin/env python3
"""How many clusters? Clusters a run's pool for several n, before the job.

    python tools/suggest_clusters.py pool.path=pool.jsonl policy.path=- probe.fraction=0.02
    python tools/suggest_clusters.py --n 10,20,40 --png clusters.png experiment=demo

Takes a run's overrides. Knowledge points and their vectors are the run's own: what a run under the same run.root has
embedded is used, what is embedded here is used by runs. Shows for each n the inertia, the silhouette (by cosine
distance, of a sample), the largest share, the effective number exp(H), clusters under 5 questions, and questions probed
per cluster; then one n, and why. Exits 0, or 2 when something is missing or wrong.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hpc_saidpo import clusters, pool, preparation
from hpc_saidpo import config as configuration
from hpc_saidpo.parallel import World
from hpc_saidpo.records import RunError
from hpc_saidpo.store import RunDir

COLUMNS = {
    "n": ("n", "d"),
    "inertia": ("inertia", ".1f"),
    "silhouette": ("silhouette", ".3f"),
    "largest": ("largest_share", ".1%"),
    "effective": ("effective_clusters", ".1f"),
    "under 5": ("clusters_under_5", "d"),
    "probed each": ("probed_per_cluster", ".1f"),
}


def rows_of(overrides: list[str], ns: list[int]) -> list[dict]:
    config, world = configuration.from_overrides(overrides), World()
    store = RunDir(Path(config.run.root) / config.run.name, world, {}, print)
    questions = pool.load(config.pool, store).questions
    text_N = clusters.texts(preparation.tag(questions, config, world, store))
    stage = preparation.embed(text_N, config.clusters, world, store)
    vectors = stage.read_chunks(clusters.Embedding)
    return list(clusters.sweep(text_N, vectors, ns, config.clusters, config.probe.fraction, world.device))


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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", default="50,100,150,200,250", help="what to try (default: the paper's)")
    parser.add_argument("--png", type=Path, help="draw the table here")
    parser.add_argument("overrides", nargs="*", help="a run's overrides")
    arguments = parser.parse_args()
    try:
        ns = sorted({int(n) for n in arguments.n.split(",")})
    except ValueError:
        parser.error(f"--n {arguments.n}: numbers, with commas between them")
    try:
        rows = rows_of(arguments.overrides, ns)
    except RunError as error:
        print(f"suggest_clusters: {error}", file=sys.stderr)
        return 2
    n, why = clusters.suggest(rows)
    print(f"{table(rows)}\n\nclusters.n={n}: {why}")
    if arguments.png:
        plot(rows, n, arguments.png)
    return 0


if __name__ == "__main__":
    sys.exit(main())
