"""Limits of inputs: a text beyond one is refused by a message that names it, and ends nothing else."""

import gzip
import json

import pyarrow
import pyarrow.parquet
import pytest
from support.pools import left_out, load, numbered, write_jsonl

from hpc_saidpo import settings
from hpc_saidpo.errors import RunError
from hpc_saidpo.evaluate import benchmarks
from hpc_saidpo.grader.grader import Grader
from hpc_saidpo.grader.self_check import self_check
from hpc_saidpo.grader.verifiers import VERIFIERS, Verifier
from hpc_saidpo.parallel.world import World
from hpc_saidpo.pool import clean, pieces, read
from hpc_saidpo.records import CORRECT, UNGRADABLE, WRONG, Judgement, Question
from hpc_saidpo.tags import batch

MIB = 2**20
GOOD = {"question": "What is 1 + 1?", "answer": "2"}
SMALL = settings.Limits(line_mib=1, json_mib=1, columns=20, cell_chars=3000, answer_chars=200, alt_answers=3)


def put(path, content: bytes):
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def jsonl(*rows):
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


LONG_LINE = {  # name -> a row of more than 1 MiB between two others
    "a.jsonl": jsonl(GOOD, {**GOOD, "junk": "x" * 2 * MIB}, {**GOOD, "question": "Last?"}),
    "a.jsonl.gz": jsonl(GOOD, {**GOOD, "junk": "x" * 40 * MIB}, {**GOOD, "question": "Last?"}),
    "a.csv": b"question,answer\nWhat is 1 + 1?,2\n" + b"x" * 2 * MIB + b",1\nLast?,2\n",
    "a.csv.gz": b"question,answer\nWhat is 1 + 1?,2\n" + b"x" * 40 * MIB + b",1\nLast?,2\n",
}


@pytest.mark.parametrize("name", LONG_LINE)
def test_a_line_beyond_the_limit_is_one_bad_row(tmp_path, name):
    path = put(tmp_path / name, LONG_LINE[name])
    with pytest.raises(RunError, match=rf"{name}:[23]: the (line|row) is too long: .*\(pool\.limits\.line_mib\)"):
        load(tmp_path, path, limits=SMALL)
    pool = load(tmp_path, path, limits=SMALL, on_bad="skip")
    assert [q.text for q in pool.questions] == ["What is 1 + 1?", "Last?"]


