"""The arrangement of prompts and responses in the rows of a batch, and which of them a model supports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from transformers import PreTrainedModel

from ..policy.attention import attends_to_all

Tokens = Sequence[int]
Arrangement = Literal["shared", "packed", "padded"]  # see `lay_out`
PROBED = 8  # tokens of each document with which `supports_packing` probes a model


@dataclass(frozen=True)
class Batch:
    """Rows of tokens as the model's input, and the places in them that predict the response tokens.

    B prompts with R responses each have N response tokens in all.

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


def lay_out(
    prompts: Sequence[Tokens], responses: Sequence[Sequence[Tokens]], pad_id: int, arrangement: Arrangement
) -> Batch:
    """Arrange prompts and responses in the rows of a batch.

    Args:
        prompts: token ids of B prompts.
        responses: for each prompt the token ids of its R responses.
        arrangement: "shared": one row per prompt, with the prompt once, before all its responses. The positions of each
            response continue from the prompt's end, and responses do not see each other
            (`supports_shared_prompts`). "packed": one row of documents without padding, each a prompt and one response;
            positions restart at each document (`supports_packing`). "padded": one row per document.
    """
    if arrangement == "shared":
        rows = [_parts(prompt, of_prompt) for prompt, of_prompt in zip(prompts, responses, strict=True)]
    else:
        rows = [
            _parts(prompt, [response])
            for prompt, of_prompt in zip(prompts, responses, strict=True)
            for response in of_prompt
        ]
    if arrangement == "packed":
        rows = [[part for row in rows for part in row]]
    width = max(sum(len(tokens) for *_, tokens in row) for row in rows)
    ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    position, segment = torch.zeros_like(ids), torch.full_like(ids, -1)
    predictor: list[int] = []
    for i, row in enumerate(rows):
        start = width - sum(len(tokens) for *_, tokens in row)
        prompt_end = start
        for s, first_position, tokens in row:
            end = start + len(tokens)
            ids[i, start:end] = torch.tensor(tokens, dtype=torch.long)
            position[i, start:end] = torch.arange(first_position, first_position + len(tokens))
            segment[i, start:end] = s
            if s == 0:
                prompt_end = end - 1
            elif len(tokens):
                predictor += [i * width + p for p in (prompt_end, *range(start, end - 1))]
            start = end
    target = [token for of_prompt in responses for response in of_prompt for token in response]
    n_tokens_BR = torch.tensor([[len(response) for response in of_prompt] for of_prompt in responses])
    segment_RT = None if arrangement == "packed" else segment
    return Batch(ids, position, segment_RT, torch.tensor(predictor), torch.tensor(target), n_tokens_BR)


def _parts(prompt: Tokens, responses: Sequence[Tokens]) -> list[tuple[int, int, Tokens]]:
    """A prompt and its responses: segment, position of the first token, tokens."""
    return [(0, 0, prompt), *((s, len(prompt), tokens) for s, tokens in enumerate(responses, 1))]


def attention_mask(segment_RT: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The attention mask of rows. A token sees itself and, before it, the prompt and its own response.

    Returns:
        A padding mask [R, T] when no row has more than one response: every model accepts it. Else [R, 1, T, T], in
        `dtype`: 0 where a token sees another, the smallest number elsewhere.
    """
    if segment_RT.max() <= 1:
        return (segment_RT >= 0).long()
    query, key = segment_RT[:, :, None], segment_RT[:, None, :]
    seen = ((key == 0) | (key == query)) & (key >= 0)
    seen = seen.tril() | torch.eye(segment_RT.shape[1], dtype=torch.bool, device=segment_RT.device)
    mask = torch.zeros(seen.shape, dtype=dtype, device=segment_RT.device)
    return mask.masked_fill(~seen, torch.finfo(dtype).min)[:, None]


def choose_arrangement(model: PreTrainedModel) -> Arrangement:
    """The most efficient arrangement that the model computes correctly. Call it in the autocast of the later use."""
    if supports_shared_prompts(model):
        return "shared"
    # Eager attention would store the scores of a whole packed row, most of them between documents.
    return "packed" if model.config._attn_implementation != "eager" and supports_packing(model) else "padded"


def supports_shared_prompts(model: PreTrainedModel) -> bool:
    """Check that several responses may share a prompt: attention takes any mask, and every layer sees the whole row."""
    config = model.config
    # An alibi bias is computed from a padding mask [rows, T], and ignores position ids.
    has_alibi = config.model_type in ("bloom", "mpt") or getattr(config, "alibi", False)
    return config._attn_implementation in ("eager", "sdpa") and attends_to_all(config) and not has_alibi


@torch.no_grad()
def supports_packing(model: PreTrainedModel) -> bool:
    """Check that documents of one row do not see each other where positions restart. Probes the model.

    Some architectures silently ignore restarts (OPT, Bloom, gpt-oss with eager attention in transformers 5). The effect
    of a document on the next one must be nearly zero, compared to its effect where positions continue.
    """
    ids_3N = torch.arange(3 * PROBED, device=next(model.parameters()).device).view(3, PROBED) % model.config.vocab_size
    restarting = torch.arange(PROBED, device=ids_3N.device).repeat(2)

    def effect(position_T: torch.Tensor) -> torch.Tensor:
        """The change in the second document's hidden states when the first document changes."""
        of_one, of_other = (
            model.base_model(
                input_ids=torch.cat([before, ids_3N[2]])[None], position_ids=position_T[None], use_cache=False
            ).last_hidden_state[:, PROBED:]
            for before in ids_3N[:2]
        )
        return (of_one - of_other).float().norm()

    # A mixture of experts rounds differently beside other tokens.
    return bool(effect(restarting) < 0.1 * effect(torch.arange(2 * PROBED, device=ids_3N.device)))
