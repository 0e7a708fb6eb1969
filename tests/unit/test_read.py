"""Damaged models: one message that names the setting, and what to do."""

import contextlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.make import MICRO
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, MambaConfig, MambaForCausalLM

from hpc_saidpo import settings
from hpc_saidpo.dpo.trainable import check_trainable
from hpc_saidpo.errors import RunError
from hpc_saidpo.policy.model import Policy
from hpc_saidpo.policy.read import skeleton

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(MICRO, tmp_path / "model"))


def load(folder):
    return Policy.load(str(folder), settings.Policy(path=str(folder)), CPU)


def edit(file, **changes):
    content = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def cut(folder):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def without_a_layer(folder):
    weights = load_file(folder / "model.safetensors")
    kept = {name: w for name, w in weights.items() if ".layers.1." not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


DAMAGE = {
    "weights cut short": (cut, "no model could be loaded"),
    "weights that are no weights": (lambda f: (f / "model.safetensors").write_text("?" * 99), "no model could be"),
    "a layer missing": (without_a_layer, r"of its weights are missing, model\.layers\.1\."),
    "another shape": (lambda f: edit(f / "config.json", intermediate_size=7), r"weight \[64, 192\] for \[64, 7\]"),
    "an unknown model_type": (lambda f: edit(f / "config.json", model_type="no_such"), "no_such"),
    "no model_type": (lambda f: edit(f / "config.json", model_type=None), "no model could be loaded"),
    "half a generation_config": (lambda f: (f / "generation_config.json").write_text("{"), "generation_config"),
    "a word as end": (lambda f: edit(f / "generation_config.json", eos_token_id="x"), "token .x. is none"),
    "an encoder": (lambda f: edit(f / "config.json", model_type="t5"), "no model could be loaded"),
    "words for numbers": (lambda f: edit(f / "config.json", num_hidden_layers="two"), "no model could be loaded"),
    "no heads": (lambda f: edit(f / "config.json", num_attention_heads=0), "no model could be loaded"),
    "a list as configuration": (lambda f: (f / "config.json").write_text("[1]"), "no model could be loaded"),
    "half a configuration": (lambda f: (f / "config.json").write_text('{"model_type": "lla'), "no model could be"),
    "half a tokenizer": (lambda f: (f / "tokenizer.json").write_text('{"version": "1.0", "mod'), "tokenizer"),
    "another tokenizer": (lambda f: (f / "tokenizer.json").write_text('{"model": {"type": "None"}}'), "tokenizer"),
    "a list as tokenizer": (lambda f: (f / "tokenizer.json").write_text("[]"), "tokenizer"),
    "half a tokenizer_config": (lambda f: (f / "tokenizer_config.json").write_text('{"a'), "tokenizer"),
    "an end beyond the vocabulary": (
        lambda f: edit(f / "generation_config.json", eos_token_id=99_999), "end-of-sequence token 99999",
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage, says", DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_is_named(folder, damage, says):
    damage(folder)
    with pytest.raises(RunError, match=says) as error:
        load(folder)
    assert str(error.value).startswith(f"policy.path={folder}: ")


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        (
            "config.json",
            {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"}},
        ),
        ("tokenizer_config.json", {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}}),
    ],
)
def test_code_in_a_folder_is_never_run(folder, monkeypatch, file, changes):
    (folder / "own.py").write_text(f"open({str(folder / 'was_run')!r}, 'w').close()\nclass Own: pass\n")
    edit(folder / file, **changes)
    questions = []
    monkeypatch.setattr("builtins.input", lambda text="": questions.append(text) or "y")
    with contextlib.suppress(RunError):
        load(folder)
    assert not questions and not (folder / "was_run").exists()


def test_a_generation_config_may_be_missing(folder):
    (folder / "generation_config.json").unlink()
    assert load(folder).eos_ids


def larger_tokenizer(folder, is_added):
    """A tokenizer with one more token than the model has embeddings of: an ordinary or an added one."""
    content = json.loads((folder / "tokenizer.json").read_text())
    n = json.loads((folder / "config.json").read_text())["vocab_size"]
    tokenizer = Tokenizer.from_str(json.dumps(content))
    if is_added:
        tokenizer.add_special_tokens([f"<extra_{i}>" for i in range(n + 1 - tokenizer.get_vocab_size())])
    else:
        vocab = content["model"]["vocab"]
        content["model"]["vocab"] = {**vocab, **{f"x{i}": i for i in range(len(tokenizer.get_vocab()), n + 2)}}
        tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.save(str(folder / "tokenizer.json"))
    return n


def test_a_tokenizer_of_another_model_is_refused(folder):
    n = larger_tokenizer(folder, is_added=False)
    with pytest.raises(RunError, match=f"embeddings of {n} tokens, but 2 further tokens of its tokenizer have none"):
        load(folder)


def test_an_added_token_without_an_embedding_is_accepted_but_not_used_for_padding(folder):
    n = larger_tokenizer(folder, is_added=True)
    edit(folder / "tokenizer_config.json", pad_token=AutoTokenizer.from_pretrained(folder).convert_ids_to_tokens(n))
    policy = load(folder)
    assert policy.tokenizer.pad_token_id == policy.tokenizer.eos_token_id < n


def test_a_policy_without_weights_reads_no_weights(folder):
    (folder / "model.safetensors").unlink()
    policy = Policy.without_weights(str(folder))
    assert policy.model.config.max_position_embeddings == 256 and policy.encode_prompt("1+1", chat=False)
    assert all(p.is_meta for p in policy.model.parameters())


MAMBA = MambaConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, state_size=4)


