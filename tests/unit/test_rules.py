"""The rules of the sampler: each is one entry, and its weights and draws are fixed numbers."""

import inspect

import numpy as np
import pytest

from hpc_saidpo import settings
from hpc_saidpo.errors import RunError
from hpc_saidpo.records import ClusterCounts
from hpc_saidpo.sampler.betabinomial import usable
from hpc_saidpo.sampler.rules import RULES, Rule, errors_in_band, find_rule
from hpc_saidpo.sampler.sampler import Sampler

CLUSTER = np.repeat(range(5), [8, 12, 15, 20, 5])
PROBED = [0, 2, 5, 8, 9, 10, 20, 22, 24, 25, 35, 36, 40, 50]
CORRECT = [0, 3, 8, 1, 2, 5, 8, 8, 4, 0, 6, 7, 1, 0]
# (rule, thompson): (W of each cluster, sum of all weights, first draw, draw of the next iteration), recorded before the
# rules became entries of RULES. The draws are exact; a weight may differ in its last digit with the library of a CPU.
# fmt: off
RECORDED = {
    ("error", False): (
        [1.1410123966942147, 1.0866483011937558, 0.8520710059171597, 0.9111570247933886, 1.0],
        58.17208437250396, [50, 8, 4, 47, 31, 19], [51, 42, 30, 48, 9, 49],
    ),
    ("error", True): (
        [1.7774742255140514, 0.41941046074339466, 0.1698211975848937, 0.5843599696996394, 0.24643454354006739],
        34.719409408499686, [50, 8, 31, 20, 47, 19], [51, 42, 30, 1, 2, 3],
    ),
    ("error_all", False): (
        [1.1534760000000002, 0.7946448979591837, 0.7113717551020408, 1.3409640000000003, 1.0],
        61.25340310204083, [50, 8, 4, 31, 47, 20], [51, 42, 30, 48, 49, 54],
    ),
    ("error_all", True): (
        [1.4671827143513472, 0.3840111373412937, 0.4576767773837759, 0.8994485349740392, 0.41828312331404344],
        43.29113333971393, [50, 8, 31, 20, 4, 47], [51, 42, 30, 48, 49, 1],
    ),
    ("frontier", False): (
        [1.2114230954952363, 1.1803394658531907, 0.8646809795441254, 0.7436491137229859, 1.0],
        58.70455027879189, [50, 8, 4, 31, 47, 19], [51, 30, 42, 9, 48, 2],
    ),
    ("frontier", True): (
        [1.2860585773318656, 1.07173321653763, 0.5516145514131956, 0.6707383658379452, 0.6168942738235593],
        52.31559799597525, [50, 8, 4, 47, 31, 19], [51, 42, 30, 9, 48, 2],
    ),
    ("frontier_error", False): (
        [1.3382268673023316, 1.0175518829083945, 0.7828189209391689, 0.8303352329316992, 1.0],
        58.36180844632342, [50, 8, 4, 31, 47, 19], [51, 42, 30, 48, 1, 50],
    ),
    ("frontier_error", True): (
        [1.2512113886019232, 1.2082371181131915, 0.6282704045086459, 0.8302473430998377, 0.8138209662368295],
        57.852518396104244, [50, 8, 4, 47, 31, 19], [51, 42, 30, 1, 48, 9],
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
    counts = ClusterCounts(*(np.array([x]) for x in (10.0, 2.0, 1.0, 4.0, 3.0, 10.0, 1.0)))
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
