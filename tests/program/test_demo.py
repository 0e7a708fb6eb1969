"""The demonstration's parts: the real pool, the model shipped as GGUF, and a short run of the very command."""

import json
import subprocess
import sys

import pytest
from hydra import compose, initialize_config_dir
from support.offline import NAMESPACE, needs_namespace, permitted
from support.program import command, user_environment
from transformers import AutoModelForCausalLM, AutoTokenizer

from hpc_saidpo.cli import compose
from hpc_saidpo.pool import generated
from hpc_saidpo.rollouts import prompt


@pytest.fixture(scope="module")
def config():
    with initialize_config_dir(str(compose.conf_folder()), version_base="1.3"):
        return compose.build(compose("config", overrides=["experiment=demo"]))[0]


@pytest.fixture(scope="module")
def demo_pool(config):
    return generated.make(config.pool)


def test_the_pool_is_large_and_varied(demo_pool):
    assert len({q.text for q in demo_pool.questions}) == len(demo_pool.questions) >= 2000
    assert len({q.subject for q in demo_pool.questions}) >= 10
    assert len({q.tags for q in demo_pool.questions}) >= 10
    assert all(q.answer for q in demo_pool.questions)


def test_examples_pool_and_held_out_questions_never_meet(demo_pool):
    examples = {q.text for group in demo_pool.examples.values() for q in group}
    texts, held_out = {q.text for q in demo_pool.questions}, {q.text for q in demo_pool.held_out}
    assert len(held_out) > 150 and not texts & held_out and not examples & (texts | held_out)


def test_no_expression_of_the_pool_is_held_out_in_other_words(demo_pool):
    def expression(question):  # "What is 3 + 4?" and "Compute 3 + 4." ask the same
        return "".join(c for c in question.text if c in "0123456789+-*()")

    arithmetic = [q for q in demo_pool.questions if q.source.endswith(("basic_arithmetic", "chain_sum", "products"))]
    held_out = {expression(q) for q in demo_pool.held_out if q.source.split(".")[1] in ("basic_arithmetic", "products")}
    shared = {expression(q) for q in arithmetic} & held_out
    assert not shared


def test_the_pool_is_the_same_every_time(config, demo_pool):
    assert generated.make(config.pool) == demo_pool


def test_the_first_prompt(config, demo_pool):
    text = prompt.render(demo_pool.questions[0], demo_pool.examples, config.rollouts.prompt, None)
    assert text.count("The answer is:") == 5 and text.endswith(demo_pool.questions[0].text + "\nThe answer is:")
    assert all(len({e.answer for e in group}) == 4 for group in demo_pool.examples.values())


@pytest.fixture(scope="module")
def short_demo(tmp_path_factory):
    """A short run of the demonstration, as the README starts it; without a network where that is permitted."""
    root = tmp_path_factory.mktemp("runs")
    short = ("loop.iterations=1", "pool.held_out=24", "probe.fraction=0.01", "sampler.n_questions=24", "rollouts.k=4",
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
    assert metrics["explored_questions"] == 24 and metrics["pairs"] > 0 and 0 < metrics["explored_pass_rate"] < 1
    assert "Converting" not in done.stderr  # other people's progress bars stay out of the log
    folder = run / "iter-000" / "policy" / "model"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert model.num_parameters() > 130e6
    ids = tokenizer("What is 1 + 1?\nThe answer is: 2\n\nWhat is 2 + 2?\nThe answer is:", return_tensors="pt")
    assert tokenizer.decode(model.generate(**ids, max_new_tokens=3, do_sample=False)[0][-3:]).strip()


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