@pytest.mark.parametrize(
    "config, says",
    [
        (settings.Dpo(lora=settings.Lora(rank=2)), r"dpo\.lora: peft cannot adapt the mamba model .*targets"),
        (settings.Dpo(lora=settings.Lora(rank=2, targets=("q_proj",))), r"dpo\.lora\.targets: no linear layer"),
        (settings.Dpo(), ""),
    ],
)
def test_lora_that_a_model_does_not_support_is_refused_before_the_first_rollout(tmp_path, config, says):
    MambaForCausalLM(MAMBA).save_pretrained(tmp_path)
    model = skeleton(str(tmp_path))
    if not says:
        check_trainable(model, str(tmp_path), config)
        return
    with pytest.raises(RunError, match=says):
        check_trainable(model, str(tmp_path), config)


def test_checkpointing_that_a_model_does_not_support_is_refused(monkeypatch):
    model = skeleton(MICRO)
    check_trainable(model, MICRO, settings.Dpo(checkpointing=True))
    monkeypatch.setattr(type(model), "supports_gradient_checkpointing", False)
    with pytest.raises(RunError, match=r"dpo\.checkpointing=true"):
        check_trainable(model, MICRO, settings.Dpo(checkpointing=True))


def test_sampling_parameters_without_sampling_do_not_prevent_saving(folder, tmp_path):
    edit(folder / "generation_config.json", temperature=0.6, do_sample=False)
    policy = load(folder)
    policy.save(tmp_path / "saved")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "saved").generation_config.temperature == 0.6


@pytest.mark.parametrize("is_nested", [False, True])
@pytest.mark.parametrize("method", ["bitsandbytes", "gptq", "fp8"])
def test_a_policy_with_quantised_weights_is_refused_before_any_work(tmp_path, method, is_nested):
    config = json.loads((Path(MICRO) / "config.json").read_text())
    quantised = {"quantization_config": {"quant_method": method}}
    if is_nested:
        quantised = {"model_type": "gemma3", "text_config": {**config, "model_type": "gemma3_text", **quantised}}
    (tmp_path / "config.json").write_text(json.dumps({**config, **quantised}))
    with pytest.raises(RunError, match=rf"policy.path=.*: its weights are quantised \({method}\)"):
        check_trainable(skeleton(str(tmp_path)), str(tmp_path), settings.Dpo())
