"""The pool that a run loads: questions that are kept, and rows that are left out, with the reason."""

import json
from dataclasses import replace

import pytest
from support.pools import left_out, load, numbered, run_dir, write_jsonl

from hpc_saidpo import settings
from hpc_saidpo.cli import compose
from hpc_saidpo.errors import RunError
from hpc_saidpo.evaluate import benchmarks
from hpc_saidpo.parallel.world import World
from hpc_saidpo.pool import generated, writer
from hpc_saidpo.pool.questions import read_questions
from hpc_saidpo.pool.stage import load_pool, load_pool_again, separate_examples
from hpc_saidpo.records import Question
from hpc_saidpo.settings.pool import compared_benchmarks
from hpc_saidpo.store.run import RunDir
from hpc_saidpo.tags.column import read_points

GOOD = {"id": "a", "question": "1 + 1?", "answer": "2", "subject": "sums", "tags": ["addition", "one digit"]}


def test_jsonl_fields(tmp_path):
    path = write_jsonl(tmp_path / "p.jsonl", GOOD, "", {"question": "½?", "answer": 3, "tags": "x; y", "level": 5})
    a, b = read_questions(path)
    assert (a.id, a.text, a.answer, a.tags) == ("a", "1 + 1?", "2", ("addition", "one digit"))
    assert (b.id, b.answer, b.tags, b.level) == ("p-3", "3", ("x", "y"), "5")
    assert list(load(tmp_path, path).questions) == [a, b]


BAD = [
    ({**GOOD, "question": "  "}, "'question' is empty"),
    ({"id": "b", "question": "2?"}, "'answer' is missing; the line has id, question"),
    ({**GOOD, "id": "b", "answer": None}, "'answer' is empty"),
    ({**GOOD, "question": "another"}, ":1: ids name"),
    ('{"question": "x"', "not JSON"),
    ("[1, 2]", "expected a JSON object"),
    ({"question": "q", "answer": ["1", "2"]}, "the answer is a list of 2"),
    ({"question": {"text": "q"}, "answer": "1"}, "an object with text instead of a text"),
    ('{"question": "half \\ud83d", "answer": "1"}', "a lone surrogate"),
    ('{"question": "huge", "answer": ' + "9" * 5000 + "}", "not JSON"),
    ("[" * 100_000, "not JSON"),
]


@pytest.mark.parametrize("line, complaint", BAD, ids=[complaint for _, complaint in BAD])
def test_a_bad_line_is_named_by_file_and_line(tmp_path, line, complaint):
    path = write_jsonl(tmp_path / "p.jsonl", GOOD, "", line)
    for read in (lambda: read_questions(path), lambda: load(tmp_path, path)):
        with pytest.raises(RunError) as error:
            read()
        assert f"{path}:3" in str(error.value) and complaint in str(error.value)
    assert "pool.on_bad=skip" in str(error.value) and "1 of 2 rows" in str(error.value)
    assert not list((tmp_path / "runs/.shared").glob(".*"))  # nothing half-made stays


def test_bad_rows_can_be_skipped_and_are_listed(tmp_path):
    path = write_jsonl(tmp_path / "p.jsonl", GOOD, *(line for line, _ in BAD))
    pool = load(tmp_path, path, on_bad="skip")
    assert [q.id for q in pool.questions] == ["a"]
    assert f"{len(BAD) + 1} rows read, 1 kept" in pool.notes[0] and f"{len(BAD)} bad" in pool.notes[0]
    assert "rejects.jsonl" in pool.notes[1]
    rejects = left_out(tmp_path)
    assert [r["where"] for r in rejects] == [f"{path}:{i}" for i in range(2, len(BAD) + 2)]
    assert all(said in r["reason"] for r, (_, said) in zip(rejects, BAD, strict=True))
    assert json.loads(rejects[0]["raw"])["id"] == "a" and len(rejects[-1]["raw"]) < 3000


def test_many_bad_rows_are_counted_and_the_first_ones_named(tmp_path):
    path = write_jsonl(tmp_path / "p.jsonl", *["no"] * 30)
    with pytest.raises(RunError, match=r"(?s)30 of 30 rows.*p\.jsonl:5: .*and 25 more"):
        load(tmp_path, path)
    with pytest.raises(RunError, match=r"(?s)empty.*30 of 30 rows are bad.*p\.jsonl:1"):
        load(tmp_path, path, on_bad="skip")


