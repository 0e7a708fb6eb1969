import numpy as np
from scipy import stats

from hpc_saidpo import difficulty, probe
from hpc_saidpo.records import Difficulty


def test_probe_is_uniform_without_replacement():
    cluster_N = np.zeros(50, dtype=int)
    rng = np.random.default_rng(0)
    chosen = [probe.choose(cluster_N, probe.Config(fraction=0.1), rng) for _ in range(4000)]
    assert all(len(set(c)) == 5 and (np.diff(c) > 0).all() for c in chosen)
    assert stats.chisquare(np.bincount(np.concatenate(chosen), minlength=50)).pvalue > 0.01


def test_a_small_pool_is_probed_at_least_once():
    assert len(probe.choose(np.zeros(20, dtype=int), probe.Config(fraction=0.01), np.random.default_rng(0))) == 1


def test_stratified_takes_the_same_share_of_every_cluster():
    cluster_N = np.repeat([0, 1, 2], [60, 30, 10])
    chosen = probe.choose(cluster_N, probe.Config(fraction=0.1, stratified=True), np.random.default_rng(0))
    assert np.bincount(cluster_N[chosen]).tolist() == [6, 3, 1]


def test_errors_count_only_in_the_band():
    # cluster 0: s = 0 (too hard) and s = 6; cluster 1: s = 8 (too easy); cluster 2: none; K = 8
    d = Difficulty(np.array([0, 1, 2]), np.full(3, 8), np.array([0, 6, 8]), *np.ones((3, 3)))
    cluster_N = np.array([0, 0, 1, 2])
    usable_Q = difficulty.in_band(d, difficulty.Config())
    counts = probe.count(d, cluster_N, 3, counted_Q=usable_Q, usable_Q=usable_Q)
    assert counts.n_C.tolist() == [2, 1, 0]
    assert counts.error_C.tolist() == [0.25, 0, 0]
    assert counts.usable_C.tolist() == [1, 0, 0]
    every = probe.count(d, cluster_N, 3, counted_Q=np.ones(3, bool), usable_Q=usable_Q)
    assert every.error_C.tolist() == [1.25, 0, 0]
