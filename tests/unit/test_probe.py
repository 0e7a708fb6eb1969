import numpy as np
from scipy import stats

from hpc_saidpo import settings
from hpc_saidpo.sampler import probe


def test_probe_is_uniform_without_replacement():
    cluster_N = np.zeros(50, dtype=int)
    rng = np.random.default_rng(0)
    chosen = [probe.choose(cluster_N, settings.Probe(fraction=0.1), rng) for _ in range(4000)]
    assert all(len(set(c)) == 5 and (np.diff(c) > 0).all() for c in chosen)
    assert stats.chisquare(np.bincount(np.concatenate(chosen), minlength=50)).pvalue > 0.01


def test_a_small_pool_is_probed_at_least_once():
    assert len(probe.choose(np.zeros(20, dtype=int), settings.Probe(fraction=0.01), np.random.default_rng(0))) == 1


def test_stratified_takes_the_same_share_of_every_cluster():
    cluster_N = np.repeat([0, 1, 2], [60, 30, 10])
    chosen = probe.choose(cluster_N, settings.Probe(fraction=0.1, stratified=True), np.random.default_rng(0))
    assert np.bincount(cluster_N[chosen]).tolist() == [6, 3, 1]
