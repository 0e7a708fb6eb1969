"""Parts of the engine by themselves: nucleus, ends of responses, linear layers, places, memory given back."""

import sys
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.architectures import SMALL
from transformers import AutoModelForCausalLM, MixtralConfig

from hpc_saidpo.policy import cache, experts
from hpc_saidpo.policy.model import Policy
from hpc_saidpo.rollouts.engine import linears, sampling
from hpc_saidpo.rollouts.engine.places import Capacity, Places, exactly, in_powers
from hpc_saidpo.rollouts.engine.sampling import choose
from hpc_saidpo.rollouts.engine.stopping import Ends, end_ids
from hpc_saidpo.settings.rollouts import Sampling

MIXTURE = MixtralConfig(
    **SMALL, num_key_value_heads=2, intermediate_size=32, head_dim=8, num_local_experts=4, num_experts_per_tok=2
)


@pytest.mark.parametrize("top_p", [0.3, 0.9, 0.999])
def test_a_nucleus_among_the_most_probable_tokens_is_that_of_a_full_sort(monkeypatch, top_p):
    """Rows whose nucleus is larger, and rows with equal weights at its border, are sorted whole."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(40, 500, generator=generator) * torch.linspace(0.1, 12, 40)[:, None]
    logits[:8] = (4 * logits[:8]).round() / 4  # many equal weights
    uniform = torch.rand(40, generator=generator, dtype=torch.float64)
    drawn = []
    for top in (500, 16):
        monkeypatch.setattr(sampling, "TOP", top)
        weight = (logits - logits.amax(-1, keepdim=True)).exp()
        drawn.append((sampling._nucleus(weight, top_p), choose(logits.clone(), uniform, Sampling(1.0, top_p, 1))[0]))
    assert torch.equal(drawn[0][0], drawn[1][0]) and torch.equal(drawn[0][1], drawn[1][1])
    n_kept = (drawn[0][0] > 0).sum(-1)
    assert n_kept.min() < 16 < n_kept.max()  # both ways were taken


def test_without_log_probabilities_the_tokens_are_the_same():
    logits, uniform = torch.randn(30, 300), torch.rand(30, dtype=torch.float64)
    for temperature in (0.0, 0.7, 1.0):
        how = Sampling(temperature, 1.0, 1)
        token, logp = choose(logits.clone(), uniform, how)
        same, none = choose(logits.clone(), uniform, how, with_logp=False)
        assert torch.equal(token, same) and none is None and logp.shape == (30,)


class Text:
    """A tokenizer of single characters and a few longer tokens."""

    clean_up_tokenization_spaces = False

    def __init__(self, special=()):
        self.names = [*"abcdefgh\n#", "##", "c\n", "\ufffd"]
        self.added_tokens_decoder = {i: SimpleNamespace(content=name, special=True) for i, name in special}
        self.n_decoded = 0

    def decode(self, tokens, skip_special_tokens):
        self.n_decoded += 1
        return "".join(self.names[token] for token in tokens)


def policy_with(tokenizer, eos=(0,)):
    return SimpleNamespace(tokenizer=tokenizer, eos_ids=set(eos))


def test_text_is_searched_only_where_the_last_token_can_end_a_stop_string():
    tokenizer = Text()
    ends, looked_at = Ends(policy_with(tokenizer), ("\n\n", "b#")), []

    def tokens_of(i):
        looked_at.append(i)
        return [1, 2, [2, 3, 8, 9, 10, 11, 12, 0][i]]

    new = np.array([2, 3, 8, 9, 10, 11, 12, 0])
    assert ends.ended(new, tokens_of).tolist() == [False] * 7 + [True]
    assert looked_at == [2, 3, 4, 5, 6]  # a line break, #, ##, "c\n" and half a character
    before = tokenizer.n_decoded
    ends.ended(new[:2], tokens_of)
    assert tokenizer.n_decoded == before  # known tokens cost nothing
    assert ends.ended(np.array([9]), lambda i: [5, 1, 9]).tolist() == [True]


def test_a_special_token_that_is_a_stop_string_ends_a_response_and_a_tokenizer_that_cleans_up_is_searched_always():
    special = policy_with(Text(special=[(4, "<end>"), (5, "<other>")]))
    assert end_ids(special, ("<end>", "x")) == {0, 4}
    cleaning = Text()
    cleaning.clean_up_tokenization_spaces = True
    looked_at = []
    Ends(policy_with(cleaning), ("#",)).ended(np.array([1, 2]), lambda i: looked_at.append(i) or [1])
    assert looked_at == [0, 1]


@pytest.fixture
def no_times(monkeypatch):
    monkeypatch.setattr(linears, "_timed", {})
    monkeypatch.setattr(linears, "_used", {})
    return linears._timed


def test_linear_layers_are_timed_and_the_fastest_way_is_kept(micro, no_times, monkeypatch):
    ids = torch.tensor([[5, 6, 7, 8]])
    seconds = {linears.PLAIN: 3.0, linears.BY_WEIGHTS: 1.0, linears.MKL: 2.0, linears.ONEDNN: 2.0}
    clock, right = [0.0], linears._Layer.compute
    monkeypatch.setattr(linears.time, "thread_time", lambda: clock[0])
    monkeypatch.setattr(linears.time, "perf_counter", lambda: clock[0])

    def slowed(layer, way, x):
        clock[0] += seconds[way]
        return right(layer, way, x)

    monkeypatch.setattr(linears._Layer, "compute", slowed)
    with torch.inference_mode():
        expected = micro.model(ids).logits
        with linears.fast(micro, torch.float32):
            for _ in range(20):
                assert torch.allclose(micro.model(ids).logits, expected, atol=1e-4)
            assert {timed.best for timed in no_times.values()} == {linears.BY_WEIGHTS}
            before = clock[0]
            micro.model(ids)
        n_layers = sum(type(m) is torch.nn.Linear for m in micro.model.modules())
        assert clock[0] - before == n_layers * 1.0
        assert torch.equal(micro.model(ids).logits, expected)


def packed(policy):
    layers = (m for m in policy.model.modules() if type(m) is torch.nn.Linear)
    return [way for layer in layers for way in vars(layer)["forward"].__self__._packed]


def test_packed_weights_of_slower_ways_are_dropped_and_the_others_given_back(micro, no_times, monkeypatch):
    seconds = {linears.PLAIN: 3.0, linears.BY_WEIGHTS: 4.0, linears.MKL: 2.0, linears.ONEDNN: 1.0}
    clock, right = [0.0], linears._Layer.compute

    def slowed(layer, way, x):
        clock[0] += seconds[way]
        return right(layer, way, x)

    monkeypatch.setattr(linears.time, "thread_time", lambda: clock[0])
    monkeypatch.setattr(linears.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(linears._Layer, "compute", slowed)
    with torch.inference_mode(), linears.fast(micro, torch.float32):
        for _ in range(3):
            micro.model(torch.tensor([[5, 6, 7, 8]]))
        assert linears.MKL in packed(micro)
        for _ in range(20):
            micro.model(torch.tensor([[5, 6, 7, 8]]))
        assert set(packed(micro)) == {linears.ONEDNN}
        ours = [weakref.ref(vars(m)["forward"].__self__) for m in micro.model.modules() if type(m) is torch.nn.Linear]
    assert not any(one() for one in ours)  # without a garbage collection


def test_a_way_that_computes_something_else_is_never_used(micro, no_times, monkeypatch):
    right = linears._Layer.compute

    def wrong(layer, way, x):
        return right(layer, way, x) * (1.01 if way in (linears.MKL, linears.ONEDNN) else 1)

    monkeypatch.setattr(linears._Layer, "compute", wrong)
    ids = torch.tensor([[5, 6, 7]])
    with torch.inference_mode():
        expected = micro.model(ids).logits
        with linears.fast(micro, torch.float32):
            for _ in range(20):
                assert torch.allclose(micro.model(ids).logits, expected, atol=1e-4)
    assert {timed.best for timed in no_times.values()} <= {linears.PLAIN, linears.BY_WEIGHTS}


def test_with_deterministic_results_nothing_is_timed_or_packed(micro, no_times):
    before = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("error")
    try:
        with linears.fast(micro, torch.float32):
            assert not any("forward" in vars(module) for module in micro.model.modules())
    finally:
        torch.set_deterministic_debug_mode(before)
    assert not no_times


def test_weights_are_packed_only_where_memory_holds_the_copy(micro, monkeypatch):
    layers = [m for m in micro.model.modules() if type(m) is torch.nn.Linear]
    n_bytes = 4 * sum({id(x.weight): x.weight.numel() for x in layers}.values())
    n_bytes *= len(linears._libraries(torch.float32))
    for free, fits in ((5.01 * n_bytes, True), (4.99 * n_bytes, False)):
        monkeypatch.setattr(linears, "free_bytes", lambda policy, free=free: free)
        assert linears._fits(micro, layers, torch.float32) == fits


def test_experts_compute_in_the_precision_of_autocast_and_train_their_own_weights(micro):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(MIXTURE).eval()
    policy = Policy(model, micro.tokenizer, torch.device("cpu"), torch.float32, "x")
    ids = torch.tensor([[5, 6, 7, 8]])
    plain = policy.model(ids).logits
    experts.in_autocast(policy.model)
    assert torch.equal(policy.model(ids).logits, plain)  # without autocast nothing changes
    seen = []
    module = next(m for m in policy.model.modules() if experts.holds_experts(m))
    forward = experts.grouped_mm_experts_forward
    experts.grouped_mm_experts_forward = lambda own, *rest: seen.append(own.down_proj.dtype) or forward(own, *rest)
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = policy.model(ids).logits
        logits.float().sum().backward()
        rounding = Policy(policy.model, micro.tokenizer, micro.device, torch.bfloat16, "x")
        with torch.inference_mode(), linears.fast(rounding, torch.float32), rounding.autocast():
            assert module.down_proj.dtype == torch.bfloat16  # cast once, not in each step
            policy.model(ids)
    finally:
        experts.grouped_mm_experts_forward = forward
    assert set(seen) == {torch.bfloat16} and module.down_proj.grad.dtype == torch.float32
    assert module.down_proj.grad.abs().sum() > 0 and module.down_proj.dtype == torch.float32


def test_places_are_counted_on_the_host():
    places = Places(
        Capacity(n_rows=8, new_tokens=100, n_slots=4, rest_tokens=9, n_starts=2, start_tokens=5), torch.device("cpu")
    )
    places.length_F[:] = 5, 3
    assert places.add(0, 0, 7, 3).tolist() == [0, 1, 2] and places.add(1, 1, 2, 2).tolist() == [3, 4]
    places.generated_R[:5] = [4, 0, 2, 7, 1]
    step = places.step(exactly)
    assert vars(step) == {
        "n_rows": 5, "n_generated": 8, "n_slots": 2, "slot_rows": 3, "rest_tokens": 7, "first_start": 0, "n_starts": 2,
        "start_rows": 3, "start_tokens": 5,
    }  # fmt: skip
    assert places.facts_5R[:, :5].tolist() == [
        [7, 7, 7, 2, 2], [12, 12, 12, 5, 5], [4, 0, 2, 7, 1], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4],
    ]  # fmt: skip
    places.advance()
    places.remove(np.array([0, 1, 2]))
    assert places.free_slots() == [0, 2, 3] and places.used_F.tolist() == [0, 1] and places.n == 5
    step = places.step(in_powers)
    assert (step.n_rows, step.n_generated, step.first_start, step.n_starts, step.start_tokens) == (8, 16, 1, 1, 3)
    assert places.facts_5R[3, :3].tolist() == [step.n_slots * step.slot_rows] * 3  # empty rows
    source, target = places.compact()
    assert (source.tolist(), target.tolist(), places.n) == ([3, 4], [0, 1], 2)
    assert places.generated_R[:2].tolist() == [8, 2] and places.slot_R[:2].tolist() == [1, 1]


def test_what_torch_keeps_of_a_gpus_memory_is_given_back(monkeypatch):
    emptied = []
    gpu = SimpleNamespace(is_initialized=lambda: True, empty_cache=lambda: emptied.append(1))
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=gpu))
    cache.release_engines()
    assert emptied == [1]
    gpu.is_initialized = lambda: False
    cache.release_engines()
    assert emptied == [1]
