"""The reference engine: transformers' own generate, for every model."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from transformers import LogitsProcessor, LogitsProcessorList

from ...policy.model import Policy
from ...settings.rollouts import Sampling
from .padding import left_pad
from .sampling import Response, logp_of
from .stopping import stopped


@torch.inference_mode()
def generate(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[Sequence[int]],
    responses: Sequence[Sequence[Response]],
    how: Sampling,
    n_rows: int,
) -> None:
    """Fill in the responses; as `shared.generate`, but what is drawn depends on how prompts are batched."""
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    batch: list[int] = []
    for i in order:
        if batch and sum(len(seeds[j]) for j in [*batch, i]) > n_rows:
            _batch(policy, batch, prompts, seeds, responses, how)
            batch = []
        batch.append(i)
    _batch(policy, batch, prompts, seeds, responses, how)


def _batch(policy, batch, prompts, seeds, responses, how):
    started = time.perf_counter()
    rows = [prompts[i] for i in batch for _ in seeds[i]]
    ids, mask = left_pad(rows, policy.tokenizer.pad_token_id, policy.device)
    drawn = {"do_sample": False}
    if how.temperature > 0:
        drawn = {
            "do_sample": True,
            "temperature": how.temperature,
            "top_p": how.top_p,
            "top_k": how.top_k,
            "min_p": how.min_p or None,
        }
    torch.manual_seed(int(seeds[batch[0]][0]) % 2**63)
    stop = {"stop_strings": list(how.stop), "tokenizer": policy.tokenizer} if how.stop else {}
    seen = _Logps()
    with policy.autocast():
        made = policy.model.generate(
            ids, attention_mask=mask, max_new_tokens=how.max_new_tokens, pad_token_id=policy.tokenizer.pad_token_id,
            eos_token_id=list(policy.eos_ids), logits_processor=LogitsProcessorList([seen]), **drawn, **stop,
        )  # fmt: skip
    seen.note(made)
    tokens, logp = made[:, ids.shape[1] :], torch.stack(seen.logps, dim=1)
    own = [response for i in batch for response in responses[i]]
    for response, row, own_logp in zip(own, tokens.tolist(), logp.tolist(), strict=True):
        _fill(policy, response, row, own_logp, how)
        response.seconds = (time.perf_counter() - started) / len(own)


class _Logps(LogitsProcessor):
    """Sees the model's own logits, before temperature and all that shapes them, and keeps those of one step only."""

    def __init__(self):
        self.logps: list[torch.Tensor] = []  # [R] of each step
        self._logits_RV = None

    def __call__(self, input_ids, scores):
        self.note(input_ids)
        self._logits_RV = scores.float()
        return scores

    def note(self, ids_RT: torch.Tensor) -> None:
        """The last token of each row was drawn from the logits at hand."""
        if self._logits_RV is not None:
            self.logps.append(logp_of(self._logits_RV, ids_RT[:, -1]))


def _fill(policy, response, row, logp, how):
    for token, own in zip(row, logp, strict=True):
        response.tokens.append(token)
        response.logp += own
        response.finished = token in policy.eos_ids or stopped(policy, response.tokens, how.stop)
        if response.finished:
            return
