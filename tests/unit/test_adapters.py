"""LoRA, and the optimizers in 8 bits, in one process."""

import copy
import functools
import sys

import pytest
import torch
from peft import PeftModel
from support.architectures import ARCHITECTURES
from support.make import load_micro, make_pairs
from support.training import KINDS, LORA, Killed, killed_after, prepared, train_micro
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from hpc_saidpo import settings
from hpc_saidpo.dpo.adapters import inject
from hpc_saidpo.dpo.arrangement import response_logps
from hpc_saidpo.dpo.examples import tokenise
from hpc_saidpo.dpo.train import Lesson, train
from hpc_saidpo.errors import RunError
from hpc_saidpo.parallel import shards
from hpc_saidpo.parallel.world import World

TINY = LlamaConfig(vocab_size=9, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
pytestmark = pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")


def structure(model):
    """Modules and parameters by name, in order, and which of them are trained."""
    modules = [(name, type(module)) for name, module in model.named_modules()]
    return modules, [(name, p.shape, p.dtype, p.requires_grad) for name, p in model.named_parameters()]


def trained(model):
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def test_checkpoint_gradients_and_moments_are_those_of_the_adapters_only(folder):
    stage = prepared(folder)
    with pytest.raises(Killed), killed_after(1):
        train_micro(World(), checkpoint=(stage, 0), **LORA)
    kept, _ = shards.read_shapes(folder / "checkpoint-000001")
    weights = {key for key in kept if key.startswith("weights/")}
    assert weights and all(".lora_A." in key or ".lora_B." in key for key in weights)
    assert {key.partition("/")[2].rpartition("/")[0] for key in kept if key.startswith("optimizer/")} == {
        key.partition("/")[2] for key in weights
    }

    policy, pairs = load_micro(), make_pairs(4)
    inject(policy.model, LORA["lora"], 0, 0)
    examples = tokenise(pairs, policy, False, ())
    responses = list(zip(examples.chosen, examples.rejected, strict=True))
    response_logps(policy.model, examples.prompt, responses, 0).sum().backward()
    assert {n for n, p in policy.model.named_parameters() if p.grad is not None} == set(trained(policy.model))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_round_changes_the_targets_by_a_matrix_of_the_rank_and_leaves_a_plain_model(checkpointing):
    policy, before = load_micro(), load_micro().model
    pairs = make_pairs(20)
    examples = tokenise(pairs, policy, False, ())
    rank, targets = 2, ("q_proj", "down_proj")
    config = settings.Dpo(
        lr=1e-2, batch_pairs=4, checkpointing=checkpointing, lora=settings.Lora(rank=rank, targets=targets)
    )
    steps = train(policy, Lesson(pairs, examples, 0, 0, True), config, World())
    assert abs(steps[0]["rewards/margins"]) < 1e-6 < 0.01 < steps[-1]["rewards/margins"]
    assert structure(policy.model) == structure(before)
    assert not any("peft" in type(module).__module__ for module in policy.model.modules())
    assert not hasattr(policy.model, "peft_config")
    for (name, now), was in zip(policy.model.named_parameters(), before.parameters(), strict=True):
        change = now.detach() - was.detach()
        if name.split(".")[-2] in targets:
            assert torch.linalg.matrix_rank(change, rtol=1e-4) == rank, name
        else:
            assert not change.any(), name


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_is_computed_stays_the_same_when_adapters_come_and_when_they_are_merged(name, tmp_path):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(ARCHITECTURES[name]).eval()
    before, base = structure(model), copy.deepcopy(model)
    asked = [[5, 6, 7], [8, 9]], [([20, 21], [22]), ([23], [24, 25])], 0
    with torch.no_grad():
        reference = response_logps(model, *asked)
        adapters = inject(model, settings.Lora(rank=3), 0, 0)
        assert torch.equal(response_logps(model, *asked), reference)
        for parameter in trained(model).values():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
        adapted = response_logps(model, *asked)
        assert (adapted - reference).abs().max() > 0.01
        adapters.save(tmp_path / "adapter", "base", True)
        adapters.merge()
        torch.testing.assert_close(response_logps(model, *asked), adapted, rtol=1e-5, atol=1e-5)
        again = PeftModel.from_pretrained(base, tmp_path / "adapter").get_base_model().eval()
        torch.testing.assert_close(response_logps(again, *asked), adapted, rtol=1e-5, atol=1e-5)
        assert structure(model) == before
        model.save_pretrained(tmp_path)
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
        torch.testing.assert_close(response_logps(loaded, *asked), adapted, rtol=1e-5, atol=1e-5)


def test_adapters_of_full_rank_can_be_any_matrix_and_of_rank_k_the_best_of_that_rank():
    torch.manual_seed(0)
    wanted = torch.randn(8, 8)
    for rank in (8, 3):
        model = LlamaForCausalLM(TINY)
        layer = model.model.layers[0].self_attn
        singular = torch.linalg.svdvals(wanted - layer.o_proj.weight.detach())
        adapters = inject(model, settings.Lora(rank=rank, alpha=1.0 * rank, targets=("o_proj",)), 0, 0)
        optimizer = torch.optim.Adam(trained(model).values(), lr=0.05)
        for _ in range(1000):
            optimizer.zero_grad()
            (layer.o_proj(torch.eye(8)) - wanted.T).pow(2).sum().backward()
            optimizer.step()
        adapters.merge()
        error = (layer.o_proj.weight.detach() - wanted).norm()
        # Eckart and Young 1936: what is left of the best approximation is the other singular values.
        torch.testing.assert_close(error, singular[rank:].norm(), rtol=1e-2, atol=1e-2)


def test_adapters_start_from_the_seed_and_leave_the_global_stream_alone():
    def start(*seed):
        torch.manual_seed(5)
        model = load_micro().model
        inject(model, LORA["lora"], *seed)
        return torch.cat([p.detach().flatten() for p in trained(model).values()]), torch.rand(1)

    first, after = start(0, 0)
    torch.manual_seed(6)
    again, _ = start(0, 0)
    assert torch.equal(first, again) and not torch.equal(first, start(0, 1)[0])
    torch.manual_seed(5)
    load_micro()
    assert torch.equal(after, torch.rand(1))


@pytest.mark.parametrize(
    "targets, says", [(("q_proj", "typo"), "called typo: name some of down_proj"), (("embed_tokens",), "embed_tokens")]
)
def test_targets_that_are_no_linear_layers_are_refused(targets, says):
    with pytest.raises(RunError, match=says):
        inject(load_micro().model, settings.Lora(rank=2, targets=targets), 0, 0)


def test_a_tied_head_gets_no_adapter_and_an_untied_one_may():
    for tied in (True, False):
        config = ARCHITECTURES["qwen2" if tied else "llama-gqa"]
        model = AutoModelForCausalLM.from_config(config)
        asked = functools.partial(inject, model, settings.Lora(rank=2, targets=("lm_head",)), 0, 0)
        if tied:
            with pytest.raises(RunError, match="lm_head"):
                asked()
        else:
            asked()
            assert all(name.startswith("lm_head") for name in trained(model))


@pytest.mark.parametrize(
    "module, extra, config", [("peft", "lora", LORA), ("bitsandbytes", "8bit", KINDS["adamw_8bit"])]
)
def test_a_missing_package_is_named_with_its_extra(monkeypatch, module, extra, config):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(RunError, match=rf"needs {module} .*pip install 'hpc_saidpo\[{extra}\]'"):
        train_micro(World(), **config)


def test_moments_in_8_bits_lead_near_those_in_32():
    start = torch.cat([p.detach().flatten() for p in load_micro().model.parameters()])
    exact = train_micro(World(), lr=1e-4)[0]
    for kind in ("adamw_8bit", "paged_adamw_8bit"):
        found = train_micro(World(), lr=1e-4, **KINDS[kind])[0]
        assert 0 < (found - exact).norm() < 0.3 * (exact - start).norm(), kind
