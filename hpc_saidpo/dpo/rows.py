"""The arrangement of prompts and responses in the rows of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

Tokens = Sequence[int]
Arrangement = Literal["shared", "packed", "padded", "whole", "single"]  # see `lay_out`


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
        head: the logits are computed in the places "predicting" a token, or in all of them, by the "whole" model.
        documents: tokens of each document, if they are read one after the other; () if they are read at once.
    """

    ids_RT: torch.Tensor
    position_RT: torch.Tensor
    segment_RT: torch.Tensor | None
    predictor_N: torch.Tensor
    target_N: torch.Tensor
    n_tokens_BR: torch.Tensor
    head: Literal["predicting", "whole"] = "predicting"
    documents: tuple[int, ...] = ()


def lay_out(
    prompts: Sequence[Tokens], responses: Sequence[Sequence[Tokens]], pad_id: int, arrangement: Arrangement
) -> Batch:
    """Arrange prompts and responses in the rows of a batch.

    Args:
        prompts: token ids of B prompts.
        responses: for each prompt the token ids of its R responses.
        arrangement: "shared": one row per prompt, with the prompt once, before all its responses. The positions of each
            response continue from the prompt's end, and responses do not see each other. "packed": one row of
            documents without padding, each a prompt and one response; positions restart at each document. "padded": one
            row per document. "whole": the same, but the model computes all its logits. "single": the documents one
            after the other, each as the model's only input.
    """
    if arrangement == "shared":
        rows = [_parts(prompt, of_prompt) for prompt, of_prompt in zip(prompts, responses, strict=True)]
    else:
        rows = [
            _parts(prompt, [response])
            for prompt, of_prompt in zip(prompts, responses, strict=True)
            for response in of_prompt
        ]
    documents = tuple(sum(len(tokens) for *_, tokens in row) for row in rows) if arrangement == "single" else ()
    if arrangement in ("packed", "single"):
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
    segment_RT = None if arrangement in ("packed", "single") else segment
    head = "whole" if arrangement in ("whole", "single") else "predicting"
    places = torch.tensor(predictor), torch.tensor(target)
    return Batch(ids, position, segment_RT, *places, n_tokens_BR, head, documents)


def _parts(prompt: Tokens, responses: Sequence[Tokens]) -> list[tuple[int, int, Tokens]]:
    """A prompt and its responses: segment, position of the first token, tokens."""
    return [(0, 0, prompt), *((s, len(prompt), tokens) for s, tokens in enumerate(responses, 1))]


def document_ends(position_RT: torch.Tensor, device: torch.device) -> dict[str, torch.Tensor | int]:
    """Where the documents of one packed row end, as transformers' arguments of flash attention.

    Without them every layer searches the positions for the ends, and waits for the device twice.

    Args:
        position_RT: [1, T], on the CPU: 0 where a document begins.
    """
    begin = (position_RT[0] == 0).nonzero()[:, 0]
    ends = torch.cat([begin, torch.tensor([position_RT.shape[1]])]).to(torch.int32)
    longest = int(ends.diff().max())
    ends = ends.to(device)
    return {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends, "max_length_q": longest, "max_length_k": longest}


def attention_mask(segment_RT: torch.Tensor, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """The attention mask of rows. A token sees itself and, before it, the prompt and its own response.

    Args:
        segment_RT: on the CPU, where a look at it waits for no other device.

    Returns:
        A padding mask [R, T] when no row has more than one response: every model accepts it. Else [R, 1, T, T], in
        `dtype`: 0 where a token sees another, the smallest number elsewhere.
    """
    if segment_RT.max() <= 1:
        return (segment_RT >= 0).long().to(device)
    segment_RT = segment_RT.to(device)
    query, key = segment_RT[:, :, None], segment_RT[:, None, :]
    seen = ((key == 0) | (key == query)) & (key >= 0)
    seen = seen.tril() | torch.eye(segment_RT.shape[1], dtype=torch.bool, device=segment_RT.device)
    mask = torch.zeros(seen.shape, dtype=dtype, device=segment_RT.device)
    return mask.masked_fill(~seen, torch.finfo(dtype).min)[:, None]
