"""The program with a damaged pool."""

import gzip

import pytest
from support.program import start


@pytest.mark.e2e
def test_the_program_ends_with_one_message(tmp_path):
    folder = tmp_path / "pool"
    folder.mkdir()
    for i in range(4):
        content = gzip.compress(b'{"question": "q", "answer": 1}\n' * 99)
        (folder / f"{i}.jsonl.gz").write_bytes(content[: -9 * (i > 1)] or content)
    overrides = ("experiment=tiny", "pool=jsonl", f"pool.path={folder}", "pool.held_out=5", f"run.root={tmp_path}/runs")
    done = start(*overrides, ranks=2)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.count("compressed content is damaged") == 1 and f"{folder}/2.jsonl.gz" in done.stderr
