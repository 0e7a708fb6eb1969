import dataclasses

import numpy as np
import pytest
from scipy import stats
from support.make import make_rollouts

from hpc_saidpo import settings
from hpc_saidpo.metrics import iteration, signatures
from hpc_saidpo.records import Difficulty, Draw, Pairs
from hpc_saidpo.sampler import spread
from hpc_saidpo.sampler.counts import ClusterCounts
from hpc_saidpo.sampler.history import count
from hpc_saidpo.sampler.rules import RULES

GOOD = {
    "pair_yield": 0.5, "explored_too_hard_share": 0.3, "explored_too_easy_share": 0.2,
    "ungradable_share": 0.0, "sampler_rule": "error", "cluster_weight": [2.0, 0.5],
    "entropy_share": 0.9, "cluster_questions": [30.0, 20.0], "cluster_difference_p": 0.01, "cluster_drawn": [30, 20],
    "cluster_size": [600, 400],
    "scores": {"x": {"accuracy": 0.5, "low95": 0.45, "high95": 0.55}},
}  # fmt: skip
BEFORE = {"x": {"accuracy": 0.5, "low95": 0.45, "high95": 0.55}}


def shown(**changes):
    return [text.split(":")[0] for text in signatures.find_signatures({**GOOD, **changes}, BEFORE)]


def test_a_healthy_iteration_shows_nothing():
    assert shown() == []


def test_each_signature_is_named():
    assert shown(pair_yield=0.01) == ["depletion"]
    assert shown(pair_yield=0.01, explored_too_hard_share=0.1, explored_too_easy_share=0.89) == ["collapse"]
    assert shown(ungradable_share=0.2) == ["grading"]
    assert shown(entropy_share=0.9999) == ["stagnation"]
    assert shown(entropy_share=signatures.NEAR_UNIFORM) == []
    assert shown(entropy_share=0.9999, sampler_rule="uniform") == []  # IDPO means to be uniform
    assert shown(cluster_questions=[2.0, 1.0]) == ["stagnation"]
    assert shown(cluster_difference_p=0.4) == ["stagnation"] and shown(cluster_difference_p=None) == []
    assert shown(cluster_difference_p=signatures.CHANCE) == []
    assert shown(cluster_difference_p=0.4, cluster_questions=[1.0, 0.0], clusters_kind="kernel") == []
    told = signatures.find_signatures({**GOOD, "entropy_share": 1.0, "clusters_kind": "kernel"}, BEFORE)
    assert len(told) == 1 and "clusters.neighbours" in told[0] and not told[0].endswith("clusters.n")
    assert shown(cluster_drawn=[95, 5]) == ["collapse"]
    assert shown(cluster_drawn=[95, 5], cluster_size=[850, 150]) == []  # it is most of the pool
    assert shown(cluster_drawn=[99, 1], cluster_size=[850, 150]) == ["collapse"]
    assert shown(cluster_drawn=[0, 0]) == []
    assert shown(scores={"x": {"accuracy": 0.3, "low95": 0.25, "high95": 0.35}}) == ["collapse"]


def counted(cluster, s):
    seen = Difficulty(np.arange(len(s)), np.full(len(s), 8), np.array(s), *np.ones((3, len(s))))
    cluster_N = np.array(cluster)
    return count(seen, cluster_N, cluster_N.max() + 1, settings.Difficulty())


def test_differences_between_clusters_are_tested_against_chance():
    rng = np.random.default_rng(0)
    cluster = np.repeat(range(10), 12)
    p = [spread.difference_p(counted(cluster, rng.integers(0, 9, 120))) for _ in range(400)]
    assert stats.kstest(p, "uniform").pvalue > 0.01
    apart = counted(cluster, np.where(cluster < 5, 2, 6) + rng.integers(-1, 2, 120))
    s = np.where(cluster < 5, 2, 6)  # the same test by scipy
    assert spread.difference_p(apart) < 1e-6
    some = rng.integers(1, 8, 120)
    assert spread.difference_p(counted(cluster, some)) == pytest.approx(
        stats.f_oneway(*(1 - some[cluster == c] / 8 for c in range(10))).pvalue
    )
    one_question = spread.difference_p(counted([0, 0, 0, 1, 1, 2], [1, 2, 4, 5, 7, 6]))
    assert one_question == pytest.approx(stats.f_oneway([1, 2, 4], [5, 7], [6]).pvalue)
    assert spread.difference_p(counted(cluster, s)) == 0.0 and spread.difference_p(counted(cluster, 0 * s)) == 1.0
    assert spread.difference_p(counted([0, 1], [1, 4])) is spread.difference_p(counted([0, 0], [1, 4])) is None


