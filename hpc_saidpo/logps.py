"""Log-probabilities of responses: what DPO is computed from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from .policy import attends_to_all

Tokens = Sequence[int]


def response_logps(
    model: nn.Module, prompts: Sequence[Tokens], responses: Sequence[Sequence[Tokens]], pad_id: int
) -> torch.Tensor:
    """Sum of log-probabilities of each response given its prompt, in nats.

    A prompt stands once in front of all its responses where the model's attention can be masked so that they do not see
    each other (`shares_prompts`); elsewhere each response gets a row of its own. Rows are padded on the left, so that
    only the positions around responses go through the LM head: logits are [rows, response tokens of a row, V].

    Args:
        prompts: token ids of B prompts.
        responses: for each prompt its R responses, token ids.

    Returns:
        float32, shape [B, R], differentiable.
    """
    rows = [(prompt, list(own)) for prompt, own in zip(prompts, responses, strict=True)]
    if not shares_prompts(model):
        rows = [(prompt, [response]) for prompt, own in rows for response in own]
    device = next(model.parameters()).device
    ids, position, segment = (t.to(device) for t in _layout(rows, pad_id))
    n_keep = 1 + max(sum(map(len, own)) for _, own in rows)
    logits = model(
        input_ids=ids,
        attention_mask=_mask(segment, next(model.parameters()).dtype),
        position_ids=position,
        use_cache=False,
        logits_to_keep=n_keep,
    ).logits
    row, predictor, target, response = (torch.tensor(x, device=device) for x in _targets(rows, n_keep))
    logp = -nn.functional.cross_entropy(logits[row, predictor].float(), target, reduction="none")
    n_responses = sum(len(own) for _, own in rows)
    return logp.new_zeros(n_responses).index_add(0, response, logp).view(len(prompts), -1)


def shares_prompts(model: nn.Module) -> bool:
    """Whether responses may stand behind one prompt: attention takes any mask, and every layer sees the whole row."""
    config = getattr(model, "module", model).config
    return config._attn_implementation in ("eager", "sdpa") and attends_to_all(config)


def _layout(rows, pad_id) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Token ids, position ids and segments [rows, T]: segment -1 padding, 0 prompt, 1.. the responses.

    Every response's positions go on from the end of the prompt.
    """
    width = max(len(prompt) + sum(map(len, own)) for prompt, own in rows)
    ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    position, segment = torch.zeros_like(ids), torch.full_like(ids, -1)
    for i, (prompt, own) in enumerate(rows):
        parts = [(0, 0, prompt), *((s, len(prompt), response) for s, response in enumerate(own, 1))]
        start = width - len(prompt) - sum(map(len, own))
        for s, first_position, tokens in parts:
            place = slice(start, start + len(tokens))
            ids[i, place] = torch.tensor(tokens, dtype=torch.long)
            position[i, place] = torch.arange(first_position, first_position + len(tokens))
            segment[i, place] = s
            start += len(tokens)
    return ids, position, segment


def _mask(segment, dtype) -> torch.Tensor:
    """What each token may look at: itself and, before it, the prompt and its own response."""
    if segment.max() <= 1:
        return (segment >= 0).long()  # one response to a row: the ordinary padding mask, which every model takes
    query, key = segment[:, :, None], segment[:, None, :]
    seen = ((key == 0) | (key == query)) & (key >= 0)
    seen = seen.tril() | torch.eye(segment.shape[1], dtype=torch.bool, device=segment.device)
    return torch.zeros(seen.shape, dtype=dtype, device=segment.device).masked_fill(~seen, torch.finfo(dtype).min)[
        :, None
    ]


def _targets(rows, n_keep) -> tuple[list[int], list[int], list[int], list[int]]:
    """For every response token: its row, the kept position that predicts it, the token, the response's number."""
    found = []
    number = 0
    for i, (_, own) in enumerate(rows):
        start = n_keep - sum(map(len, own))
        prompt_end = start - 1
        for response in own:
            predictors = [prompt_end, *range(start, start + len(response) - 1)]
            found += [(i, p, token, number) for p, token in zip(predictors, response, strict=True)]
            start += len(response)
            number += 1
    return tuple(list(column) for column in zip(*found, strict=True))
