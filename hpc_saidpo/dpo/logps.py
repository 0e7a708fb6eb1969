"""Log-probabilities of responses: what DPO is computed from."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ..policy.attention import attends_to_all
from ..settings.dpo import HEAD_TOKENS

Tokens = Sequence[int]
Arrangement = Literal["shared", "packed", "padded"]  # of responses in rows: see `layout`
SUMMED_ROWS = 64
PROBED = 8  # tokens of a document that `packs` tries


class Logps(NamedTuple):
    """Log-probabilities of the responses of a batch: B prompts with R responses each, N response tokens in all.

    (A tuple, because FSDP looks for tensors in tuples.)

    Attributes:
        token_N: of every response token, in nats, float32; prompt by prompt, response by response.
        n_tokens_BR: tokens of each response.
    """

    token_N: torch.Tensor
    n_tokens_BR: torch.Tensor

    @property
    def sum_BR(self) -> torch.Tensor:
        """log pi(response | prompt), nats."""
        n = self.n_tokens_BR.numel()
        response_N = torch.repeat_interleave(self.n_tokens_BR.flatten())
        return self.token_N.new_zeros(n).index_add(0, response_N, self.token_N).view(self.n_tokens_BR.shape)

    @property
    def by_response(self) -> tuple[torch.Tensor, ...]:
        """The log-probabilities of each response's tokens, B·R tensors."""
        return self.token_N.split(self.n_tokens_BR.flatten().tolist())


@dataclass(frozen=True)
class Batch:
    """Token rows as the model sees them, and where in them the response tokens are predicted.

    Attributes:
        ids_RT, position_RT: token and position ids of the rows, padded on the left.
        segment_RT: -1 padding, 0 prompt, 1.. the responses of the row; None for one packed row.
        predictor_N: for every response token the place that predicts it, in the flattened rows.
        target_N: the response tokens.
        n_tokens_BR: tokens of each response.
    """

    ids_RT: torch.Tensor
    position_RT: torch.Tensor
    segment_RT: torch.Tensor | None
    predictor_N: torch.Tensor
    target_N: torch.Tensor
    n_tokens_BR: torch.Tensor


