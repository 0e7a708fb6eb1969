import json

import pytest

from hpc_saidpo import pool
from hpc_saidpo.records import RunError


def write(path, *lines):
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return str(path)


GOOD = {"id": "a", "question": "1 + 1?", "answer": "2", "subject": "sums", "tags": ["addition", "one digit"]}


def test_jsonl_fields(tmp_path):
    path = write(tmp_path / "p.jsonl", GOOD, "", {"question": "½?", "answer": 3, "tags": "x; y", "level": 5})
    a, b = pool.read_jsonl(path)
    assert (a.id, a.text, a.answer, a.tags) == ("a", "1 + 1?", "2", ("addition", "one digit"))
    assert (b.id, b.answer, b.tags, b.level) == ("p-3", "3", ("x", "y"), "5")


@pytest.mark.parametrize(
    "line, complaint",
    [
        ({**GOOD, "question": "  "}, "'question' is empty"),
        ({"id": "b", "question": "2?"}, "'answer' is missing; the line has id, question"),
        ({**GOOD, "id": "b", "answer": None}, "'answer' is empty"),
        (GOOD, "id 'a' was used in line 1"),
        ('{"question": "x"', "not JSON"),
        ("[1, 2]", "expected a JSON object"),
    ],
)
def test_a_bad_line_is_named_by_file_and_line(tmp_path, line, complaint):
    path = write(tmp_path / "p.jsonl", GOOD, "", line)
    with pytest.raises(RunError) as error:
        pool.read_jsonl(path)
    assert f"{path}:3" in str(error.value) and complaint in str(error.value)


def test_missing_and_empty_files(tmp_path):
    with pytest.raises(RunError, match=r"nowhere\.jsonl.*pool\.path"):
        pool.load(pool.Jsonl(path=str(tmp_path / "nowhere.jsonl")))
    with pytest.raises(RunError, match="empty"):
        pool.load(pool.Jsonl(path=write(tmp_path / "p.jsonl", "")))


def test_held_out_questions_leave_the_pool(tmp_path):
    path = write(tmp_path / "p.jsonl", *({**GOOD, "id": f"q{i}"} for i in range(50)))
    loaded = pool.load(pool.Jsonl(path=path, held_out=10))
    ids = {q.id for q in loaded.questions}, {q.id for q in loaded.held_out}
    assert (len(ids[0]), len(ids[1])) == (40, 10) and not ids[0] & ids[1]
    with pytest.raises(RunError, match=r"pool\.held_out=50"):
        pool.load(pool.Jsonl(path=path, held_out=50))


def test_arithmetic_pool_is_skewed_and_its_held_out_set_disjoint():
    loaded = pool.load(pool.Arithmetic(n=400, shares={"hard": 0.7, "trained": 0.2, "small": 0.1}, held_out=100))
    levels = [q.level for q in loaded.questions]
    assert (levels.count("hard"), levels.count("trained"), levels.count("small")) == (280, 80, 40)
    assert {q.level for q in loaded.held_out} == {"trained"}
    assert not {q.text for q in loaded.questions} & {q.text for q in loaded.held_out}
    assert len({q.id for q in loaded.questions}) == 400 and all(len(q.tags) == 2 for q in loaded.questions)


def test_impossible_shares_name_the_range():
    with pytest.raises(RunError, match="small"):
        pool.load(pool.Arithmetic(n=5000, shares={"small": 1.0}))
