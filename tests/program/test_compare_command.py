"""A real sweep of two systems, and the verb compare on it."""

import csv
import json

import numpy as np
import pytest
from support.program import start

from hpc_saidpo.compare.read import read_runs


@pytest.mark.e2e
def test_a_real_sweep_and_its_comparison(tmp_path):
    small = ("pool.n=240", "pool.held_out=20", "clusters.n=2", "sampler.n_questions=60", "loop.iterations=1")
    vary = ("+experiment@_global_=idpo,no_difficulty", "run.seed=0", "probe.fraction=0.1")
    done = start("sweep=systems", "experiment=tiny", f"run.root={tmp_path}", *small, *vary)
    assert done.returncode == 0, done.stdout + done.stderr
    done = start("compare", str(tmp_path), "--by", "sampler.rule")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    sweep = read_runs(tmp_path)
    assert sorted((group.label, len(group.runs)) for group in sweep.groups()) == [("idpo", 1), ("no_difficulty", 1)]
    assert all(run.complete and run.name.startswith("tiny,") for run in sweep.runs)
    with (tmp_path / "sweep" / "comparison.csv").open() as file:
        rows = {row["sampler.rule"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"uniform", "error_all"}
    for rule, row in rows.items():
        runs = [run for run in sweep.runs if run.settings["sampler.rule"] == rule]
        lines = [json.loads(line) for run in runs for line in (run.path / "metrics.jsonl").read_text().splitlines()]
        gains = [
            line["scores"]["held_out"]["accuracy"] - line["scores_before"]["held_out"]["accuracy"] for line in lines
        ]
        assert float(row["held_out_gain_mean"]) == pytest.approx(np.mean(gains))
        assert float(row["pairs_mean"]) == np.mean([line["pairs"] for line in lines])
        # An exploration is stored without the rollouts of its probe.
        assert float(row["rollout_tokens_mean"]) > np.mean([line["rollout_tokens"] for line in lines])
        assert -1 <= float(row["rho_tokens_mean"]) <= 1
