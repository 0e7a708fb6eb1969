import numpy as np
import pytest

from hpc_saidpo import evaluate
from hpc_saidpo.records import Difficulty


def difficulty(n_correct, k):
    n = len(n_correct)
    return Difficulty(np.arange(n), np.full(n, k), np.array(n_correct), *np.ones((3, n)))


def test_wilson_against_published_values():
    # Newcombe 1998, table I: 81 of 263, and 0 of 20
    assert evaluate.wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert evaluate.wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)


def test_greedy_accuracy():
    score = evaluate.accuracy(difficulty([1, 0, 1, 1], 1))
    assert score["accuracy"] == 0.75 and score["n_questions"] == 4 and score["n_samples"] == 1
    assert score["low95"] < 0.75 < score["high95"]


def test_avg_at_k_interval_is_over_questions():
    # Eight samples of one question are not eight questions: the interval comes from the questions' spread.
    score = evaluate.accuracy(difficulty([8, 0] * 8, 8))
    assert score["accuracy"] == 0.5
    assert score["high95"] - score["accuracy"] == pytest.approx(1.96 * np.std([1, 0] * 8, ddof=1) / 4, abs=1e-3)


def test_nothing_to_grade():
    assert evaluate.accuracy(difficulty([], 1))["accuracy"] is None
