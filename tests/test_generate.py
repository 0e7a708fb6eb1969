import shutil

import numpy as np
import pytest
import torch
from architectures import ARCHITECTURES
from scipy import stats
from torch._dynamo.utils import counters
from transformers import AutoModelForCausalLM

from hpc_saidpo.generate import Config, Sampling, choose, common_prefix, generate, linears
from hpc_saidpo.policy import Policy
from hpc_saidpo.records import RunError, seed_of

PROMPTS = ["12+34\n", "double 7 add 5\n", "9-4\n", "5*13=?\n"]


def tokens(micro, prompts=PROMPTS):
    return [micro.encode_prompt(p, chat=False) for p in prompts]


def seeds(n_prompts, k, seed=0, first=0):
    return [[seed_of(seed, 0, "test", first + q, s) for s in range(k)] for q in range(n_prompts)]


def greedy_by_transformers(policy, prompt, n):
    ids = torch.tensor([prompt])
    # pad_token_id None would be taken from the config of models that have none
    out = policy.model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=n,
        pad_token_id=policy.tokenizer.pad_token_id, eos_token_id=list(policy.eos_ids),
    )  # fmt: skip
    return out[0, len(prompt) :].tolist()


def test_greedy_equals_transformers_generate(micro):
    how = Sampling(0.0, 1.0, 20)
    ours = generate(micro, tokens(micro), seeds(4, 1), how)
    for prompt, (response,) in zip(tokens(micro), ours, strict=True):
        assert response.tokens == greedy_by_transformers(micro, prompt, 20)
        assert response.finished == (response.tokens[-1] in micro.eos_ids)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_other_architectures_decode_as_transformers_does(micro, name):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(ARCHITECTURES[name]).eval()
    policy = Policy(model, micro.tokenizer, torch.device("cpu"), torch.float32, name)
    ours = generate(policy, tokens(micro), seeds(4, 1), Sampling(0.0, 1.0, 12))
    for prompt, (response,) in zip(tokens(micro), ours, strict=True):
        assert response.tokens == greedy_by_transformers(policy, prompt, 12)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_shared_start_changes_nothing(micro, name):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(ARCHITECTURES[name]).eval()
    policy = Policy(model, micro.tokenizer, torch.device("cpu"), torch.float32, name)
    start = list(range(10, 22))
    prompts = [[*start, 30], [*start, 31, 32, 33, 34], start, [*start, 31, 40]]
    widths = []
    hook = model.get_input_embeddings().register_forward_hook(lambda m, args, out: widths.append(tuple(out.shape[:2])))
    ours = generate(policy, prompts, seeds(4, 1), Sampling(0.0, 1.0, 8))
    hook.remove()
    assert widths[0] == (1, 11)  # one row for the start
    for prompt, (response,) in zip(prompts, ours, strict=True):
        assert response.tokens == greedy_by_transformers(policy, prompt, 8)


def test_common_prefix():
    assert common_prefix([[1, 2, 3, 4], [1, 2, 5], [1, 2, 3]]) == 2
    assert common_prefix([[1, 2], [1, 2]]) == 1  # a prompt keeps a token of its own: its logits are wanted
    assert common_prefix([[7, 8, 9]]) == 2
    assert common_prefix([[1], [1, 2]]) == 0


def test_a_response_depends_on_its_own_stream_only(micro):
    how = Sampling(1.0, 1.0, 20)
    together = generate(micro, tokens(micro), seeds(4, 5), how)
    alone = generate(micro, tokens(micro)[2:3], seeds(1, 5, first=2), how)
    assert [r.tokens for r in together[2]] == [r.tokens for r in alone[0]]
    assert len({tuple(r.tokens) for r in together[3]}) > 1


def test_sampling_is_the_models_distribution(micro):
    # First tokens of many samples against the exact softmax.
    prompt = tokens(micro)[:1]
    sampled = generate(micro, prompt, seeds(1, 4000), Sampling(1.0, 1.0, 1))[0]
    observed = np.bincount([r.tokens[0] for r in sampled], minlength=99)
    with torch.inference_mode():
        expected = 4000 * micro.model(torch.tensor(prompt)).logits[0, -1].double().softmax(-1).numpy()
    common = expected >= 5
    observed = [*observed[common], observed[~common].sum()]
    expected = [*expected[common], expected[~common].sum()]
    assert stats.chisquare(observed, expected).pvalue > 0.01


