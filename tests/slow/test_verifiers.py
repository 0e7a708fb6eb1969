"""Verifiers: the choice per question, the verdicts of each one, and gold answers against themselves."""

import inspect
import json
import re
from pathlib import Path

import pytest
from support.needs import needs_sandbox

from hpc_saidpo import settings
from hpc_saidpo.cli.grade import main
from hpc_saidpo.errors import RunError
from hpc_saidpo.grader.answers.stated import code_of
from hpc_saidpo.grader.grader import Grader
from hpc_saidpo.grader.self_check import by_grading
from hpc_saidpo.grader.stage import check_golds
from hpc_saidpo.grader.verifiers import VERIFIERS
from hpc_saidpo.parallel.world import World
from hpc_saidpo.pool import generated
from hpc_saidpo.pool.stage import load_pool
from hpc_saidpo.records import CORRECT, UNGRADABLE, WRONG, Question
from hpc_saidpo.settings.pool import EVALUATING, VERIFIER_NAMES
from hpc_saidpo.store.run import RunDir


@pytest.mark.parametrize(
    "response, verdict",
    [
        ("It is \\boxed{Marie  Curie}.", CORRECT),
        ("The answer is Marie\tCurie", CORRECT),
        ("#### Maria Skłodowska", CORRECT),
        ("#### marie curie", WRONG),
        ("#### Curie", WRONG),
        ("", WRONG),
        ("<think>\\boxed{Marie Curie}</think> \\boxed{Lise Meitner}", WRONG),
    ],
)
def test_exact_is_the_same_text_but_for_blanks(grader, response, verdict):
    question = Question("q", "Who?", "Marie Curie", alt_answers=("Maria  Skłodowska",), verifier="exact")
    assert grader.judge(response, question).verdict == verdict


def test_what_is_equal_as_mathematics_is_not_as_text(grader):
    for verifier, verdict in (("math", CORRECT), ("exact", WRONG)):
        assert grader.judge("\\boxed{1/2}", Question("q", "?", "0.5", verifier=verifier)).verdict == verdict
    assert grader.judge("\\boxed{x}", Question("q", "?", " ", verifier="exact")).verdict == UNGRADABLE


def made_pool(*tasks, verifier="reasoning_gym"):
    parts = [settings.Task(name=task, task=task, tags=("t",), n=3) for task in tasks]
    return generated.make(settings.ReasoningGym(settings=parts, verifier=verifier, examples=1, held_out=1))


SCORED = ("calendar_arithmetic", "rotate_matrix", "time_intervals", "simple_equations")


@pytest.fixture(scope="module")
def scored():
    return made_pool(*SCORED)


def test_reasoning_gyms_own_scorer_grades_its_own_questions(grader, scored):
    report = by_grading(scored.questions, grader)
    assert (report.n, report.n_passed) == (3 * len(SCORED), 3 * len(SCORED)), report.failed
    for question in scored.questions[::3]:
        assert grader.judge("<answer>none of that</answer>", question).verdict == WRONG
        assert grader.judge("", question).verdict == WRONG
        assert grader.judge(question.answer, question).verdict == CORRECT  # without tags, on several lines
    intervals = next(q for q in scored.questions if q.subject == "time_intervals")
    assert json.loads(intervals.entry)["metadata"] and intervals.verifier == "reasoning_gym"


def test_the_same_questions_by_text_need_no_entry():
    assert {(q.verifier, q.entry) for q in made_pool("caesar_cipher", verifier="exact").questions} == {("exact", "")}


@pytest.mark.parametrize("task", sorted(EVALUATING))
def test_scorers_that_evaluate_answers_are_not_called(grader, tmp_path, monkeypatch, task):
    monkeypatch.chdir(tmp_path)
    entry = json.dumps({"task": task, "question": "", "answer": "1", "metadata": {}})
    owned = f"open({str(tmp_path / 'owned')!r}, 'w')"
    found = grader.judge(f"<answer>{owned}</answer>", Question("q", "?", "1", verifier="reasoning_gym", entry=entry))
    assert found.verdict == UNGRADABLE and not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="its scorer evaluates answers as Python"):
        settings.ReasoningGym(settings=[settings.Task(name="a", task=task, tags=("t",), n=1)], verifier="reasoning_gym")