EVIDENCE = ClusterCounts(
    n_C=np.array([10.0, 6.0, 0.0]), squares_C=np.array([10.0, 6.0, 0.0]), error_C=np.array([2.0, 3.0, 0.0]),
    error2_C=np.array([1.0, 2.0, 0.0]), usable_C=np.array([5.0, 4.0, 0.0]), passed_C=np.array([3.0, 2.0, 0.0]),
    several_C=np.array([10.0, 6.0, 0.0]), differ_C=np.array([2.0, 1.0, 0.0]),
)  # fmt: skip
CLUSTER = np.repeat([0, 1, 2], [5, 3, 2])
WEIGHT = np.array([2.0, 0.5, 1.0])


def drawn(*question):
    question_Q = np.array(question)
    return Draw(question_Q, WEIGHT[CLUSTER[question_Q]], CLUSTER[question_Q])


@pytest.mark.parametrize(
    "rule, error",
    [("error", (2, 3)), ("frontier", (2, 3)), ("frontier_error", (2, 3)), ("uniform", (2, 3)), ("error_all", (7, 4))],
)
def test_the_draws_figures_show_the_errors_that_the_rule_names(rule, error):
    config = settings.Sampler(rule=rule, kappa=2.0)
    figures = iteration.describe_draw(EVIDENCE, WEIGHT, config, CLUSTER, drawn(0, 1, 2, 5), drawn(1, 2, 3, 9))
    pooled, cells = sum(error) / 16, list(zip((*error, 0), (10, 6, 0), strict=True))
    assert figures["cluster_error_rate"] == pytest.approx([(e + 2 * pooled) / (n + 2) for e, n in cells])
    for low, rate, high in zip(*(figures[f"cluster_error_{x}"] for x in ("low95", "rate", "high95")), strict=True):
        assert 0 <= low < rate < high <= 1
    assert figures["cluster_questions"] == [10, 6, 0] and figures["clusters_probed"] == 2
    assert figures["cluster_weight"] == [2, 0.5, 1] and figures["cluster_drawn"] == [3, 1, 0]
    assert figures["cluster_size"] == [5, 3, 2]
    assert figures["draw_overlap"] == 2 / 4
    assert figures["cluster_difference_p"] == spread.difference_p(EVIDENCE)


@pytest.mark.parametrize("rule", ["error", "error_all"])
def test_intervals_of_the_clusters_error_rates_cover(rule):
    rng, n_hits, n_clusters, n_runs = np.random.default_rng(0), 0, 30, 40
    cluster = np.repeat(range(n_clusters), 20)
    for _ in range(n_runs):
        mean_C = rng.uniform(0.3, 0.7, n_clusters)
        b = 2 - 2 * mean_C
        found = counted(cluster, rng.binomial(8, rng.beta(2 * mean_C[cluster], b[cluster])))
        never = np.prod([(b + j) / (2 + j) for j in range(8)], axis=0)  # P(s = 0), which is no error in the band
        true_C = 1 - mean_C - (never if rule == "error" else 0)
        low_C, high_C = spread.rate_intervals(found, RULES[rule].errors(found), 4.0)
        n_hits += ((low_C <= true_C) & (true_C <= high_C)).sum()
    assert 0.93 < n_hits / (n_runs * n_clusters) <= (0.98 if rule == "error" else 1.0)


def test_figures_of_a_first_draw_without_evidence_are_missing_not_zero():
    figures = iteration.describe_draw(ClusterCounts.zero(3), WEIGHT, settings.Sampler(), CLUSTER, drawn(0), None)
    assert figures["cluster_error_rate"] == [None] * 3 and figures["draw_overlap"] is None
    assert figures["cluster_error_low95"] == [0.0] * 3 and figures["cluster_error_high95"] == [1.0] * 3
    assert figures["clusters_probed"] == 0 and figures["cluster_difference_p"] is None
    # discounting can leave more errors than questions by a rounding error: the rate is 1 at most
    rounded = dataclasses.replace(EVIDENCE, n_C=np.array([2.0, 3.0, 0.0]) - 1e-15)
    high = iteration.describe_draw(rounded, WEIGHT, settings.Sampler(), CLUSTER, drawn(0), None)["cluster_error_high95"]
    assert high[:2] == [1.0, 1.0]


@pytest.mark.parametrize("rule", ["error", "error_all", "frontier", "frontier_error", "uniform"])
def test_the_record_names_the_rule_and_judges_the_draw_by_it(rule):
    probed = make_rollouts([(q, k, (q + k) % 3 > 0, 5, 1, True, "") for q in range(8) for k in range(4)])
    pairs = Pairs.from_rows([])
    step = {**dict.fromkeys(iteration.TRAINING, 0.5), "pairs": 4, "length_correlation": None}
    facts = iteration.IterationFacts(
        t=3, probed=probed, counts=EVIDENCE, weight_C=np.ones(3), entropy_share=1.0, draw=drawn(0, 1, 5), before=None,
        explored=probed,
        pairs=pairs, steps=[step], scores={}, scores_before={"x": {"accuracy": 0.5}}, best={},
    )  # fmt: skip
    record = iteration.describe_iteration(
        facts, settings.Sampler(rule=rule), settings.Difficulty(), settings.Rollouts(k=4), CLUSTER
    )
    assert (record["iteration"], record["sampler_rule"]) == (3, rule)
    assert record["probe_questions"] == record["explored_questions"] == 8 and record["pair_yield"] == 1
    assert record["scores_before"] == {"x": {"accuracy": 0.5}} and record["dpo/loss"] == 0.5
    uniform_weights = [text for text in record["signatures"] if "the weights are nearly uniform" in text]
    assert len(uniform_weights) == (rule != "uniform")  # IDPO means to be uniform


