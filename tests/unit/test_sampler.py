import itertools

import numpy as np
import pytest
from scipy import stats

from hpc_saidpo import settings
from hpc_saidpo.records import Difficulty
from hpc_saidpo.sampler import Sampler, betabinomial
from hpc_saidpo.sampler.counts import ClusterCounts
from hpc_saidpo.sampler.draw import draw
from hpc_saidpo.sampler.evidence import chances, describe_clusters, describe_questions
from hpc_saidpo.sampler.history import SAME_QUESTION, History, count, excluded
from hpc_saidpo.sampler.rules import RULES
from hpc_saidpo.sampler.weights import Plan, entropy_share, log_cluster_weights, log_weights, posterior_rate, shown

MODELS = ("frontier", "frontier_error")
BAND = settings.Difficulty()


def counts(n, error):
    """Counts that the error rule looks at."""
    n, error = np.array(n, float), np.array(error, float)
    return ClusterCounts(n, n, error, error, n / 2, n / 2, n, n / 4)


def cluster_weights(counts, config, *plan):
    return shown(log_cluster_weights(counts, Plan(config, *plan)))


def graded(question, s, k=8) -> Difficulty:
    n = len(question)
    return Difficulty(np.array(question), np.broadcast_to(k, n).astype(int), np.array(s), *np.ones((3, n)))


def counted(cluster, s, k=8, n_clusters=None) -> ClusterCounts:
    seen = graded(range(len(cluster)), s, k)
    cluster_N = np.array(cluster)
    return count(seen, cluster_N, n_clusters or cluster_N.max() + 1, BAND)


def test_errors_count_only_in_the_band():
    # cluster 0: s = 0 (too hard) and s = 6; cluster 1: s = 8 (too easy); cluster 2: none; K = 8
    found = counted([0, 0, 1], [0, 6, 8], n_clusters=3)
    assert found.n_C.tolist() == found.several_C.tolist() == [2, 1, 0]
    assert found.error_C.tolist() == [0.25, 0, 0] and found.usable_C.tolist() == [1, 0, 0]
    assert RULES["error_all"].events(found).tolist() == [1.25, 0, 0]
    assert found.differ_C == pytest.approx([2 * 6 * 2 / 56, 0, 0])


def test_error_weights_of_a_worked_example():
    # ē = (3 + 1 + 0) / (10 + 10 + 0) = 0.2; ê = (3 + 4·0.2)/14, (1 + 0.8)/14; kappa = 4
    config = settings.Sampler(rule="error", alpha=1.0, kappa=4.0)
    expected = [(3.8 / 14) / 0.2, (1.8 / 14) / 0.2, 1.0]
    assert cluster_weights(counts([10, 10, 0], [3, 1, 0]), config) == pytest.approx(expected)
    bold = settings.Sampler(rule="error", alpha=2.0, kappa=4.0)
    assert cluster_weights(counts([10, 10, 0], [3, 1, 0]), bold) == pytest.approx(np.square(expected))


@pytest.mark.parametrize("rule", ["error", "error_all", *MODELS])
def test_an_unprobed_cluster_weighs_exactly_one(rule):
    found = counted([0] * 5 + [2] * 3, [1, 2, 0, 8, 4, 7, 8, 3], n_clusters=4)
    for alpha in (0.5, 1.0, 2.0, 3.7):
        weight_C = cluster_weights(found, settings.Sampler(rule=rule, alpha=alpha))
        assert weight_C[[1, 3]].tolist() == [1.0, 1.0] and (weight_C[[0, 2]] != 1.0).all()


@pytest.mark.parametrize("config", [settings.Sampler(alpha=0.0), settings.Sampler(rule="uniform")])
def test_alpha_zero_is_the_idpo_baseline(config):
    assert cluster_weights(counts([10, 5], [3, 0.2]), config).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("thompson", [False, True])
@pytest.mark.parametrize("rule", ["error", *MODELS])
def test_without_any_event_nothing_distinguishes_clusters(rule, thompson):
    config = settings.Sampler(rule=rule, thompson=thompson)
    for cluster, s in (([], []), ([0, 1], [8, 8]), ([0, 1], [0, 0]), ([0, 1], [0, 8])):
        found = counted(np.array(cluster, int), np.array(s, int), n_clusters=2)
        assert cluster_weights(found, config).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("rule", ["error_all", *MODELS])
@pytest.mark.parametrize("thompson", [False, True])
def test_extreme_clusters_have_finite_weights(rule, thompson):
    """All wrong, all correct, all the same s, one question, differing K, K = 1."""
    found = counted(
        [0] * 50 + [1] * 50 + [2] * 50 + [3, 4], [0] * 50 + [8] * 50 + [4] * 50 + [1, 1], [8] * 150 + [2, 1]
    )
    for kappa, alpha in itertools.product((1e-6, 4.0), (0.5, 4.0)):
        config = settings.Sampler(rule=rule, kappa=kappa, alpha=alpha, thompson=thompson)
        weight_C = cluster_weights(found, config)
        assert np.isfinite(weight_C).all() and (weight_C >= 0).all()
        if rule in MODELS and not thompson:
            assert weight_C[2] > max(weight_C[:2])


