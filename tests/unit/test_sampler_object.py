"""The sampler as a library: an object that knows nothing of runs, ranks or models."""

import json
import subprocess
import sys

import numpy as np
import pytest

from hpc_saidpo import settings
from hpc_saidpo.errors import RunError
from hpc_saidpo.records import Difficulty, seed_of
from hpc_saidpo.sampler import betabinomial
from hpc_saidpo.sampler.draw import draw
from hpc_saidpo.sampler.history import History, excluded
from hpc_saidpo.sampler.rules import RULES, Rule, all_errors
from hpc_saidpo.sampler.sampler import Sampler
from hpc_saidpo.sampler.weights import Plan, log_weights, shown, useful_share

CLUSTER = np.arange(300) % 3
RATE = np.array([0.02, 0.5, 0.99])  # of a question of each cluster


def answer(question_Q, rng):
    return rng.binomial(8, RATE[CLUSTER[question_Q]])


def test_it_imports_neither_torch_nor_mpi_nor_hydra():
    program = (
        "import sys; from hpc_saidpo import settings; from hpc_saidpo.sampler import Sampler\n"
        "s = Sampler([0, 1] * 10, settings.Sampler(n_questions=4), seed=1)\n"
        "q = s.draw(); s.update(q, [1, 0, 4, 8], [8] * 4); s.begin(); s.weights(); s.draw(2)\n"
        "print([m for m in ('torch', 'mpi4py', 'hydra', 'omegaconf', 'transformers', 'h5py') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


@pytest.mark.parametrize("rule", ["error", "error_all"])
def test_with_one_cluster_it_draws_as_idpo_does(rule):
    """What tools/bench/bench_claim.py relies on: the ablation without clusters is IDPO."""
    own, uniform = (Sampler(np.zeros(300), settings.Sampler(rule=r, n_questions=60), seed=2) for r in (rule, "uniform"))
    rng = np.random.default_rng(1)
    for t in range(4):
        own.begin(t), uniform.begin(t)
        question_Q = own.draw()
        assert question_Q.tolist() == uniform.draw().tolist()
        own.update(question_Q, answer(question_Q, rng), [8] * 60)


@pytest.mark.parametrize("rule", ["error", "frontier", "frontier_error"])
def test_it_finds_the_cluster_that_yields_pairs(rule):
    it, rng = Sampler(CLUSTER, settings.Sampler(rule=rule, n_questions=45), seed=1), np.random.default_rng(0)
    assert it.weights().tolist() == [1.0] * 300
    for t in range(4):
        it.begin(t)
        question_Q = it.draw()
        it.update(question_Q, answer(question_Q, rng), [8] * 45)
    it.begin()
    assert it.iteration == 4 and np.argmax(it.cluster_weights()) == 1
    assert (CLUSTER[it.draw(60)] == 1).mean() > 0.5


def test_the_loops_parts_give_the_same():
    config = settings.Sampler(rule="frontier", n_questions=20, exclude_iterations=1, thompson=True)
    it, history = Sampler(CLUSTER, config, seed=9, k=4), History.empty(300, 3)
    for t in range(3):
        it.begin(t)
        history = history.discounted(config.history)
        plan = Plan(config, 4, settings.Difficulty(), seed_of(9, t, "thompson", 0))
        log_N = log_weights(history, CLUSTER, t, plan)
        assert (it.weights() == shown(log_N)).all()
        drawn = draw(log_N, 20, seed_of(9, t, "draw", 0), excluded(history, t, config))
        assert (it.draw() == drawn).all()
        s_Q = answer(np.sort(drawn), np.random.default_rng(t))
        it.update(np.sort(drawn), s_Q, [8] * 20)
        seen = Difficulty(np.sort(drawn), np.full(20, 8), s_Q, *np.ones((3, 20)))
        history = history.observe(t, seen, CLUSTER, settings.Difficulty()).note_drawn(t, drawn)


def test_draws_of_one_iteration_share_no_question():
    it = Sampler(CLUSTER, settings.Sampler(), seed=0)
    drawn = np.concatenate([it.draw(100) for _ in range(3)])
    assert sorted(drawn) == list(range(300))
    with pytest.raises(RunError, match="only 0 of 300 questions may be drawn"):
        it.draw(1)
    it.begin()
    assert not (it.draw(100) == drawn[:100]).all()


def test_rollouts_may_be_added_one_by_one_and_by_ids():
    names = [f"q{i}" for i in range(300)]
    one, all_at_once = (Sampler(CLUSTER, settings.Sampler(rule="frontier"), ids=names) for _ in range(2))
    one.update(["q4", "q1", "q4", "q4", "q2"], [1, 0, 0, 1, 0], [1, 1, 1, 1, 0])
    all_at_once.update(["q1", "q4"], [0, 2], [1, 3])
    assert (one.weights() == all_at_once.weights()).all() and one.counts.n_C.sum() == 2
    assert set(one.draw(5)) <= set(names)


@pytest.mark.parametrize("rule", ["error", "error_all", "frontier", "frontier_error"])
def test_eight_rollouts_in_one_call_or_in_eight_are_the_same(rule):
    rng = np.random.default_rng(0)
    question_Q, correct = np.arange(60), rng.random((60, 8)) < RATE[CLUSTER[:60]][:, None]
    at_once, one_by_one = (Sampler(CLUSTER, settings.Sampler(rule=rule)) for _ in range(2))
    for it in (at_once, one_by_one):
        it.update(question_Q, [4] * 60, [8] * 60, is_probe=True)
        it.begin()
    at_once.update(question_Q[::2], correct[::2].sum(1), [8] * 30, is_probe=True)
    for k in range(8):
        one_by_one.update(question_Q[::2], correct[::2, k], [True] * 30, is_probe=True)
    assert one_by_one.counts.n_C == pytest.approx(at_once.counts.n_C)
    assert one_by_one.cluster_weights() == pytest.approx(at_once.cluster_weights())
    assert one_by_one.weights() == pytest.approx(at_once.weights())


def test_skipped_iterations_discount_too():
    it = Sampler(CLUSTER, settings.Sampler(history=0.5))
    it.begin(0)
    it.update([0], [4], [8])
    it.begin(3)
    assert it.counts.n_C.tolist() == [0.125, 0, 0]
    with pytest.raises(ValueError, match="iteration 1 is before 3"):
        it.begin(1)


def test_its_state_goes_through_json():
    config = settings.Sampler(rule="frontier_error", n_questions=10, exclude_iterations=1)
    it, rng = Sampler(CLUSTER, config, seed=4), np.random.default_rng(0)
    for _ in range(2):
        question_Q = it.draw()
        it.update(question_Q, answer(question_Q, rng), [8] * 10)
        it.begin()
    it.draw(7)
    other = Sampler(CLUSTER, config, seed=4)
    other.load_state_dict(json.loads(json.dumps(it.state_dict(), allow_nan=False)))
    assert other.iteration == it.iteration and (other.weights() == it.weights()).all()
    assert (other.draw() == it.draw()).all()
    with pytest.raises(ValueError, match="300 questions in 3 clusters, this sampler 4 in 2"):
        Sampler([0, 1, 0, 1]).load_state_dict(it.state_dict())


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda it: it.update([0], [5], [4]), "0 <= n_correct <= n_tried"),
        (lambda it: it.update([0, 1], [1], [4]), "lists of equal length"),
        (lambda it: it.update([300], [1], [4]), "questions are 0 .. 299"),
        (lambda it: Sampler(CLUSTER, ids=["a"]), "as many as the questions"),
        (lambda it: Sampler([0, 1], ids=["a", "b"]).update(["c"], [1], [2]), "no question has the id 'c'"),
        (lambda it: Sampler([]), "not empty"),
        (lambda it: it.draw(0), "n must be 1 or more"),
        (lambda it: Sampler(CLUSTER, k=1), "k must be a whole number of 2 or more, not 1"),
        (lambda it: Sampler(CLUSTER, k=0), "2 or more, not 0"),
        (lambda it: Sampler(CLUSTER, k=2.5), "2 or more, not 2.5"),
        (lambda it: it.update(np.array([True, False]), [1, 1], [4, 4]), "indices, not a mask"),
        (lambda it: it.update([0.5], [1], [4]), "question_Q must be whole numbers, not .0.5."),
        (lambda it: it.update(["0"], [1], [4]), "question_Q must be whole numbers"),
        (lambda it: it.update([0], [1.5], [4]), "n_correct_Q must be whole numbers"),
        (lambda it: Sampler([0, 0.5]), "cluster_N must be whole numbers"),
    ],
)
def test_what_is_wrong_is_said(call, says):
    with pytest.raises(ValueError, match=says):
        call(Sampler(CLUSTER))