def test_every_scorer_that_evaluates_is_known():
    from reasoning_gym.factory import DATASETS

    elsewhere = {
        "codeio",
        "basic_arithmetic",
        "gsm_symbolic",
        "propositional_logic",
    }  # when a question is made; a parser
    suspicious = re.compile(r"\beval\(|\bexec\(|parse_expr\(|sympify\(|literal_eval\(|\bpickle\b")
    found = {name for name, (cls, _) in DATASETS.items() if suspicious.search(Path(inspect.getfile(cls)).read_text())}
    assert found - elsewhere <= EVALUATING and EVALUATING - {"composite"} <= found


def test_an_entry_that_is_none_is_ungradable(grader):
    for entry in ("", "{", "[]", '{"task": "no such"}', '{"task": "time_intervals", "answer": "1"}'):
        question = Question("q", "?", "1", verifier="reasoning_gym", entry=entry)
        assert grader.judge("<answer>1</answer>", question).verdict == UNGRADABLE, entry


FENCED = "```"


@pytest.mark.parametrize(
    "response, code",
    [
        ("def f(): return 1", "def f(): return 1"),
        ("  def f():\n      return 1\n", "def f():\n    return 1"),
        (
            f"So:\n{FENCED}python\na = 1\n{FENCED}\nor\n{FENCED}Python\nb = 2\n{FENCED}\nand\n{FENCED}\n3\n{FENCED}",
            "b = 2",
        ),
        (f"{FENCED}\na = 1\n{FENCED} \n text {FENCED}\n", "a = 1"),
        (f"{FENCED}sh\nls\n{FENCED}\n", "ls"),
        (f"Here:\n  {FENCED}python\n  a = 1\n  if a:\n    b = 2\n  {FENCED}", "a = 1\nif a:\n  b = 2"),
        (f"Here:\n{FENCED}python\na = 1\n", "a = 1"),  # never closed
        (f"{FENCED}python\na = 1\n{FENCED}\nThen {FENCED}inline{FENCED}.\n{FENCED}python\nb =", "a = 1"),
        (f"<think>{FENCED}python\na = 1\n{FENCED}</think>b = 2", "b = 2"),
        ("", ""),
        (f"{FENCED}python\n" * 50_000, f"{FENCED}python\n".strip() + f"\n{FENCED}python" * 49_998),
    ],
    ids=range(11),
)
def test_the_program_in_a_response(response, code):
    assert code_of(response)[:1000] == code[:1000]


def test_equal_answers_are_counted_as_their_verifier_sees_them():
    math, exact, scorer, code = (VERIFIERS[name] for name in ("math", "exact", "reasoning_gym", "code"))
    assert math.ballot("\\boxed{\\frac12}") == math.ballot("\\boxed{0.5}")
    assert exact.ballot("\\boxed{A  b}") == "A b" != exact.ballot("\\boxed{a b}")
    assert scorer.ballot("<answer>\n1 2\n3 4\n</answer>") == "1 2 3 4"
    assert scorer.stated("<answer>7</answer> <answer>8</answer>") == "8"
    assert scorer.stated("The answer is 9") == "9" and exact.ballot("") is None
    assert code.ballot(f"So:\n{FENCED}python\na  = 1\n{FENCED}") == "a = 1"