@pytest.mark.parametrize(
    "a, b, k", [(0.5, 0.5, 8), (2.0, 5.0, 8), (30.0, 1.0, 4), (0.01, 0.02, 16), (3000.0, 7000.0, 3)]
)
def test_expectations_are_those_of_the_beta_binomial(a, b, k):
    for low, high in ((0.0, 1.0), (0.25, 0.75), (0.4, 1.0)):
        band = settings.Difficulty(too_hard=low, too_easy=high)
        s = np.array([s for s in range(k + 1) if low < s / k < high])
        p = stats.betabinom.pmf(s, k, a, b)
        assert betabinomial.usable(k, a, b, band) == pytest.approx(p.sum(), abs=1e-9)
        assert betabinomial.usable_error(k, a, b, band) == pytest.approx((p * (1 - s / k)).sum(), abs=1e-9)


def test_the_fit_finds_the_beta_that_rates_were_drawn_from_at_any_k():
    rng = np.random.default_rng(0)
    truth, n = [(0.5, 0.5), (2.0, 6.0), (6.0, 3.0)], 20_000
    cluster = np.repeat(range(3), n)
    k = rng.choice([2, 4, 8, 16], 3 * n)
    s = rng.binomial(k, np.concatenate([rng.beta(a, b, n) for a, b in truth]))
    found, _ = betabinomial.fit(counted(cluster, s, k), kappa=4.0)
    for i, (a, b) in enumerate(truth):
        assert (found.a[i], found.b[i]) == (pytest.approx(a, rel=0.1), pytest.approx(b, rel=0.1))


def test_few_counts_stay_near_the_pool():
    cluster, s = [0] * 400 + [1], [0, 2, 4, 8] * 100 + [8]
    beta_C, pool = betabinomial.fit(counted(cluster, s), kappa=4.0)
    assert beta_C.mean[0] == pytest.approx(pool.mean, rel=0.01)
    assert pool.mean < beta_C.mean[1] < 0.5 * (1 + pool.mean)


def test_the_evidence_of_a_cluster_about_its_questions_is_bounded():
    apart, alike = (betabinomial.fit(counted([0] * 4, s), kappa=4.0)[0] for s in ([0, 8, 0, 8], [4] * 4))
    assert apart.size == pytest.approx(betabinomial.LEAST) and alike.size == pytest.approx(betabinomial.MOST)


def test_frontier_goes_for_pairs_and_frontier_error_for_the_harder_of_them():
    easy, middle, hard = [7, 6, 8, 7], [4, 5, 3, 4], [1, 2, 0, 1]
    found = counted(np.repeat(range(3), 100), (easy * 25) + (middle * 25) + (hard * 25))
    frontier, error = (cluster_weights(found, settings.Sampler(rule=rule)) for rule in MODELS)
    assert frontier[1] > frontier[0] == pytest.approx(frontier[2])
    assert error[2] > error[1] > error[0]


@pytest.mark.parametrize("rule", MODELS)
def test_a_question_seen_before_has_its_own_weight_by_its_posterior(rule):
    config = settings.Sampler(rule=rule, alpha=1.0, history=0.5)
    cluster_N = np.array([0, 0, 0, 0, 1])
    seen = graded([1, 2, 3], [4, 0, 8])
    history = History.empty(5, 2).observe(0, seen, cluster_N, BAND)
    weight_N = np.exp(log_weights(history, cluster_N, 2, Plan(config, 4)))
    beta_C, pool = betabinomial.fit(history.counts, config.kappa)
    for question, s in ((1, 4), (2, 0), (3, 8)):
        own = beta_C.a[0] + 0.25 * s, beta_C.b[0] + 0.25 * (8 - s)
        expected = RULES[rule].value(4, *own, BAND) / RULES[rule].value(4, pool.a, pool.b, BAND)
        assert weight_N[question] == pytest.approx(expected)
    assert weight_N[1] > weight_N[0] > max(weight_N[2:4]) and weight_N[4] == 1.0
    forgotten = log_weights(history.discounted(0.0), cluster_N, 1, Plan(settings.Sampler(rule=rule, history=0.0)))
    assert forgotten.tolist() == [0.0] * 5