def test_missing_and_empty_files(tmp_path):
    with pytest.raises(RunError, match=r"pool\.path=.*nowhere\.jsonl: no such file"):
        load(tmp_path, str(tmp_path / "nowhere.jsonl"))
    with pytest.raises(RunError, match="empty"):
        load(tmp_path, write_jsonl(tmp_path / "p.jsonl", ""))


def test_repeated_questions_are_dropped_and_never_fatal(tmp_path):
    rows = [GOOD, {**GOOD, "id": "b", "question": " 1  +\n1? "}, {**GOOD, "id": "c", "answer": "3"}, GOOD]
    path = write_jsonl(tmp_path / "p.jsonl", *rows, {"question": "½", "answer": 1}, {"question": "1⁄2", "answer": 1})
    pool = load(tmp_path, path)
    assert [q.id for q in pool.questions] == ["a", "p-5"]
    assert "3 repeated, 1 repeated with another answer" in pool.notes[0]
    kinds = [(r["where"].rpartition(":")[2], r["kind"]) for r in left_out(tmp_path)]
    assert kinds == [("2", "duplicate"), ("3", "conflict"), ("4", "duplicate"), ("6", "duplicate")]
    assert "p.jsonl:1, where the answer is '2'" in left_out(tmp_path)[1]["reason"]


def test_held_out_questions_leave_the_pool(tmp_path):
    path = write_jsonl(tmp_path / "p.jsonl", *numbered(50))
    pool = load(tmp_path, path, held_out=10)
    ids = {q.id for q in pool.questions}, {q.id for q in pool.held_out}
    assert (len(ids[0]), len(ids[1])) == (40, 10) and not ids[0] & ids[1]
    with pytest.raises(RunError, match=r"pool\.held_out=50"):
        load(tmp_path, path, held_out=50)


LONG = (
    "If a train leaves the station at noon and goes {} miles an hour for {} hours, how far does it go before it stops?"
)


def test_benchmark_questions_leave_the_pool(tmp_path):
    rows = [*numbered(20), {"id": "long", "question": LONG.format(60, 3), "answer": 180}]
    rows += [
        {"id": "near", "question": LONG.format(60, 3).replace("stops", "rests"), "answer": 180},
        {**GOOD, "question": "8 - 1?"},
    ]
    path = write_jsonl(tmp_path / "p.jsonl", *rows)
    rows_b = [{"question": "what is 7+1 ?", "answer": 8}, {"question": LONG.format(60, 3).upper(), "answer": 180}]
    known = {"b": read_questions(write_jsonl(tmp_path / "b.jsonl", *rows_b, {"question": "8 + 1?", "answer": 9}))}
    pool = load(tmp_path, path, known)
    assert {q.id for q in pool.questions} == {r["id"] for r in rows} - {"q7", "q8", "long", "near"}
    assert "4 in a benchmark (3 equal, 1 by n-grams)" in pool.notes[0] and "contaminated.jsonl" in pool.notes[1]
    found = left_out(tmp_path, "contaminated")
    assert [(r["id"], r["benchmark_id"], r["kind"]) for r in found] == [
        ("q7", "b-1", "equal"), ("q8", "b-3", "equal"), ("long", "b-2", "equal"), ("near", "b-2", "ngrams"),
    ]  # fmt: skip
    assert 0.5 < found[3]["overlap"] < 1
    assert len(load(tmp_path, path, known, decontaminate=False).questions) == len(rows)
    assert len(load(tmp_path, path, known, overlap=0.99).questions) == len(rows) - 3
    later = {"later": read_questions(write_jsonl(tmp_path / "later.jsonl", rows[0]))}
    assert len(load(tmp_path, path, {**known, **later}).questions) == len(rows) - 5


def test_near_twins_of_held_out_questions_leave_the_pool(tmp_path):
    rows = [
        {"id": f"a{i}", "question": f"Find the area of a field of {i} by {i + 2} steps, with w{i}.", "answer": i}
        for i in range(40)
    ]
    twins = [
        {**row, "id": f"b{i}", "question": row["question"].upper().replace("?", " ?")} for i, row in enumerate(rows)
    ]
    path = write_jsonl(tmp_path / "p.jsonl", *rows, *twins)
    pool = load(tmp_path, path, held_out=10)
    held_out, kept = ({q.id for q in part} for part in (pool.held_out, pool.questions))
    assert len(held_out) == 10 and not {id[1:] for id in held_out} & {id[1:] for id in kept}
    assert len(kept) + len({id[1:] for id in held_out}) * 2 == len(rows) * 2
    n_near = 80 - len(kept) - 10
    assert n_near and f"{n_near} as in held_out" in pool.notes[0]
    assert {(r["benchmark"], r["kind"]) for r in left_out(tmp_path, "contaminated")} == {("held_out", "equal")}
    assert len(load(tmp_path, path, held_out=10, decontaminate=False).questions) == 70


