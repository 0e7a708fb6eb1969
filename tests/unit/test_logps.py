import itertools

import pytest
import torch
from support.architectures import ARCHITECTURES, EAGER_ONLY, SMALL, UNUSUAL
from transformers import AutoModelForCausalLM, CohereConfig, OPTConfig
from transformers import modeling_flash_attention_utils as flash_utils

from hpc_saidpo.dpo.arrangement import response_logps, try_arrangement
from hpc_saidpo.dpo.logps import ResponseLogps
from hpc_saidpo.dpo.rows import lay_out

PROMPTS = [[5, 6, 7, 8, 9, 10], [11, 12], [13, 14, 15]]
RESPONSES = [([20, 21, 22], [23]), ([24, 25], [24, 26, 27, 28]), ([29], [30])]


def one_by_one(model, prompts, responses):
    """The definition: a row per response, no padding, every logit."""

    def logp(prompt, response):
        logps = model(torch.tensor([prompt + response])).logits[0].log_softmax(-1)
        return sum(logps[len(prompt) + i - 1, token] for i, token in enumerate(response))

    return torch.stack([torch.stack([logp(p, r) for r in own]) for p, own in zip(prompts, responses, strict=True)])


# What an architecture may do between its last hidden states and its logits, besides those of `architectures`.
HEADS = {
    "cohere-scaled-logits": CohereConfig(**SMALL, num_key_value_heads=2, intermediate_size=64, logit_scale=0.3),
    "opt-decoder-inside": OPTConfig(
        vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, ffn_dim=64, word_embed_proj_dim=32,
        max_position_embeddings=64, bos_token_id=None, eos_token_id=1, pad_token_id=0, dropout=0.0,
    ),
}  # fmt: skip
EVERY = {**ARCHITECTURES, **EAGER_ONLY, **UNUSUAL, **HEADS}
WEIGHT = torch.tensor([[1.0, -1.0], [0.5, -2.0], [3.0, 1.0]])


def random_model(name, attention="sdpa"):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(EVERY[name], attn_implementation=attention).eval()


def with_bias(model):
    """The model with a bias at its head, of random values."""
    head = model.get_output_embeddings()
    head.bias = torch.nn.Parameter(torch.randn(head.out_features))
    return model


def gradients(model, value):
    """Of every parameter that the value depends on."""
    model.zero_grad(set_to_none=True)
    value.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


# Of these transformers lets documents of one row see each other, whatever their positions.
NOT_PACKED = ("bloom", "gpt-oss", "opt-decoder-inside")
NO_SDPA = (*EAGER_ONLY, *UNUSUAL)
BACKENDS = [(name, kind) for name in EVERY for kind in ("sdpa", "eager") if kind == "eager" or name not in NO_SDPA]


@pytest.mark.parametrize("name, attention", BACKENDS)
def test_every_arrangement_gives_the_values_and_gradients_of_one_row_at_a_time(name, attention):
    model = random_model(name, attention)
    expected = one_by_one(model, PROMPTS, RESPONSES)
    wanted = gradients(model, (expected * WEIGHT).sum())
    is_shared, is_packed = "sliding" not in name and name not in UNUSUAL, name not in NOT_PACKED
    chosen = try_arrangement(model).way
    assert chosen == ("shared" if is_shared else "packed" if is_packed and attention == "sdpa" else "padded")
    right = ["shared"] * is_shared + ["packed"] * is_packed + ["padded", "whole", "single"]
    for arrangement in right:
        ours = ResponseLogps(model, 5)(lay_out(PROMPTS, RESPONSES, 0, arrangement)).sum_BR
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
        got = gradients(model, (ours * WEIGHT).sum())
        assert got.keys() == wanted.keys()
        for key in wanted:
            torch.testing.assert_close(got[key], wanted[key], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NOT_PACKED)
def test_where_packing_is_not_offered_it_would_be_wrong(name):
    model = random_model(name, "eager")
    packed, padded = (
        ResponseLogps(model)(lay_out(PROMPTS, RESPONSES, 0, arrangement)).sum_BR for arrangement in ("packed", "padded")
    )
    assert (packed - padded).abs().max() > 1e-3


