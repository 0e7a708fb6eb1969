#!/usr/bin/env python3
"""Do the product's statistics say what is true? Simulations of its own functions with known truths.

    tools/bench/bench_statistics.py --json bench.json

Each figure is a share or a correlation over simulated runs. F-test of the clusters' differences: 150 clusters, 300
probed and 1,000 explored questions an iteration, six iterations; under the null the share of p < 0.05 should be near
0.05, with a spread of 0.2 between the clusters' rates near 1. Intervals: the share of intervals that hold the true
mean, nominally 0.95. Frontier: the correlation over clusters of the modelled and the true share of usable questions
after six iterations of the rule frontier_error (alpha 3, kappa 1, history 0.8), the smaller one of two skewed pools.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import common

common.start(threads=1)

import numpy as np

from hpc_saidpo import settings
from hpc_saidpo.evaluate.intervals import mean_rate
from hpc_saidpo.records import Difficulty
from hpc_saidpo.sampler.betabinomial import fit, usable
from hpc_saidpo.sampler.sampler import Sampler
from hpc_saidpo.sampler.spread import difference_p

K, ITERATIONS, CLUSTERS, PROBED, EXPLORED, N = 8, 6, 150, 300, 1000, 30_000
BAND = settings.Difficulty()
Rates = Callable[[np.random.Generator, int], np.ndarray]  # n true pass rates
MIXTURES: dict[str, tuple[float, Rates]] = {  # of the probe: true mean pass rate, pass rates of n questions
    "Beta(0.3, 0.5)": (0.375, lambda rng, n: rng.beta(0.3, 0.5, n)),
    "85 % unsolved, 5 % solved": (0.1, lambda rng, n: rng.choice([0.0, 0.5, 1.0], p=[0.85, 0.10, 0.05], size=n)),
    "Beta(2, 2)": (0.5, lambda rng, n: rng.beta(2, 2, n)),
}


def main() -> int:
    arguments = common.parser(__doc__, "a tenth of the runs", repeats=400, quick_repeats=40).parse_args()
    runs = common.repeats_of(arguments)
    figures = {
        **{f"f_test_null_h{10 * h:.0f}": share_of_small_p(0.0, h, runs) for h in (0.0, 0.5, 0.8)},
        "f_test_power": min(share_of_small_p(0.2, h, runs // 4) for h in (0.5, 0.8)),
        "probe_coverage_min": min(coverage(mean, rates, 100, K, 5 * runs) for mean, rates in MIXTURES.values()),
        "avg_coverage_rare": coverage(0.05, lambda rng, n: rng.beta(0.1, 1.9, n), 30, 16, 5 * runs),
        "frontier_correlation": min(frontier_correlation(easy, seed) for easy, seed in ((0.05, 0), (0.40, 1))),
    }
    common.show_figures(figures)
    common.write_figures(figures, arguments)
    return 0


def share_of_small_p(sd: float, history: float, runs: int) -> float:
    """Share of runs whose F-test has p < 0.05, where the clusters' mean pass rates have this standard deviation."""
    rng, n_small = np.random.default_rng(0), 0
    for _ in range(runs):
        cluster_N = rng.integers(0, CLUSTERS, N)
        mean_C = np.clip(rng.normal(0.5, sd, CLUSTERS), 0.05, 0.95)
        rate_N = rng.beta(2 * mean_C[cluster_N], 2 - 2 * mean_C[cluster_N])
        p = difference_p(simulated(cluster_N, rate_N, settings.Sampler(rule="error", history=history), rng).counts)
        n_small += p is not None and p < 0.05
    return n_small / runs


def simulated(cluster_N: np.ndarray, rate_N: np.ndarray, config: settings.Sampler, rng: np.random.Generator) -> Sampler:
    """A sampler after the iterations of a run whose policy does not change."""
    sampler = Sampler(cluster_N, config, seed=int(rng.integers(2**32)), k=K)
    for t in range(ITERATIONS):
        sampler.begin(t)
        for question_Q, is_probe in ((rng.choice(len(cluster_N), PROBED, replace=False), True), (None, False)):
            if question_Q is None:
                question_Q = np.asarray(sampler.draw(EXPLORED))
            sampler.update(question_Q, rng.binomial(K, rate_N[question_Q]), [K] * len(question_Q), is_probe)
    return sampler


def coverage(mean: float, rates: Rates, n: int, k: int, runs: int) -> float:
    """Share of 95 % intervals of n questions with k responses each that hold the true mean pass rate."""
    rng, n_hits, unknown = np.random.default_rng(1), 0, np.full((3, n), np.nan)
    for _ in range(runs):
        s_Q = rng.binomial(k, rates(rng, n))
        _, low, high = mean_rate(Difficulty(np.arange(n), np.full(n, k), s_Q, *unknown))
        n_hits += low <= mean <= high
    return n_hits / runs


def frontier_correlation(easy: float, seed: int) -> float:
    """Correlation over clusters of the modelled and the true usable share of a pool with a share of easy questions.

    A tenth to a half of the questions of a cluster can be learned; the others are solved always (easy) or never.
    """
    rng = np.random.default_rng(seed)
    cluster_N = rng.integers(0, CLUSTERS, N)
    learnable_C = np.clip(rng.beta(0.6, 2.4, CLUSTERS), 0.02, 0.9)
    is_learnable_N = rng.random(N) < learnable_C[cluster_N]
    rate_N = np.where(is_learnable_N, rng.beta(1.5, 2.5, N), np.where(rng.random(N) < easy, 1.0, 0.0))
    config = settings.Sampler(rule="frontier_error", alpha=3.0, kappa=1.0, history=0.8)
    beta_C, _ = fit(simulated(cluster_N, rate_N, config, rng).counts, config.kappa)
    modelled_C = usable(K, beta_C.a, beta_C.b, BAND)
    usable_N = 1 - rate_N**K - (1 - rate_N) ** K
    true_C = np.bincount(cluster_N, weights=usable_N, minlength=CLUSTERS) / np.bincount(cluster_N, minlength=CLUSTERS)
    return float(np.corrcoef(modelled_C, true_C)[0, 1])


if __name__ == "__main__":
    sys.exit(main())