@pytest.mark.parametrize("rule", ["error", "error_all", *MODELS])
def test_thompson_draws_rates_around_the_posterior_mean_by_the_seed(rule):
    plain = settings.Sampler(rule=rule, alpha=1.0)
    config = settings.Sampler(rule=rule, alpha=1.0, thompson=True)
    found = counted([0] * 200 + [1] * 3, [1, 2, 3, 4] * 50 + [1, 4, 7], n_clusters=3)
    drawn = np.array([cluster_weights(found, config, 8, BAND, seed) for seed in range(500)])
    assert (drawn[7] == cluster_weights(found, config, 8, BAND, 7)).all()
    known, little, none = drawn.std(axis=0)
    assert 0 < known < little < none  # what is little known is explored
    if rule == "error":  # of a rate, the mean is the posterior's
        expected = cluster_weights(found, plain)
        assert drawn.mean(axis=0) == pytest.approx(expected, abs=4 * none / np.sqrt(500))


def test_history_discounts_old_evidence():
    cluster_N, band = np.array([0, 0, 1]), BAND
    history = History.empty(3, 2).observe(0, graded([0], [4]), cluster_N, band)
    later = history.discounted(0.5).observe(1, graded([2], [2]), cluster_N, band)
    assert later.counts.n_C.tolist() == [0.5, 1.0]
    assert later.counts.error_C.tolist() == [0.25, 0.75]
    assert later.seen_at_N.tolist() == [0, -1, 1]
    assert history.seen_at_N.tolist() == [0, -1, -1]  # values, not state
    assert np.isnan(later.tokens_N).tolist() == [False, True, False] and np.isnan(history.tokens_N[2])


def test_what_one_iteration_says_in_parts_adds_up():
    cluster_N, band = np.zeros(2, int), BAND
    history = History.empty(2, 1).observe(3, graded([1], [2]), cluster_N, band)
    assert history.observe(3, graded([1], [3], k=4), cluster_N, band).n_correct_N.tolist() == [0, 5]
    assert history.observe(4, graded([1], [3], k=4), cluster_N, band).n_tried_N.tolist() == [0, 4]


def test_the_exclusion_rule_looks_back_r_iterations():
    history = History.empty(4, 1).note_drawn(0, np.array([0])).note_drawn(2, np.array([1]))
    config = settings.Sampler(exclude_iterations=1)
    assert excluded(history, 3, config).tolist() == [False, True, False, False]
    assert excluded(history, 3, settings.Sampler(exclude_iterations=3)).tolist() == [True, True, False, False]
    assert not excluded(history, 3, settings.Sampler()).any()


def test_questions_drawn_since_then_and_ungradable_ones_have_no_chance():
    history = History.empty(4, 1).note_drawn(0, np.array([0])).note_drawn(2, np.array([1]))
    history = history.note_ungradable(0, np.array([2]))
    questions = describe_questions(history, np.zeros(4, int), np.ones(4))
    clusters = describe_clusters(history.counts, np.zeros(4, int), np.ones(1))
    for since, expected in ((3, [1 / 3, 1 / 3, 0, 1 / 3]), (1, [1 / 2, 0, 0, 1 / 2]), (0, [0, 0, 0, 1])):
        assert np.concatenate(chances(questions, clusters, 1, since)) == pytest.approx(expected)


def test_entropy_share():
    assert entropy_share(np.full(10, 700.0)) == pytest.approx(1.0)
    log_N = np.repeat([0.0, -1000.0, -np.inf], [4, 6, 6])
    assert entropy_share(log_N) == pytest.approx(np.log(4) / np.log(10), abs=1e-6)


def test_a_uniform_draw_has_the_whole_entropy_whatever_is_excluded():
    sampler = Sampler(
        np.zeros(50, int), settings.Sampler(rule="uniform", n_questions=10, exclude_iterations=2), never_Q=[3]
    )
    for t in range(3):
        sampler.begin(t)
        assert sampler.entropy_share() == pytest.approx(1)
        sampler.draw()
    only = np.where(np.arange(5) == 2, 0.0, -np.inf)
    assert entropy_share(only) == 1


def test_a_question_that_is_drawn_again_tells_its_cluster_nothing_new():
    cluster_N = np.array([0, 0, 1])
    history = History.empty(3, 2).observe(0, graded([0, 2], [4, 1]), cluster_N, BAND)
    again = history.observe(1, graded([0], [2]), cluster_N, BAND)
    assert (again.counts.n_C == history.counts.n_C).all() and again.n_correct_N[0] == 2
    probed = history.observe(1, graded([0], [2]), cluster_N, BAND, is_probe=True)
    assert probed.counts.n_C.tolist() == [2, 1] and probed.counts.error_C[0] == 0.5 + 0.75
    assert probed.counts.n_effective_C == pytest.approx([2**2 / (2 + 2 * SAME_QUESTION), 1])


