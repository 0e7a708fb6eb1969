"""Runs of the program whose questions are graded by tests."""

import pytest
from support.converted import give_smollm2
from support.needs import needs_sandbox
from support.program import start

from hpc_saidpo.records import CORRECT, Pairs, Rollouts
from hpc_saidpo.store.stage import Stage


@pytest.mark.long
@pytest.mark.e2e
@needs_sandbox
def test_pairs_of_programs(tmp_path, tmp_path_factory):
    """SmolLM2 writes lines of Python; tests in the sandbox say which are right, and the pairs prefer those."""
    give_smollm2(tmp_path, tmp_path_factory)
    short = ("loop.iterations=1", "loop.stop_after=pairs", "clusters.n=1", "rollouts.k=4", "rollouts.max_new_tokens=24",
             "probe.fraction=0.05", "sampler.n_questions=8", "pool.held_out=0", "evaluate.benchmarks=[]",
             "run.threads=1", f"run.root={tmp_path}")  # fmt: skip
    done = start("experiment=code", *short, timeout_s=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "pool: 100.00 % of 60 gold answers are right by themselves" in done.stdout
    run = tmp_path / "code"
    explored = Stage(run / "iter-000/explore").read_chunks(Rollouts)
    assert 0 < (explored.verdict_R == CORRECT).mean() < 1
    pairs = Stage(run / "iter-000/pairs").read("pairs", Pairs)
    assert len(pairs)
    for question, chosen, rejected in zip(pairs.id_B, pairs.chosen_B, pairs.rejected_B, strict=True):
        assert f"def {question}" in chosen and chosen != rejected
