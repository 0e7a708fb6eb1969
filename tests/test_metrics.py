import numpy as np
from conftest import make_rollouts

from hpc_saidpo import metrics
from hpc_saidpo.loop import depletion
from hpc_saidpo.records import Difficulty

GOOD = {
    "pair_yield": 0.5, "ungradable_share": 0.0, "sampler_rule": "error", "cluster_weight": [2.0, 0.5],
    "entropy_share": 0.9, "probe_questions": 50, "cluster_drawn": [30, 20],
    "scores": {"x": {"accuracy": 0.5, "low95": 0.45, "high95": 0.55}},
}  # fmt: skip
BEFORE = {"x": {"accuracy": 0.5, "low95": 0.45, "high95": 0.55}}


def shown(**changes):
    return [text.split(":")[0] for text in metrics.signatures({**GOOD, **changes}, BEFORE)]


def test_a_healthy_iteration_shows_nothing():
    assert shown() == []


def test_each_signature_is_named():
    assert shown(pair_yield=0.01) == ["depletion"]
    assert shown(ungradable_share=0.2) == ["grading"]
    assert shown(entropy_share=0.9999) == ["stagnation"]
    assert shown(entropy_share=0.9999, sampler_rule="uniform") == []  # IDPO means to be uniform
    assert shown(probe_questions=3) == ["stagnation"]
    assert shown(cluster_drawn=[95, 5]) == ["collapse"]
    assert shown(scores={"x": {"accuracy": 0.3, "low95": 0.25, "high95": 0.35}}) == ["collapse"]


def solved(counts):
    n = len(counts)
    return Difficulty(np.arange(n), np.full(n, 8), np.array(counts), *np.ones((3, n)))


def test_depletion_says_which_way_and_what_to_do():
    hard, easy = depletion(2, solved([0, 0, 0, 8])), depletion(2, solved([8, 8, 8, 0]))
    assert "iteration 2" in hard and "3 always wrong, 1 always right" in hard and "rollouts.k" in hard
    assert "1 always wrong, 3 always right" in easy and "rollouts.temperature" in easy
    assert all("run.accept_changes=true" in text for text in (hard, easy))


def test_what_was_not_drawn_is_told_in_responses_and_tokens():
    table = make_rollouts([(q, s, 1, tokens, 1, True, "") for q, s, tokens in [(3, 0, 4), (3, 1, 8), (7, 0, 5)]])
    assert metrics.not_drawn(table, 4) == (2 + 3, 2 * 6 + 3 * 5)
    assert metrics.not_drawn(make_rollouts([(1, s, 1, 9, 1, True, "") for s in range(4)]), 4) == (0, 0)