def test_a_row_of_many_short_lines_is_limited_too(tmp_path):
    path = put(tmp_path / "a.csv", b"question,answer\nWhat is 1 + 1?,2\n" + b'"a\n",' * (MIB // 4))
    pool = load(tmp_path, path, limits=SMALL, on_bad="skip")
    assert [q.text for q in pool.questions] == ["What is 1 + 1?"]
    assert "line_mib" in left_out(tmp_path)[0]["reason"]


def test_a_line_longer_than_a_piece_is_cut_nowhere(tmp_path, monkeypatch):
    monkeypatch.setattr(pieces, "PIECE_BYTES", 1000)
    rows = [{"question": f"What is {i} + {i}?", "answer": 2 * i, "junk": "x" * 3000 * (i == 3)} for i in range(9)]
    path = put(tmp_path / "a.jsonl", jsonl(*rows))
    parts = [part for piece in pieces.plan([path], World()) for part in piece]
    found = [line for part in parts for line, _ in read.rows(path, [["question"]], None, part.span)]
    assert len(parts) > 1 and found == list(range(1, 10))


def test_a_text_of_a_dictionary_is_stored_once_and_read_row_by_row(tmp_path):
    column = pyarrow.array(["x" * 2 * MIB] * 50 + ["What is 1 + 1?"]).dictionary_encode()
    table = pyarrow.table({"question": column, "answer": ["2"] * 51})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    limits = settings.Limits(line_mib=8)
    rows = list(clean.rows(tmp_path / "a.parquet", "a", settings.Columns(), limits=limits))
    assert [isinstance(row, clean.Problem) for _, row in rows] == [True] * 50 + [False]
    assert all("cell_chars" in row.reason for _, row in rows[:50])
    wide = pyarrow.table({"question": ["x" * 2 * MIB, "What is 1 + 1?"], "answer": ["2", "2"]})
    pyarrow.parquet.write_table(wide, tmp_path / "b.parquet")
    (_, long), (_, good) = clean.rows(tmp_path / "b.parquet", "b", settings.Columns(), limits=SMALL)
    assert "pool.limits.line_mib" in long.reason and good[clean.TEXT] == "What is 1 + 1?"


def test_a_date_that_python_does_not_have_is_a_bad_row(tmp_path):
    dates = pyarrow.array([0, 2**62], pyarrow.timestamp("s"))
    table = pyarrow.table({"question": ["a", "b"], "answer": dates})
    with pyarrow.OSFile(str(tmp_path / "a.arrow"), "wb") as file, pyarrow.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    (_, good), (_, bad) = clean.rows(tmp_path / "a.arrow", "a", settings.Columns())
    assert good[clean.TEXT] == "a" and isinstance(bad, clean.Problem)


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_a_table_of_too_many_columns_is_refused_in_a_short_message(tmp_path, name):
    names = ["question", "answer", *(f"column-{i}" for i in range(20_000))]
    if name == "a.csv":
        put(tmp_path / name, ",".join(names).encode() + b"\n")
    else:
        pyarrow.parquet.write_table(pyarrow.table({key: ["1"] for key in names[:40]}), tmp_path / name)
    with pytest.raises(RunError, match=r"columns: at most 20 \(pool\.limits\.columns\)"):
        load(tmp_path, tmp_path / name, limits=SMALL)


def test_messages_list_some_columns_and_cut_long_names(tmp_path):
    many = [f"column-{i}-{'x' * 1000}" for i in range(900)]
    for header in (many, [*many, *many], ["question", "answer", *many, "question"]):
        path = put(tmp_path / "a.csv", ",".join(header).encode() + b"\n" + b",".join([b"1"] * len(header)) + b"\n")
        with pytest.raises(RunError, match=r"columns are called|has no column") as caught:
            load(tmp_path, path, limits=settings.Limits(columns=5000))
        assert len(str(caught.value)) < 3000
    for row in ({key: 1 for key in many}, {"question": dict.fromkeys(many, 1), "answer": "2"}):
        with pytest.raises(RunError, match=r"p\.jsonl:1: ") as caught:
            load(tmp_path, write_jsonl(tmp_path / "p.jsonl", row))
        assert len(str(caught.value)) < 3000


def test_a_json_file_beyond_the_limit_is_refused(tmp_path):
    content = json.dumps([GOOD, {"question": "x" * 2 * MIB, "answer": 1}]).encode()
    for name in ("a.json", "a.json.gz"):
        with pytest.raises(RunError, match=r"at most 1 MiB \(pool\.limits\.json_mib\): turn it into JSON lines"):
            load(tmp_path, put(tmp_path / name, content), limits=SMALL)


ROWS = {
    "a question": ({"question": "x" * 3001, "answer": "2"}, "the question has 3,001 characters: .*cell_chars"),
    "a solution": ({**GOOD, "solution": "x" * 3001}, "the solution has 3,001 characters: .*cell_chars"),
    "a key": ({**GOOD, "id": "x" * 3001}, "the id has 3,001 characters: .*cell_chars"),
    "tests": ({**GOOD, "verifier": "code", "answer": "#" * 3001}, "the answer has 3,001 characters: .*cell_chars"),
    "digits": ({**GOOD, "answer": "7" * 201}, "the answer has 201 characters: at most 200 .*answer_chars"),
    "a list": ({**GOOD, "answer": ["7" * 201]}, "the answer has 201 characters"),
    "alternatives": ({**GOOD, "alt_answers": ["7" * 101] * 2}, "the alt_answers has 203 characters: .*answer_chars"),
    "many": ({**GOOD, "alt_answers": ["1", "2", "3", "4"]}, "4 alternative answers: at most 3 .*alt_answers"),
    "infinity": ('{"question": "q", "answer": "1", "alt_answers": [1e999]}', "the number inf is not finite"),
    "depth": ('{"question": "q", "answer": ' + "[" * 9000 + "]" * 9000 + "}", "not JSON: RecursionError"),
    "a list in lists": (
        '{"question": "q", "tags": ' + "[" * 900 + "]" * 900 + ', "answer": {"a": 1}}',
        "an object with a",
    ),
}


@pytest.mark.parametrize("row, says", ROWS.values(), ids=ROWS)
def test_a_row_beyond_a_limit_is_a_bad_row(tmp_path, row, says):
    path = write_jsonl(tmp_path / "p.jsonl", GOOD, row)
    with pytest.raises(RunError, match=rf"1 of 2 rows .*\n.*p\.jsonl:2: .*({says})"):
        load(tmp_path, path, limits=SMALL)
    assert len(load(tmp_path, path, limits=SMALL, on_bad="skip").questions) == 1


def test_tests_of_programs_are_no_gold_answers(tmp_path):
    path = write_jsonl(tmp_path / "p.jsonl", {**GOOD, "verifier": "code", "answer": "#" * 2999})
    assert len(load(tmp_path, path, limits=SMALL).questions) == 1


def test_other_limits_make_another_pool_and_the_default_ones_the_same(tmp_path):
    path = write_jsonl(tmp_path / "p.jsonl", *numbered(3), {"question": "x" * 40, "answer": 1})
    sizes = [
        len(load(tmp_path, path, on_bad="skip", limits=settings.Limits(cell_chars=n)).questions) for n in (39, 40, 39)
    ]
    assert sizes == [3, 4, 3] and len(list((tmp_path / "runs/.shared").glob("pool-*"))) == 2
    assert "limits" not in repr(settings.Files(path="p"))


def test_the_limits_of_benchmarks_are_those_of_evaluate(tmp_path):
    path = write_jsonl(tmp_path / "b.jsonl", {**GOOD, "answer": "7" * 500})
    with pytest.raises(RunError, match=r"\(evaluate\.limits\.answer_chars\)"):
        benchmarks.read(settings.Evaluate(benchmarks=(path,), limits=settings.BenchmarkLimits(answer_chars=499)))
    (questions,) = benchmarks.read(settings.Evaluate(benchmarks=(path,))).values()
    assert questions[0].answer == "7" * 500


@pytest.mark.parametrize("gold", ["7" * 5000, "\\," * 8000 + "5", "1e9999", "10^{9999}", "0." + "1" * 6000])
def test_a_gold_answer_beyond_mathematics_ends_nothing(gold):
    with Grader() as grader:
        question = Question("q", "?", gold)
        for response in (
            f"\\boxed{{{gold}}}",
            "\\boxed{5}",
            "no answer",
            "\\boxed{1e9998}",
            "\\boxed{" + "8" * 5000 + "}",
        ):
            assert grader.judge(response, question).verdict in (CORRECT, WRONG, UNGRADABLE)
            assert VERIFIERS["math"].ballot(response) is not None
        assert grader.judge(f"\\boxed{{{gold}}}", question).verdict == CORRECT
        assert grader.judge("\\boxed{6}", question).verdict != CORRECT
        assert self_check([("q", gold)]).rate == 1


def test_numbers_of_many_digits_are_counted_together_in_votes():
    ballot = VERIFIERS["math"].ballot
    assert ballot("\\boxed{1e9999}") == ballot("\\boxed{10^{9999}}") != ballot("\\boxed{1e9998}")
    assert ballot("\\boxed{10}") != ballot("\\boxed{a/1}") and ballot("\\boxed{1/2}") == ballot("\\boxed{0.5}")


@pytest.fixture
def toy(monkeypatch):
    """A verifier whose `judge` the test sets."""

    def use(judge):
        monkeypatch.setitem(VERIFIERS, "toy", Verifier(judge, stated=judge, counted=judge))
        return Question("q", "?", "1", verifier="toy")

    return use


@pytest.mark.parametrize(
    "error",
    [ValueError("no\nnumber\x1b[2J"), RecursionError(), MemoryError(), KeyError("k"), SystemExit(3), TypeError()],
)
def test_any_exception_of_a_judge_is_ungradable_with_its_text(toy, error):
    def judge(*_):
        raise error

    with Grader() as grader:
        judgement = grader.judge("r", toy(judge))
        assert judgement.verdict == UNGRADABLE and judgement.reason.startswith(f"gave up: {type(error).__name__}")
        assert judgement.reason.isprintable() and VERIFIERS["toy"].ballot("r") is None


def test_a_judge_that_is_told_to_stop_the_run_does(toy):
    def judge(*_):
        raise RunError("the grading process does not start")

    with Grader() as grader, pytest.raises(RunError, match="does not start"):
        grader.judge("r", toy(judge))


def test_a_reason_is_one_line_of_limited_length(toy):
    with Grader(settings.Grader(reason_chars=50)) as grader:
        reason = grader.judge("r", toy(lambda *_: Judgement(WRONG, "a\n\x1b[31m" + "x" * 1_000_000))).reason
        assert reason == "a\\n\\x1b[31m" + "x" * 43 + "... (1,000,007 characters)"
        program = "def f():\n    raise ValueError('\\x1b[2J' * 1000 + 'forged\\n  line')"
        reason = grader.run_tests(program, "f()").reason
        assert len(reason) < 100 and reason.isprintable()


def test_a_long_program_is_not_kept_by_the_cache(toy):
    with Grader() as grader:
        grader._once(("code", "t" * 5000, "p" * 5000), lambda: Judgement(WRONG, ""))
        assert sum(map(len, *grader._cache)) < 200
        assert grader._once(("code", "t" * 5000, "p" * 5000), lambda: Judgement(CORRECT, "")).verdict == WRONG


def test_a_line_of_answers_beyond_the_limit_is_no_answer(tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps({"id": "a", "content": "x" * 2 * MIB}) + '\n{"id": "b", "content": "y"}\n')
    with pytest.raises(RunError, match=r"1 lines are no answers:\n.*:1: longer than 1 MiB \(tags\.reply_mib\)"):
        batch.read([str(path)], 1)
    assert batch.read([str(path)], 4)[0].keys() == {"a", "b"}