def load(folder, rows, **changes):
    (folder / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    store = RunDir(folder / "runs/run", World(), {}, print)
    return load_pool(settings.Files(path=str(folder / "pool.jsonl"), **changes), store)


def test_a_row_names_its_verifier_and_the_pool_that_of_the_others(tmp_path):
    entry = {"task": "maze", "question": "", "answer": "5", "metadata": {"grid": ["a"]}}
    rows = [
        {"question": "a", "answer": "1"},
        {"question": "b", "answer": "1", "verifier": "math"},
        {"question": "c", "answer": ["assert c() == 1", "assert c() != 2"], "verifier": "code"},
        {"question": "d", "answer": "5", "verifier": "reasoning_gym", "entry": entry},
    ]
    questions = load(tmp_path, rows, verifier="exact").questions
    assert [q.verifier for q in questions] == ["exact", "math", "code", "reasoning_gym"]
    assert questions[2].answer == "assert c() == 1\nassert c() != 2"
    assert json.loads(questions[3].entry) == entry
    assert load(tmp_path, rows).questions[0].verifier == "math"
    named = load(tmp_path, rows, verifier="toy_plugin.verifiers:last_number").questions
    assert [q.verifier for q in named] == ["toy_plugin.verifiers:last_number", "math", "code", "reasoning_gym"]


@pytest.mark.parametrize(
    "row, says",
    [
        ({"verifier": "maths"}, f"pool.jsonl:1: the verifier is 'maths': there are {', '.join(VERIFIER_NAMES)}"),
        ({"verifier": "os:system"}, "pool.jsonl:1: the verifier is 'os:system'"),
        ({"verifier": "reasoning_gym"}, "needs an entry"),
        ({"answer": ["1", "2"]}, "the answer is a list of 2"),
    ],
)
def test_a_row_with_no_such_verifier_is_bad(tmp_path, row, says):
    with pytest.raises(RunError) as error:
        load(tmp_path, [{"question": "a", "answer": "1", **row}])
    assert says in str(error.value)


def code_pool(tmp_path):
    store = RunDir(tmp_path / "runs/run", World(), {}, print)
    folder = "pkg://hpc_saidpo/data/code_pool"
    files = {"path": f"{folder}/functions.jsonl", "examples": f"{folder}/examples.jsonl"}
    return load_pool(settings.Files(**files, verifier="code"), store)


@needs_sandbox
def test_the_shipped_functions_pass_their_tests_and_no_other_ones(grader, tmp_path):
    loaded = code_pool(tmp_path)
    shown = [q for group in loaded.examples.values() for q in group]
    assert len(loaded.questions) == 60 and len(shown) == 4 and all(q.tags for q in loaded.questions)
    assert by_grading([*loaded.questions, *shown], grader).failed == ()
    for question in loaded.questions[::4]:
        name = question.id
        lazy = f"def {name}(*arguments): return arguments[0]"
        assert f"def {name}(" in question.solution and f"{name}(" in question.text
        assert grader.judge(lazy, question).verdict == WRONG, name


@needs_sandbox
def test_the_check_at_the_start_reports_what_fails_by_itself(grader, caplog):
    questions = [
        Question("a", "?", "5"),
        Question("b", "?", "assert f(1) == 2", "def f(x): return x + 1", verifier="code"),
        Question("c", "?", "assert f(1) == 2", "def f(x): return x", verifier="code"),
        Question("d", "?", "assert f(1) = 2", verifier="code"),
        Question("e", "?", "assert f(1) == 2", verifier="code"),  # no solution: its tests run
        Question("f", "?", "two words", verifier="exact"),
        Question("g", "?", "", verifier="exact"),
    ]
    with caplog.at_level("INFO", logger="hpc_saidpo"):
        check_golds({"pool": questions}, World(), grader)
    assert "57.14 % of 7 gold answers are right by themselves; fail: c, d, g" in caplog.text


def test_a_start_is_refused_where_a_verifier_cannot_grade(monkeypatch):
    monkeypatch.setattr("sys.executable", "/bin/false")
    questions = [Question("a", "?", "assert f(1) == 2", verifier="code")]
    says = r"rank 0: questions with the verifier code: .*code_unsandboxed=true"
    with Grader() as grader, pytest.raises(RunError, match=says):
        check_golds({"pool": questions}, World(), grader)


@needs_sandbox
def test_the_verb_grades_by_the_verifier_of_a_line(tmp_path, capsys):
    rows = [
        {"prediction_text": "#### Paris", "gold": "Paris", "verifier": "exact"},
        {"prediction_text": "def f(x): return x", "gold": "assert f(1) == 1", "verifier": "code"},
        {"prediction_text": "def f(x): return 0", "gold": "assert f(1) == 1", "verifier": "code"},
    ]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    call = [str(tmp_path / "in.jsonl"), "--out", str(tmp_path / "out.jsonl")]
    assert main(call) == 0
    graded = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["verdict"] for row in graded] == ["correct", "correct", "wrong"]
    assert [row["answer"] for row in graded] == ["Paris", *(row["prediction_text"] for row in rows[1:])]
    for wrong in ("vibes", "os:system", "toy_plugin.verifiers:shouts"):  # a file never names code to run
        (tmp_path / "in.jsonl").write_text(json.dumps({**rows[0], "verifier": wrong}))
        assert main(call) == 2
        assert f"in.jsonl:1: the verifier is '{wrong}'" in capsys.readouterr().err
