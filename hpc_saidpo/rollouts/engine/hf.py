"""The reference engine: transformers' own generate, for every model."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    StoppingCriteria,
    StoppingCriteriaList,
)

from ...policy.model import Policy
from ...settings.rollouts import Sampling
from .padding import left_pad
from .sampling import Response, logp_of
from .stopping import Ends
from .work import Backlog, Load, Options, Part


def decode(
    policy: Policy, backlog: Backlog, load: Load, sampling: Sampling, options: Options, padded: bool = True
) -> Iterator[Part]:
    """Yield the parts of a backlog when they are complete, as `shared.decode`, but one batch after another.

    The drawn tokens depend on the batches of prompts. So all parts that the backlog has ready are sorted by length and
    cut into batches, before it is asked for more.

    Args:
        padded: a batch may have prompts of several lengths, padded on the left. False: its prompts have one length.
    """
    while first := backlog.take(True):
        ready = [first, *iter(backlog.take, None)]
        ready.sort(key=lambda part: -len(part.work.prompt))
        batches: list[list[Part]] = [[]]
        for part in ready:
            batch = batches[-1]
            is_full = sum(len(other.samples) for other in [*batch, part]) > options.n_rows
            other_length = bool(batch) and len(part.work.prompt) != len(batch[0].work.prompt)
            if batch and (is_full or (not padded and other_length)):
                batches.append([])
            batches[-1].append(part)
        for batch in batches:
            _generate_batch(policy, batch, sampling)
            yield from batch


@torch.no_grad()  # not inference_mode: autocast would cast every weight again in every step
def _generate_batch(policy: Policy, batch: Sequence[Part], sampling: Sampling) -> None:
    """Fill in the responses of some parts, one row for each."""
    started = time.perf_counter()
    rows = [part.work.prompt for part in batch for _ in part.samples]
    responses, seed = [response for part in batch for response in part.responses], batch[0].seeds[0]
    ids, mask = left_pad(rows, cast(int, policy.tokenizer.pad_token_id), policy.device)
    torch.manual_seed(int(seed) % 2**63)
    logps, config, ends = _Logps(), _generation(policy, sampling), Ends(policy, sampling.stop)
    stops = StoppingCriteriaList([_Stops(ends, ids.shape[1])] if sampling.stop else [])
    with policy.autocast(), _only_with(policy.model, config):
        made = policy.model.generate(  # pyright: ignore[reportCallIssue] - of GenerationMixin, a base of causal LMs
            ids,
            attention_mask=mask,
            generation_config=config,
            logits_processor=LogitsProcessorList([logps]),
            stopping_criteria=stops,
        )
    assert isinstance(made, torch.Tensor)
    logps.note(made)
    tokens_RT, logp_RT = made[:, ids.shape[1] :], torch.stack(logps.by_step, dim=1)
    for response, tokens, logp in zip(responses, tokens_RT.tolist(), logp_RT.tolist(), strict=True):
        _fill(policy, response, tokens, logp, ends)
        response.seconds = (time.perf_counter() - started) / len(responses)


def _generation(policy: Policy, sampling: Sampling) -> GenerationConfig:
    """The sampling as transformers' configuration of generate."""
    drawn: dict[str, Any] = {"do_sample": False}
    if sampling.temperature > 0:
        drawn = {
            "do_sample": True,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": sampling.min_p or None,
        }
    return GenerationConfig(
        max_new_tokens=sampling.max_new_tokens,
        pad_token_id=policy.tokenizer.pad_token_id,
        eos_token_id=sorted(policy.eos_ids) or None,
        **drawn,
    )


@contextmanager
def _only_with(model: PreTrainedModel, config: GenerationConfig) -> Iterator[None]:
    """A context in which the model has no other generation config than this one.

    transformers fills up what a config leaves open from the model's `generation_config`: a repetition penalty, beams,
    suppressed tokens. Responses would then not be drawn from the policy's distribution.
    """
    before = model.generation_config
    model.generation_config = config
    try:
        yield
    finally:
        model.generation_config = before


class _Stops(StoppingCriteria):
    """Ends the rows in which a stop string has appeared: by the rule of every engine, so that none ends otherwise.

    Args:
        n_prompt: tokens of the padded prompts.
    """

    def __init__(self, ends: Ends, n_prompt: int):
        self.ends, self.n_prompt = ends, n_prompt

    def __call__(self, input_ids: torch.LongTensor, scores: torch.Tensor, **_: Any) -> torch.BoolTensor:
        rows = input_ids[:, self.n_prompt :].tolist()
        ended = [self.ends.stopped(row) for row in rows]
        return cast(torch.BoolTensor, torch.tensor(ended, device=input_ids.device))


class _Logps(LogitsProcessor):
    """Log-probabilities from the model's logits, before temperature and truncation. Keeps one step's logits only."""

    def __init__(self):
        self.by_step: list[torch.Tensor] = []  # [R] of each step
        self._logits_RV: torch.Tensor | None = None

    def __call__(self, input_ids: torch.LongTensor, scores: torch.Tensor) -> torch.Tensor:
        self.note(input_ids)
        self._logits_RV = scores.float()
        return scores

    def note(self, ids_RT: torch.Tensor) -> None:
        """Note the last token of each row, which was drawn from the stored logits."""
        if self._logits_RV is not None:
            self.by_step.append(logp_of(self._logits_RV, ids_RT[:, -1]))


def _fill(policy: Policy, response: Response, tokens: Sequence[int], logps: Sequence[float], ends: Ends) -> None:
    """Fill in a response's tokens up to its end."""
    for token, logp in zip(tokens, logps, strict=True):
        response.tokens.append(token)
        response.logp += logp
        response.finished = token in policy.eos_ids or ends.stopped(response.tokens)
        if response.finished:
            return