def test_the_best_score_is_what_a_fall_is_measured_from():
    def score(accuracy):
        return {"accuracy": accuracy}

    best = iteration.update_best({"x": score(0.5), "y": score(None)}, {"x": score(0.4), "y": score(0.1)})
    assert best == {"x": score(0.5), "y": score(0.1)} == iteration.update_best(best, {})
    assert iteration.update_best(best, {"x": score(0.6)}) == {"x": score(0.6), "y": score(0.1)}


def solved(counts, cut=0.0):
    """The figures of an exploration whose questions have so many right responses of eight."""
    hard, easy = counts.count(0) / len(counts), counts.count(8) / len(counts)
    shares = {"explored_too_hard_share": hard, "explored_too_easy_share": easy, "truncated_share": cut}
    return {"explored_questions": len(counts), **shares, "max_new_tokens": 192}


ONE = make_rollouts([(3, 0, 0, 4, 1, True, "fish")])


def test_depletion_says_which_way_and_what_to_do():
    hard, easy = (signatures.no_pairs(2, solved(n, 0.1), ONE) for n in ([0, 0, 0, 8], [8, 8, 8, 0]))
    assert "iteration 2" in hard and "3 always wrong, 1 always right" in hard and "rollouts.k" in hard
    assert "1 always wrong, 3 always right" in easy and "rollouts.temperature" in easy
    cut = signatures.no_pairs(2, solved([0, 0, 0, 0], 0.9), ONE)
    assert "90% of the responses were cut at rollouts.max_new_tokens=192: raise it" in cut and "rollouts.k" not in cut
    assert "max_new" not in hard and hard.endswith("\none response, to question q3 (wrong): fish")
    assert all("run.accept_changes=true" in text for text in (hard, easy, cut))


def test_truncation_comes_before_any_other_advice():
    poor = {**GOOD, "pair_yield": 0.01, "explored_too_hard_share": 0.9, "truncated_share": 0.78, "max_new_tokens": 192}
    (depleted,) = signatures.find_signatures(poor, BEFORE)
    assert depleted.startswith("depletion: 1.0%") and "78% of the responses were cut" in depleted
    assert "rollouts.k" not in depleted
    assert shown(truncated_share=0.78) == ["truncation"] and shown(truncated_share=0.5) == []


def test_one_response_is_shown_of_the_kind_that_explains_most():
    rows = [(3, 0, 1, 4, 1, True, "right"), (3, 1, 0, 4, 1, True, "wrong\x1b"), (4, 0, 0, 4, 1, False, "cut")]
    assert signatures.typical(make_rollouts(rows)) == "one response, to question q3 (wrong): wrong\\x1b"
    assert "(cut): cut" in signatures.typical(make_rollouts(rows[2:]))
    assert "(correct)" in signatures.typical(make_rollouts(rows[:1]))


def test_savings_are_counted_in_responses_and_tokens():
    table = make_rollouts([(q, s, 1, tokens, 1, True, "") for q, s, tokens in [(3, 0, 4), (3, 1, 8), (7, 0, 5)]])
    assert iteration.count_undrawn(table, 4) == (2 + 3, 2 * 6 + 3 * 5)
    assert iteration.count_undrawn(make_rollouts([(1, s, 1, 9, 1, True, "") for s in range(4)]), 4) == (0, 0)


def test_a_probe_is_described_by_its_rates():
    seen = Difficulty(np.arange(4), np.full(4, 2), np.array([0, 1, 2, 1]), *np.ones((3, 4)))
    found = iteration.describe_probe(seen, np.array([False, True, False, True]))
    assert found["probe_questions"] == 4 and found["probe_pass_rate"] == 0.5 and found["probe_usable_share"] == 0.5
    assert found["probe_pass_at_k"] == 0.75 and found["probe_pass_rate_low95"] < 0.5 < found["probe_pass_rate_high95"]
    nothing = Difficulty(*np.zeros((6, 0)))
    assert iteration.describe_probe(nothing, np.zeros(0, bool)) == {
        "probe_questions": 0, "probe_pass_rate": None, "probe_pass_rate_low95": 0.0, "probe_pass_rate_high95": 1.0,
        "probe_pass_at_k": None, "probe_usable_share": None,
    }  # fmt: skip
