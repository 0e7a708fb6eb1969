from itertools import combinations
from math import comb

import numpy as np
import pytest
from scipy import stats
from support.make import make_rollouts

from hpc_saidpo import difficulty, settings
from hpc_saidpo.records import CORRECT, UNGRADABLE, WRONG, Difficulty


def of(pass_counts, steps, tokens, k=8):
    n = len(pass_counts)
    return Difficulty(
        np.arange(n), np.full(n, k), np.array(pass_counts), np.array(steps, float), np.array(tokens, float), np.ones(n)
    )


@pytest.mark.parametrize("n", range(1, 9))
def test_pass_at_k_is_the_closed_form_and_the_enumeration(n):
    for c in range(n + 1):
        for k in range(1, n + 1):
            outcomes = [1] * c + [0] * (n - c)
            enumerated = np.mean([any(draw) for draw in combinations(outcomes, k)])
            closed = 1 - comb(n - c, k) / comb(n, k)
            assert difficulty.pass_at_k([n], [c], k)[0] == pytest.approx(closed, abs=1e-12)
            assert closed == pytest.approx(enumerated)


def test_pass_at_k_refuses_more_than_the_rollouts():
    with pytest.raises(ValueError, match="pass@9"):
        difficulty.pass_at_k([8], [3], 9)


def test_measure_means_over_gradable_responses():
    rollouts = make_rollouts(
        [
            (3, 0, CORRECT, 10, 2, True, "a"),
            (3, 1, WRONG, 20, 4, True, "b"),
            (1, 0, WRONG, 5, 1, True, "c"),
            (7, 0, UNGRADABLE, 5, 1, True, "d"),
        ]
    )
    measured = difficulty.measure(rollouts)
    assert measured.question_Q.tolist() == [1, 3]  # question 7's gold cannot be read: it says nothing
    assert measured.n_correct_Q.tolist() == [0, 1]
    assert measured.pass_rate_Q.tolist() == [0.0, 0.5]
    assert measured.tokens_Q.tolist() == [5.0, 15.0]
    assert measured.steps_Q.tolist() == [1.0, 3.0]


def test_band_discards_always_right_and_always_wrong():
    d = of([0, 1, 4, 7, 8], [1] * 5, [1] * 5)
    assert difficulty.in_band(d, settings.Difficulty()).tolist() == [False, True, True, True, False]
    narrow = settings.Difficulty(too_hard=0.25, too_easy=0.75)
    assert difficulty.in_band(d, narrow).tolist() == [False, False, True, False, False]


def test_order_breaks_ties_by_steps_then_tokens_then_the_pool():
    #       0   1   2   3   4   5
    d = of([4, 2, 2, 2, 2, 1], [9, 3, 5, 5, 5, 1], [9, 9, 7, 8, 7, 1])
    order = difficulty.hardest_first(d, settings.Difficulty(), np.random.default_rng(0))
    assert order.tolist() == [5, 3, 2, 4, 1, 0]


@pytest.mark.parametrize(
    "order, expected", [(("tokens",), [2, 0, 1]), (("steps",), [0, 2, 1]), (("pass_rate",), [1, 2, 0])]
)
def test_a_proxy_replaces_the_order(order, expected):
    d = of([6, 1, 3], [9, 1, 5], [5, 1, 9])
    config = settings.Difficulty(order=order)
    assert difficulty.hardest_first(d, config, np.random.default_rng(0)).tolist() == expected


def test_random_order_is_uniform():
    d = of([1, 2, 3], [1, 2, 3], [1, 2, 3])
    rng = np.random.default_rng(0)
    config = settings.Difficulty(order=("random",))
    first = np.array([difficulty.hardest_first(d, config, rng)[0] for _ in range(3000)])
    assert np.abs(np.bincount(first) / 3000 - 1 / 3).max() < 0.04


def test_an_impossible_band_is_refused():
    with pytest.raises(ValueError, match="too_hard"):
        settings.Difficulty(too_hard=0.8, too_easy=0.2)


def test_proxy_correlation_is_spearmans_with_ties():
    rng = np.random.default_rng(0)
    for _ in range(20):
        n = int(rng.integers(3, 40))
        hard = Difficulty(np.arange(n), np.full(n, 8), rng.integers(0, 9, n), *rng.integers(1, 5, (3, n)).astype(float))
        for name, proxy_Q in (("steps", hard.steps_Q), ("tokens", hard.tokens_Q), ("seconds", hard.seconds_Q)):
            expected = stats.spearmanr(hard.pass_rate_Q, proxy_Q).statistic
            assert difficulty.proxy_correlation(hard, name) == pytest.approx(expected)


def test_what_is_the_same_everywhere_correlates_with_nothing():
    assert difficulty.proxy_correlation(of([1, 2, 3], [2, 2, 2], [3, 2, 1]), "steps") is None
    assert difficulty.proxy_correlation(of([2, 2, 2], [1, 2, 3], [3, 2, 1]), "steps") is None
    assert difficulty.proxy_correlation(of([], [], []), "tokens") is None
    assert difficulty.proxy_correlation(of([1, 2, 3], [2, 2, 2], [3, 2, 1]), "tokens") == pytest.approx(-1)
