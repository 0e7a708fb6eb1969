#!/usr/bin/env python3
"""Measure the clustering: its time and its inertia beside scikit-learn's and faiss's, and what its clusters mean.

    tools/bench/bench_clusters.py --data DIR --quick
    tools/bench/bench_clusters.py --data DIR --json bench.json

Speed: 100,000 vectors of 384 dimensions, 150 clusters; CPU time on one thread, repeats of all cases take turns, shown
are medians. The vectors are mixtures of two real embeddings (MATH's questions by the default encoder) with a little
noise. The fastest reference is the fastest one whose inertia is within 1 % of the best that any case found; every
inertia is computed by the same code from each vector's nearest centre. All make their own first centres, ours too.

Neighbours (clusters.kind=kernel): the sums of eight values over the 20 nearest of 5,000 of these vectors, for all of
them; faiss finds the same neighbours by its exact index.

Meaning, as adjusted mutual information (1: the same partition, 0: chance):
`math_ami`: MATH's questions against their given subjects, as many clusters as subjects. MATH gives no knowledge points,
and to embed the subjects would be circular: what is embedded is the text of the question.
`champ_ami`: CHAMP's problems against their given categories; what is embedded is the concepts that experts gave them.

DIR holds pool_math_*.jsonl and champ.jsonl, whose problems have a list `concepts` of objects with a `name` or a `text`.
--quick: one repeat, and a sixteenth of MATH, for the mixtures and for `math_ami`.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import common

common.start("faiss", "sklearn", threads=1)

import faiss
import numpy as np
import torch
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.metrics import adjusted_mutual_info_score

from hpc_saidpo import settings
from hpc_saidpo.clusters.backends import choose
from hpc_saidpo.clusters.embed import Embedding, chunks, embed, load, texts
from hpc_saidpo.clusters.fit import first_centres, fit
from hpc_saidpo.clusters.neighbours import EQUAL as SAME_COSINE
from hpc_saidpo.clusters.neighbours import Neighbours

N, CLUSTERS, NOISE = 100_000, 150, 0.02
WITH_EVIDENCE, VALUES = 5_000, 8
CPU = torch.device("cpu")
EQUAL = 1.01  # of the best inertia
Case = Callable[[np.ndarray, int], np.ndarray]  # vectors, seed -> centres


def rows_of(folder: Path, pattern: str) -> list[dict]:
    rows = [json.loads(line) for path in sorted(folder.glob(pattern)) for line in path.read_text().splitlines()]
    if not rows:
        raise SystemExit(f"--data {folder}: no {pattern} there")
    return rows


def embedded(text_N: Sequence[str]) -> Embedding:
    """The vectors of the distinct texts."""
    config = settings.Clusters()
    model = load(config.encoder, CPU)
    return Embedding.concat([embed(part, model, config.batch) for part in chunks(text_N)])


def mixtures(real_UD: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(0)
    one, other = rng.integers(len(real_UD), size=(2, N))
    share = rng.beta(0.3, 0.3, (N, 1)).astype(np.float32)
    vector_ND = share * real_UD[one] + (1 - share) * real_UD[other]
    vector_ND += NOISE * rng.standard_normal(vector_ND.shape, dtype=np.float32)
    return vector_ND / np.linalg.norm(vector_ND, axis=1, keepdims=True)


def ours(vector_ND: np.ndarray, seed: int) -> np.ndarray:
    backend, _ = choose("cpu", CPU)
    weight_N = np.ones(len(vector_ND), np.float32)
    start_CD = first_centres(vector_ND, weight_N, CLUSTERS, seed)
    return backend.fit(vector_ND, weight_N, start_CD, seed).centre_CD


def by_sklearn(kind: type, **options) -> Case:
    return lambda vector_ND, seed: (
        kind(CLUSTERS, init="k-means++", n_init=1, random_state=seed, **options).fit(vector_ND).cluster_centers_
    )


def by_faiss(iterations: int, per_centroid: int) -> Case:
    def run(vector_ND: np.ndarray, seed: int) -> np.ndarray:
        options = {"niter": iterations, "seed": seed + 1, "max_points_per_centroid": per_centroid}
        k_means = faiss.Kmeans(vector_ND.shape[1], CLUSTERS, **options)
        k_means.train(vector_ND)
        k_means.index.search(vector_ND, 1)  # the others return labels too
        return k_means.centroids

    return run


CASES: dict[str, Case] = {
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


def _parts(vector_ND: np.ndarray, label_N: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    return zip(np.array_split(vector_ND, 20), np.array_split(label_N, 20), strict=True)


def speed(vector_ND: np.ndarray, repeats: int) -> dict[str, float]:
    """CPU time and inertia of every case."""
    ours(vector_ND[:1000], 0)  # imports

    def measured(case: Case) -> Callable[[int], tuple[float, float]]:
        def run(seed: int) -> tuple[float, float]:
            seconds, centre_CD = common.cpu_s(lambda: case(vector_ND, seed))
            return seconds, inertia(vector_ND, np.asarray(centre_CD))

        return run

    results = common.in_turn({name: measured(case) for name, case in CASES.items()}, repeats)
    seconds = common.medians({name: [s for s, _ in some] for name, some in results.items()})
    sums = common.medians({name: [i for _, i in some] for name, some in results.items()})
    best = min(sums.values())
    ratio = {name: value / best for name, value in sums.items()}
    print(f"{N:,} × {vector_ND.shape[1]}, {CLUSTERS} clusters; medians of {repeats}, one thread")
    print(f"{'':42s} {'CPU s':>7s} {'inertia':>9s} {'of best':>8s}")
    for name in CASES:
        print(f"{name:42s} {seconds[name]:7.2f} {sums[name]:9.0f} {ratio[name]:8.4f}")
    fastest_s, fastest = min((s, name) for name, s in seconds.items() if name != "ours" and ratio[name] <= EQUAL)
    print(f"fastest reference within 1 % of the best inertia: {fastest}")
    return {
        "time_vs_fastest_reference": seconds["ours"] / fastest_s,
        "inertia_vs_reference": ratio["ours"],
        "ours_s": seconds["ours"],
        "fastest_reference_s": fastest_s,
    }


def neighbours(vector_ND: np.ndarray, repeats: int) -> dict[str, float]:
    """CPU time of the sums over neighbours, ours and by an exact index of faiss; both must be equal."""
    row_T = np.arange(0, N, N // WITH_EVIDENCE)
    value_TF = np.random.default_rng(0).random((len(row_T), VALUES)).astype(np.float32)
    known = Neighbours(np.arange(N), vector_ND, settings.Clusters().neighbours)

    def by_faiss() -> np.ndarray:
        index = faiss.IndexFlatIP(vector_ND.shape[1])
        index.add(vector_ND[row_T])
        found_UF = np.empty((N, VALUES))
        for rows in np.array_split(np.arange(N), 20):
            near_BM, index_BM = index.search(vector_ND[rows], known.n + 1)
            last_B1 = near_BM[:, -1:]
            weight_BM = (near_BM - last_B1 + SAME_COSINE) / (near_BM[:, :1] - last_B1 + SAME_COSINE)
            found_UF[rows] = np.einsum("bm,bmf->bf", weight_BM, value_TF[index_BM])
        return found_UF

    sides = {"ours": lambda: known.smooth(row_T, value_TF), "faiss IndexFlatIP": by_faiss}
    results = common.in_turn({name: lambda _, side=side: common.cpu_s(side) for name, side in sides.items()}, repeats)
    difference = np.abs(results["ours"][0][1] - results["faiss IndexFlatIP"][0][1]).max()
    if difference > 0.01:  # nearly equal cosines may change places
        raise RuntimeError(f"the sums over neighbours differ from faiss's by {difference}")
    seconds = common.medians({name: [s for s, _ in some] for name, some in results.items()})
    print(f"\nsums over {known.n} neighbours among {len(row_T):,}, for {N:,} vectors: CPU s")
    for name, s in seconds.items():
        print(f"{name:42s} {s:7.2f}")
    return {"neighbours_s": seconds["ours"], "neighbours_vs_faiss": seconds["ours"] / seconds["faiss IndexFlatIP"]}


def ami(text_N: list[str], embedding: Embedding, label_N: list[str]) -> float:
    """Adjusted mutual information of our clusters with labels, as many clusters as labels."""
    clustering = fit(text_N, embedding, settings.Clusters(n=len(set(label_N)), backend="cpu"))
    return float(adjusted_mutual_info_score(label_N, clustering.assignment.cluster_N))


def main() -> int:
    parser = common.parser(__doc__, "one repeat, a sixteenth of MATH: about a minute", repeats=3)
    parser.add_argument("--data", type=Path, required=True, help="folder of pool_math_*.jsonl and champ.jsonl")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    faiss.omp_set_num_threads(1)
    math = rows_of(arguments.data, "pool_math_*.jsonl")[:: 16 if arguments.quick else 1]
    questions = [row["question"] for row in math]
    embedding = embedded(questions)
    vector_ND = mixtures(embedding.vector_UD)
    figures = speed(vector_ND, common.repeats_of(arguments)) | neighbours(vector_ND, common.repeats_of(arguments))
    figures["math_ami"] = ami(questions, embedding, [row["subject"] for row in math])
    champ = [row for row in rows_of(arguments.data, "champ.jsonl") if row["concepts"]]
    concepts = texts([[concept["name"] or concept["text"] for concept in row["concepts"]] for row in champ])
    figures["champ_ami"] = ami(concepts, embedded(concepts), [row["subject"] for row in champ])
    common.show_figures(figures)
    common.write_figures(figures, arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
