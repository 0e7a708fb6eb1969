import numpy as np
import pytest
from scipy import stats
from support.make import make_rollouts

from hpc_saidpo import difficulty, settings
from hpc_saidpo.metrics import iteration, signatures
from hpc_saidpo.records import Difficulty
from hpc_saidpo.sampler.history import count

GOOD = {
    "pair_yield": 0.5, "explored_too_hard_share": 0.3, "explored_too_easy_share": 0.2,
    "ungradable_share": 0.0, "sampler_rule": "error", "cluster_weight": [2.0, 0.5],
    "entropy_share": 0.9, "cluster_questions": [30.0, 20.0], "cluster_difference_p": 0.01, "cluster_drawn": [30, 20],
    "scores": {"x": {"accuracy": 0.5, "low95": 0.45, "high95": 0.55}},
}  # fmt: skip
BEFORE = {"x": {"accuracy": 0.5, "low95": 0.45, "high95": 0.55}}


def shown(**changes):
    return [text.split(":")[0] for text in signatures.of_iteration({**GOOD, **changes}, BEFORE)]


def test_a_healthy_iteration_shows_nothing():
    assert shown() == []


def test_each_signature_is_named():
    assert shown(pair_yield=0.01) == ["depletion"]
    assert shown(pair_yield=0.01, explored_too_hard_share=0.1, explored_too_easy_share=0.89) == ["collapse"]
    assert shown(ungradable_share=0.2) == ["grading"]
    assert shown(entropy_share=0.9999) == ["stagnation"]
    assert shown(entropy_share=0.9999, sampler_rule="uniform") == []  # IDPO means to be uniform
    assert shown(cluster_questions=[2.0, 1.0]) == ["stagnation"]
    assert shown(cluster_difference_p=0.4) == ["stagnation"] and shown(cluster_difference_p=None) == []
    assert shown(cluster_drawn=[95, 5]) == ["collapse"]
    assert shown(scores={"x": {"accuracy": 0.3, "low95": 0.25, "high95": 0.35}}) == ["collapse"]


def counted(cluster, s):
    seen = Difficulty(np.arange(len(s)), np.full(len(s), 8), np.array(s), *np.ones((3, len(s))))
    cluster_N = np.array(cluster)
    return count(seen, cluster_N, cluster_N.max() + 1, difficulty.in_band(seen, settings.Difficulty()))


def test_differences_between_clusters_are_tested_against_chance():
    rng = np.random.default_rng(0)
    cluster = np.repeat(range(10), 12)
    p = [iteration.difference_p(counted(cluster, rng.integers(0, 9, 120))) for _ in range(400)]
    assert stats.kstest(p, "uniform").pvalue > 0.01
    apart = counted(cluster, np.where(cluster < 5, 2, 6) + rng.integers(-1, 2, 120))
    s = np.where(cluster < 5, 2, 6)  # the same test by scipy
    assert iteration.difference_p(apart) < 1e-6
    some = rng.integers(1, 8, 120)
    assert iteration.difference_p(counted(cluster, some)) == pytest.approx(
        stats.f_oneway(*(1 - some[cluster == c] / 8 for c in range(10))).pvalue
    )
    assert iteration.difference_p(counted(cluster, s)) == 0.0 and iteration.difference_p(counted(cluster, 0 * s)) == 1.0
    assert iteration.difference_p(counted([0, 1], [1, 4])) is iteration.difference_p(counted([0, 0], [1, 4])) is None


def test_the_best_score_is_what_a_fall_is_measured_from():
    def score(accuracy):
        return {"accuracy": accuracy}

    best = iteration.best_of({"x": score(0.5), "y": score(None)}, {"x": score(0.4), "y": score(0.1)})
    assert best == {"x": score(0.5), "y": score(0.1)} == iteration.best_of(best, {})
    assert iteration.best_of(best, {"x": score(0.6)}) == {"x": score(0.6), "y": score(0.1)}


def solved(counts):
    n = len(counts)
    return Difficulty(np.arange(n), np.full(n, 8), np.array(counts), *np.ones((3, n)))


def test_depletion_says_which_way_and_what_to_do():
    hard, easy = signatures.no_pairs(2, solved([0, 0, 0, 8])), signatures.no_pairs(2, solved([8, 8, 8, 0]))
    assert "iteration 2" in hard and "3 always wrong, 1 always right" in hard and "rollouts.k" in hard
    assert "1 always wrong, 3 always right" in easy and "rollouts.temperature" in easy
    assert all("run.accept_changes=true" in text for text in (hard, easy))


def test_what_was_not_drawn_is_told_in_responses_and_tokens():
    table = make_rollouts([(q, s, 1, tokens, 1, True, "") for q, s, tokens in [(3, 0, 4), (3, 1, 8), (7, 0, 5)]])
    assert iteration.not_drawn(table, 4) == (2 + 3, 2 * 6 + 3 * 5)
    assert iteration.not_drawn(make_rollouts([(1, s, 1, 9, 1, True, "") for s in range(4)]), 4) == (0, 0)
