"""What is seen to be wrong before the queue, from the configuration and the files that it names."""

import importlib.util
import json

import pytest
from support.pools import write_jsonl

from hpc_saidpo.cli.compose import from_overrides
from hpc_saidpo.doctor import foresight
from hpc_saidpo.errors import RunError
from hpc_saidpo.grader.self_check import self_check
from hpc_saidpo.settings.whole import Settings


@pytest.fixture
def policy(tmp_path):
    folder = tmp_path / "policy"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 512}))
    (folder / "tokenizer_config.json").write_text("{}")
    return folder


def found(*overrides):
    return {f.name: f for f in foresight.foresee(from_overrides(["experiment=tiny", *overrides]))}


def test_a_good_configuration_shows_nothing():
    assert [f for f in found().values() if f.remedy] == []


def test_a_chat_prompt_needs_a_template(policy):
    chat = (f"policy.path={policy}", "rollouts/prompt=chat", "rollouts.prompt.chat=true")
    assert "set rollouts/prompt=plain" in found(*chat)["prompt"].remedy and found(*chat)["prompt"].state == "failure"
    assert not found(f"policy.path={policy}", "rollouts.prompt.chat=false")["prompt"].remedy
    (policy / "chat_template.jinja").write_text("{{ messages }}")
    assert not found(*chat)["prompt"].remedy


def test_a_response_leaves_room_for_its_prompt(policy):
    lengths = found(f"policy.path={policy}", "rollouts.max_new_tokens=512", "rollouts.prompt.chat=false")["lengths"]
    assert lengths.state == "failure" and "lower rollouts.max_new_tokens below 512" in lengths.remedy
    assert "512 positions" in lengths.text


def test_packages_that_the_configuration_needs(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    packages = found("rollouts.generate.engine=vllm", "dpo.optimizer=adamw_8bit")["packages"]
    assert packages.state == "failure" and "pip install 'hpc_saidpo[8bit,vllm]'" in packages.remedy
    assert not found()["packages"].remedy


def test_benchmarks_that_measure_nothing_or_something_else(tmp_path):
    assert "accuracy stays unknown" in found("evaluate.benchmarks=[]")["benchmarks"].remedy
    assert "3 greedy responses" in found("evaluate.samples=3")["benchmarks"].remedy
    write_jsonl(tmp_path / "gsm8k.jsonl", *({"question": f"{i}?", "answer": str(i)} for i in range(8)))
    short = found(f"evaluate.benchmarks=[{tmp_path}/gsm8k.jsonl]")["benchmarks"]
    assert "has 8 questions, the benchmark has 1319" in short.remedy and short.state == "warning"


def test_more_pairs_in_a_batch_than_there_will_be():
    steps = found("sampler.n_questions=40", "dpo.batch_pairs=128")["optimizer steps"]
    assert steps.state == "warning" and "dpo.batch_pairs=2" in steps.remedy and "about 20 pairs" in steps.text


def test_the_pairs_that_can_be_expected():
    assert "about 5 pairs" in found("sampler.n_questions=40", "pairs.share=0.25")["optimizer steps"].text
    limited = found("sampler.n_questions=40", "sampler.budget.pairs=8", "pairs.per_question=2")
    assert "about 16 pairs" in limited["optimizer steps"].text


def test_a_start_is_refused_with_every_failure_and_its_remedy(policy, caplog):
    bad = from_overrides([
        "experiment=tiny", f"policy.path={policy}", "rollouts.max_new_tokens=600", "rollouts.prompt.chat=true",
        "evaluate.benchmarks=[]",
    ])  # fmt: skip
    with pytest.raises(RunError, match=r"(?s)cannot work.*prompt: .*chat template.*\n  lengths: .*lower rollouts"):
        foresight.require(bad)
    assert isinstance(bad, Settings) and "accuracy" not in caplog.text
    foresight.require(from_overrides(["experiment=tiny", "evaluate.benchmarks=[]"]))
    assert "accuracy stays unknown" in caplog.text


def test_gold_answers_that_can_never_be_right():
    prose = [(f"p{i}", "it depends on the reader") for i in range(6)]
    good = [(f"g{i}", str(i)) for i in range(94)]
    assert self_check(good).fault() == ""
    few, half = self_check([*good, *prose]), self_check([*good[:5], *prose])
    assert few.rate < 0.95 and "6 of 100 gold answers can never be right" in few.fault()
    assert half.rate < 0.5 and "pool.columns.answer" in half.fault()
