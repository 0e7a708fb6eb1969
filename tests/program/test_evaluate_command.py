"""`hpc-saidpo evaluate`, started as a user starts it."""

import json
import os
import shutil
import signal
import subprocess
import time

import pytest
import yaml
from support.make import MICRO
from support.program import command, start, user_environment

from hpc_saidpo.cli.evaluate import name_of
from hpc_saidpo.store import check

pytestmark = pytest.mark.e2e
MICRO_SET_UP = ("policy=micro", "rollouts/prompt=bare", "rollouts.max_new_tokens=24", "run.deterministic=true")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two benchmarks that the micro model solves in part: one by its known name, one by its path."""
    folder = tmp_path_factory.mktemp("benchmarks")
    for name, n, op in (("math500", 24, "+"), ("own", 16, "-")):
        rows = [
            {"id": f"{op}{i}", "question": f"{i + 40}{op}{i}=?", "answer": str(solved(op, i)),
             "subject": "even" if i % 2 == 0 else "odd", "level": str(i % 3)}
            for i in range(3, 3 + n)
        ]  # fmt: skip
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def solved(op, i):
    return i + 40 + i if op == "+" else 40


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


def evaluation(root, files, *overrides, ranks=2, benchmarks=("math500", "own")):
    paths = [name if name == "math500" else f"{files}/{name}.jsonl" for name in benchmarks]
    return start(
        "evaluate", *MICRO_SET_UP, f"run.root={root}", f"evaluate.folder={files}",
        f"evaluate.benchmarks=[{','.join(paths)}]",
        "evaluate.known.math500.samples=4", "evaluate.known.math500.temperature=1.0", *overrides,
        ranks=ranks,
    )  # fmt: skip


@pytest.fixture(scope="module")
def evaluated(root, files):
    done = evaluation(root, files)
    assert done.returncode == 0, done.stdout + done.stderr
    return root / "evaluate-micro_llama", done


def test_figures_of_two_benchmarks_on_two_ranks(evaluated):
    run, done = evaluated
    rows = json.loads((run / "evaluation.json").read_text())
    math, own = (next(r for r in rows if (r["benchmark"], r["by"]) == (name, "all")) for name in ("math500", "own"))
    assert (math["n_questions"], math["n_samples"], math["temperature"]) == (24, 4, 1.0)
    assert (own["n_questions"], own["n_samples"], own["temperature"]) == (16, 1, 0.0)
    assert 0 <= math["accuracy"] <= math["pass_at_2"] <= math["pass_at_4"] <= 1 and math["pass_at_4"] > 0
    assert math["policy"] == "pkg://hpc_saidpo/data/micro_llama" and own["majority"] is None
    assert [r["value"] for r in rows if (r["benchmark"], r["by"]) == ("own", "subject")] == ["even", "odd"]
    assert sum(r["n_questions"] for r in rows if (r["benchmark"], r["by"]) == ("math500", "level")) == 24
    table = (run / "evaluation.md").read_text()
    assert table in done.stdout and "## math500 by level" in table and "4 at 1" in table and "1 greedy" in table
    assert "has 24 questions, the benchmark has 500" in table
    assert json.loads((run / "env.json").read_text())[0]["world_size"] == 2 and not check.check(run).findings
    assert "pool" not in done.stdout and yaml.safe_load((run / "config.yaml").read_text())["pool"] is None


def test_any_number_of_ranks_gives_the_same_figures(evaluated, root, files):
    done = evaluation(root, files, "run.name=on-three", ranks=3)
    assert done.returncode == 0, done.stderr
    made = (root / "on-three" / "evaluation.json").read_bytes()
    assert made == (evaluated[0] / "evaluation.json").read_bytes()


def test_further_benchmarks_are_added_and_nothing_is_made_twice(evaluated, root, files):
    first = evaluation(root, files, "run.name=grows", benchmarks=["own"])
    assert first.returncode == 0 and "math500" not in (root / "grows" / "evaluation.md").read_text()
    shards = {p: p.stat().st_mtime_ns for p in root.glob("grows/base/evaluate/own/*")}
    second = evaluation(root, files, "run.name=grows")
    assert second.returncode == 0 and "evaluate/math500: 24 questions" in second.stdout
    assert "evaluate/own: 16 questions" not in second.stdout
    assert shards and all(p.stat().st_mtime_ns == t for p, t in shards.items())
    assert (root / "grows" / "evaluation.json").read_bytes() == (evaluated[0] / "evaluation.json").read_bytes()
    assert yaml.safe_load((root / "grows" / "config.yaml").read_text())["evaluate"]["benchmarks"][0] == "math500"
    refused = evaluation(root, files, "run.name=grows", "rollouts.max_new_tokens=25")
    assert refused.returncode == 2 and "rollouts.max_new_tokens: 24 in the run, 25 now" in refused.stderr


def test_told_to_stop_it_goes_on_where_it_was(evaluated, root, files):
    arguments = ("evaluate", *MICRO_SET_UP, f"run.root={root}", "run.name=stopped", f"evaluate.folder={files}",
                 f"evaluate.benchmarks=[math500,{files}/own.jsonl]", "evaluate.known.math500.samples=4",
                 "evaluate.known.math500.temperature=1.0")  # fmt: skip
    first = subprocess.Popen(
        command(*arguments, ranks=2, is_warm=True), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=user_environment(),
    )  # fmt: skip
    lock = root / "stopped" / "lock"
    while not (lock.exists() and lock.read_text()) and first.poll() is None:
        time.sleep(0.01)
    os.kill(json.loads(lock.read_text())["pid"], signal.SIGTERM)
    told, _ = first.communicate(timeout=120)
    assert first.returncode == 75 and "the same command resumes from there" in told, told
    done = evaluation(root, files, "run.name=stopped", ranks=1)
    assert done.returncode == 0, done.stderr
    assert (root / "stopped" / "evaluation.json").read_bytes() == (evaluated[0] / "evaluation.json").read_bytes()


def test_a_run_stands_for_its_newest_policy_and_gives_the_held_out_questions(root):
    run = root / "tiny"
    shutil.copytree(MICRO, run / "iter-004" / "policy" / "model")
    (run / "iter-004" / "DONE").touch()
    (run / "config.yaml").touch()
    done = start(
        "evaluate", "experiment=tiny", "pool.n=60", "pool.held_out=10", f"policy.path={run}", f"run.root={root}"
    )
    assert done.returncode == 0, done.stderr
    (row,) = (
        r for r in json.loads((root / "evaluate-tiny-iter-004" / "evaluation.json").read_text()) if r["by"] == "all"
    )
    assert row["benchmark"] == "held_out" and row["n_questions"] == 10
    assert row["policy"] == str(run / "iter-004" / "policy" / "model")


@pytest.mark.parametrize(
    "path, name",
    [
        ("runs/demo/iter-001/policy/model", "demo-iter-001"),
        ("/models/Qwen2.5-Math-7B/", "Qwen2.5-Math-7B"),
        ("org/model", "model"),
        ("pkg://some_package/inner/model.Q4_1.gguf", "model.Q4_1"),
        ("my models", "my_models"),
        ("", "policy"),
    ],
)
def test_an_evaluation_is_called_after_its_policy(path, name):
    assert name_of(path) == name


@pytest.mark.parametrize(
    "overrides, says",
    [
        (("evaluate.benchmarks=[gsm8k]",), "evaluate.benchmarks=gsm8k: no file"),
        (("evaluate.benchmarks=[held_out]",), "must be given: pool.path"),
        (("policy.path=???",), "must be given: policy.path"),
        (("evaluate.benchmarks=[]",), "nothing to evaluate: set evaluate.benchmarks"),
    ],
)
def test_bad_input_is_one_clear_message(root, files, overrides, says):
    done = evaluation(root, files, "run.name=bad", *overrides, ranks=1)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count(says) == 1 and "Traceback" not in done.stderr


def test_questions_that_have_changed_are_not_taken_for_those_that_were_answered(evaluated, root, files, tmp_path):
    shutil.copytree(evaluated[0], tmp_path / "evaluate-micro_llama")
    lines = (files / "math500.jsonl").read_text().splitlines(keepends=True)
    other = tmp_path / "files"
    shutil.copytree(files, other)
    (other / "math500.jsonl").write_text("".join(reversed(lines)))
    done = evaluation(tmp_path, other, benchmarks=["math500"], ranks=1)
    assert done.returncode == 2 and "has other questions than when it was evaluated" in done.stderr