def test_few_shot_examples_leave_the_pool_and_the_held_out_part(tmp_path):
    path = write_jsonl(tmp_path / "p.jsonl", *numbered(30))
    examples = write_jsonl(tmp_path / "e.jsonl", {"question": "1 + 7 =", "answer": 8}, {"question": "4+1", "answer": 5})
    pool = load(tmp_path, path, examples=examples, held_out=28)
    ids = {q.id for q in (*pool.questions, *pool.held_out)}
    assert ids == {f"q{i}" for i in range(30)} - {"q4", "q7"} and "2 in pool.examples" in pool.notes[0]


def test_a_few_shot_example_that_a_benchmark_asks_is_left_out(tmp_path, caplog):
    examples = write_jsonl(
        tmp_path / "e.jsonl", {"question": "What is 5+6?", "answer": 11}, {"question": "4+1", "answer": 5}
    )
    config = settings.Files(path=write_jsonl(tmp_path / "p.jsonl", *numbered(3)), examples=examples)
    known = {"b": [Question("q", "Compute $6 + 5$.", "11")]}
    run = run_dir(tmp_path)
    pool = load_pool(config, run, known)
    with caplog.at_level("WARNING"):
        separated = separate_examples(pool, config, run, known)
    assert [q.text for q in separated.examples[""]] == ["4+1"]
    assert "few-shot example e-1 left out: question q of b is the same (equal)" in caplog.text
    trusting = replace(config, decontaminate=False)
    assert separate_examples(pool, trusting, run, known).examples == pool.examples


def test_questions_with_other_numbers_are_listed_and_kept(tmp_path):
    path = write_jsonl(
        tmp_path / "p.jsonl", *({"question": f"How many days are {i} weeks?", "answer": 7 * i} for i in (2, 3, 4))
    )
    known = {"b": [Question("q", "How many days are 3 weeks?", "21")]}
    pool = load(tmp_path, path, known)
    assert len(pool.questions) == 2 and "2 kept that differ from such questions in numbers only" in pool.notes[2]
    listed = left_out(tmp_path, "other_numbers")
    assert [(r["id"], r["benchmark"], r["benchmark_id"], r["kind"]) for r in listed] == [
        (f"p-{line}", "b", "q", "numbers") for line in (1, 3)
    ]
    with pytest.raises(RunError, match="empty"):
        load(tmp_path, path, known, other_numbers="remove")


def test_benchmark_questions_leave_generated_pools(tmp_path):
    config = settings.Arithmetic(n=400, held_out=40)
    before = load_pool(config, run_dir(tmp_path))
    sum_question = next(q for q in before.questions if q.subject == "addition")
    texts = [f"Compute {sum_question.text}", before.held_out[5].text]
    known = {"b": [Question(str(i), text, "?") for i, text in enumerate(texts)]}
    after = load_pool(config, run_dir(tmp_path), known)
    gone = {q.id for q in (*before.questions, *before.held_out)} - {q.id for q in (*after.questions, *after.held_out)}
    assert {sum_question.id, before.held_out[5].id} <= gone and len(gone) < 5
    assert f"{len(gone)} generated questions left out" in after.notes[0]
    assert after.fingerprint and not before.fingerprint


def test_benchmarks_to_avoid_are_named_like_those_to_evaluate(tmp_path):
    def read(config):
        return benchmarks.read(config.evaluate, compared_benchmarks(config.pool))

    write_jsonl(tmp_path / "gsm8k.jsonl", *numbered(3))
    file = write_jsonl(tmp_path / "own.jsonl", *numbered(2))
    overrides = [f"evaluate.benchmarks=[held_out,{file}]", "pool.benchmarks=[gsm8k]", f"evaluate.folder={tmp_path}"]
    config = compose.from_overrides(["pool.path=p.jsonl", "policy.path=m", *overrides])
    assert {name: len(questions) for name, questions in read(config).items()} == {"gsm8k": 3, "own": 2}
    config = compose.from_overrides(["pool.path=p.jsonl", "policy.path=m", "pool.benchmarks=[gsm]"])
    with pytest.raises(RunError, match="Did you mean 'gsm8k'"):
        read(config)


