"""Rules and verifiers of a user's own module, named as package.module:name."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hpc_saidpo import plugin, settings
from hpc_saidpo.cli.compose import from_overrides
from hpc_saidpo.errors import RunError
from hpc_saidpo.grader.available import check_verifiers
from hpc_saidpo.grader.grader import Grader
from hpc_saidpo.grader.self_check import by_grading
from hpc_saidpo.grader.stage import check_golds
from hpc_saidpo.grader.verifiers import VERIFIERS, find_verifier, use_verifier
from hpc_saidpo.parallel.world import World
from hpc_saidpo.records import CORRECT, UNGRADABLE, WRONG, Question
from hpc_saidpo.sampler.rules import find_rule
from hpc_saidpo.sampler.sampler import Sampler

TOYS = Path(__file__).parents[1] / "support"
TINY = ("experiment=tiny", "run.root=r")
GYM = ("pool=reasoning_gym", "policy.path=m")
ARITHMETIC = "pool.settings=[{name: a, task: chain_sum, tags: [sums], n: 5}]"


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    monkeypatch.syspath_prepend(str(TOYS))


def question(verifier, answer="7"):
    return Question("q", "?", answer, verifier=f"toy_plugin.verifiers:{verifier}")


def test_a_reference_has_one_form():
    good = ("a:b", "package.module:name", "_a.b_2.c:D", "größe:wert")
    bad = ("a", "a.b", ":b", "a:", "a:b.c", "a:b:c", "a/b:c", "a b:c", "1a:b", "a.:b", ".a:b", "a:b()", "a:b\n")
    assert all(map(plugin.is_reference, good)) and not any(map(plugin.is_reference, bad))


@pytest.mark.parametrize(
    "rule, says",
    [
        ("toy_plugin.rules:passe", r"module toy_plugin\.rules \(.*rules\.py\) has no 'passe'; did you mean 'passes'\?"),
        ("toy_plugin.rule:passes", r"there is no module 'toy_plugin\.rule': install its package .* to PYTHONPATH"),
        ("no_such_toy.rules:passes", r"there is no module 'no_such_toy': install"),
        ("toy_plugin.broken:x", r"broken cannot be imported: ModuleNotFoundError: .*no_such_package_of_the_toy"),
        ("toy_plugin.failing:x", r"cannot be imported: ValueError: the toy is out of order \(.*failing\.py, line 3\)"),
        ("toy_plugin.rules:n_rules", r"an object of the class hpc_saidpo\.sampler\.rules\.Rule, but it is an object"),
        ("toy_plugin.rules:learnable", r"Rule, but it is the function learnable"),
        ("toy_plugin.rules:Rule", r"Rule, but it is the class Rule itself"),
        ("toy_plugin:rules:passes", r"an object of your own is named as package\.module:name"),
    ],
)  # fmt: skip
def test_a_rule_that_cannot_be_used_is_refused_in_one_message(rule, says):
    with pytest.raises(RunError, match=says) as error:
        from_overrides([*TINY, f"sampler.rule='{rule}'"])
    assert str(error.value).startswith(f"sampler.rule={rule}: ") and "\n" not in str(error.value)


def test_a_module_is_imported_once():
    find_rule("toy_plugin.rules:passes")
    module = sys.modules["toy_plugin.rules"]
    assert find_rule("toy_plugin.rules:passes") is module.passes and sys.modules["toy_plugin.rules"] is module


def test_a_rule_of_the_users_weighs_and_draws():
    cluster_N = np.repeat(range(2), 50)
    named = [f"sampler.{word}" for word in ("rule=toy_plugin.rules:passes", "n_questions=20", "alpha=2", "kappa=4")]
    config = from_overrides([*TINY, *named]).sampler
    sampler = Sampler(cluster_N, config, seed=0)
    sampler.update(range(100), [6] * 50 + [2] * 50, [8] * 100)
    rate_C = np.array([(50 * 0.75 + 4 * 0.5) / 54, (50 * 0.25 + 4 * 0.5) / 54])
    assert sampler.cluster_weights() == pytest.approx((rate_C / 0.5) ** 2)
    assert (cluster_N[sampler.draw()] == 0).mean() > 0.7


def test_a_rule_of_the_users_that_looks_ahead_has_weights_of_seen_questions():
    config = settings.Sampler(rule="toy_plugin.rules:frontier_easy")
    sampler = Sampler(np.zeros(4), config, seed=0)
    sampler.update([0, 1, 2], [1, 4, 7], [8, 8, 8])
    weight_N = sampler.weights()
    assert len(set(weight_N)) == 4 and weight_N[2] > weight_N[0]
    assert find_rule(config.rule).errors(sampler.counts).tolist() == pytest.approx([12 / 8])


@pytest.mark.parametrize(
    "verifier, says",
    [
        ("toy_plugin.verifiers:last_numbers", r"has no 'last_numbers'; did you mean 'last_number'\?"),
        ("toy_plugin.verifiers:number", "but it is an object of the class int"),
        ("toy_plugin.verifiers:Judge", "but it is the class Judge itself"),
        ("toy_plugin.verifiers:one_argument", "but it is the function one_argument"),
        ("toy_plugin.nothing:x", "there is no module 'toy_plugin.nothing'"),
        ("maths", r"no such name; did you mean 'math'\? Valid names: math, exact, reasoning_gym, code; or package"),
    ],
)  # fmt: skip
def test_a_verifier_that_cannot_be_used_is_refused_in_one_message(verifier, says):
    with pytest.raises(RunError, match=says) as error:
        from_overrides([*GYM, ARITHMETIC, f"pool.verifier='{verifier}'"])
    assert str(error.value).startswith(f"pool.verifier={verifier}: ") and "\n" not in str(error.value)


def test_programs_need_tests_which_made_questions_do_not_have():
    with pytest.raises(RunError, match="these questions have no tests: use math or exact"):
        from_overrides([*GYM, ARITHMETIC, "pool.verifier=code"])


def test_a_function_of_the_users_is_a_verifier():
    built = from_overrides([*GYM, ARITHMETIC, "pool.verifier=toy_plugin.verifiers:last_number"])
    with Grader() as grader:
        verdicts = [grader.judge(text, question("last_number")).verdict for text in ("it is 7", "7 or 8", "seven")]
    assert verdicts == [CORRECT, WRONG, UNGRADABLE]
    assert sys.modules["toy_plugin.verifiers"].calls[-3:] == ["q"] * 3
    assert built.pool.verifier == "toy_plugin.verifiers:last_number"
    verifier = find_verifier(built.pool.verifier)
    assert verifier.ballot("so \\boxed{A  b}") == "A b" and verifier.obstacle(settings.Grader()) == ""


def test_an_object_that_can_be_called_is_a_verifier_and_may_return_a_bool_of_numpy(monkeypatch):
    use_verifier("toy_plugin.verifiers:judge")
    monkeypatch.setattr(
        sys.modules["toy_plugin.verifiers"].Judge,
        "__call__",
        lambda self, response, question: np.bool_(response == "7"),
    )
    with Grader() as grader:
        assert grader.judge("7", question("judge")).verdict == CORRECT
        assert grader.judge("8", question("judge")).verdict == WRONG


@pytest.mark.parametrize(
    "verifier, response, reason",
    [
        ("raises", "x", "gave up: RuntimeError: cannot read 'x'"),
        ("leaves", "x", "gave up: SystemExit: 0"),
        ("talks", "x", "gave up: TypeError: the verifier must return True, False or None, not 'yes'"),
        ("last_number", "x", "the verifier returned None"),
        ("contains", "raise", "gave up: KeyError: 'no such case'"),
        ("contains", "odd", "gave up: TypeError: the verifier must return a Judgement, not 'correct'"),
    ],
)
def test_an_exception_in_a_verifier_makes_the_response_ungradable(verifier, response, reason):
    use_verifier(f"toy_plugin.verifiers:{verifier}")
    with Grader() as grader:
        judgement = grader.judge(response, question(verifier))
    assert (judgement.verdict, judgement.reason) == (UNGRADABLE, reason)


def test_a_verifier_object_uses_the_checkers_and_checks_its_golds(caplog):
    use_verifier("toy_plugin.verifiers:contains")
    with Grader() as grader:
        assert grader.judge("it is 7", question("contains")).reason == "by the toy"
        report = by_grading([question("contains"), question("contains", "odd")], grader)
        assert (report.n, report.n_passed, report.failed) == (2, 1, ("q",))
        monkey = question("contains", "assert False")
        assert grader.judge("tests", monkey).verdict in (WRONG, UNGRADABLE)
    assert find_verifier("toy_plugin.verifiers:contains").ballot("x") is None  # `stated` raises


def test_gold_answers_are_not_checked_where_the_right_response_is_unknown(caplog):
    use_verifier("toy_plugin.verifiers:last_number")
    with Grader() as grader, caplog.at_level("INFO", logger="hpc_saidpo"):
        check_golds({"pool": [question("last_number")]}, World(), grader)
    assert "pool: no gold answer is checked: their verifier has no own_response" in caplog.text


def test_a_verifier_that_cannot_grade_here_is_refused_before_the_first_rollout():
    for name in ("unavailable", "unready"):
        use_verifier(f"toy_plugin.verifiers:{name}")
    with pytest.raises(RunError, match=r"rank 0: questions with the verifier toy_plugin\.verifiers:unavailable: the t"):
        check_verifiers(["toy_plugin.verifiers:unavailable"], World(), settings.Grader())
    with pytest.raises(RunError, match=r"toy_plugin\.verifiers:unready: its obstacle fails: ZeroDivisionError"):
        check_verifiers(["toy_plugin.verifiers:unready"], World(), settings.Grader())
    with Grader() as grader, pytest.raises(RunError, match=r"unready: its own_response fails: AttributeError"):
        by_grading([question("unready")], grader)


def test_only_the_setting_can_name_a_verifier_of_the_users():
    """A stored question that names another one is refused, and its module is not imported."""
    stored = Question("q", "?", "7", verifier="toy_plugin.stored:anything")
    with Grader() as grader, pytest.raises(RunError, match=r"must be named by pool\.verifier"):
        grader.judge("7", stored)
    assert "toy_plugin.stored" not in sys.modules and set(VERIFIERS) == {"math", "exact", "reasoning_gym", "code"}


def test_a_wrong_name_is_refused_before_anything_heavy_is_imported():
    program = (
        "import sys\nfrom hpc_saidpo.cli.compose import from_overrides\n"
        "from hpc_saidpo.errors import RunError\n"
        "try: from_overrides(['experiment=tiny', 'run.root=r', 'sampler.rule=best'])\n"
        "except RunError as error: print(error)\n"
        "print([m for m in ('torch', 'scipy', 'transformers', 'h5py', 'sympy', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100)
    message, heavy = done.stdout.splitlines()
    assert message.startswith("sampler.rule=best: there is no such name. Valid names: error, ") and heavy == "[]"
