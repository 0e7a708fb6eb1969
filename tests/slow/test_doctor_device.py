"""The checks of one device, on the CPU in its place: they pass, and planted faults fail."""

import time
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, Qwen2Config

from hpc_saidpo.doctor.device import decoding, examine, kernels, models, speed, training
from hpc_saidpo.doctor.device.bench import CPU_SIZES, Bench
from hpc_saidpo.doctor.device.examine import CHECKS, Check
from hpc_saidpo.doctor.device.result import FAIL, PASS, SKIP, Figures, Skipped
from hpc_saidpo.parallel.gradients import Shards, replicate
from hpc_saidpo.parallel.group import GroupOfOne
from hpc_saidpo.policy import trial
from hpc_saidpo.rollouts.engine import kv_cache, linears

CPU = torch.device("cpu")


def made(*names):
    """The results of some checks, by name."""
    results = examine.examine(CPU, 60, None, lambda line: None, [check for check in CHECKS if check.name in names])
    return {result.name: result for result in results}


@pytest.fixture
def untried(monkeypatch):
    """No try-out of an earlier test is reused, and none of this one is kept."""
    monkeypatch.setattr(trial, "_done", {})


def test_a_linear_layer_with_a_wrong_scale_fails(monkeypatch):
    right = linears.linear
    monkeypatch.setattr(linears, "_timed", {})
    monkeypatch.setattr(linears, "linear", lambda *arguments: 1.01 * right(*arguments))
    result = made("linear_layers")["linear_layers"]
    assert result.state == FAIL and "policy float32 weights float32 error is 0.00993, at most 1e-05" in result.text


def test_an_engine_that_computes_something_else_fails(monkeypatch, untried):
    right = kv_cache.KVCache.attend
    monkeypatch.setattr(kv_cache.KVCache, "attend", lambda *arguments: 1.05 * right(*arguments))
    result = made("engine")["engine"]
    assert result.state == FAIL and "decoded by hf, not by shared (shared: " in result.text


def test_an_attention_kernel_that_computes_something_else_fails(monkeypatch):
    right = kernels.scaled_dot_product_attention
    monkeypatch.setattr(kernels, "scaled_dot_product_attention", lambda *x, **options: 1.05 * right(*x, **options))
    assert "auto causal error is 0.0504, at most 0.02" in made("attention")["attention"].text


def test_a_head_that_computes_something_else_fails(monkeypatch, untried):
    right = training.ResponseLogps.forward

    def shifted(self, batch):
        logps = right(self, batch)
        return logps._replace(token_N=logps.token_N * 1.001)

    monkeypatch.setattr(training.ResponseLogps, "forward", shifted)
    result = made("log_probabilities")["log_probabilities"]
    assert result.state == FAIL and "no way computes" in result.text and "llama float32 shared nats" in result.text


def test_a_round_that_trains_something_else_fails(monkeypatch):
    right = training.train_round

    def on_the_device(bench, device, precision, *arguments, **options):
        made = right(bench, device, precision, *arguments, **options)
        factor = 1.0 if device is training.CPU else 1.01
        return training.Round([{**s, "loss": s["loss"] + factor - 1} for s in made.steps], factor * made.change_N)

    bench, figures = Bench(torch.device("cpu"), CPU_SIZES), Figures()
    monkeypatch.setattr(training, "train_round", on_the_device)
    training.dpo_round(bench, figures)
    assert [fault.partition(" is ")[0] for fault in figures.faults] == ["float32 loss", "float32 weights"]


def test_whatever_a_check_raises_is_its_result_and_the_others_are_made():
    def fail(bench, figures):
        figures.add("seen", 3.0)
        models.small_model(None, CPU)

    def skip(bench, figures):
        raise Skipped("the package x is not installed")

    def exhaust(bench, figures):
        raise torch.OutOfMemoryError("CUDA out of memory")

    checks = [Check("a", fail), Check("b", skip), Check("c", exhaust), Check("d", lambda bench, figures: None)]
    a, b, c, d = examine.examine(CPU, 60, None, lambda line: None, checks)
    assert [r.state for r in (a, b, c, d)] == [FAIL, SKIP, SKIP, PASS]
    assert "doctor/device/models.py:" in a.text and "| seen 3" in a.text and a.figures == {"seen": 3.0}
    assert (b.text, "CUDA out of memory" in c.text) == ("the package x is not installed", True)


