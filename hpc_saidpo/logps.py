"""Log-probabilities of responses: what DPO is computed from."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from .policy import attends_to_all

Tokens = Sequence[int]
HEAD_TOKENS = 1024


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
        segment_RT: -1 padding, 0 prompt, 1.. the responses of the row.
        predictor_N: for every response token the place that predicts it, in the flattened rows.
        target_N: the response tokens.
        n_tokens_BR: tokens of each response.
    """

    ids_RT: torch.Tensor
    position_RT: torch.Tensor
    segment_RT: torch.Tensor
    predictor_N: torch.Tensor
    target_N: torch.Tensor
    n_tokens_BR: torch.Tensor


class ResponseLogps(nn.Module):
    """A causal LM as a function batch -> log-probabilities; what a data-parallel wrapper wraps.

    Only the positions that predict a response token go through the LM head, at most `head_tokens` at a time, and all
    chunks but the last are computed again in the backward pass: logits [batch, time, V] never exist. Memory for them is
    about 3 · 4 bytes · head_tokens · V (logits, log-softmax, its gradient, in float32).

    Args:
        model: a transformers causal LM.
        head_tokens: most positions whose logits exist at once.
    """

    def __init__(self, model: nn.Module, head_tokens: int = HEAD_TOKENS):
        super().__init__()
        self.model, self.head_tokens = model, head_tokens

    def forward(self, batch: Batch) -> Logps:
        first = next(self.model.parameters())
        segment_RT = batch.segment_RT.to(first.device)
        outputs = self.model.base_model(
            input_ids=batch.ids_RT.to(first.device),
            attention_mask=_mask(segment_RT, first.dtype),
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
        return -nn.functional.cross_entropy(logits_NV.float(), target_N, reduction="none")


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
    batch = layout(prompts, responses, pad_id, shares_prompts(model))
    return ResponseLogps(model, head_tokens)(batch).sum_BR


def shares_prompts(model: nn.Module) -> bool:
    """Whether responses may stand behind one prompt: attention takes any mask, and every layer sees the whole row."""
    config = model.config
    # An alibi bias follows from a padding mask [rows, T], and takes no position ids.
    relative = config.model_type in ("bloom", "mpt") or getattr(config, "alibi", False)
    return config._attn_implementation in ("eager", "sdpa") and attends_to_all(config) and not relative


def layout(prompts: Sequence[Tokens], responses: Sequence[Sequence[Tokens]], pad_id: int, shared: bool) -> Batch:
    """The rows of a batch.

    Args:
        prompts: token ids of B prompts.
        responses: for each prompt its R responses, token ids.
        shared: a prompt stands once, in front of all its responses, whose positions go on from its end and which do not
            see each other (`shares_prompts`); else each response gets a row of its own.
    """
    rows = [(prompt, list(own)) for prompt, own in zip(prompts, responses, strict=True)]
    n_tokens_BR = torch.tensor([[len(response) for response in own] for _, own in rows])
    if not shared:
        rows = [(prompt, [response]) for prompt, own in rows for response in own]
    width = max(len(prompt) + sum(map(len, own)) for prompt, own in rows)
    ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    position, segment = torch.zeros_like(ids), torch.full_like(ids, -1)
    predictor, target = [], []
    for i, (prompt, own) in enumerate(rows):
        parts = [(0, 0, prompt), *((s, len(prompt), response) for s, response in enumerate(own, 1))]
        start = width - len(prompt) - sum(map(len, own))
        prompt_end = start + len(prompt) - 1
        for s, first_position, tokens in parts:
            place = slice(start, start + len(tokens))
            ids[i, place] = torch.tensor(tokens, dtype=torch.long)
            position[i, place] = torch.arange(first_position, first_position + len(tokens))
            segment[i, place] = s
            if s and len(tokens):
                predictor += [i * width + p for p in (prompt_end, *range(start, start + len(tokens) - 1))]
                target += tokens
            start += len(tokens)
    return Batch(ids, position, segment, torch.tensor(predictor), torch.tensor(target), n_tokens_BR)


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
