"""The engines: greedy tokens are those of transformers, samples have the model's distribution, rows fit into memory."""

import dataclasses
import itertools
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats
from support.architectures import UNUSUAL
from support.generating import SUPPORTED, greedy_by_transformers, seeds, tiny, tokens
from support.needs import needs_compiler
from torch._dynamo.utils import counters
from transformers import LogitsProcessorList, MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from hpc_saidpo import settings
from hpc_saidpo.errors import RunError
from hpc_saidpo.policy import trial
from hpc_saidpo.policy.model import Policy
from hpc_saidpo.policy.trial import Trial
from hpc_saidpo.progress import log
from hpc_saidpo.rollouts.chunks import common_prefix
from hpc_saidpo.rollouts.engine import linears, memory, shared
from hpc_saidpo.rollouts.engine.engine import generate
from hpc_saidpo.rollouts.engine.machine import has_bfloat16
from hpc_saidpo.rollouts.engine.memory import CPU_ROWS, cache_bytes, row_budget, rows_within
from hpc_saidpo.rollouts.engine.sampling import choose
from hpc_saidpo.rollouts.engine.stopping import TAIL_TOKENS
from hpc_saidpo.rollouts.engine.ways import tried_engine
from hpc_saidpo.settings.rollouts import Sampling


def test_greedy_equals_transformers_generate(micro):
    sampling = Sampling(0.0, 1.0, 20)
    ours = generate(micro, tokens(micro), seeds(4, 1), sampling)
    for prompt, (response,) in zip(tokens(micro), ours, strict=True):
        assert response.tokens == greedy_by_transformers(micro, prompt, 20)
        assert response.finished == (response.tokens[-1] in micro.eos_ids)


@pytest.mark.parametrize("name", SUPPORTED)
def test_other_architectures_decode_as_transformers_does(micro, name):
    policy = tiny(micro, name)
    ours = generate(policy, tokens(micro), seeds(4, 1), Sampling(0.0, 1.0, 12))
    for prompt, (response,) in zip(tokens(micro), ours, strict=True):
        assert response.tokens == greedy_by_transformers(policy, prompt, 12)


@pytest.mark.parametrize("name", SUPPORTED)
def test_a_shared_start_changes_nothing(micro, name):
    policy = tiny(micro, name)
    start = list(range(10, 22))
    prompts = [[*start, 30], [*start, 31, 32, 33, 34], start, [*start, 31, 40]]
    assert tried_engine(policy, "shared").way == "shared"
    widths = []
    hook = policy.model.get_input_embeddings().register_forward_hook(
        lambda m, args, out: widths.append(tuple(out.shape[:2]))
    )
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
    sampling = Sampling(1.0, 1.0, 20)
    together = generate(micro, tokens(micro), seeds(4, 5), sampling)
    alone = generate(micro, tokens(micro)[2:3], seeds(1, 5, first=2), sampling)
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


def test_a_token_with_exactly_min_p_of_the_highest_probability_is_kept():
    logits, uniform = torch.tensor([[0.0, -1.0, -1.01]]).repeat(2, 1), torch.tensor([0.0, 0.999])
    share = float(logits.exp()[0, 1])
    assert choose(logits, uniform, Sampling(1.0, 1.0, 1, min_p=share))[0].tolist() == [0, 1]


def test_truncation_and_stop_strings(micro):
    cut = generate(micro, tokens(micro)[1:2], seeds(1, 3), Sampling(0.0, 1.0, 3))[0]
    assert all(not r.finished and len(r.tokens) == 3 for r in cut)
    stopped = generate(micro, tokens(micro)[1:2], seeds(1, 1), Sampling(0.0, 1.0, 30, stop=("##",)))[0][0]
    assert stopped.finished and stopped.text and micro.tokenizer.decode(stopped.tokens) == f"{stopped.text}##"


@pytest.mark.parametrize("engine", ["shared", "hf"])
def test_a_stop_string_of_many_tokens_ends_a_response(micro, engine):
    policy, config = dataclasses.replace(micro, ends=frozenset()), settings.Engine(engine=engine)
    prompts = tokens(micro)[:2]
    ((whole,), (other,)) = generate(policy, prompts, seeds(2, 1), Sampling(0.0, 1.0, 60), config)
    stop = micro.tokenizer.decode(whole.tokens[3 : 3 + 2 * TAIL_TOKENS])
    assert stop not in other.text
    ((first,), (second,)) = generate(policy, prompts, seeds(2, 1), Sampling(0.0, 1.0, 60, stop=(stop,)), config)
    assert first.finished and first.text == whole.text.partition(stop)[0]
    assert not second.finished and second.tokens == other.tokens