def test_temperature_and_nucleus():
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]])).repeat(20_000, 1)
    uniform = torch.from_numpy(np.random.default_rng(0).random(20_000))
    nucleus = np.bincount(choose(logits.clone(), uniform, Sampling(1.0, 0.7, 1))[0], minlength=4) / 20_000
    assert nucleus == pytest.approx([0.625, 0.375, 0, 0], abs=0.012)  # the smallest set with mass >= 0.7: 0.5 + 0.3
    cold = np.bincount(choose(logits.clone(), uniform, Sampling(0.5, 1.0, 1))[0], minlength=4) / 20_000
    assert cold == pytest.approx(np.square([0.5, 0.3, 0.15, 0.05]) / 0.365, abs=0.012)
    assert (choose(logits.clone(), uniform, Sampling(0.0, 1.0, 1))[0] == 0).all()


def test_the_extremes_of_the_uniform_are_tokens():
    logits = torch.tensor([[0.0, 0.0, -1e9]]).repeat(2, 1)
    assert choose(logits, torch.tensor([0.0, np.nextafter(1, 0)]), Sampling(1.0, 1.0, 1))[0].tolist() == [0, 1]


def test_truncation_and_stop_strings(micro):
    cut = generate(micro, tokens(micro)[1:2], seeds(1, 3), Sampling(0.0, 1.0, 3))[0]
    assert all(not r.finished and len(r.tokens) == 3 for r in cut)
    stopped = generate(micro, tokens(micro)[1:2], seeds(1, 1), Sampling(0.0, 1.0, 30, stop=("##",)))[0][0]
    assert stopped.finished and "##" not in stopped.text
    assert micro.tokenizer.decode(stopped.tokens).endswith("##")


def test_time_is_shared_out(micro):
    responses = generate(micro, tokens(micro), seeds(4, 3), Sampling(1.0, 1.0, 20))
    assert all(r.seconds > 0 for row in responses for r in row)


def test_bfloat16_weights_are_cast_once_and_given_back(micro):
    ids = torch.tensor(tokens(micro)[:1])
    before = {name: p for name, p in micro.model.named_parameters()}
    rounding = Policy(micro.model, micro.tokenizer, micro.device, torch.bfloat16, micro.path)
    with torch.inference_mode(), rounding.autocast():
        expected = micro.model(ids).logits
        with linears.fast(rounding, torch.float32):
            assert micro.model.get_output_embeddings().weight.dtype == torch.bfloat16
            assert torch.equal(micro.model(ids).logits, expected)
    assert all(p is before[name] and p.requires_grad for name, p in micro.model.named_parameters())
    assert generate(rounding, tokens(micro), seeds(4, 2), Sampling(0.0, 1.0, 4))[0][0].tokens


@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="needs a C++ compiler: not run")
def test_compiled_decoding_gives_the_same_tokens(micro):
    how = Sampling(0.0, 1.0, 20)
    forward = type(micro.model.base_model).forward
    counters.clear()
    graphs = []
    for n in (4, 3):  # another number of rows
        asked = tokens(micro)[:n], seeds(n, 2)
        plain, compiled = (generate(micro, *asked, how, Config(compile=on)) for on in (False, True))
        assert [[r.tokens for r in row] for row in plain] == [[r.tokens for r in row] for row in compiled]
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[0] == graphs[1] > 0  # compiled once, for any number
    assert type(micro.model.base_model).forward is forward and "forward" not in vars(micro.model.base_model)


def test_compile_needs_a_compiler(micro, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(RunError, match=r"generate\.compile=true needs a C\+\+ compiler"):
        generate(micro, tokens(micro), seeds(4, 1), Sampling(0.0, 1.0, 4), Config(compile=True))
    with pytest.raises(ValueError, match="exclude each other"):
        Config(compile=True, linears="bfloat16")
