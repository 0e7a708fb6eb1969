"""The program with a rule and a verifier of a user's own package, found by PYTHONPATH."""

import json
import subprocess

import pytest
from support.pools import write_arithmetic
from support.program import TOYS, command, user_environment

from hpc_saidpo.records import CORRECT, UNGRADABLE, WRONG, Pairs, Rollouts
from hpc_saidpo.report.explain import explain
from hpc_saidpo.store.stage import Stage

pytestmark = pytest.mark.e2e
# A loop of a few seconds beyond start-up. The pool is a file: only such a pool has `pool.verifier`.
SMALL = (
    "experiment=tiny", "pool=jsonl", "pool.held_out=24", "loop.iterations=2", "clusters.n=6", "probe.fraction=0.15",
    "sampler.n_questions=60", "rollouts.k=4", "dpo.batch_pairs=8", "rollouts.chunk_questions=8",
)  # fmt: skip
RULE, VERIFIER = "toy_plugin.rules:frontier_easy", "toy_plugin.verifiers:last_number"


def run(folder, *overrides, is_warm=False):
    places = (f"pool.path={folder / 'pool.jsonl'}", f"run.root={folder / 'runs'}")
    call = command(*SMALL, *places, *overrides, ranks=2, is_warm=is_warm)
    return subprocess.run(call, env=user_environment(PYTHONPATH=str(TOYS)), capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plugins")
    write_arithmetic(folder / "pool.jsonl", n=264)
    return folder


def test_a_run_draws_by_the_users_rule_and_grades_by_the_users_verifier(folder, monkeypatch):
    done = run(folder, f"sampler.rule={RULE}", f"pool.verifier={VERIFIER}", is_warm=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "pool: no gold answer is checked" in done.stdout
    path = folder / "runs" / "tiny"
    records = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert [record["sampler_rule"] for record in records] == [RULE] * 2
    assert all(record["pairs"] > 0 and 0 < record["explored_pass_rate"] < 1 for record in records)
    assert max(records[-1]["cluster_weight"]) > 1 > min(records[-1]["cluster_weight"])

    answers = {row["id"]: row["answer"] for row in map(json.loads, (folder / "pool.jsonl").read_text().splitlines())}
    graded = Stage(path / "iter-000" / "explore").read_chunks(Rollouts)
    assert set(graded.verdict_R.tolist()) <= {CORRECT, WRONG, UNGRADABLE}
    for id, verdict, text in zip(graded.id_R, graded.verdict_R, graded.text_R, strict=True):
        assert (verdict == CORRECT) <= text.rstrip().endswith(answers[id]), text
    assert len(Stage(path / "iter-001" / "pairs").read("pairs", Pairs))

    monkeypatch.syspath_prepend(str(TOYS))  # the reader of a run needs its rule too
    explored = Stage(path / "iter-001" / "explore").read_chunks(Rollouts).id_R
    reasons = dict(explain(path, 1, explored[0]))
    assert f"sampler.rule={RULE}" in reasons["weight"] and f", {RULE} 0." in reasons["model"]


@pytest.mark.parametrize(
    "overrides, says",
    [
        (("sampler.rule=toy_plugin.rules:none",), "sampler.rule=toy_plugin.rules:none: the module toy_plugin.rules"),
        (("pool.verifier=no_such_toy:x",), "pool.verifier=no_such_toy:x: there is no module 'no_such_toy'"),
    ],
)  # fmt: skip
def test_a_name_that_does_not_exist_ends_all_ranks_before_the_run_begins(folder, overrides, says):
    done = run(folder, "run.name=refused", *overrides)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.count(says) == 1 and "Traceback" not in done.stderr
    assert not (folder / "runs" / "refused").exists()
