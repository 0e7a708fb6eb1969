#!/usr/bin/env python3
"""Measure the sampler: weights of a large pool and a draw from it, beside what numpy and torch offer.

    python tools/bench_sampler.py --quick
    python tools/bench_sampler.py --json bench.json

10,000,000 questions in 250 clusters of unequal size, 100,000 drawn without replacement. Every measurement has a process
of its own on one thread: the time on the clock from the evidence (for the others: from the weights of the clusters) to
the drawn questions, and the largest memory of the whole process with its input, Python and libraries. Repeats of all
cases take turns, so that what else the machine does meets all alike; shown are medians. The others draw from the same
distribution; `Generator.choice` and `multinomial` with replacement would not.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from hpc_saidpo import settings
from hpc_saidpo.difficulty import in_band
from hpc_saidpo.records import Difficulty
from hpc_saidpo.sampler.draw import draw
from hpc_saidpo.sampler.history import History
from hpc_saidpo.sampler.weights import cluster_weights, weights

N, CLUSTERS, DRAWN, K = 10_000_000, 250, 100_000, 8
SEEN = 1_000_000  # questions with counts of their own, in the cases that are named so
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def pool(n_seen: int) -> tuple[np.ndarray, History]:
    """The cluster of each question, and a history of n_seen of them over three iterations."""
    rng = np.random.default_rng(0)
    cluster_N = (CLUSTERS * rng.random(N, dtype=np.float32) ** 2).astype(np.int32)  # the first is 16 times the mean
    rate_C = rng.beta(0.5, 0.8, CLUSTERS)
    history = History.empty(N, CLUSTERS)
    for t, question_Q in enumerate(np.array_split(np.arange(0, N, N // n_seen), 3)):
        s_Q = rng.binomial(K, rate_C[cluster_N[question_Q]])
        seen = Difficulty(question_Q, np.full(len(s_Q), K), s_Q, *np.ones((3, len(s_Q))))
        history = history.discounted(0.5).observe(t, seen, cluster_N, in_band(seen, settings.Difficulty()))
    return cluster_N, history


def ours(rule: str):
    config = settings.Sampler(rule=rule)

    def run(cluster_N, history):
        return draw(weights(history, cluster_N, 2, config, K), DRAWN, seed=1)

    return run


def by_choice(cluster_N, history):
    weight_N = cluster_weights(history.counts, settings.Sampler())[cluster_N]
    return np.random.default_rng(1).choice(N, DRAWN, replace=False, p=weight_N / weight_N.sum())


def by_gumbel(cluster_N, history):
    log_N = np.log(cluster_weights(history.counts, settings.Sampler()))[cluster_N]
    key_N = log_N + np.random.default_rng(1).gumbel(size=N)
    top = np.argpartition(-key_N, DRAWN)[:DRAWN]
    return top[np.argsort(-key_N[top])]


def by_multinomial(cluster_N, history):
    import torch

    torch.set_num_threads(1)
    weight_C = torch.from_numpy(cluster_weights(history.counts, settings.Sampler())).float()
    return torch.multinomial(weight_C[torch.from_numpy(cluster_N).long()], DRAWN).numpy()


# Name in the figures -> (what the table calls it, questions seen before, the case).
CASES = {
    "draw_10m": ("ours: error", 10_000, ours("error")),
    "draw_10m_frontier": ("ours: frontier", 10_000, ours("frontier")),
    "draw_10m_frontier_seen": ("ours: frontier, 1,000,000 seen", SEEN, ours("frontier")),
    "draw_10m_frontier_error_seen": ("ours: frontier_error, 1,000,000 seen", SEEN, ours("frontier_error")),
    "numpy_choice_10m": ("numpy: Generator.choice(p=, replace=False)", 10_000, by_choice),
    "numpy_gumbel_10m": ("numpy: Gumbel top-k of the whole pool", 10_000, by_gumbel),
    "torch_multinomial_10m": ("torch.multinomial, float32", 10_000, by_multinomial),
}


def measure(name: str) -> dict:
    """One measurement, in this process."""
    _, n_seen, case = CASES[name]
    if case is by_multinomial:
        import torch  # noqa: F401 - its import is not its draw
    evidence = pool(n_seen)
    started = time.perf_counter()
    drawn = case(*evidence)
    seconds = time.perf_counter() - started
    if len(np.unique(drawn)) != DRAWN:
        raise RuntimeError(f"{name} drew {len(np.unique(drawn))} questions, not {DRAWN}")
    return {"s": seconds, "gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}


def measure_apart(name: str) -> dict:
    """One measurement, in a process of its own on one thread."""
    done = subprocess.run(
        [sys.executable, __file__, "--case", name],
        env={**os.environ, **dict.fromkeys(THREADS, "1")},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--quick", action="store_true", help="two repeats instead of seven: under a minute")
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure(arguments.case)))
        return 0
    rounds = [{name: measure_apart(name) for name in CASES} for _ in range(2 if arguments.quick else 7)]
    found = {}
    print(f"{N:,} questions, {CLUSTERS} clusters, {DRAWN:,} drawn; medians of {len(rounds)}, one thread")
    print(f"{'':44s} {'s':>7s} {'from':>6s} {'to':>6s} {'GiB':>6s}")
    for name, (title, *_) in CASES.items():
        s, gib = ([one[name][unit] for one in rounds] for unit in ("s", "gib"))
        found |= {f"{name}_s": statistics.median(s), f"{name}_gib": statistics.median(gib)}
        print(f"{title:44s} {found[f'{name}_s']:7.2f} {min(s):6.2f} {max(s):6.2f} {found[f'{name}_gib']:6.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