def test_a_tempered_alpha_shrinks_with_the_useful_share_of_the_pool():
    """The share counts clusters by their size: cluster 1, of which everything is useful, is drawn far more often."""
    cluster_N = np.repeat([0, 1], [900, 100])
    sampler = Sampler(cluster_N, settings.Sampler(rule="frontier", alpha=3.0, kappa=1e-6, temper=True))
    plain = Sampler(cluster_N, settings.Sampler(rule="frontier", alpha=3.0, kappa=1e-6))
    for one in (sampler, plain):
        one.update([0, 1, 2, 3, *range(900, 930)], [0, 0, 0, 4, *[4] * 30], [8] * 34)
    few = betabinomial.fit(sampler.counts, 1e-6)[0]
    useful_C = betabinomial.usable(8, few.a, few.b, settings.Difficulty())
    assert useful_C == pytest.approx([0.25, 1], abs=0.15)
    ratio = np.log(sampler.cluster_weights()) / np.log(plain.cluster_weights())
    assert ratio == pytest.approx([1 - useful_C @ [0.9, 0.1]] * 2)


def test_the_useful_share_is_that_of_k_rollouts_however_many_were_made_first():
    rng = np.random.default_rng(0)
    rate_N = rng.random(4000)
    share = settings.Sampler(rule="frontier", temper=True)
    found = []
    for k in (8, 2):
        sampler = Sampler(np.zeros(4000, int), share, k=8)
        sampler.update(range(4000), rng.binomial(k, rate_N), [k] * 4000)
        found.append(useful_share(sampler.counts, np.array([4000]), Plan(share, 8)))
    assert found == pytest.approx([7 / 9] * 2, abs=0.03)  # P(0 < s < 8) = 7/9 for a uniform pass rate


