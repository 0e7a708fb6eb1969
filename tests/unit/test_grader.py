"""The grading process: what it costs, what becomes of it, and what hostile text can do to it."""

import json
import os
import signal
import threading

import pytest

from hpc_saidpo import settings
from hpc_saidpo.cli.grade import main
from hpc_saidpo.errors import RunError
from hpc_saidpo.grader.grader import Grader
from hpc_saidpo.grader.process import WorkerProcess
from hpc_saidpo.grader.self_check import self_check
from hpc_saidpo.records import CORRECT, UNGRADABLE, WRONG

SUM = "\\boxed{\\sum_{i=1}^n i}", "\\frac{n(n+1)}{2}"


@pytest.mark.parametrize(
    "answer, gold, verdict",
    [
        ("\\sum_{i=1}^{n} i", "\\frac{n(n+1)}{2}", CORRECT),
        ("\\int_0^1 x^2 dx", "\\frac13", CORRECT),
        ("\\lim_{x\\to 0} \\frac{\\sin x}{x}", "1", CORRECT),
        ("\\sum_{i=1}^{n} i", "\\frac{n(n-1)}{2}", WRONG),
        ("\\int_0^1 10^{-9} dx", "10^{-8}", WRONG),  # the library alone rounds both to 0
        ("\\int_0^1 x^2 dx = \\frac13", "\\frac13", CORRECT),
    ],
)
def test_the_library_compares_expressions_outside_our_grammar(grader, answer, gold, verdict):
    assert grader.grade(f"so \\boxed{{{answer}}}", gold).verdict == verdict


def test_text_and_numbers_need_no_process():
    with Grader() as grader:
        assert grader.grade("\\boxed{42}", "42").verdict == CORRECT
        assert grader.grade("\\boxed{\\frac12}", "0.5").verdict == CORRECT
        assert grader.grade("\\boxed{B}", "\\text{(C)}").verdict == WRONG
        assert grader._worker is None


def test_alternatives_and_values_in_boxes_of_their_own(grader):
    assert grader.grade("\\boxed{(-5,1)}", "(-5,7)", ["(-5,1)"]).verdict == CORRECT
    assert grader.grade("$\\boxed{(-5,7)}$ and $\\boxed{(-5,1)}$", "(-5,7)", ["(-5,1)"]).verdict == CORRECT
    assert grader.grade("$\\boxed{(-5,7)}$ and $\\boxed{(-5,2)}$", "(-5,7)", ["(-5,1)"]).verdict == WRONG
    apart = "One angle is $\\boxed{60^\\circ}$. The other one must then be $\\boxed{30^\\circ}$."
    assert grader.grade(apart, "30^\\circ, 60^\\circ").verdict == CORRECT
    assert grader.grade(apart, "30^\\circ, 45^\\circ").verdict == WRONG
    assert grader.grade(apart, "30^\\circ").verdict == CORRECT  # the last box is the answer


def test_prose_gold_answers_are_ungradable_but_for_themselves(grader):
    gold = "If $Z$ is the sample mean, then $Z$ is unbiased and $2Z+1$ is not"
    assert grader.grade("\\boxed{2z}", gold).verdict == UNGRADABLE
    assert grader.grade(f"\\boxed{{{gold}}}", gold).verdict == CORRECT


def test_a_pair_beyond_its_limit_is_wrong_unless_the_gold_answer_is_and_costs_it_once():
    with Grader(settings.Grader(cpu_s=0.01)) as grader:
        first = grader.grade(*SUM)
        assert first.verdict == WRONG and "0.01 s of CPU time" in first.reason
        assert grader.grade(*SUM) == first and grader.n_restarts == 1
        assert grader.grade("\\boxed{x+x}", "2x").verdict == CORRECT
        gold = "\\sum_{i=1}^n i"
        turned = grader.grade("\\boxed{\\frac{n(n+1)}{2}}", gold)
        assert turned.verdict == UNGRADABLE and "0.01 s of CPU time" in turned.reason
        assert grader.grade("\\boxed{n+1}", gold).verdict == UNGRADABLE
        assert grader.n_restarts == 4  # the gold answer alone is tried once