class ResponseLogps(nn.Module):
    """A causal LM as a function batch -> log-probabilities; what a data-parallel wrapper wraps.

    Only the positions that predict a response token go through the LM head, at most `head_tokens` at a time, and all
    chunks but the last are computed again in the backward pass: logits [batch, time, V] never exist. Memory for them is
    about 2 · 4 bytes · head_tokens · V (logits and their gradient, in float32).

    Args:
        model: a transformers causal LM.
        head_tokens: most positions whose logits exist at once.
    """

    def __init__(self, model: nn.Module, head_tokens: int = HEAD_TOKENS):
        super().__init__()
        self.model, self.head_tokens = model, head_tokens

    def forward(self, batch: Batch) -> Logps:
        first = next(self.model.parameters())
        # Packed, no mask at all and no cache: only then does transformers tell documents apart by their positions.
        outputs = self.model.base_model(
            input_ids=batch.ids_RT.to(first.device),
            attention_mask=None if batch.segment_RT is None else _mask(batch.segment_RT.to(first.device), first.dtype),
            position_ids=batch.position_RT.to(first.device),
            use_cache=False,
        )
        # Indexing adds up the gradients of a place that predicts two tokens in a fixed order; index_select does not.
        hidden_ND = outputs.last_hidden_state.flatten(0, 1)[batch.predictor_N.to(first.device)]
        token_N = self._token_logps(hidden_ND, batch.target_N.to(first.device), type(outputs))
        return Logps(token_N, batch.n_tokens_BR.to(first.device))

    def _token_logps(self, hidden_ND, target_N, kind) -> torch.Tensor:
        n = len(target_N)
        # The last chunk is the first that the backward pass needs: it is kept, so it is never the short one.
        sizes = [n % self.head_tokens] * bool(n % self.head_tokens) + [self.head_tokens] * (n // self.head_tokens)
        *others, last = zip(hidden_ND.split(sizes), target_N.split(sizes), strict=True)
        again = functools.partial(checkpoint, self._chunk_logps, use_reentrant=False, preserve_rng_state=False)
        return torch.cat([*(again(*chunk, kind) for chunk in others), self._chunk_logps(*last, kind)])

    def _chunk_logps(self, hidden_ND, target_N, kind) -> torch.Tensor:
        decoded = _Decoded(self.model, kind(last_hidden_state=hidden_ND[None]))
        logits_NV = type(self.model).forward(decoded).logits[0]
        return _TargetLogps.apply(logits_NV.float(), target_N)


class _TargetLogps(torch.autograd.Function):
    """log_softmax at the targets. It keeps the logits and makes their gradient; autograd would hold a third [N, V].

    By logsumexp, whose sum is pairwise: that of log_softmax on a CPU is off by some 3e-5 nats at 50,000 terms.
    """

    @staticmethod
    def forward(ctx, logits_NV, target_N):
        sum_N = torch.cat([rows.logsumexp(-1) for rows in logits_NV.split(SUMMED_ROWS)])  # it needs a copy of its rows
        ctx.save_for_backward(logits_NV, target_N, sum_N)
        return logits_NV.gather(1, target_N[:, None])[:, 0] - sum_N

    @staticmethod
    def backward(ctx, grad_N):
        logits_NV, target_N, sum_N = ctx.saved_tensors
        grad_NV = (logits_NV - sum_N[:, None]).exp_().mul_(-grad_N[:, None])
        return grad_NV.scatter_add_(1, target_N[:, None], grad_N[:, None]), None


class _Decoded:
    """Stands for a causal LM whose decoder has given its outputs already.

    The model's own forward goes from there to the logits, so that whatever its architecture does on the way (a bias,
    soft-capped or scaled logits) is done. No attribute of the model is touched.
    """

    def __init__(self, model, outputs):
        self._model, self._outputs = model, outputs
        setattr(self, model.base_model_prefix, self)
        self.decoder = self  # where the forward calls model.decoder (OPT)

    def __call__(self, *_, **__):
        return self._outputs

    def __getattr__(self, name):
        return getattr(self._model, name)


def response_logps(
    model: nn.Module,
    prompts: Sequence[Tokens],
    responses: Sequence[Sequence[Tokens]],
    pad_id: int,
    head_tokens: int = HEAD_TOKENS,
) -> torch.Tensor:
    """Sum of log-probabilities of each response given its prompt, in nats: float32, [B, R], differentiable.

    Args: see `layout` and `ResponseLogps`.
    """
    batch = layout(prompts, responses, pad_id, arrangement(model))
    return ResponseLogps(model, head_tokens)(batch).sum_BR


def arrangement(model: nn.Module) -> Arrangement:
    """The best arrangement that the model computes rightly, by its attention; to be called in the autocast of use."""
    if shares_prompts(model):
        return "shared"
    # Eager attention would keep the scores of a whole packed row, by whatever else stands in it.
    return "packed" if model.config._attn_implementation != "eager" and packs(model) else "padded"


def shares_prompts(model: nn.Module) -> bool:
    """Whether responses may stand behind one prompt: attention takes any mask, and every layer sees the whole row."""
    config = model.config
    # An alibi bias follows from a padding mask [rows, T], and takes no position ids.
    relative = config.model_type in ("bloom", "mpt") or getattr(config, "alibi", False)
    return config._attn_implementation in ("eager", "sdpa") and attends_to_all(config) and not relative


@torch.no_grad()
def packs(model: nn.Module) -> bool:
    """Whether documents of one row do not see each other where their positions restart. Tried out on the model.

    Some architectures ignore it silently (OPT, Bloom, gpt-oss with eager attention in transformers 5). What a document
    changes in the one behind it must be next to nothing, beside what it changes where positions go on.
    """
    ids_3N = torch.arange(3 * PROBED, device=next(model.parameters()).device).view(3, PROBED) % model.config.vocab_size
    restarting = torch.arange(PROBED, device=ids_3N.device).repeat(2)

    def changed(position_T):
        of_one, of_other = (
            model.base_model(
                input_ids=torch.cat([before, ids_3N[2]])[None], position_ids=position_T[None], use_cache=False
            ).last_hidden_state[:, PROBED:]
            for before in ids_3N[:2]
        )
        return (of_one - of_other).float().norm()

    # A mixture of experts rounds differently beside other tokens.
    return bool(changed(restarting) < 0.1 * changed(torch.arange(2 * PROBED, device=ids_3N.device)))


def layout(prompts: Sequence[Tokens], responses: Sequence[Sequence[Tokens]], pad_id: int, how: Arrangement) -> Batch:
    """The rows of a batch.

    Args:
        prompts: token ids of B prompts.
        responses: for each prompt its R responses, token ids.
        how: "shared": a row per prompt, which stands once, in front of all its responses; their positions go on from
            its end, and they do not see each other (`shares_prompts`). "packed": one row of documents, each a prompt
            and one response, at whose starts positions restart (`packs`); no padding. "padded": a row per document.
    """
    n_tokens_BR = torch.tensor([[len(response) for response in own] for own in responses])
    if how == "shared":
        rows = [_parts(prompt, own) for prompt, own in zip(prompts, responses, strict=True)]
    else:
        rows = [_parts(prompt, [one]) for prompt, own in zip(prompts, responses, strict=True) for one in own]
    if how == "packed":
        rows = [[part for row in rows for part in row]]
    width = max(sum(len(tokens) for *_, tokens in row) for row in rows)
    ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    position, segment = torch.zeros_like(ids), torch.full_like(ids, -1)
    predictor, target = [], []
    for i, row in enumerate(rows):
        start = width - sum(len(tokens) for *_, tokens in row)
        for s, first_position, tokens in row:
            end = start + len(tokens)
            ids[i, start:end] = torch.tensor(tokens, dtype=torch.long)
            position[i, start:end] = torch.arange(first_position, first_position + len(tokens))
            segment[i, start:end] = s
            if s == 0:
                prompt_end = end - 1
            elif len(tokens):
                predictor += [i * width + p for p in (prompt_end, *range(start, end - 1))]
                target += tokens
            start = end
    segment_RT = None if how == "packed" else segment
    return Batch(ids, position, segment_RT, torch.tensor(predictor), torch.tensor(target), n_tokens_BR)


def _parts(prompt: Tokens, responses: Sequence[Tokens]) -> list[tuple[int, int, Tokens]]:
    """A prompt and what continues it: segment, position of the first token, tokens."""
    return [(0, 0, prompt), *((s, len(prompt), tokens) for s, tokens in enumerate(responses, 1))]


def _mask(segment_RT, dtype) -> torch.Tensor:
    """What each token may look at: itself and, before it, the prompt and its own response."""
    if segment_RT.max() <= 1:
        return (segment_RT >= 0).long()  # one response to a row: the ordinary padding mask, which every model takes
    query, key = segment_RT[:, :, None], segment_RT[:, None, :]
    seen = ((key == 0) | (key == query)) & (key >= 0)
    seen = seen.tril() | torch.eye(segment_RT.shape[1], dtype=torch.bool, device=segment_RT.device)
    return torch.zeros(seen.shape, dtype=dtype, device=segment_RT.device).masked_fill(~seen, torch.finfo(dtype).min)[
        :, None
    ]