def varlen_attention(q, k, v, cu_seqlens_q, cu_seqlens_k, softmax_scale=None, window_size=(-1, -1), **_):
    """What flash-attn's kernel of this name computes, causal: documents end to end, [tokens, heads, size]."""
    attended = []
    for (a, b), (c, d) in zip(itertools.pairwise(cu_seqlens_q), itertools.pairwise(cu_seqlens_k), strict=True):
        behind = torch.arange(b - a)[:, None] - torch.arange(d - c)
        seen = (behind >= 0) & (behind <= window_size[0] if window_size[0] >= 0 else True)
        one = (x.transpose(0, 1) for x in (q[a:b], k[c:d], v[c:d]))
        kwargs = {"attn_mask": seen, "scale": softmax_scale, "enable_gqa": True}
        attended.append(torch.nn.functional.scaled_dot_product_attention(*one, **kwargs).transpose(0, 1))
    return torch.cat(attended)


def batch_attention(q, k, v, **options):
    """The same of equally long documents, [batch, tokens, heads, size]."""
    rows = [varlen_attention(*one, cu_seqlens_q=[0, len(one[0])], cu_seqlens_k=[0, len(one[1])], **options)
            for one in zip(q, k, v, strict=True)]  # fmt: skip
    return torch.stack(rows)


@pytest.mark.parametrize("name", ["llama-gqa", "mistral-sliding", "qwen3", "gemma3-sliding"])
def test_rows_for_flash_attention(monkeypatch, name):
    """transformers' own way from our rows to the kernel, which runs on GPUs only: another one stands in for it."""
    model = random_model(name)
    expected = one_by_one(model, PROMPTS, RESPONSES)
    wanted = gradients(model, (expected * WEIGHT).sum())
    functions = batch_attention, varlen_attention, None, flash_utils._pad_input, flash_utils._unpad_input
    monkeypatch.setattr(flash_utils, "_lazy_imports", lambda *_, **__: functions)
    for kept in [kept for kept in vars(flash_utils) if kept.startswith(("_flash", "_loaded", "_pad_fn", "_unpad_fn"))]:
        monkeypatch.setattr(flash_utils, kept, getattr(flash_utils, kept))  # so that they are put back
    model.config._attn_implementation = "flash_attention_2"
    assert try_arrangement(model).way == "packed"
    for arrangement in ("packed", "padded"):
        ours = ResponseLogps(model, 5)(lay_out(PROMPTS, RESPONSES, 0, arrangement)).sum_BR
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
        got = gradients(model, (ours * WEIGHT).sum())
        for key in wanted:
            torch.testing.assert_close(got[key], wanted[key], rtol=1e-4, atol=1e-5)


def test_a_packed_row_holds_no_padding_and_a_shared_one_no_prompt_twice():
    n = {arrangement: lay_out(PROMPTS, RESPONSES, 0, arrangement) for arrangement in ("shared", "packed", "padded")}
    prompts, responses = sum(map(len, PROMPTS)), sum(len(r) for own in RESPONSES for r in own)
    assert n["packed"].ids_RT.shape == (1, 2 * prompts + responses) and n["packed"].segment_RT is None
    assert int((n["shared"].segment_RT >= 0).sum()) == prompts + responses
    assert n["packed"].position_RT[0, :12].tolist() == [*range(9), *range(3)]


def plain(model, batch):
    """Log-probabilities of the response tokens from [rows, time, V] logits of the model's own forward."""
    mask = (batch.segment_RT >= 0).long()
    logits = model(input_ids=batch.ids_RT, attention_mask=mask, position_ids=batch.position_RT).logits
    logits_NV = logits.flatten(0, 1)[batch.predictor_N]
    return logits_NV.log_softmax(-1).gather(1, batch.target_N[:, None])[:, 0]


