"""The path of flash-attn's kernels, with a stand-in in torch: layouts, lengths, the merge. The kernels have not run."""

import pytest
import torch
from support.architectures import ARCHITECTURES, SMALL
from support.generating import PROMPTS, greedy_by_transformers, seeds, tokens
from transformers import AutoModelForCausalLM, Gemma2Config

from hpc_saidpo.policy import flash
from hpc_saidpo.policy.model import Policy
from hpc_saidpo.rollouts.engine import kernels
from hpc_saidpo.rollouts.engine.engine import generate
from hpc_saidpo.rollouts.engine.kv_cache import KVCache
from hpc_saidpo.rollouts.engine.places import Capacity, exactly
from hpc_saidpo.rollouts.engine.scores import Scoring
from hpc_saidpo.settings.rollouts import Sampling

CPU = torch.device("cpu")


class Counting:
    """The stand-in, with the shapes that it was called with."""

    def __init__(self):
        self.shapes = []

    def __call__(self, query, k_cache, v_cache, **options):
        self.shapes.append((tuple(query.shape), tuple(k_cache.shape)))
        assert options["cache_seqlens"].dtype == torch.int32 and k_cache.stride(-1) == v_cache.stride(-1) == 1
        return *kernels.by_torch(query, k_cache, v_cache, **options), "version 3 gives more"


def cache_of(n_kv, size, prefix, kernel):
    """Two prompts of 5 and 3 tokens, with three and one rows, whose responses have 4, 1, 0 and 2 tokens."""
    torch.manual_seed(0)
    cache = KVCache(Capacity(6, 8, 3, 5, 1, prefix), CPU, kernel)
    cache.places.length_F[0] = prefix
    if prefix:
        with cache.read_start(0):
            cache.attend(0, *(torch.randn(1, n_kv, prefix, size) for _ in range(3)), Scoring(1.0))
    with cache.read_prompts([2, 0], 5, 0):
        cache.attend(0, *(torch.randn(2, n_kv, 5, size) for _ in range(3)), Scoring(1.0))
    cache.places.add(2, 0, 5, 3)
    cache.places.add(0, 0, 3, 1)
    cache.layers[0, 0].rows = tuple(torch.randn(6, n_kv, 8, size) for _ in range(2))
    cache.places.generated_R[:4], cache._n_zeroed = [4, 1, 0, 2], 8
    return cache


@pytest.mark.parametrize("n_kv, heads", [(4, 4), (2, 4), (1, 4)], ids=["mha", "gqa", "mqa"])
@pytest.mark.parametrize("prefix", [0, 7])
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("window", [None, 17, 6])
def test_parts_merged_are_the_attention_over_all(n_kv, heads, prefix, softcap, window):
    results, kernel = [], Counting()
    for which in (None, kernel):
        cache = cache_of(n_kv, 8, prefix, which)
        step = cache.places.step(exactly)
        cache.make_room(step)
        with cache.decode(step):
            query, key, value = (torch.randn(4, h, 1, 8) for h in (heads, n_kv, n_kv))
            results.append(cache.attend(0, query, key, value, Scoring(0.3, window, softcap)))
    assert results[0].shape == results[1].shape == (4, 1, heads, 8)
    torch.testing.assert_close(*results, atol=1e-5, rtol=1e-5)
    group = heads // n_kv
    if window == 6:  # cuts what a row sees: not for a kernel
        assert not kernel.shapes
    else:
        # rows: all heads of a group at once; prompts: the three rows of one together; the prefix: all rows
        expected = [((4, group, n_kv, 8), (4, 5, n_kv, 8)), ((3, 3 * group, n_kv, 8), (3, 5, n_kv, 8))]
        expected = [*expected, *[((1, 4 * group, n_kv, 8), (1, 7, n_kv, 8))] * bool(prefix)]
        assert kernel.shapes == expected


@pytest.fixture
def stand_in(monkeypatch):
    kernel = Counting()
    monkeypatch.setattr(kernels, "find_kernel", lambda attention: kernel)
    return kernel


GEMMA2 = Gemma2Config(**SMALL, num_key_value_heads=2, intermediate_size=64, head_dim=8, attn_logit_softcapping=5.0)


@pytest.mark.parametrize("name", [*ARCHITECTURES, "gemma2-softcap"])
@pytest.mark.parametrize("start", [[], list(range(10, 22))], ids=["no-prefix", "prefix"])
def test_models_decode_by_kernels_as_transformers_does(micro, stand_in, name, start):
    torch.manual_seed(0)
    config = {**ARCHITECTURES, "gemma2-softcap": GEMMA2}[name]
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    policy = Policy(model.eval(), micro.tokenizer, CPU, torch.float32, name)
    prompts = [start + prompt for prompt in tokens(micro)]
    ours = generate(policy, prompts, seeds(4, 2), Sampling(0.0, 1.0, 12))
    assert bool(stand_in.shapes) == (name != "mistral-sliding")  # whose window cuts
    for prompt, row in zip(prompts, ours, strict=True):
        for response in row:
            assert response.tokens == greedy_by_transformers(policy, prompt, 12)


def test_samples_are_those_of_the_other_path(micro, monkeypatch):
    sampling, arguments = Sampling(1.0, 0.9, 20), (tokens(micro), seeds(len(PROMPTS), 5))
    plain = generate(micro, *arguments, sampling)
    monkeypatch.setattr(kernels, "find_kernel", lambda attention: kernels.by_torch)
    merged = generate(micro, *arguments, sampling)
    assert [[r.tokens for r in row] for row in plain] == [[r.tokens for r in row] for row in merged]


def test_only_flash_attention_has_a_kernel(monkeypatch):
    assert kernels.find_kernel("sdpa") is None and kernels.find_kernel("eager") is None
    monkeypatch.setattr(flash, "kernel", lambda name: name)
    assert kernels.find_kernel("flash_attention_3") == "flash_attention_3"
    assert [kernels.supports(size) for size in (64, 256, 60, 288)] == [True, True, False, False]
