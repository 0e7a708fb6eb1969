"""lm-eval reads our policies and exports: it finds the accuracy that the run has found."""

import json

import pytest
import yaml
from support.program import start

TASK = {
    "task": "saidpo_held_out", "dataset_path": "json", "test_split": "train", "output_type": "generate_until",
    "doc_to_text": "{{question_text}}\n", "doc_to_target": "{{gold}}", "target_delimiter": "",
    "generation_kwargs": {"until": ["\n\n\n"], "max_gen_toks": 24, "do_sample": False},
    "filter_list": [{"name": "last", "filter": [
        {"function": "regex", "regex_pattern": "#### (-?[0-9]+)"}, {"function": "take_first"}]}],
    "metric_list": [{"metric": "exact_match"}],
}  # fmt: skip


@pytest.mark.others
@pytest.mark.e2e
def test_lm_eval_finds_the_accuracy_of_the_run(tmp_path):
    lm_eval = pytest.importorskip("lm_eval")
    small = ("pool.n=240", "pool.held_out=24", "clusters.n=2", "sampler.n_questions=60", "loop.iterations=1")
    done = start("experiment=tiny", f"run.root={tmp_path}", "run.name=run", *small)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = tmp_path / "rollouts.jsonl"
    words = ("--what", "rollouts", "--format", "jsonl", "--iteration", "0", "--out", str(rows))
    assert start("export", str(tmp_path / "run"), *words).returncode == 0
    evaluated = [row for row in map(json.loads, rows.open()) if row["stage"] == "evaluate/held_out"]
    (tmp_path / "held_out.jsonl").write_text("".join(json.dumps(row) + "\n" for row in evaluated))
    files = {"dataset_kwargs": {"data_files": str(tmp_path / "held_out.jsonl")}}
    (tmp_path / "task.yaml").write_text(yaml.safe_dump({**TASK, **files}))
    policy = tmp_path / "run" / "iter-000" / "policy" / "model"
    found = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": str(policy), "dtype": "float32", "device": "cpu"},
        tasks=["saidpo_held_out"],
        task_manager=lm_eval.tasks.TaskManager(include_path=str(tmp_path)),
        batch_size=8,
    )
    share = sum(row["verdict"] == "correct" for row in evaluated) / len(evaluated)
    assert found["results"]["saidpo_held_out"]["exact_match,last"] == pytest.approx(share)