@pytest.mark.parametrize("change", [None, with_bias], ids=["", "bias"])
@pytest.mark.parametrize("name", EVERY)
def test_the_chunked_head_gives_the_values_and_gradients_of_the_plain_one(name, change):
    model = random_model(name, "eager")
    if change:
        model = change(model)
    batch = lay_out(PROMPTS, RESPONSES, 0, "padded")
    expected = plain(model, batch)
    weight_N = torch.linspace(-1, 2, len(expected))
    wanted = gradients(model, expected @ weight_N)
    for head_tokens in (1, 3, 12, 100):  # 12 response tokens: chunks of one, with and without a rest, one chunk
        ours = ResponseLogps(model, head_tokens)(batch).token_N
        torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-6)
        got = gradients(model, ours @ weight_N)
        assert got.keys() == wanted.keys()
        for key, value in wanted.items():
            assert (got[key] - value).norm() <= 1e-6 * value.norm() + 1e-8, key


def test_a_tied_head_is_trained_from_both_ends(micro):
    model = random_model("qwen2")
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    batch = lay_out(PROMPTS, RESPONSES, 0, "shared")
    key = "model.embed_tokens.weight"
    whole, chunked = (gradients(model, ResponseLogps(model, n)(batch).token_N.sum())[key] for n in (100, 2))
    torch.testing.assert_close(chunked, whole, rtol=1e-5, atol=1e-6)
    seen = sorted({token for row in PROMPTS for token in row})
    assert (whole[seen].abs().sum(-1) > 0).all()


@pytest.mark.parametrize("head_tokens, sizes", [(2, [2] * 5), (4, [2, 4, 4]), (1024, [10])])
def test_only_the_positions_before_response_tokens_reach_the_head_and_never_more_than_a_chunk(
    micro, head_tokens, sizes
):
    rows = []
    try_arrangement(micro.model)
    hook = micro.model.get_output_embeddings().register_forward_hook(
        lambda m, args, out: rows.append(out.numel() // out.shape[-1])
    )
    value = response_logps(micro.model, [[5] * 40, [6] * 30], [([7, 8, 9], [9]), ([9] * 5, [9])], 0, head_tokens)
    forward, rows[:] = list(rows), []
    value.sum().backward()
    hook.remove()
    micro.model.zero_grad()
    assert forward == sizes  # 10 response tokens, of 83 positions; those of a short response are not padded
    assert sorted(rows) == sorted(sizes[:-1])  # computed again, all but the last


def test_the_log_probabilities_of_each_token_are_there(micro):
    batch = lay_out(PROMPTS, RESPONSES, 0, "shared")
    logps = ResponseLogps(micro.model, 4)(batch)
    assert logps.n_tokens_BR.tolist() == [[3, 1], [2, 4], [1, 1]] and logps.token_N.dtype == torch.float32
    responses = [(prompt, response) for prompt, own in zip(PROMPTS, RESPONSES, strict=True) for response in own]
    for (prompt, response), ours in zip(responses, logps.by_response, strict=True):
        all_logps = micro.model(torch.tensor([prompt + response])).logits[0].log_softmax(-1)
        expected = all_logps[range(len(prompt) - 1, len(prompt) + len(response) - 1), response]
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)
    sums = torch.stack([ours.sum() for ours in logps.by_response]).view(3, 2)
    torch.testing.assert_close(logps.sum_BR, sums)


def test_bfloat16_is_that_of_the_model_in_autocast(micro):
    batch = lay_out(PROMPTS, RESPONSES, 0, "padded")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = plain(micro.model, batch)
        ours = ResponseLogps(micro.model, 5)(batch).token_N
    got, wanted = (gradients(micro.model, value.float().sum()) for value in (ours, expected))
    micro.model.zero_grad()
    torch.testing.assert_close(ours, expected.float(), rtol=0, atol=0.05)
    for key, value in wanted.items():
        assert (got[key] - value).norm() <= 0.03 * value.norm(), key


def test_no_attribute_of_the_model_is_left_changed(micro):
    before = {name: id(module) for name, module in micro.model.named_modules()}
    response_logps(micro.model, PROMPTS, RESPONSES, 0, 2)
    assert before == {name: id(module) for name, module in micro.model.named_modules()}


def test_responses_behind_one_prompt_do_not_see_each_other(micro):
    first = response_logps(micro.model, [[5, 6]], [([7, 8], [9])], 0)
    second = response_logps(micro.model, [[5, 6]], [([70, 80], [9])], 0)
    torch.testing.assert_close(first[0, 1], second[0, 1])
    assert first[0, 0] != second[0, 0]
