#!/usr/bin/env python3
"""Measure the sampler: weights of a large pool and a draw from it, beside what numpy and torch offer.

    tools/bench/bench_sampler.py --quick
    tools/bench/bench_sampler.py --json bench.json

10,000,000 questions in 250 clusters of unequal size, 100,000 drawn without replacement. Every measurement has a process
of its own on one thread: the time on the clock from the evidence (for the others: from the weights of the clusters) to
the drawn questions, and the largest memory meanwhile of the whole process with its input, Python and libraries. Repeats
of all cases take turns, so that what else the machine does meets all alike; shown are medians. The others draw from the
same distribution; `Generator.choice` and `multinomial` with replacement would not.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable

import common

common.start(threads=1)

import numpy as np

from hpc_saidpo import settings
from hpc_saidpo.records import Difficulty
from hpc_saidpo.sampler.draw import draw
from hpc_saidpo.sampler.history import History
from hpc_saidpo.sampler.weights import Plan, log_cluster_weights, log_weights

N, CLUSTERS, DRAWN, K = 10_000_000, 250, 100_000, 8
SEEN = 1_000_000  # questions with counts of their own, in the cases that are named after it
Case = Callable[[np.ndarray, History], np.ndarray]  # cluster of each question, evidence -> drawn questions


def pool(n_seen: int) -> tuple[np.ndarray, History]:
    """The cluster of each question, and a history of n_seen of them over three iterations."""
    rng = np.random.default_rng(0)
    cluster_N = (CLUSTERS * rng.random(N, dtype=np.float32) ** 2).astype(np.int32)  # the first is 16 times the mean
    rate_C = rng.beta(0.5, 0.8, CLUSTERS)
    history = History.empty(N, CLUSTERS)
    for t, question_Q in enumerate(np.array_split(np.arange(0, N, N // n_seen), 3)):
        s_Q = rng.binomial(K, rate_C[cluster_N[question_Q]])
        seen = Difficulty(question_Q, np.full(len(s_Q), K), s_Q, *np.ones((3, len(s_Q))))
        history = history.discounted(0.5).observe(t, seen, cluster_N, settings.Difficulty())
    return cluster_N, history


def ours(rule: str) -> Case:
    plan = Plan(settings.Sampler(rule=rule), K)

    def run(cluster_N: np.ndarray, history: History) -> np.ndarray:
        return draw(log_weights(history, cluster_N, 2, plan), DRAWN, seed=1)

    return run


def by_choice(cluster_N: np.ndarray, history: History) -> np.ndarray:
    weight_N = np.exp(log_cluster_weights(history.counts, Plan(settings.Sampler())))[cluster_N]
    return np.random.default_rng(1).choice(N, DRAWN, replace=False, p=weight_N / weight_N.sum())


def by_gumbel(cluster_N: np.ndarray, history: History) -> np.ndarray:
    log_N = log_cluster_weights(history.counts, Plan(settings.Sampler()))[cluster_N]
    key_N = log_N + np.random.default_rng(1).gumbel(size=N)
    top = np.argpartition(-key_N, DRAWN)[:DRAWN]
    return top[np.argsort(-key_N[top])]


def by_multinomial(cluster_N: np.ndarray, history: History) -> np.ndarray:
    import torch

    torch.set_num_threads(1)
    weight_C = torch.from_numpy(np.exp(log_cluster_weights(history.counts, Plan(settings.Sampler())))).float()
    return torch.multinomial(weight_C[torch.from_numpy(cluster_N).long()], DRAWN).numpy()


# Name in the figures -> (name in the table, questions seen before, the case).
CASES = {
    "draw_10m": ("ours: error", 10_000, ours("error")),
    "draw_10m_frontier": ("ours: frontier", 10_000, ours("frontier")),
    "draw_10m_frontier_seen": ("ours: frontier, 1,000,000 seen", SEEN, ours("frontier")),
    "draw_10m_frontier_error_seen": ("ours: frontier_error, 1,000,000 seen", SEEN, ours("frontier_error")),
    "numpy_choice_10m": ("numpy: Generator.choice(p=, replace=False)", 10_000, by_choice),
    "numpy_gumbel_10m": ("numpy: Gumbel top-k of the whole pool", 10_000, by_gumbel),
    "torch_multinomial_10m": ("torch.multinomial, float32", 10_000, by_multinomial),
}


def measure(name: str) -> dict[str, float]:
    """One measurement, in this process."""
    _, n_seen, case = CASES[name]
    if case is by_multinomial:
        import torch  # noqa: F401 - its import is not its draw
    evidence = pool(n_seen)
    common.reset_peak()
    seconds, drawn = common.wall_s(lambda: case(*evidence))
    if len(np.unique(drawn)) != DRAWN:
        raise RuntimeError(f"{name} drew {len(np.unique(drawn))} questions, not {DRAWN}")
    return {"s": seconds, "gib": common.memory_gib()}


def measure_apart(name: str) -> dict[str, float]:
    """One measurement, in a process of its own on one thread."""
    return json.loads(common.in_new_process(__file__, "--case", name))


def main() -> int:
    parser = common.parser(__doc__, "two repeats instead of seven: under a minute", repeats=7, quick_repeats=2)
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure(arguments.case)))
        return 0
    repeats = common.repeats_of(arguments)
    results = common.in_turn({name: lambda _, name=name: measure_apart(name) for name in CASES}, repeats)
    seconds = {name: [one["s"] for one in some] for name, some in results.items()}
    median_s = common.medians(seconds)
    median_gib = common.medians({name: [one["gib"] for one in some] for name, some in results.items()})
    figures = {}
    print(f"{N:,} questions, {CLUSTERS} clusters, {DRAWN:,} drawn; medians of {repeats}, one thread")
    print(f"{'':44s} {'s':>7s} {'from':>6s} {'to':>6s} {'GiB':>6s}")
    for name, (title, *_) in CASES.items():
        figures |= {f"{name}_s": median_s[name], f"{name}_gib": median_gib[name]}
        s = seconds[name]
        print(f"{title:44s} {median_s[name]:7.2f} {min(s):6.2f} {max(s):6.2f} {median_gib[name]:6.2f}")
    common.write_figures(figures, arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
