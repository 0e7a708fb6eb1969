import pytest

from hpc_saidpo import settings
from hpc_saidpo.doctor import inputs
from hpc_saidpo.errors import RunError
from hpc_saidpo.evaluate import benchmarks
from hpc_saidpo.records import Question

ROW = '{"question": "1 + 1?", "answer": "2"}\n'
HELD_OUT = [Question("b", "y", "2")]
KNOWN = {"math500": settings.Benchmark(file="math500.jsonl", n_questions=500, samples=3)}


def load(*names, held_out=(), **changes):
    return benchmarks.load(settings.Evaluate(benchmarks=names, known=KNOWN, **changes), list(held_out))


def test_held_out_known_ones_and_files(tmp_path):
    for name in ("math500", "own"):
        (tmp_path / f"{name}.jsonl").write_text(ROW)
    names = ("held_out", "math500", str(tmp_path / "own.jsonl"))
    held_out, math, own = load(*names, held_out=HELD_OUT, folder=str(tmp_path), temperature=1.0)
    assert [b.name for b in (held_out, math, own)] == ["held_out", "math500", "own"]
    assert held_out.questions == HELD_OUT and own.questions[0].answer == "2" and math.plan.samples == 3
    assert held_out.notes() == own.notes() == []
    (note,) = math.notes()
    assert "has 1 questions, the benchmark has 500" in note
    *_, note = load("math500", folder=str(tmp_path))[0].notes()
    assert "3 greedy responses to a question are 3 times the same: set evaluate.temperature" in note


def test_a_file_with_other_columns_and_its_first_questions_alone(tmp_path):
    row = '{"problem": "1 + %d?", "solution": "so #### %d"}\n'
    (tmp_path / "math500.jsonl").write_text("".join(row % (i, i + 1) for i in range(5)))
    columns = settings.Columns(question="problem", answer_from="hash", solution="solution")
    (whole,) = load("math500", folder=str(tmp_path), columns=columns)
    assert [q.answer for q in whole.questions] == ["1", "2", "3", "4", "5"]
    (part,) = load("math500", folder=str(tmp_path), columns=columns, limit=2)
    assert [q.text for q in part.questions] == ["1 + 0?", "1 + 1?"]
    assert part.notes()[0] == (
        "math500: its first 2 questions alone (evaluate.limit): not to be compared with figures of the whole"
    )
    own = settings.Benchmark(file="own.jsonl", columns=columns, limit=1)
    (tmp_path / "own.jsonl").write_text(row % (7, 8))
    config = settings.Evaluate(benchmarks=("own", "held_out"), known={"own": own}, folder=str(tmp_path), limit=3)
    named, held_out = benchmarks.load(config, HELD_OUT * 4)
    assert (len(named.questions), len(held_out.questions)) == (1, 3)


def test_what_cannot_be_evaluated_is_refused(tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(RunError, match=r"set pool\.held_out above 0"):
        load("held_out")
    with pytest.raises(RunError, match="has no questions: name a file"):
        load(str(tmp_path / "empty.jsonl"))
    for names in (("a/math.jsonl", "b/math.jsonl"), ("math500", "x/math500.jsonl")):
        with pytest.raises(ValueError, match="two of benchmarks are called 'math"):
            settings.Evaluate(benchmarks=names, known=KNOWN)


def test_a_benchmark_that_is_not_there_is_named_with_what_to_do(tmp_path):
    config = settings.Evaluate(benchmarks=("math500", "held_out", "no/file.jsonl"), known=KNOWN, folder=str(tmp_path))
    found = [(i.value, i.problem) for i in inputs.list_benchmarks(config)]
    assert found == [
        ("math500", f"no file {tmp_path}/math500.jsonl: put your copy there, or set evaluate.folder (its format: "
                    "a JSON object per line with `question` and `answer`, like a pool)"),
        ("no/file.jsonl", "no such file"),
    ]  # fmt: skip
    (tmp_path / "math500.jsonl").write_text(ROW)
    assert [i.problem for i in inputs.list_benchmarks(config)] == ["", "no such file"]
