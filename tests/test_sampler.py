import numpy as np
import pytest
from scipy import stats

from hpc_saidpo import sampler
from hpc_saidpo.records import ClusterCounts, Difficulty, RunError


def counts(n, error, usable=None):
    n, error = np.array(n, float), np.array(error, float)
    return ClusterCounts(n, error, n / 2 if usable is None else np.array(usable, float))


def test_error_weights_of_a_worked_example():
    # ē = (3 + 1 + 0) / (10 + 10 + 0) = 0.2; ê = (3 + 4·0.2)/14, (1 + 0.8)/14; kappa = 4
    config = sampler.Config(rule="error", alpha=1.0)
    expected = [(3.8 / 14) / 0.2, (1.8 / 14) / 0.2, 1.0]
    assert sampler.cluster_weights(counts([10, 10, 0], [3, 1, 0]), config) == pytest.approx(expected)
    bold = sampler.Config(rule="error", alpha=2.0)
    assert sampler.cluster_weights(counts([10, 10, 0], [3, 1, 0]), bold) == pytest.approx(np.square(expected))


def test_an_unprobed_cluster_weighs_exactly_one():
    for alpha in (0.5, 1.0, 2.0, 3.7):
        weight_C = sampler.cluster_weights(counts([7, 0, 3], [1.3, 0, 2.1]), sampler.Config(alpha=alpha))
        assert weight_C[1] == 1.0


@pytest.mark.parametrize("config", [sampler.Config(alpha=0.0), sampler.Config(rule="uniform")])
def test_alpha_zero_is_the_idpo_baseline(config):
    assert sampler.cluster_weights(counts([10, 5], [3, 0.2]), config).tolist() == [1.0, 1.0]


def test_without_any_error_nothing_distinguishes_clusters():
    assert sampler.cluster_weights(counts([5, 5], [0, 0]), sampler.Config()).tolist() == [1.0, 1.0]
    assert sampler.cluster_weights(counts([0, 0], [0, 0]), sampler.Config()).tolist() == [1.0, 1.0]


def test_frontier_weighs_by_usable_questions():
    weight_C = sampler.cluster_weights(counts([10, 10], [9, 1], usable=[1, 8]), sampler.Config(rule="frontier"))
    assert weight_C[1] > 1 > weight_C[0]


def test_usable_probability_is_the_beta_binomial():
    s, k = np.arange(9), np.full(9, 8)
    expected = [1 - sum(stats.betabinom.pmf(x, 8, a + 0.5, 8 - a + 0.5) for x in (0, 8)) for a in s]
    assert sampler.usable_probability(s, k) == pytest.approx(expected)


def test_frontier_history_sharpens_single_questions():
    config = sampler.Config(rule="frontier", alpha=1.0, history=0.5)
    cluster_N = np.zeros(4, dtype=int)
    history = sampler.History.empty(4, 1)
    seen = Difficulty(np.array([1, 2]), np.array([8, 8]), np.array([4, 0]), *np.ones((3, 2)))
    history = history.observe(0, seen, counts([2], [1], usable=[1]))
    weight_N = sampler.weights(history, cluster_N, 1, config)
    assert weight_N[1] > weight_N[0] == weight_N[3] > weight_N[2]


def test_history_discounts_old_evidence():
    history = sampler.History.empty(3, 2).observe(
        0, Difficulty(np.array([0]), np.array([8]), np.array([4]), *np.ones((3, 1))), counts([1, 0], [0.5, 0])
    )
    later = history.discounted(0.5).observe(
        1, Difficulty(np.array([2]), np.array([8]), np.array([2]), *np.ones((3, 1))), counts([0, 1], [0, 0.75])
    )
    assert later.counts.n_C.tolist() == [0.5, 1.0]
    assert later.counts.error_C.tolist() == [0.25, 0.75]
    assert later.seen_at_N.tolist() == [0, -1, 1]
    assert history.seen_at_N.tolist() == [0, -1, -1]  # values, not state
    assert np.isnan(later.tokens_N).tolist() == [False, True, False] and np.isnan(history.tokens_N[2])


def test_gumbel_top_1_is_the_categorical_distribution():
    weight_N = np.array([1.0, 2.0, 3.0, 0.0, 4.0])
    rng = np.random.default_rng(1)
    n = 20_000
    observed = np.bincount([sampler.draw(weight_N, 1, rng)[0] for _ in range(n)], minlength=5)
    assert observed[3] == 0
    allowed = weight_N > 0
    assert stats.chisquare(observed[allowed], n * weight_N[allowed] / weight_N.sum()).pvalue > 0.01


def test_gumbel_top_k_is_successive_sampling_without_replacement():
    weight_N = np.array([1.0, 2.0, 3.0, 4.0])
    rng = np.random.default_rng(2)
    n = 20_000
    observed = np.zeros((4, 4))
    for _ in range(n):
        first, second = sampler.draw(weight_N, 2, rng)
        observed[first, second] += 1
    p = weight_N / weight_N.sum()
    expected = n * np.array([[p[i] * p[j] / (1 - p[i]) if i != j else 0 for j in range(4)] for i in range(4)])
    off_diagonal = ~np.eye(4, dtype=bool)
    assert np.diag(observed).sum() == 0
    assert stats.chisquare(observed[off_diagonal], expected[off_diagonal]).pvalue > 0.01


def test_excluded_questions_are_never_drawn():
    excluded_N = np.zeros(100, dtype=bool)
    excluded_N[::2] = True
    drawn = sampler.draw(np.ones(100), 50, np.random.default_rng(0), excluded_N)
    assert sorted(drawn) == list(range(1, 100, 2))


def test_too_few_questions_name_the_setting():
    with pytest.raises(RunError, match=r"sampler\.n_questions asks for 5 questions, but only 3"):
        sampler.draw(np.array([1.0, 1, 1, 0]), 5, np.random.default_rng(0))


def test_the_exclusion_rule_looks_back_r_iterations():
    history = sampler.History.empty(4, 1).drew(0, np.array([0])).drew(2, np.array([1]))
    config = sampler.Config(exclude_iterations=1)
    assert sampler.excluded(history, 3, config).tolist() == [False, True, False, False]
    assert sampler.excluded(history, 3, sampler.Config(exclude_iterations=3)).tolist() == [True, True, False, False]
    assert not sampler.excluded(history, 3, sampler.Config()).any()


def test_entropy_share():
    assert sampler.entropy_share(np.ones(3), np.array([5, 3, 2])) == pytest.approx(1.0)
    assert sampler.entropy_share(np.array([1.0, 1e-9]), np.array([4, 12])) == pytest.approx(
        np.log(4) / np.log(16), abs=1e-6
    )