NOT_COMPARABLE = [
    "\\oint_\\gamma \\star",
    "\\{1, \\oint_\\gamma \\star\\}",
    "x=1 \\text{ or } y=2; z=3",
    "1" + ",2" * 99,
    "\\{x | x > \\star\\}",
    "\\mathbb{R}\\setminus\\{\\star\\}",
]


@pytest.mark.parametrize("gold", NOT_COMPARABLE)
def test_a_gold_answer_that_cannot_be_compared_with_others_is_no_fault_of_the_response(grader, gold):
    assert grader._once(("math", gold), lambda: grader._request(("math", gold, None))).verdict == UNGRADABLE
    assert grader.request("math", gold, "\\{1, 2\\}") == grader._cache["math", gold, "\\{1, 2\\}"]


COMPARABLE = r"""
5 -3.5 x+1 \frac{n(n+1)}{2} (1,2) [1,2)\cup(3,\infty) x=3,y=4 \pm2 \{1,2\} 5\text{cm} \text{east} 1,234 3\pmod7 2:3 B
\begin{pmatrix}1&2\\3&4\end{pmatrix} x^2+y^2=1 \mathbb{R}\setminus\{0\} \{x|x>2\} 12\% 90^\circ -\infty 0.\overline{3}
\frac{\pi}{2}+k\pi,k\in\mathbb{Z} \lfloor{x}\rfloor f(x)=x^2 \log_2{8} 1/2 \sqrt{2} 1000! x<2\text{or}x>5
\sum_{i=1}^n{i}
"""


@pytest.mark.parametrize("gold", COMPARABLE.split())
def test_an_ordinary_gold_answer_can_be_compared_with_others(grader, gold):
    assert grader._once(("math", gold), lambda: grader._request(("math", gold, None))).verdict == CORRECT


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV])
def test_a_killed_process_is_replaced_and_loses_no_verdict(how):
    with Grader() as grader:
        assert grader.grade("\\boxed{x+x}", "2x").verdict == CORRECT
        os.kill(grader._worker.popen.pid, how)
        grader._worker.popen.wait()
        assert grader.grade("\\boxed{y+y}", "2y").verdict in (
            (CORRECT,) if how == signal.SIGKILL else (CORRECT, UNGRADABLE)
        )
        assert grader.grade("\\boxed{z+z}", "2z").verdict == CORRECT
        assert grader.n_restarts == 1


def test_a_pair_whose_process_is_killed_each_time_is_ungradable_after_three(monkeypatch):
    class Killed(WorkerProcess):
        def request(self, message):
            os.kill(self.popen.pid, signal.SIGKILL)
            return super().request(message)

    monkeypatch.setattr("hpc_saidpo.grader.grader.WorkerProcess", Killed)
    with Grader() as grader:
        found = grader.grade("\\boxed{x+x}", "2x")
        assert found.verdict == UNGRADABLE
        assert found.reason.startswith("gave up: the grading process was lost three times, at last: ")
        assert grader.n_restarts == 6  # the gold answer alone is tried as well


def test_the_process_ends_with_its_grader():
    with Grader() as grader:
        assert grader.grade("\\boxed{x+x}", "2x").verdict == CORRECT
        worker = grader._worker.popen
        assert worker.poll() is None
    assert worker.poll() is not None


def test_a_process_that_hangs_is_replaced_and_loses_no_verdict():
    with Grader(settings.Grader(wall_s=3.0)) as grader:
        assert grader.grade("\\boxed{x+x}", "2x").verdict == CORRECT
        os.kill(grader._worker.popen.pid, signal.SIGSTOP)
        assert grader.grade("\\boxed{y+y}", "2y").verdict == CORRECT
        assert grader.grade("\\boxed{z+z}", "2z").verdict == CORRECT and grader.n_restarts == 1


