"""The demonstration: a short run of the very command, with the model that is shipped as GGUF."""

import json
import math
import subprocess
import sys

import pytest
from support.converted import give_smollm2
from support.offline import NAMESPACE, needs_namespace, permitted
from support.program import command, start, user_environment
from transformers import AutoModelForCausalLM, AutoTokenizer


@pytest.fixture(scope="module")
def short_demo(tmp_path_factory):
    """A short run of the demonstration, as the README starts it; without a network where that is permitted."""
    root = tmp_path_factory.mktemp("runs")
    give_smollm2(root, tmp_path_factory)
    short = ("loop.iterations=1", "pool.held_out=8", "probe.fraction=0.004", "sampler.n_questions=8", "rollouts.k=4",
             "evaluate.samples=1", "evaluate.temperature=0", f"run.root={root}")  # fmt: skip
    done = subprocess.run(
        [*(NAMESPACE if permitted() else ()), *command("experiment=demo", *short, ranks=2)],
        env=user_environment(), capture_output=True, text=True, timeout=500, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return root / "demo", done


@pytest.mark.e2e
def test_a_short_demo_runs_as_the_readme_starts_it(short_demo):
    run, done = short_demo
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = json.loads((run / "metrics.jsonl").read_text())
    assert metrics["explored_questions"] == 8 and metrics["pairs"] > 0 and 0 < metrics["explored_pass_rate"] < 1
    assert "Converting" not in done.stderr  # other people's progress bars stay out of the log
    folder = run / "iter-000" / "policy" / "model"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert model.num_parameters() > 130e6
    ids = tokenizer("What is 1 + 1?\nThe answer is: 2\n\nWhat is 2 + 2?\nThe answer is:", return_tensors="pt")
    assert tokenizer.decode(model.generate(**ids, max_new_tokens=3, do_sample=False)[0][-3:]).strip()


@pytest.mark.e2e
def test_a_walk_from_the_run_to_another_trainer(short_demo, tmp_path):
    """The report; then show prints the id of a question, explain takes it, and TRL trains on the exported pairs."""
    import datasets
    import trl

    run, _ = short_demo
    page = (run / "report.html").read_text()
    assert "<svg" in page and "held_out" in page and "<script src" not in page

    def said(*words):
        done = start(*words)
        assert done.returncode == 0 and not done.stderr, done.stderr
        return done.stdout

    shown = json.loads(said("show", str(run), "--stage", "explore", "-n", "1", "--jsonl"))
    assert shown["question_text"] and shown["gold"] and shown["response"]
    told = said("explain", str(run), "--iteration", str(shown["iteration"]), "--question", shown["question_id"])
    assert "drawn as number" in told and f"{shown['cluster']}: " in told
    pairs = tmp_path / "pairs.jsonl"
    said("export", str(run), "--what", "pairs", "--format", "jsonl", "--out", str(pairs))
    rows = datasets.load_dataset("json", data_files=str(pairs), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(rows) == json.loads((run / "metrics.jsonl").read_text())["pairs"]
    folder = run / "iter-000" / "policy" / "model"
    arguments = trl.DPOConfig(
        output_dir=str(tmp_path), max_steps=1, per_device_train_batch_size=1, report_to=[], save_strategy="no",
        use_cpu=True, bf16=False, gradient_checkpointing=False, learning_rate=1e-6,
    )  # fmt: skip
    trainer = trl.DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder), args=arguments, train_dataset=rows,
        processing_class=AutoTokenizer.from_pretrained(folder),
    )  # fmt: skip
    assert trainer.train().training_loss == pytest.approx(math.log(2), abs=1e-3)


@pytest.mark.e2e
@needs_namespace
def test_the_demo_needs_no_network_and_does_not_look_for_one(short_demo):
    _, done = short_demo
    assert done.returncode == 0 and done.stdout.rstrip().endswith("OutNoRoutes 0"), done.stdout + done.stderr


@needs_namespace
def test_a_look_at_the_network_is_counted():
    look = [sys.executable, "-c", "import socket; socket.socket().connect_ex(('192.0.2.1', 80))"]
    done = subprocess.run([*NAMESPACE, *look], capture_output=True, text=True)
    assert done.stdout.strip() == "OutNoRoutes 1"


@pytest.mark.e2e
def test_a_model_that_is_not_here_is_refused_without_a_look_at_the_network(tmp_path):
    wanted = ("experiment=tiny", "policy.path=Qwen/Qwen2.5-Math-7B", f"run.root={tmp_path}")
    prefix = NAMESPACE if permitted() else ()
    done = subprocess.run(
        [*prefix, *command(*wanted)], env=user_environment(), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "policy.path=Qwen/Qwen2.5-Math-7B: no such folder, and no model of that name" in done.stderr
    assert not prefix or done.stdout.rstrip().endswith("OutNoRoutes 0")