def test_a_figure_that_is_no_number_or_missing_is_a_fault_and_null_in_the_file():
    def measure(bench, figures):
        figures.add("a", float("nan"), most=1.0)
        figures.add("b", None, most=1.0)
        figures.add("c", 1.0, most=1.0)

    (result,) = examine.examine(CPU, 60, None, lambda line: None, [Check("x", measure)])
    assert result.text.startswith("a is nan, at most 1 is allowed; b is none, at most 1 is allowed")
    assert result.flat() == {**result.flat(), "x.a": None, "x.b": None, "x.c": 1.0}


def test_a_check_without_time_is_skipped_and_a_long_one_is_ended():
    def wait(bench, figures):
        figures.add("begun", 1.0)
        until = time.monotonic() + 60
        while time.monotonic() < until:
            time.sleep(0.01)

    checks = [Check("long", wait, needed_s=0.1), Check("late", lambda bench, figures: None)]
    long, late = examine.examine(CPU, 0.02, None, lambda line: None, checks)
    assert long.state == FAIL and "not done when the time was over" in long.text and "begun 1" in long.text
    assert late.state == SKIP and "no time left" in late.text


def test_the_large_model_is_freed_when_no_check_needs_it(monkeypatch):
    seen = []
    checks = [
        Check("a", lambda bench, figures: seen.append((bench, bench.large)), frees=True),
        Check("b", lambda bench, figures: seen.append("large" in vars(bench))),
    ]
    examine.examine(CPU, 60, None, lambda line: None, checks)
    assert seen[1] is False


def test_the_operations_of_a_forward_pass_are_those_that_torch_counts():
    shape = CPU_SIZES.large
    config = Qwen2Config(**shape.arguments())
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    n = 7
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(input_ids=torch.arange(n)[None])
    # Some versions of transformers compute the angles of positions as a matrix product, which is not counted.
    rotary = counter.get_flop_counts().get("Qwen2ForCausalLM.model.rotary_emb", {})
    assert counter.get_total_flops() - sum(rotary.values()) == shape.forward_flops(n, n, n * n)


def test_the_shape_of_the_large_model_is_that_of_qwen():
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(Qwen2Config(**models.QWEN_1_5B.arguments(), tie_word_embeddings=True))
    weights = sum(m.weight.numel() for m in model.model.modules() if isinstance(m, nn.Linear))
    assert weights == models.QWEN_1_5B.layer_parameters
    assert model.get_output_embeddings().weight.numel() == models.QWEN_1_5B.head_parameters
    assert sum(p.numel() for p in model.parameters()) == 1_543_714_304  # of Qwen2.5-1.5B


def test_the_work_of_rollouts_is_counted():
    shape = SimpleNamespace(forward_flops=lambda *counts: counts)
    # Prompts of 3 tokens, the first shared: 1 + 2·2 are read. Each row decodes 2 tokens, the last of 3 is not read.
    load = speed.Load(prompts=2, k=2, prompt_tokens=3, common=1, new_tokens=3)
    tokens, logits, _ = load.flops(shape)
    assert (tokens, logits) == (1 + 2 * 2 + 4 * 2, 2 + 4 * 2)


def test_steps_with_fixed_shapes_compute_what_a_forward_pass_does():
    steps = decoding._Steps(Bench(CPU, CPU_SIZES))
    made = [steps.step(i) for i in range(3)]
    with torch.no_grad():
        exact = steps.model(input_ids=steps.inputs[: steps.n_prompt + 3].T).logits
    for i, logits in enumerate(made):
        assert kernels.relative(logits, exact[:, steps.n_prompt + i]) < kernels.ROUNDED
    steps.restart()
    assert torch.equal(steps.step(0), made[0])


def test_a_group_of_one_trains_shards():
    module = nn.Linear(3, 2)
    with replicate(GroupOfOne(CPU), module, exact=False, strategy="fsdp") as replicas:
        assert type(replicas) is Shards and torch.distributed.get_world_size() == 1
    assert not torch.distributed.is_initialized()


def test_a_round_that_does_not_read_its_checkpoint_fails(monkeypatch):
    bench, figures = Bench(torch.device("cpu"), CPU_SIZES), Figures()
    training.dpo_resumed(bench, figures)
    assert not figures.faults
    monkeypatch.setattr(training.Checkpoint, "restore", lambda *_: None)
    training.dpo_resumed(bench, figures)
    assert figures.faults == ["the round began again: its checkpoint was not read"]
