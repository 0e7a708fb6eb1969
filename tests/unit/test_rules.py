"""The rules of the sampler: each is one entry, with fixed weights and draws, and means what it says."""

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
    ("variance", False): (
        [0.8982343617882327, 1.3546862013016898, 0.8408562446601069, 0.9761108501895531, 1.0],
        63.26936160157151, [50, 8, 4, 31, 47, 19], [51, 42, 30, 9, 48, 49],
    ),
    ("variance", True): (
        [0.9715615383112267, 1.0755298905043829, 0.5338264538649883, 1.0122101314775862, 0.6254700863344761],
        57.54750054647433, [50, 8, 4, 47, 31, 19], [51, 42, 30, 9, 48, 49],
    ),
    ("deviation", False): (
        [0.9214923504883815, 1.2384276067915718, 0.8797728997655029, 0.9817929436494603, 1.0],
        61.24783202088281, [50, 8, 4, 31, 47, 19], [51, 42, 30, 9, 48, 49],
    ),
    ("deviation", True): (
        [0.9792808376336519, 1.0513415332168154, 0.7604075505213626, 0.8511629387685553, 0.6927776940718249],
        55.550508498270894, [50, 8, 4, 31, 47, 19], [51, 42, 30, 9, 48, 49],
    ),
    ("infogain", False): (
        [0.9877922360944855, 1.270409067177815, 0.660868602959092, 1.1464207652917089, 1.0],
        64.3800627911763, [50, 8, 4, 47, 31, 19], [51, 42, 30, 48, 49, 1],
    ),
    ("infogain", True): (
        [0.9599504508650194, 1.3765814862520216, 0.6181311097697948, 1.1846240350470834, 0.8320127374294792],
        65.37144717041134, [50, 8, 4, 47, 31, 19], [51, 42, 30, 48, 9, 49],
    ),
    ("thompson", False): (
        [0.9548030438077664, 1.299069963760164, 0.601999502490555, 1.351248521035781, 1.0],
        72.53334247951767, [50, 4, 8, 47, 31, 24], [51, 42, 30, 9, 2, 48],
    ),
    ("thompson", True): (
        [1.471358666728524, 0.760902639970526, 0.5453614619300421, 0.6890475079968555, 0.5854951786565885],
        56.860209575955125, [50, 24, 47, 4, 8, 31], [51, 42, 9, 30, 2, 1],
    ),
    ("zero_variance", False): (
        [0.9541822623187076, 1.1227928592297236, 0.9578384652581208, 0.9835704255586671, 1.0],
        60.38321105712277, [50, 8, 4, 31, 47, 20], [51, 42, 30, 9, 48, 49],
    ),
    ("zero_variance", True): (
        [0.9872285227626143, 0.9703010093260288, 0.8806109332910249, 0.9104629442002915, 0.8237272670881236],
        56.31893149525331, [50, 8, 4, 31, 47, 20], [51, 42, 30, 9, 48, 49],
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
    config = settings.Sampler(rule=rule, thompson=thompson, n_questions=6, alpha=2.0, kappa=4.0, history=0.5)
    sampler = Sampler(CLUSTER, config, seed=11, k=8)
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
    assert masses == {**{name: [4] for name in RULES}, "error": [2], "error_all": [7], "uniform": None}
    shown = {name: rule.errors(counts).tolist() for name, rule in RULES.items()}
    assert shown == {**{name: [2] for name in RULES}, "error_all": [7]}


K, N_SIMULATED = 8, 200_000
# Utility of one question: (pass rates, correct of K rollouts) -> its mean is what the rule expects.
UTILITY = {
    "frontier": lambda p, s: (s > 0) & (s < K),
    "frontier_error": lambda p, s: np.where((s > 0) & (s < K), 1 - s / K, 0),
    "variance": lambda p, s: p * (1 - p),
    "deviation": lambda p, s: np.sqrt(p * (1 - p)),
    "infogain": lambda p, s: p * (1 - p) ** 2,
    "thompson": lambda p, s: abs(p - 0.5) < 0.25,
    "zero_variance": lambda p, s: np.where((s > 0) & (s < K), 1, 0.5),
}


@pytest.mark.parametrize("rule", UTILITY)
def test_the_value_of_a_rule_is_the_mean_of_its_utility_in_a_simulation(rule):
    a, b = np.array([0.3, 1.0, 2.0, 12.0, 0.05]), np.array([0.5, 1.0, 7.0, 3.0, 4.0])
    rng = np.random.default_rng(3)
    p = rng.beta(a, b, (N_SIMULATED, len(a)))
    utility = 1.0 * UTILITY[rule](p, rng.binomial(K, p))
    error = utility.std(axis=0) / np.sqrt(N_SIMULATED)
    value = RULES[rule].value(K, a, b, settings.Difficulty())
    assert (abs(value - utility.mean(axis=0)) < 5 * error).all()
    assert RULES[rule].value(K, 1.0, 1.0, settings.Difficulty()) == pytest.approx(value[1])  # scalars, too


def test_every_rule_that_looks_ahead_is_simulated():
    assert set(UTILITY) == {name for name, rule in RULES.items() if rule.expected is not None}


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
    assert ", ".join(RULES) in text and "package.module:name" in text
    with pytest.raises(RunError, match=r"there is no such name\. Valid names: error, "):
        find_rule("best")


def test_only_a_rule_that_takes_the_band_receives_it():
    band = settings.Difficulty(too_hard=0.25)

    def expected(k, a, b, *more):
        return np.array([k + a + b, *(bounds.too_hard for bounds in more)])

    assert Rule("own", errors_in_band, expected).value(4, 1.0, 2.0, band).tolist() == [7.0]
    assert Rule("own", errors_in_band, expected, takes_band=True).value(4, 1.0, 2.0, band).tolist() == [7.0, 0.25]