def test_with_other_benchmarks_no_held_out_question_enters_the_pool(tmp_path):
    path = write_jsonl(tmp_path / "p.jsonl", *numbered(60))
    known = read_questions(write_jsonl(tmp_path / "b.jsonl", *numbered(60)[::3]))
    held_out = {q.id for q in load(tmp_path, path, held_out=20).held_out}
    again = load(tmp_path, path, {"b": known}, held_out=20)
    assert len(again.questions) + len(again.held_out) == 40
    assert not {q.id for q in again.questions} & held_out and {q.id for q in again.held_out} <= held_out


def test_a_pool_is_read_once_and_again_when_it_has_changed(tmp_path, monkeypatch):
    path = write_jsonl(tmp_path / "p.jsonl", *numbered(5))
    first = load(tmp_path, path)
    with monkeypatch.context() as patched:
        patched.setattr(writer, "write_pool", None)
        assert list(load(tmp_path, path).questions) == list(first.questions)
    write_jsonl(tmp_path / "p.jsonl", *numbered(6))
    assert len(load(tmp_path, path).questions) == 6


def test_a_named_column_that_no_row_has_is_reported(tmp_path):
    path = write_jsonl(tmp_path / "p.jsonl", *numbered(3, origin="a book"))
    pool = load(tmp_path, path, columns={"subject": "topic", "level": ["lvl", "grade"], "source": "origin"})
    assert pool.notes[1:] == (
        "  pool.columns.subject=topic: no question has one", "  pool.columns.level=lvl or grade: no question has one",
    )  # fmt: skip


def test_a_run_does_not_go_on_with_other_questions(tmp_path):
    path = write_jsonl(tmp_path / "p.jsonl", *numbered(20))
    config = compose.from_overrides([f"pool.path={path}", "policy.path=m", "evaluate.benchmarks=[]"])
    for n in (20, 30, 40):  # while it has made nothing, it may
        write_jsonl(tmp_path / "p.jsonl", *numbered(n))
        if n == 40:
            (tmp_path / "runs/run/iter-000").mkdir()
            (tmp_path / "runs/run/iter-000/draw.h5").touch()
            break
        with RunDir.open(settings.Run(root=str(tmp_path / "runs"), name="run"), {"run": {}}, {}, World()) as run:
            assert len(load_pool_again(config.pool, run, {}).questions) == n
    with (
        RunDir.open(settings.Run(root=str(tmp_path / "runs"), name="run"), {"run": {}}, {}, World()) as run,
        pytest.raises(RunError, match=r"made with another pool .*'questions': 30.*'questions': 40.*run\.name="),
    ):
        load_pool_again(config.pool, run, {})


def test_large_pools_are_cut_into_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "CHUNK_ROWS", 10)
    monkeypatch.setattr(writer, "BATCH_ROWS", 5)
    pool = load(tmp_path, write_jsonl(tmp_path / "p.jsonl", *numbered(45)), held_out=5)
    assert len(list(tmp_path.glob("runs/.shared/pool-*/chunk-*.h5"))) == 5
    ids = [q.id for q in pool.questions]
    assert ids == [f"q{i}" for i in range(45) if f"q{i}" not in {q.id for q in pool.held_out}] and len(ids) == 40
    assert [q.id for q in pool.questions[3:5]] == ids[3:5] and pool.questions[-1].id == ids[-1]
    with pytest.raises(IndexError):
        pool.questions[40]


def test_questions_without_knowledge_points_are_reported_with_the_remedy(tmp_path):
    pool = load(tmp_path, write_jsonl(tmp_path / "p.jsonl", GOOD, *numbered(3, tags=None)))
    with pytest.raises(RunError, match=r"3 of 4 questions have neither .*'q0'.*pool\.columns\.tags"):
        read_points(pool.questions)
    with pytest.raises(RunError, match=r"3 of 4"):
        read_points(list(pool.questions))


def test_arithmetic_pool_is_skewed_and_its_held_out_set_disjoint():
    pool = generated.make(settings.Arithmetic(n=400, shares={"hard": 0.7, "trained": 0.2, "small": 0.1}, held_out=100))
    levels = [q.level for q in pool.questions]
    assert (levels.count("hard"), levels.count("trained"), levels.count("small")) == (280, 80, 40)
    assert {q.level for q in pool.held_out} == {"trained"}
    assert not {q.text for q in pool.questions} & {q.text for q in pool.held_out}
    assert len({q.id for q in pool.questions}) == 400 and all(len(q.tags) == 2 for q in pool.questions)


def test_impossible_shares_name_the_range():
    with pytest.raises(RunError, match="small"):
        generated.make(settings.Arithmetic(n=5000, shares={"small": 1.0}))
