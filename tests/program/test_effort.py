"""Budgets of an exploration, early abandon and near misses in whole runs."""

import json

import numpy as np
import pytest
from support.program import start
from support.small_run import SMALL, assert_same

from hpc_saidpo.records import Draw, Rollouts
from hpc_saidpo.report.explain import explain
from hpc_saidpo.store.stage import Stage

pytestmark = pytest.mark.e2e
EFFORT = (
    "loop.iterations=1", "sampler.budget.tokens=1000", "sampler.budget.rounds=6", "rollouts.adaptive=true",
    "rollouts.waves=[2,2]", "rollouts.min_chance=0.03", "rollouts.k_max=8", "clusters.kind=kernel",
)  # fmt: skip


def test_an_exploration_ends_with_its_budget_on_any_number_of_ranks(tmp_path):
    for ranks in (1, 2):
        done = start(*SMALL, *EFFORT, f"run.root={tmp_path}", f"run.name=on{ranks}", ranks=ranks)
        assert done.returncode == 0, done.stdout + done.stderr
    assert_same(tmp_path / "on1", tmp_path / "on2")
    run = tmp_path / "on1"
    explore = Stage(run / "iter-000" / "explore")
    drawn, fresh = Stage(run / "iter-000" / "draw").read("draw", Draw), explore.read_chunks(Rollouts).sorted()
    about = dict(explain(run, 0, fresh.id_R[0]))
    assert "questions of evidence among the most similar ones" in about["neighbours"] and "model" not in about
    assert not list(explore.path.glob("round-*"))
    order = drawn.question_Q[
        ~np.isin(drawn.question_Q, Stage(run / "iter-000" / "probe").read_chunks(Rollouts).question_R)
    ]
    n_explored = len(set(fresh.question_R))
    assert 0 < n_explored < len(order) and set(fresh.question_R) == set(order[:n_explored])
    assert fresh.n_tokens_R.sum() >= 1000
    _, n_Q = np.unique(fresh.question_R, return_counts=True)
    assert min(n_Q) == 2 and max(n_Q) == 8  # some questions were left or decided at once, some prolonged
    record = json.loads((run / "metrics.jsonl").read_text())
    assert sum(record["cluster_drawn"]) < len(drawn)  # questions that were not explored count as not drawn
