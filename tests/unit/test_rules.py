"""The rules of the sampler: each is one entry, and its weights and draws are fixed numbers."""

import inspect

import numpy as np
import pytest

from hpc_saidpo import settings
from hpc_saidpo.errors import RunError
from hpc_saidpo.sampler.betabinomial import usable
from hpc_saidpo.sampler.counts import ClusterCounts
from hpc_saidpo.sampler.rules import RULES, Rule, errors_in_band, find_rule
from hpc_saidpo.sampler.sampler import Sampler

CLUSTER = np.repeat(range(5), [8, 12, 15, 20, 5])
PROBED = [0, 2, 5, 8, 9, 10, 20, 22, 24, 25, 35, 36, 40, 50]
CORRECT = [0, 3, 8, 1, 2, 5, 8, 8, 4, 0, 6, 7, 1, 0]
# (rule, thompson): (W of each cluster, sum of all weights, first draw, draw of the next iteration), recorded. The draws
# are exact; a weight may differ in its last digit with the library of a CPU.
# fmt: off
RECORDED = {
    ("error", False): (
        [0.9216, 1.0540444444444443, 0.7852686390532545, 1.2821207100591714, 1.0],
        62.44277712031558, [50, 8, 4, 47, 31, 19], [51, 42, 30, 48, 49, 9],
    ),
    ("error", True): (
        [1.4700982601054748, 0.38848873057137323, 0.17113335318821088, 0.9217537354274187, 0.2925483286655011],
        38.88746749739933, [50, 8, 31, 20, 47, 19], [51, 42, 48, 49, 30, 1],
    ),
    ("error_all", False): (
        [1.1928848743391356, 0.9571292165968648, 0.8024505889958108, 1.0470524607896161, 1.0],
        59.006437644604944, [50, 8, 4, 31, 47, 20], [51, 42, 30, 48, 49, 9],
    ),
    ("error_all", True): (
        [1.5644184860566164, 0.45395134723037506, 0.497231485140232, 0.5865262592586552, 0.41663164115669044],
        39.23491972327748, [50, 8, 31, 20, 4, 47], [51, 42, 30, 48, 1, 2],
    ),
    ("frontier", False): (
        [0.9090082545222506, 1.2876805512045562, 0.8597996046799212, 0.9787711150620623, 1.0],
        61.80723816119781, [50, 8, 4, 31, 47, 19], [51, 42, 30, 9, 48, 49],
    ),
    ("frontier", True): (
        [0.9755296064815615, 1.0613397586475526, 0.565338287714171, 1.0075514334885156, 0.653918592120724],
        56.259206171677945, [50, 8, 4, 47, 31, 19], [51, 42, 30, 9, 48, 49],
    ),
    ("frontier_error", False): (
        [1.0008785324734968, 1.206197316233521, 0.7876375089306679, 1.015227480430639, 1.0],
        62.08226443617369, [50, 8, 4, 31, 47, 19], [51, 42, 30, 48, 50, 49],
    ),
    ("frontier_error", True): (
        [0.9636720742892336, 1.3594703736717064, 0.6554367859146454, 1.1810301249977322, 0.8699134738000203],
        64.58597713769433, [50, 8, 4, 47, 31, 19], [51, 42, 30, 48, 49, 9],
    ),
    ("uniform", False): (
        [1.0, 1.0, 1.0, 1.0, 1.0],
        60.0, [50, 8, 31, 4, 47, 20], [51, 42, 30, 48, 9, 49],
    ),
    ("uniform", True): (
        [1.0, 1.0, 1.0, 1.0, 1.0],
        60.0, [50, 8, 31, 4, 47, 20], [51, 42, 30, 48, 9, 49],
    ),
}
# fmt: on


@pytest.mark.parametrize(("rule", "thompson"), RECORDED)
def test_weights_and_draws_are_the_recorded_ones(rule, thompson):
    expected_C, total, first, second = RECORDED[rule, thompson]
    sampler = Sampler(CLUSTER, settings.Sampler(rule=rule, thompson=thompson, n_questions=6), seed=11, k=8)
    sampler.update(PROBED, CORRECT, [8] * len(PROBED))
    assert sampler.draw().tolist() == first
    sampler.update(first, [2, 8, 0, 4, 1, 7], [8] * 6)
    sampler.begin()
    sampler.update([1, 2, 9, 36], [1, 2, 3, 0], [4, 4, 4, 4])
    assert sampler.cluster_weights() == pytest.approx(expected_C, rel=1e-12)
    assert sampler.weights().sum() == pytest.approx(total, rel=1e-12)
    assert sampler.draw().tolist() == second


def test_all_rules_are_recorded_and_described():
    assert {rule for rule, _ in RECORDED} == set(RULES)
    assert all(rule.summary and "\n" not in rule.summary for rule in RULES.values())
    assert [name for name, rule in RULES.items() if rule.is_uniform] == ["uniform"]
    assert inspect.getdoc(Rule).count("Attributes:") == 1


def test_a_rule_counts_its_events_and_the_errors_to_show():
    counts = ClusterCounts(*(np.array([x]) for x in (10.0, 10.0, 2.0, 1.0, 4.0, 3.0, 10.0, 1.0)))
    masses = {name: rule.events and rule.events(counts).tolist() for name, rule in RULES.items()}
    assert masses == {"error": [2], "error_all": [7], "frontier": [4], "frontier_error": [4], "uniform": None}
    shown = {name: rule.errors(counts).tolist() for name, rule in RULES.items()}
    assert shown == {"error": [2], "error_all": [7], "frontier": [2], "frontier_error": [2], "uniform": [2]}


def test_a_rule_that_looks_ahead_needs_events():
    with pytest.raises(ValueError, match="needs `events` too"):
        Rule("nothing", expected=usable)
    assert not Rule("nothing").distinguishes(ClusterCounts.zero(3))
    assert not Rule("errors", errors_in_band).distinguishes(ClusterCounts.zero(3))


def test_a_wrong_name_is_refused_with_the_valid_ones():
    with pytest.raises(RunError) as error:
        Sampler(CLUSTER, settings.Sampler(rule="frontier_eror"))
    text = str(error.value)
    assert "sampler.rule=frontier_eror" in text and "did you mean 'frontier_error'?" in text
    assert "error, error_all, frontier, frontier_error, uniform" in text and "package.module:name" in text
    with pytest.raises(RunError, match=r"there is no such name\. Valid names: error, "):
        find_rule("best")


def test_only_a_rule_that_takes_the_band_receives_it():
    band = settings.Difficulty(too_hard=0.25)

    def expected(k, a, b, *more):
        return np.array([k + a + b, *(bounds.too_hard for bounds in more)])

    assert Rule("own", errors_in_band, expected).value(4, 1.0, 2.0, band).tolist() == [7.0]
    assert Rule("own", errors_in_band, expected, takes_band=True).value(4, 1.0, 2.0, band).tolist() == [7.0, 0.25]
