"""The rollout engine: prompts -> K responses each.

Our own decode loop over the Hugging Face model's forward: what prompts have in common is prefilled once, a prompt once
for its K rows; finished rows are dropped at once, and every row draws from a random stream of its own.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from transformers import DynamicCache

from .policy import Policy, attends_to_all, left_pad, positions


@dataclass(frozen=True)
class Sampling:
    """How responses are drawn.

    Attributes:
        temperature: 0 is greedy.
        top_p: nucleus; 1 keeps the whole distribution.
        stop: strings that end a response besides the end-of-sequence token; not part of its text.
    """

    temperature: float
    top_p: float
    max_new_tokens: int
    stop: tuple[str, ...] = ()


@dataclass
class Response:
    """One response. `seconds` is its share of the batch's time: each step's time is divided among the rows alive."""

    tokens: list[int] = field(default_factory=list)
    text: str = ""
    finished: bool = False
    seconds: float = 0.0


@torch.inference_mode()
def generate(
    policy: Policy, prompts: Sequence[Sequence[int]], streams: Sequence[Sequence[np.random.Generator]], how: Sampling
) -> list[list[Response]]:
    """K responses to each prompt.

    Args:
        prompts: token ids, one list per prompt.
        streams: for each prompt, K random streams, one per response; unused when greedy.

    Returns:
        For each prompt its K responses, in the order of its streams.
    """
    started = time.perf_counter()
    n_rows = [len(row_streams) for row_streams in streams]
    responses = [[Response() for _ in row_streams] for row_streams in streams]
    alive = [response for row in responses for response in row]
    uniform_RT = np.array([s.random(how.max_new_tokens) for row in streams for s in row])
    uniform_RT = torch.from_numpy(uniform_RT).to(policy.device)
    repeats = torch.tensor(n_rows, device=policy.device)

    with policy.autocast():
        cache, logits, mask = prefill(policy, prompts)
        rows = torch.repeat_interleave(torch.arange(len(prompts), device=policy.device), repeats)
        cache.batch_select_indices(rows)
        logits, mask = logits[rows], mask[rows]
        for step in range(how.max_new_tokens):
            token = choose(logits, uniform_RT[:, step], how)
            started = _share_time(alive, started)
            keep = _append(policy, alive, token.tolist(), how)
            if not keep or step == how.max_new_tokens - 1:
                break
            if len(keep) < len(alive):
                alive = [alive[i] for i in keep]
                index = torch.tensor(keep, device=policy.device)
                cache.batch_select_indices(index)
                token, mask, uniform_RT = token[index], mask[index], uniform_RT[index]
            mask = torch.cat([mask, mask.new_ones(len(alive), 1)], dim=1)
            logits = _forward(policy, token[:, None], mask, positions(mask)[:, -1:], cache)
    for row in responses:
        for response in row:
            _finish_text(policy, response, how)
    return responses


def prefill(policy: Policy, prompts: Sequence[Sequence[int]]) -> tuple[DynamicCache, torch.Tensor, torch.Tensor]:
    """Keys and values of every prompt, the logits [Q, V] that follow it, and its attention mask [Q, T].

    What the prompts have in common at their start (few-shot examples, a system text) is computed once for all.
    """
    cache = DynamicCache(config=policy.model.config)
    n_shared = common_prefix(prompts) if attends_to_all(policy.model.config) else 0
    ids, mask = left_pad([prompt[n_shared:] for prompt in prompts], policy.tokenizer.pad_token_id, policy.device)
    if n_shared:
        shared = torch.tensor([prompts[0][:n_shared]], device=policy.device)
        ones = torch.ones_like(shared)
        _forward(policy, shared, ones, positions(ones), cache)
        cache.batch_repeat_interleave(len(prompts))
        mask = torch.cat([ones.expand(len(prompts), -1), mask], dim=1)
    logits = _forward(policy, ids, mask, positions(mask)[:, n_shared:], cache)
    return cache, logits, mask


def common_prefix(prompts: Sequence[Sequence[int]]) -> int:
    """Number of tokens that all prompts start with; every prompt keeps at least one of its own."""
    first, last = min(prompts), max(prompts)  # what the lexicographic extremes share, all share
    limit = min(map(len, prompts)) - 1
    return next((i for i in range(limit) if first[i] != last[i]), limit)


def choose(logits_RV: torch.Tensor, uniform_R: torch.Tensor, how: Sampling) -> torch.Tensor:
    """The next token of each row, by inverting the cumulative distribution at the row's own uniform number."""
    if how.temperature == 0:
        return logits_RV.argmax(-1)
    probability = torch.softmax(logits_RV.double() / how.temperature, dim=-1)
    if how.top_p < 1:
        ranked, order = probability.sort(dim=-1, descending=True, stable=True)
        beyond = ranked.cumsum(-1) - ranked >= how.top_p
        probability = probability.scatter(-1, order, ranked.masked_fill(beyond, 0.0))
    cumulative = probability.cumsum(-1)
    target = uniform_R[:, None].double() * cumulative[:, -1:]
    index = torch.searchsorted(cumulative, target, right=True)[:, 0]
    return index.clamp(max=logits_RV.shape[-1] - 1)


def _forward(policy, ids, mask, position_ids, cache):
    output = policy.model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=position_ids,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    return output.logits[:, -1].float()


def _share_time(alive, started):
    now = time.perf_counter()
    for response in alive:
        response.seconds += (now - started) / len(alive)
    return now


def _append(policy, alive, tokens, how) -> list[int]:
    """Give each row its token; the rows that go on."""
    keep = []
    eos = policy.eos_ids
    for i, (response, token) in enumerate(zip(alive, tokens, strict=True)):
        response.tokens.append(token)
        response.finished = token in eos or (bool(how.stop) and _stopped(policy, response.tokens, how.stop))
        if not response.finished:
            keep.append(i)
    return keep


def _stopped(policy, tokens, stop) -> bool:
    # A stop string can straddle tokens; the tail is longer than any sensible one.
    tail = policy.tokenizer.decode(tokens[-16:])
    return any(text in tail for text in stop)


def _finish_text(policy, response, how):
    response.text = policy.tokenizer.decode(response.tokens, skip_special_tokens=True)
    for text in how.stop:
        response.text = response.text.partition(text)[0]
