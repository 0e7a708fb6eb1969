"""The model's words: which responses are shown, and what stands beside each."""

import json

import numpy as np
import pytest
from support.make import make_prompts, make_rollouts

from hpc_saidpo.cli.show import main
from hpc_saidpo.records import CORRECT, UNGRADABLE, WRONG, Draw, Question, Questions
from hpc_saidpo.store.stage import Stage

N = 12
QUESTIONS = [Question(f"q{i}", f"What is {i} + 1?", str(i + 1)) for i in range(N)]


def put(run, place, t, name, rows, stored=True, done=True, round=None):
    """A stage, or one round of it, with rollouts (question, sample, verdict, finished, text)."""
    stage = Stage(run / place / name, {"iteration": t, "stage": name})
    stage = stage if round is None else stage.round(round)
    stage.prepare()
    index = sorted({row[0] for row in rows})
    if stored:
        stage.write("prompts", make_prompts(index))
        stage.write("questions", Questions.of([QUESTIONS[i] for i in index]))
    stage.write_chunk(0, make_rollouts([(q, k, v, 7, 1, finished, text) for q, k, v, finished, text in rows]))
    if done:
        stage.mark_done()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    path.mkdir()
    (path / "config.yaml").write_text("run: {}\n")
    put(path, "base", -1, "evaluate/exam", [(i, 0, WRONG, True, "so \\boxed{0}") for i in range(N)])
    explored = [(q, k, (WRONG, CORRECT)[k], True, f"so \\boxed{{{q + k}}}") for q in range(N) for k in range(2)]
    explored[3] = (1, 1, UNGRADABLE, False, "first line\nrollout   iter-000/forged/0\rresponse")
    put(path, "iter-000", 0, "explore", explored)
    draw = Stage(path / "iter-000" / "draw", {"iteration": 0, "stage": "draw"})
    draw.prepare()
    draw.write("draw", Draw(np.arange(N), np.ones(N), np.arange(N) // 4))
    draw.mark_done()
    right = [(i, 0, CORRECT, True, f"so \\boxed{{{i + 1}}}") for i in range(N)]
    put(path, "iter-000", 0, "evaluate/exam", right)
    return path


@pytest.fixture
def show(run, capsys):
    def show(*words, code=0):
        assert main([str(run), *map(str, words)]) == code
        said = capsys.readouterr()
        return said.out if code == 0 else said.err

    return show


def rows(text):
    return [json.loads(line) for line in text.splitlines()]


def ids(text):
    return [row["question_id"] for row in rows(text)]


def test_the_newest_stage_is_shown_by_questions_spread_over_it(show):
    text = show("-n", 3)
    assert text.startswith("iter-000/evaluate/exam: 12 responses, 12 right, 0 wrong, 0 ungradable; 0 cut at ")
    assert (
        "\n\nrollout   iter-000/evaluate/exam/q0/0\nid        q0\nquestion  What is 0 + 1?\ngold      1\nextracted 1\n"
        in text
    )
    assert "\nverdict   correct: " in text and "\nresponse  7 tokens, ended by itself\n  |so \\boxed{1}\n" in text
    assert ids(show("-n", 3, "--jsonl")) == ["q0", "q6", "q11"] and ids(show("-n", 99, "--jsonl")) == [
        f"q{i}" for i in range(N)
    ]
    assert ids(show("--stage", "explore", "-n", 13, "--jsonl")) == ["q0", "q0", *(f"q{i}" for i in range(1, N))]


def test_responses_are_chosen_by_verdict_length_cluster_and_question(show):
    explore = ("--stage", "explore", "--jsonl")
    wrong = rows(show(*explore, "--wrong", "--cluster", 2))
    assert [(row["question_id"], row["verdict"], row["cluster"]) for row in wrong] == [
        (f"q{q}", "wrong", 2) for q in range(8, 12)
    ]
    (cut,) = rows(show(*explore, "--cut"))
    assert cut["verdict"] == "ungradable" and cut["finished"] is False and cut["extracted"] is None
    assert rows(show(*explore, "--ungradable")) == [cut]
    both = rows(show(*explore, "--question", "q5"))
    assert [(row["rollout"], row["extracted"], row["gold"]) for row in both] == [
        ("iter-000/q5/0", "5", "6"), ("iter-000/q5/1", "6", "6")
    ]  # fmt: skip
    assert both[1]["reason"] and ids(show("--iteration", "base", "--question", "q5", "--jsonl")) == ["q5"]


def test_lines_of_a_response_stand_behind_bars(show):
    text = show("--stage", "explore", "--cut")
    assert "\n  |first line\n  |rollout   iter-000/forged/0\n  |response\n" in text
    assert "cut at rollouts.max_new_tokens\n" in text and "\nextracted none\n" in text
    assert "verdict   ungradable: " in text and "(graded again now: wrong; another version graded it" in text


def test_one_question_is_followed_from_before_to_after(show):
    found = rows(show("--question", "q4", "--across", "--jsonl"))
    assert [(row["rollout"], row["verdict"]) for row in found] == [
        ("base/evaluate/exam/q4/0", "wrong"), ("iter-000/q4/0", "wrong"), ("iter-000/q4/1", "correct"),
        ("iter-000/evaluate/exam/q4/0", "correct"),
    ]  # fmt: skip
    text = show("--question", "q4", "--across", "--stage", "evaluate/exam")
    assert (
        text.index("base/evaluate/exam: 12 resp") < text.index("iter-000/evaluate/exam: 12") and "explore" not in text
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--across",), "--across needs --question ID"),
        (("--wrong",), "iter-000/evaluate/exam has no wrong responses: it has 12 right, 0 wrong, 0 ungradable; 0 cut"),
        (("--question", "q99"), "has no responses to q99: it has 12 right"),
        (("--question", "q99", "--across"), "has no responses to the question 'q99'; some of its questions: q0"),
        (("--cluster", "1"), "iter-000/evaluate/exam has no clusters"),
        (
            ("--stage", "evaluate/gsm"),
            "no rollouts of --stage evaluate/gsm; some that it has: base/evaluate/exam, iter",
        ),
        (("--stage", "explore", "--iteration", "base"), "no rollouts of --stage explore and --iteration base"),
    ],
)
def test_what_does_not_exist_is_named_with_what_does(show, words, message):
    assert message in show(*words, code=2)


def test_a_stage_in_progress_and_one_of_an_earlier_version(run, tmp_path, capsys):
    (tmp_path / "config.yaml").touch()
    assert main([str(tmp_path)]) == 2 and "has no rollouts yet" in capsys.readouterr().err
    put(tmp_path, "iter-000", 0, "probe", [(1, 0, WRONG, True, "so 7")], stored=False, done=False)
    assert main([str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert text.startswith("iter-000/probe, in progress: 1 responses, 0 right, 1 wrong")
    assert "\nquestion  not stored by the version that made the run\n" in text and "\nverdict   wrong\n" in text


def test_the_rounds_of_an_exploration_in_progress_are_shown(tmp_path, capsys):
    (tmp_path / "config.yaml").touch()
    for round, question in ((0, 2), (1, 5)):
        put(tmp_path, "iter-000", 0, "explore", [(question, 0, WRONG, True, "so 7")], done=False, round=round)
    assert main([str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert text.startswith("iter-000/explore, in progress: 2 responses, 0 right, 2 wrong")
    assert "What is 2 + 1?" in text and "What is 5 + 1?" in text
    put(tmp_path, "iter-000", 0, "explore", [(2, 0, WRONG, True, "so 7")], done=False)  # round 0 is merged, not removed
    assert main([str(tmp_path)]) == 0 and "in progress: 2 responses" in capsys.readouterr().out