def test_the_time_of_a_step_is_divided_among_its_responses(micro, monkeypatch):
    tried_engine(micro, "shared")
    clock = itertools.count()  # a second a step
    monkeypatch.setattr(shared, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    responses = [r for own in generate(micro, tokens(micro), seeds(4, 3), Sampling(1.0, 1.0, 20)) for r in own]
    length_R = np.array([len(r.tokens) for r in responses])
    assert len(set(length_R)) > 1
    for response, length in zip(responses, length_R, strict=True):
        assert response.seconds == pytest.approx(sum(1 / (length_R > step).sum() for step in range(length)))


@pytest.mark.parametrize("name", ["llama-gqa", "gemma2-sliding", "gpt2"])
def test_greedy_tokens_do_not_depend_on_rows_or_on_who_is_beside(micro, name):
    policy = tiny(micro, name)
    prompts = [[5 + i, *range(20, 22 + 3 * i)] for i in range(7)]
    seeds_ = [[0] * (1 + i % 3) for i in range(7)]
    whole = generate(policy, prompts, seeds_, Sampling(0.0, 1.0, 12), settings.Engine(rows=64))
    for rows in (1, 3):
        few = generate(policy, prompts, seeds_, Sampling(0.0, 1.0, 12), settings.Engine(rows=rows))
        assert [[r.tokens for r in own] for own in few] == [[r.tokens for r in own] for own in whole]
    by_hf = generate(policy, prompts, seeds_, Sampling(0.0, 1.0, 12), settings.Engine(engine="hf"))
    assert [[r.tokens for r in own] for own in by_hf] == [[r.tokens for r in own] for own in whole]
    for ours, theirs in zip(whole, by_hf, strict=True):
        assert [r.logp for r in ours] == pytest.approx([r.logp for r in theirs], abs=1e-4)


def test_finished_rows_leave_at_once_and_the_next_prompts_take_their_places(micro):
    prompts = tokens(micro, [f"{i}+{3 * i}\n" for i in range(10, 40)])
    tried_engine(micro, "shared")
    sizes = []
    hook = micro.model.get_input_embeddings().register_forward_hook(lambda m, args, out: sizes.append(out.shape[:2]))
    responses = generate(micro, prompts, seeds(30, 4), Sampling(1.8, 1.0, 24), settings.Engine(rows=16))
    hook.remove()
    lengths = [len(r.tokens) for own in responses for r in own]
    decoded = [n for n, width in sizes if width == 1]
    assert len(set(lengths)) > 3
    # The first token of a response comes from its prompt: each further one is a row of a forward, and nothing else is.
    assert sum(decoded) == sum(lengths) - len(lengths)
    assert max(decoded) <= 16 and np.mean(decoded[: len(decoded) // 2]) > 12


@pytest.mark.parametrize("size", [300, 512])  # tokens: blocks that are filled up, and whole ones
@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.6])
@pytest.mark.parametrize(
    ("kept", "warper"),
    [
        ({}, LogitsProcessorList()),
        ({"top_k": 5}, TopKLogitsWarper(5)),
        ({"min_p": 0.5}, MinPLogitsWarper(0.5)),
        ({"top_p": 0.6}, TopPLogitsWarper(0.6)),
    ],
)
def test_what_may_be_drawn_is_what_transformers_leaves(kept, warper, temperature, size):
    sampling = Sampling(**{"temperature": temperature, "top_p": 1.0, "max_new_tokens": 1, **kept})
    logits = 0.5 * torch.randn(1, size, generator=torch.Generator().manual_seed(0))
    expected = warper(None, logits / temperature).softmax(-1)[0].double().numpy()
    uniform = (torch.arange(40_000, dtype=torch.float64) + 0.5) / 40_000  # evenly: shares are exact to a few
    token, logp = choose(logits.repeat(40_000, 1), uniform, sampling)
    observed = np.bincount(token, minlength=size) / 40_000
    assert observed == pytest.approx(expected, abs=1e-4)
    assert (expected > 0).all() if not kept else 1 < (expected > 0).sum() < 0.8 * size
    assert torch.allclose(logp, logits.log_softmax(-1)[0, token], atol=1e-5)


@pytest.mark.parametrize("name", UNUSUAL)
def test_attention_that_cannot_be_driven_is_left_to_transformers(micro, name, caplog, monkeypatch):
    policy = tiny(micro, name)
    monkeypatch.setattr(trial, "_done", {})
    monkeypatch.setattr(log, "propagate", True)
    with caplog.at_level("INFO", "hpc_saidpo"):
        ours = generate(policy, tokens(micro), seeds(4, 1), Sampling(0.0, 1.0, 6))
        generate(policy, tokens(micro), seeds(4, 1), Sampling(0.0, 1.0, 6))
    assert caplog.text.count("not shared: ") == 1
    for prompt, (response,) in zip(tokens(micro), ours, strict=True):
        assert response.tokens == greedy_by_transformers(policy, prompt, 6)


def test_bfloat16_linears_round_and_leave_the_model_as_it_was(micro):
    if not has_bfloat16():
        with pytest.raises(RunError, match="AMX"):
            generate(micro, tokens(micro), seeds(4, 1), Sampling(0.0, 1.0, 4), settings.Engine(linears="bfloat16"))
        return
    before = {name: value.clone() for name, value in micro.model.state_dict().items()}
    sampling = Sampling(0.0, 1.0, 16)
    exact = generate(micro, tokens(micro), seeds(4, 1), sampling)
    rounded = generate(micro, tokens(micro), seeds(4, 1), sampling, settings.Engine(linears="bfloat16"))
    same = [(a.logp, b.logp) for (a,), (b,) in zip(exact, rounded, strict=True) if a.tokens == b.tokens]
    assert len(same) >= 2 and all(a != b and a == pytest.approx(b, abs=0.2) for a, b in same)
    assert all(value.equal(before[name]) for name, value in micro.model.state_dict().items())
    again = generate(micro, tokens(micro), seeds(4, 1), sampling)
    assert [own[0].logp for own in again] == [own[0].logp for own in exact]


@pytest.mark.parametrize("engine", ["shared", "hf"])
def test_log_probabilities_are_the_models_own_however_tokens_are_drawn(micro, engine):
    sampling = Sampling(0.6, 0.9, 12, top_k=7)
    for prompt, own in zip(
        tokens(micro),
        generate(micro, tokens(micro), seeds(4, 3), sampling, settings.Engine(engine=engine)),
        strict=True,
    ):
        for response in own:
            with torch.inference_mode():
                logits = micro.model(torch.tensor([prompt + response.tokens])).logits[0, len(prompt) - 1 : -1]
            expected = logits.log_softmax(-1).gather(1, torch.tensor(response.tokens)[:, None]).sum()
            assert response.logp == pytest.approx(float(expected), abs=1e-4)


def test_rows_are_what_memory_holds(micro):
    assert [rows_within(n, 10, 64) for n in (10_000, 640, 639, 100, 5, -1)] == [64, 64, 32, 8, 1, 1]
    tried, prompts = tried_engine(micro, "shared"), tokens(micro)
    longest = max(map(len, prompts))
    assert row_budget(micro, tried, longest, Sampling(1.0, 1.0, 100)) == CPU_ROWS
    assert row_budget(micro, tried, longest, Sampling(1.0, 1.0, 10**9)) == 1  # a terabyte a response


def policy_of(device="cpu", precision=torch.float32, vocab_size=512):
    """A policy with 1,024 weights."""
    config = SimpleNamespace(vocab_size=vocab_size, get_text_config=lambda: SimpleNamespace(vocab_size=vocab_size))
    model = SimpleNamespace(config=config, parameters=lambda: [torch.zeros(1000), torch.zeros(24)])
    return SimpleNamespace(device=torch.device(device), precision=precision, model=model)


# A response of 100 tokens to a prompt of 28, with 16 bytes per token of the vocabulary. Rows are halved until they fit
# into 0.6 of the free memory.
@pytest.mark.parametrize(
    "policy, needs, row_bytes, rows",
    [
        (policy_of(), (384, 0), 128 * 384 + 16 * 512, [192, 96, 48, 24, 12, 6, 3, 1]),
        (policy_of(), (384, 7000), 128 * 384 + 7000 + 16 * 512, [192, 96, 48]),
        (policy_of(vocab_size=4096), (384, 0), 128 * 384 + 16 * 4096, [192, 96, 48]),
        (policy_of("cuda"), (384, 0), 128 * 384 + 16 * 512, [512, 256, 128]),
    ],
)
def test_rows_are_halved_until_they_fit_into_six_tenths_of_the_free_memory(policy, needs, row_bytes, rows, monkeypatch):
    tried = Trial("shared", 0.0, 1.0, {}, *needs)
    for n, fewer in itertools.pairwise(rows):
        enough = 5 * n * row_bytes / 3  # n rows are 0.6 of it
        for free, expected in ((1.001 * enough, n), (0.999 * enough, fewer)):
            monkeypatch.setattr(memory, "free_bytes", lambda policy, free=free: free)
            assert row_budget(policy, tried, 28, Sampling(1.0, 1.0, 100)) == expected


@pytest.mark.parametrize("name, token_bytes", [("llama-gqa", 2 * 2 * 2 * 8 * 4), ("gpt2", 2 * 2 * 4 * 8 * 4)])
def test_what_a_response_needs_is_measured(micro, name, token_bytes):
    """Keys and values of 2 layers, 2 or 4 heads of 8 numbers of 4 bytes; in the precision of the policy."""
    policy = tiny(micro, name)
    assert tried_engine(policy, "shared").token_bytes == token_bytes
    assert cache_bytes(policy) == (token_bytes, 0)
    policy.precision = torch.bfloat16
    assert tried_engine(policy, "shared").token_bytes == token_bytes / 2


def test_free_memory_is_a_ranks_share_of_the_nodes_by_its_cores(monkeypatch):
    meminfo = "MemTotal:       9000 kB\nMemFree:   100 kB\nMemAvailable:    2000 kB\n"
    monkeypatch.setattr(memory.Path, "read_text", lambda path: meminfo if str(path) == "/proc/meminfo" else "")
    monkeypatch.setattr(memory.os, "sched_getaffinity", lambda process: set(range(8)))
    for threads, share in ((2, 0.25), (8, 1), (16, 1)):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert memory.free_bytes(policy_of()) == 2000 * 1024 * share


def test_free_memory_of_a_gpu_includes_torchs_reserve_and_leaves_room_for_cast_weights(monkeypatch):
    for name, value in (("mem_get_info", (10_000, 99_999)), ("memory_reserved", 5_000), ("memory_allocated", 3_000)):
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    assert memory.free_bytes(policy_of("cuda")) == 12_000
    assert memory.free_bytes(policy_of("cuda", torch.bfloat16)) == 12_000 - 2 * 1024


def test_bfloat16_weights_are_cast_once_and_restored(micro):
    ids = torch.tensor(tokens(micro)[:1])
    before = {name: p for name, p in micro.model.named_parameters()}
    rounding = Policy(micro.model, micro.tokenizer, micro.device, torch.bfloat16, micro.path)
    with torch.inference_mode(), rounding.autocast():
        expected = micro.model(ids).logits
        with linears.fast(rounding, torch.float32):
            assert micro.model.get_output_embeddings().weight.dtype == torch.bfloat16
            torch.testing.assert_close(micro.model(ids).logits, expected, atol=0.1, rtol=0.02)
    assert all(p is before[name] and p.requires_grad for name, p in micro.model.named_parameters())
    assert generate(rounding, tokens(micro), seeds(4, 2), Sampling(0.0, 1.0, 4))[0][0].tokens


@needs_compiler
@pytest.mark.long
def test_compiled_decoding_gives_the_same_tokens(micro):
    policy, sampling = tiny(micro, "llama-gqa"), Sampling(0.0, 1.0, 20)
    forward = type(policy.model.base_model).forward
    counters.clear()
    graphs = []
    for n in (4, 3):  # another number of rows
        arguments = tokens(policy)[:n], seeds(n, 2)
        plain, compiled = (generate(policy, *arguments, sampling, settings.Engine(compile=on)) for on in (False, True))
        assert [[r.tokens for r in row] for row in plain] == [[r.tokens for r in row] for row in compiled]
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[0] == graphs[1] > 0  # compiled once, for any number
    assert type(policy.model.base_model).forward is forward and "forward" not in vars(policy.model.base_model)


def test_compile_needs_a_compiler(micro, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(RunError, match=r"generate\.compile=true needs a C\+\+ compiler"):
        generate(micro, tokens(micro), seeds(4, 1), Sampling(0.0, 1.0, 4), settings.Engine(compile=True))
    for other in ({"linears": "bfloat16"}, {"graphs": True}):
        with pytest.raises(ValueError, match="exclude each other"):
            settings.Engine(compile=True, **other)
    with pytest.raises(RunError, match=r"generate\.graphs=true needs a GPU"):
        generate(micro, tokens(micro), seeds(4, 1), Sampling(0.0, 1.0, 4), settings.Engine(graphs=True))


def test_layers_and_models_that_the_engine_cannot_drive_are_seen_without_a_try(micro, monkeypatch):
    policy = tiny(micro, "gemma3-sliding")
    assert shared.supports(policy) and shared.supports(micro)
    monkeypatch.setattr(policy.model.config, "layer_types", ["chunked_attention", "full_attention"])
    assert not shared.supports(policy)
    monkeypatch.setattr(type(micro.model), "_can_set_attn_implementation", lambda *_: False)
    assert not shared.supports(micro)
