import pytest

from hpc_saidpo import job, pool
from hpc_saidpo.records import Question, RunError

ROW = '{"question": "1 + 1?", "answer": "2"}\n'
POOL = pool.Pool([Question("a", "x", "1")], held_out=[Question("b", "y", "2")])


def test_held_out_and_files(tmp_path):
    (tmp_path / "math.jsonl").write_text(ROW)
    found = job.load_benchmarks(("held_out", str(tmp_path / "math.jsonl")), POOL)
    assert list(found) == ["held_out", "math"] and found["math"][0].answer == "2"


def test_what_cannot_be_evaluated_is_refused(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "math.jsonl").write_text(ROW)
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(RunError, match=r"set pool\.held_out above 0"):
        job.load_benchmarks(("held_out",), pool.Pool(POOL.questions))
    with pytest.raises(RunError, match="two are called 'math'"):
        job.load_benchmarks(tuple(str(tmp_path / f / "math.jsonl") for f in "ab"), POOL)
    with pytest.raises(RunError, match="has no questions"):
        job.load_benchmarks((str(tmp_path / "empty.jsonl"),), POOL)