def test_clusters_learn_from_responses_whose_number_was_fixed_before():
    cluster_N = np.array([0])
    decided, first = graded([0], [3], k=4), graded([0], [1], k=2)
    history = History.empty(1, 1).observe(0, decided, cluster_N, BAND, first_wave=first)
    assert history.counts.passed_C[0] == 0.5 and history.counts.differ_C[0] == 1
    assert (history.n_correct_N[0], history.n_tried_N[0]) == (3, 4)
    assert (history.fixed_correct_N[0], history.fixed_tried_N[0]) == (1, 2)
    restored = History.restore(history.counts, history.seen(), 1)
    assert (restored.fixed_correct_N[0], restored.fixed_tried_N[0]) == (1, 2)
    nothing = History.empty(1, 1).observe(0, decided, cluster_N, BAND, first_wave=first.take([]))
    assert nothing.counts.n_C[0] == nothing.counted_N[0] == 0 and nothing.n_tried_N[0] == 4
    assert nothing.fixed_tried_N[0] == 0


def test_an_ungradable_question_is_not_drawn_again():
    history = History.empty(3, 1).note_ungradable(0, np.array([1]))
    assert excluded(history, 5, settings.Sampler()).tolist() == [False, True, False]
    restored = History.restore(history.counts, history.seen(), 3)
    assert excluded(restored, 5, settings.Sampler()).tolist() == [False, True, False]


def test_a_bold_alpha_neither_fails_nor_forbids_a_question():
    rng, cluster = np.random.default_rng(0), np.repeat(range(10), 20)
    found = counted(cluster, rng.binomial(8, np.linspace(0.05, 0.95, 10)[cluster]))
    for rule in ("error", "error_all", *MODELS):
        log_C = log_cluster_weights(found, Plan(settings.Sampler(rule=rule, alpha=1000.0)))
        once = log_cluster_weights(found, Plan(settings.Sampler(rule=rule, alpha=1.0)))
        assert np.isfinite(log_C).all() and log_C == pytest.approx(1000 * once)
        drawn = draw(log_C[cluster], 200, seed=1)  # every question, the heaviest cluster first
        place_C = [np.flatnonzero(cluster[drawn] == c).mean() for c in range(10)]
        assert stats.spearmanr(place_C, -log_C).statistic > 0.99 and len(set(drawn.tolist())) == 200


def test_the_band_decides_what_a_usable_question_is():
    cluster = np.repeat([0, 1], 500)
    s = np.random.default_rng(0).binomial(8, np.array([0.12, 0.5])[cluster])
    band = settings.Difficulty(too_hard=0.25, too_easy=0.75)
    found = count(graded(range(1000), s), cluster, 2, band)
    assert found.usable_C.tolist() == [(s[:500] > 2).sum() - (s[:500] > 5).sum(), ((s[500:] > 2) & (s[500:] < 6)).sum()]
    for rule in MODELS:
        hard, middle = shown(log_cluster_weights(found, Plan(settings.Sampler(rule=rule, alpha=1.0), 8, band)))
        assert hard < 0.4 < 1.3 < middle


def test_rates_are_shrunk_however_little_discounted_evidence_is_left():
    rate_C = posterior_rate(np.array([0.125, 0.0]), np.array([0.25, 0.25]), 1.0)  # the pool's rate is 1/4
    assert rate_C.tolist() == [0.375 / 1.25, 0.25 / 1.25]
    assert posterior_rate(np.array([0.25, 0.0]), np.array([0.5, 0.0]), 1.0).tolist() == [0.5, 0.5]
    assert np.isnan(posterior_rate(np.zeros(2), np.zeros(2), 1.0)).all()


def test_rounds_of_a_budget_follow_from_what_was_found():
    def sizes(of_question, n_drawn=320, **limits):
        """Numbers of questions of the rounds; of_question: (usable, tokens) of each drawn question."""
        budget, n, found = settings.Budget(**limits), 0, []
        while more := budget.next_round(n_drawn, n, *np.sum(of_question[:n], axis=0, dtype=int)):
            found, n = [*found, more], n + more
        return found

    even = np.array([(1, 50)] * 320)
    assert sizes(even, tokens=6000) == [40, 40, 40]  # never more than before
    assert sizes(even, tokens=5000) == [40, 40, 20]
    assert sizes(even, tokens=4050) == [40, 40, 10]  # a quarter of the first at least
    assert sizes(even, tokens=4050, pairs=50) == [40, 10] and sizes(even, pairs=1) == [40]
    assert sizes(even, tokens=10**6) == [40, 40, 80, 160] and sizes(even, tokens=10**6, rounds=1) == [320]
    rare = np.array([(i % 100 == 99, 50) for i in range(320)])
    assert sizes(rare, pairs=2) == [40, 40, 80, 160]  # question 100 yields the first pair
    assert sizes(even[:0], 0, tokens=5) == []
