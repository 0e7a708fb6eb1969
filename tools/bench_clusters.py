#!/usr/bin/env python3
"""Measure the clustering: its time and its inertia beside scikit-learn's and faiss's, and what its clusters mean.

    python tools/bench_clusters.py --data DIR --quick
    python tools/bench_clusters.py --data DIR --json bench.json

Speed: 100,000 vectors of 384 dimensions, 150 clusters; CPU time on one thread, repeats of all cases take turns, shown
are medians. The vectors are mixtures of two real embeddings (MATH's questions by the default encoder) with a little
noise. The fastest reference is the fastest one whose inertia is within 1 % of the best that any case found; every
inertia is computed by the same code from each vector's nearest centre. All make their own first centres, ours too.

Meaning, as adjusted mutual information (1: the same partition, 0: chance):
`math_ami`: MATH's questions against their given subjects, as many clusters as subjects. MATH gives no knowledge points,
and to embed the subjects would be circular: what is embedded is the text of the question.
`champ_ami`: CHAMP's problems against their given categories; what is embedded is the concepts that experts gave them.

DIR holds pool_math_*.jsonl and champ.jsonl, whose problems have a list `concepts` of objects with a `name` or a `text`.
--quick: one repeat, and a sixteenth of MATH, for the mixtures and for `math_ami`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import faiss
import numpy as np
import torch
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.metrics import adjusted_mutual_info_score

from hpc_saidpo import settings
from hpc_saidpo.clusters import embed
from hpc_saidpo.clusters.backends import choose
from hpc_saidpo.clusters.embed import Embedding, chunks, embed, load
from hpc_saidpo.clusters.fit import first_centres, fit

N, CLUSTERS, NOISE = 100_000, 150, 0.02
CPU = torch.device("cpu")
EQUAL = 1.01  # of the best inertia


def rows_of(folder: Path, pattern: str) -> list[dict]:
    found = [json.loads(line) for path in sorted(folder.glob(pattern)) for line in path.read_text().splitlines()]
    if not found:
        raise SystemExit(f"--data {folder}: no {pattern} there")
    return found


def embedded(texts: list[str]) -> Embedding:
    """The vectors of the distinct texts."""
    config = settings.Clusters()
    model = load(config.encoder, CPU)
    return Embedding.concat([embed(part, model, config.batch) for part in chunks(texts)])


def mixtures(real_UD: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(0)
    one, other = rng.integers(len(real_UD), size=(2, N))
    share = rng.beta(0.3, 0.3, (N, 1)).astype(np.float32)
    vector_ND = share * real_UD[one] + (1 - share) * real_UD[other]
    vector_ND += NOISE * rng.standard_normal(vector_ND.shape, dtype=np.float32)
    return vector_ND / np.linalg.norm(vector_ND, axis=1, keepdims=True)


def ours(vector_ND, seed):
    backend, _ = choose("cpu", CPU)
    weight_N = np.ones(len(vector_ND), np.float32)
    start_CD = first_centres(vector_ND, weight_N, CLUSTERS, seed)
    return backend.fit(vector_ND, weight_N, start_CD, seed).centre_CD


def by_sklearn(kind, **settings):
    return lambda vector_ND, seed: (
        kind(CLUSTERS, init="k-means++", n_init=1, random_state=seed, **settings).fit(vector_ND).cluster_centers_
    )


def by_faiss(iterations: int, per_centroid: int):
    def run(vector_ND, seed):
        found = faiss.Kmeans(
            vector_ND.shape[1], CLUSTERS, niter=iterations, seed=seed + 1, max_points_per_centroid=per_centroid
        )
        found.train(vector_ND)
        found.index.search(vector_ND, 1)  # the others give labels too
        return found.centroids

    return run


CASES: dict[str, Callable] = {
    "ours": ours,
    "scikit-learn KMeans, lloyd": by_sklearn(KMeans, algorithm="lloyd"),
    "scikit-learn KMeans, elkan": by_sklearn(KMeans, algorithm="elkan"),
    **{f"scikit-learn MiniBatchKMeans {b}": by_sklearn(MiniBatchKMeans, batch_size=b) for b in (1024, 2048, 4096)},
    "faiss 10 iterations, 256 per centroid": by_faiss(10, 256),
    "faiss 15 iterations, 256 per centroid": by_faiss(15, 256),
    "faiss 25 iterations, 256 per centroid": by_faiss(25, 256),
    "faiss 10 iterations, all vectors": by_faiss(10, N),
}


def inertia(vector_ND: np.ndarray, centre_CD: np.ndarray) -> float:
    label_N = np.concatenate(
        [((centre_CD**2).sum(1) - 2 * part @ centre_CD.T).argmin(1) for part in np.array_split(vector_ND, 20)]
    )
    return float(sum(((p - centre_CD[label]) ** 2).sum(dtype=float) for p, label in _parts(vector_ND, label_N)))


def _parts(vector_ND, label_N):
    return zip(np.array_split(vector_ND, 20), np.array_split(label_N, 20), strict=True)


def speed(vector_ND: np.ndarray, repeats: int) -> dict:
    times: dict[str, list[float]] = {name: [] for name in CASES}
    sums: dict[str, list[float]] = {name: [] for name in CASES}
    ours(vector_ND[:1000], 0)  # imports
    for seed in range(repeats):
        for name, case in CASES.items():
            started = time.process_time()
            centre_CD = case(vector_ND, seed)
            times[name].append(time.process_time() - started)
            sums[name].append(inertia(vector_ND, np.asarray(centre_CD)))
    best = min(statistics.median(found) for found in sums.values())
    print(f"{N:,} × {vector_ND.shape[1]}, {CLUSTERS} clusters; medians of {repeats}, one thread")
    print(f"{'':42s} {'CPU s':>7s} {'inertia':>9s} {'of best':>8s}")
    found = {name: (statistics.median(times[name]), statistics.median(sums[name]) / best) for name in CASES}
    for name, (seconds, ratio) in found.items():
        print(f"{name:42s} {seconds:7.2f} {ratio * best:9.0f} {ratio:8.4f}")
    fastest = min((s, name) for name, (s, ratio) in found.items() if name != "ours" and ratio <= EQUAL)
    print(f"fastest reference within 1 % of the best inertia: {fastest[1]}")
    return {
        "time_vs_fastest_reference": found["ours"][0] / fastest[0],
        "inertia_vs_reference": found["ours"][1],
        "ours_s": found["ours"][0],
        "fastest_reference_s": fastest[0],
    }


def ami(texts: list[str], embedding: Embedding, given: list[str]) -> float:
    found = fit(texts, embedding, settings.Clusters(n=len(set(given)), backend="cpu"))
    return float(adjusted_mutual_info_score(given, found.assignment.cluster_N))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of pool_math_*.jsonl and champ.jsonl")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--quick", action="store_true", help="one repeat, a sixteenth of MATH: about a minute")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    faiss.omp_set_num_threads(1)
    math = rows_of(arguments.data, "pool_math_*.jsonl")[:: 16 if arguments.quick else 1]
    texts = [row["question"] for row in math]
    embedding = embedded(texts)
    figures = speed(mixtures(embedding.vector_UD), 1 if arguments.quick else 3)
    figures["math_ami"] = ami(texts, embedding, [row["subject"] for row in math])
    champ = [row for row in rows_of(arguments.data, "champ.jsonl") if row["concepts"]]
    concepts = embed.texts([[concept["name"] or concept["text"] for concept in row["concepts"]] for row in champ])
    figures["champ_ami"] = ami(concepts, embedded(concepts), [row["subject"] for row in champ])
    for name, value in figures.items():
        print(f"{name:28s} {value:.3f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