def test_single_rollouts_give_all_questions_the_same_weight_under_a_rule_with_a_model_of_pass_rates():
    rule = Rule("mine", all_errors, RULES["frontier"].expected, takes_band=True)
    counts = History.empty(3, 3).observe(
        0, Difficulty(np.arange(3), np.ones(3, int), np.array([0, 1, 0]), *np.ones((3, 3))), np.arange(3),
        settings.Difficulty(),
    ).counts  # fmt: skip
    assert not rule.distinguishes(counts) and RULES["error_all"].distinguishes(counts)


def test_pass_rates_before_a_stage_are_those_of_the_cluster_and_of_the_question():
    sampler = Sampler([0, 0, 0, 1], settings.Sampler(rule="frontier", history=0.5))
    assert sampler.priors(np.arange(4)) == {}
    sampler.update([0, 1], [2, 8], [8, 8])
    sampler.begin()
    prior = sampler.priors(np.array([0, 2, 3]))
    (a, b), new = prior[0], prior[2]
    assert (a - new[0], b - new[1]) == (pytest.approx(0.5 * 2), pytest.approx(0.5 * 6))
    assert set(prior) == {0, 2, 3}


@pytest.mark.parametrize("rule", [name for name, rule in RULES.items() if rule.expected])
@pytest.mark.parametrize("n_correct", [[0] * 24, [8] * 24, [1] + [0] * 23, [7] + [8] * 23, [1] * 24, [7] * 24])
def test_a_pool_far_too_hard_or_easy_can_be_drawn_from_by_every_rule(rule, n_correct):
    sampler = Sampler(np.arange(2400) % 12, settings.Sampler(rule=rule, alpha=1.0, n_questions=2000), k=8)
    sampler.begin(0)
    sampler.update(range(24), n_correct, [8] * 24, is_probe=True)
    assert len(set(sampler.choose().tolist())) == 2000