def test_signals_to_stop_the_job_do_not_end_the_process(grader):
    assert grader.grade("\\boxed{x+x}", "2x").verdict == CORRECT
    before = grader._worker.popen.pid
    for told in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT):
        os.kill(before, told)
    assert grader.grade("\\boxed{w+w}", "2w").verdict == CORRECT and grader._worker.popen.pid == before


def test_too_little_memory_is_reported():
    with Grader(settings.Grader(memory_gib=0.1)) as grader:
        found = grader.grade(*SUM)
        assert found.verdict == UNGRADABLE and "gave up" in found.reason


def test_a_process_that_does_not_start_is_reported_with_its_last_line(monkeypatch, tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho Traceback >&2\necho ImportError: no sympy >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(python))
    with Grader() as grader, pytest.raises(RunError, match=r"does not start \(.*\): ImportError: no sympy\. Install"):
        grader.grade(*SUM)


def test_a_process_that_does_not_start_ends_the_run(monkeypatch):
    monkeypatch.setattr("sys.executable", "/bin/false")
    with Grader() as grader, pytest.raises(RunError, match="the grading process does not start"):
        grader.grade("\\boxed{x+x}", "2x")


def test_any_thread_may_grade(grader):
    found = {}

    def work(i):
        found[i] = grader.grade(f"\\boxed{{{i}x+x}}", f"{i + 1}x").verdict

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2, 10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == dict.fromkeys(range(2, 10), CORRECT)


def test_the_process_ends_with_its_rank():
    grader = Grader()
    assert grader.grade("\\boxed{x+x}", "2x").verdict == CORRECT
    worker = grader._worker.popen
    worker.stdin.close()  # what the kernel does when the rank dies
    assert worker.wait(timeout=30) == 0
    worker.stdout.close()


def test_self_check_counts_what_cannot_be_right():
    golds = [
        ("a", "5"),
        ("b", ""),
        ("c", "\\frac12"),
        ("d", "10}{"),
        ("e", "Since the matrix is singular there is no inverse"),
    ]
    report = self_check(golds)
    assert (report.n, report.n_passed, report.failed) == (5, 2, ("b", "d", "e"))
    assert report.rate == 0.4 and report.defects == {"empty": 1, "prose": 1}


def test_the_verb_grades_a_file(tmp_path, capsys):
    rows = [
        {"id": "a", "prediction_text": "so \\boxed{x+x}", "gold": "2x", "expected": True},
        {"prediction_text": "#### 7\u2028", "gold": "8", "expected": True},
        {"prediction_text": "The answer is 5", "gold": "", "expected": False},
        {"prediction_text": "\\boxed{3}", "gold": "4", "alt_answers": ["3"], "expected": True},
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(json.dumps(r, ensure_ascii=False) for r in rows) + "\n\n")
    assert main([str(tmp_path / "in.jsonl"), "--out", str(tmp_path / "out.jsonl")]) == 0
    shown = capsys.readouterr().out
    assert "as expected: 3 of 4" in shown and "line 2: wrong" in shown
    graded = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [r["verdict"] for r in graded] == ["correct", "wrong", "ungradable", "correct"]
    assert graded[0]["id"] == "a" and graded[0]["answer"] == "x+x" and all(r["reason"] for r in graded)


@pytest.mark.parametrize(
    "line, says", [("{", "in.jsonl:2: not JSON"), ('{"gold": "1"}', "in.jsonl:2: 'prediction_text'")]
)
def test_the_verb_names_the_line_that_is_wrong(tmp_path, capsys, line, says):
    (tmp_path / "in.jsonl").write_text('{"prediction_text": "1", "gold": "1"}\n' + line)
    assert main([str(tmp_path / "in.jsonl")]) == 2
    assert says in capsys.readouterr().err
