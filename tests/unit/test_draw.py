"""Draws as distributions, by any array library."""

import array_api_strict
import numpy as np
import pytest
from scipy import stats

from hpc_saidpo.errors import RunError
from hpc_saidpo.sampler.draw import draw, namespace, uniforms
from hpc_saidpo.sampler.inclusion import inclusion


def logs(weight):
    with np.errstate(divide="ignore"):
        return np.log(weight)


def test_the_first_drawn_has_the_categorical_distribution():
    weight_N = np.array([1.0, 2.0, 3.0, 0.0, 4.0])
    n, log_N = 20_000, logs(weight_N)
    observed = np.bincount([draw(log_N, 1, seed)[0] for seed in range(n)], minlength=5)
    assert observed[3] == 0
    allowed = weight_N > 0
    assert stats.chisquare(observed[allowed], n * weight_N[allowed] / weight_N.sum()).pvalue > 0.01


def test_the_draw_is_successive_sampling_without_replacement():
    weight_N = np.array([1.0, 2.0, 3.0, 4.0])
    n, log_N = 20_000, logs(weight_N)
    observed = np.zeros((4, 4))
    for seed in range(n):
        first, second = draw(log_N, 2, seed)
        observed[first, second] += 1
    p = weight_N / weight_N.sum()
    expected = n * np.array([[p[i] * p[j] / (1 - p[i]) if i != j else 0 for j in range(4)] for i in range(4)])
    off_diagonal = ~np.eye(4, dtype=bool)
    assert np.diag(observed).sum() == 0
    assert stats.chisquare(observed[off_diagonal], expected[off_diagonal]).pvalue > 0.01


@pytest.mark.parametrize("n", [40, 300, 900])
def test_inclusion_frequencies_are_the_computed_chances(n):
    """Over many blocks, whose candidates are chosen by what came before: no place in the pool may be favoured."""
    weight_C, draws = np.array([0.2, 1.0, 5.0, 0.0]), 400
    cluster_N = np.arange(1600) % 4
    drawn = np.concatenate([draw(logs(weight_C)[cluster_N], n, seed, block=100) for seed in range(draws)])
    often_C = np.bincount(cluster_N[drawn], minlength=4) / (400 * draws)
    chance_C = inclusion(weight_C, np.full(4, 400), n)
    assert chance_C.sum() * 400 == pytest.approx(n)
    assert often_C == pytest.approx(chance_C, abs=4 * np.sqrt(0.25 / (400 * draws)) + 0.5 * n**-1.5)
    for c in range(3):
        place = np.bincount(drawn[cluster_N[drawn] == c] // 100, minlength=16)
        assert stats.chisquare(place).pvalue > 0.001


def test_inclusion_where_all_or_none_may_be_drawn():
    assert inclusion([1.0, 0.0, 3.0], [2, 5, 3], 5).tolist() == [1.0, 0.0, 1.0]
    assert inclusion([1.0, 1.0], [30, 70], 20) == pytest.approx([0.2, 0.2])
    wide = inclusion([1e-6, 1e6], [1000, 10], 20)
    assert wide == pytest.approx([0.01, 1.0], rel=1e-3)


def test_the_noise_is_uniform_and_one_questions_own():
    u_N = uniforms(5, 0, 200_000)
    assert stats.kstest(u_N, "uniform").pvalue > 0.01
    assert abs(np.corrcoef(u_N[:-1], u_N[1:])[0, 1]) < 0.01
    assert abs(np.corrcoef(u_N, uniforms(6, 0, 200_000))[0, 1]) < 0.01
    assert (uniforms(5, 1000, 1010) == u_N[1000:1010]).all()


def test_splitmix64_by_its_published_numbers():
    """The first outputs for seed 1234567 (Vigna's splitmix64.c), of which a uniform has the upper 53 bits."""
    published = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert uniforms(1234567, 0, 5).tolist() == [(x >> 11) * 2.0**-53 for x in published]


@pytest.mark.parametrize("n", [1, 50, 999, 5000])
def test_the_draw_depends_on_neither_blocks_nor_array_library(n):
    rng = np.random.default_rng(0)
    log_N = logs(rng.gamma(0.5, size=6000) * (rng.random(6000) < 0.9))
    excluded_N = rng.random(6000) < 0.05
    drawn = draw(log_N, n, 2**64 - 1, excluded_N)
    for block in (1, 7, 512, 10**6) if n < 999 else (512, 10**6):
        assert (draw(log_N, n, 2**64 - 1, excluded_N, block=block) == drawn).all()
    strict = [array_api_strict.asarray(x) for x in (log_N, excluded_N)]
    assert (draw(strict[0], n, 2**64 - 1, strict[1], block=1000) == drawn).all()
    assert (draw(log_N, n, 2**64 - 1, excluded_N, xp=array_api_strict) == drawn).all()
    assert isinstance(drawn, np.ndarray) and len(set(drawn.tolist())) == n


def test_excluded_questions_are_never_drawn():
    excluded_N = np.zeros(100, dtype=bool)
    excluded_N[::2] = True
    assert sorted(draw(np.zeros(100), 50, 0, excluded_N)) == list(range(1, 100, 2))


def test_a_questions_noise_does_not_depend_on_what_is_excluded():
    log_N = np.zeros(1000)
    drawn = draw(log_N, 20, 3)
    excluded_N = np.zeros(1000, dtype=bool)
    excluded_N[drawn[0]] = True
    assert (draw(log_N, 19, 3, excluded_N) == drawn[1:]).all()


def test_too_few_questions_name_the_setting():
    with pytest.raises(RunError, match=r"sampler\.n_questions is 5, but only 3"):
        draw(logs([1.0, 1, 1, 0]), 5, 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_none_are_refused(bad):
    with pytest.raises(ValueError, match="weights must be finite"):
        draw(np.array([1.0, bad, 1.0]), 1, 0)


def test_an_array_of_an_older_library_belongs_to_the_package_of_its_class():
    class Array:  # as CuPy's before version 13
        __module__ = "numpy.core"

    assert namespace(Array()) is np
    assert namespace(array_api_strict.asarray([1.0])) is array_api_strict
