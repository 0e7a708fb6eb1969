"""Log-probabilities of responses, from which DPO is computed."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from ..policy import flash, plain
from ..policy.decoded import IDS, Outputs, at_places, decoder_of, logits_of
from ..policy.trial import attention_of
from ..settings.dpo import HEAD_TOKENS
from .rows import Batch, attention_mask, document_ends

SUMMED_ROWS = 64


class Logps(NamedTuple):
    """Log-probabilities of the responses of a batch: B prompts with R responses each, N response tokens in all.

    (A tuple, because FSDP searches tuples for tensors.)

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
        """The log-probabilities of each response's tokens: B·R tensors."""
        return self.token_N.split(self.n_tokens_BR.flatten().tolist())


class ResponseLogps(nn.Module):
    """A causal language model as a module batch -> log-probabilities, for data-parallel wrappers.

    Only positions that predict a response token pass through the LM head, at most `head_tokens` at once. All chunks but
    the last are computed again in the backward pass: logits [batch, time, V] never exist. Logits need about
    2 · 4 bytes · head_tokens · V of memory (with their gradient, in float32).

    Args:
        head_tokens: maximum number of positions whose logits exist at once.
    """

    def __init__(self, model: PreTrainedModel, head_tokens: int = HEAD_TOKENS):
        super().__init__()
        self.model, self.head_tokens = model, head_tokens

    def forward(self, batch: Batch) -> Logps:
        device = next(self.model.parameters()).device
        place_N, target_N = batch.predictor_N.to(device), batch.target_N.to(device)
        if batch.head == "whole":
            token_N = _TargetLogps.apply(self._whole_logits(batch, device)[place_N], target_N)
        else:
            inputs = self._inputs(batch, device)
            outputs = decoder_of(self.model)(**inputs)
            token_N = self._token_logps(type(outputs), at_places(inputs[IDS], outputs, place_N), target_N)
        return Logps(token_N, batch.n_tokens_BR.to(device))

    def _inputs(self, batch: Batch, device: torch.device) -> dict[str, Any]:
        ids_RT, position_RT = batch.ids_RT.to(device), batch.position_RT.to(device)
        inputs = {IDS: ids_RT, "attention_mask": None, "position_ids": position_RT, "use_cache": False}
        if batch.segment_RT is not None:
            inputs["attention_mask"] = attention_mask(batch.segment_RT, self._computed(device), device)
        # A packed row has no mask and no cache: only then does transformers separate documents by their positions.
        elif attention_of(self.model) in flash.MODULE_OF:
            inputs |= document_ends(batch.position_RT, device)
        return inputs

    def _computed(self, device: torch.device) -> torch.dtype:
        """The precision that attention computes in. A mask in another one would be copied in every layer."""
        if torch.is_autocast_enabled(device.type):
            return torch.get_autocast_dtype(device.type)
        return next(self.model.parameters()).dtype

    def _whole_logits(self, batch: Batch, device: torch.device) -> torch.Tensor:
        """[R · T, V] all logits of the rows by the model's own forward pass."""
        if batch.documents:
            rows = batch.ids_RT[0].split(list(batch.documents))
            return torch.cat([plain.logits(self.model, row.tolist()) for row in rows])
        return self.model(**self._inputs(batch, device)).logits.flatten(0, 1).float()

    def _token_logps(self, kind: type, outputs: Outputs, target_N: torch.Tensor) -> torch.Tensor:
        """[N] log-probabilities of the targets, from the decoder's outputs in their places; `kind`: class of these."""
        n = len(target_N)
        # The last chunk is the first one of the backward pass. It is kept, so it is never the short chunk.
        sizes = [n % self.head_tokens] * bool(n % self.head_tokens) + [self.head_tokens] * (n // self.head_tokens)
        by_chunk = zip(*(x.split(sizes) for x in outputs.values()), strict=True)
        chunks = [dict(zip(outputs, chunk, strict=True)) for chunk in by_chunk]
        *others, last = zip(chunks, target_N.split(sizes), strict=True)
        again = functools.partial(checkpoint, self._chunk_logps, use_reentrant=False, preserve_rng_state=False)
        return torch.cat([*(again(kind, *chunk) for chunk in others), self._chunk_logps(kind, *last)])

    def _chunk_logps(self, kind: type, outputs: Outputs, target_N: torch.Tensor) -> torch.Tensor:
        return _TargetLogps.apply(logits_of(self.model, kind, outputs), target_N)


class _TargetLogps(torch.autograd.Function):
    """log_softmax at the targets. It stores the logits and computes their gradient; autograd stores a third [N, V].

    It uses logsumexp, which sums in pairs: log_softmax on a CPU has an error of about 3e-5 nats at 50,000 terms.
    """

    @staticmethod
    def forward(ctx: Any, logits_NV: torch.Tensor, target_N: torch.Tensor) -> torch.Tensor:
        sum_N = torch.cat([rows.logsumexp(-1) for rows in logits_NV.split(SUMMED_ROWS)])  # logsumexp copies its rows
        ctx.save_for_backward(logits_NV, target_N, sum_N)
        return logits_NV.gather(1, target_N[:, None])[:, 0] - sum_N

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, None]:
        (grad_N,) = grad_outputs
        logits_NV, target_N, sum_N = ctx.saved_tensors
        grad_NV = (logits_NV - sum_N[:, None]).exp_().mul_(-grad_N[:, None])
        return grad_NV.scatter_add_(1, target_N[:, None], grad_N[:, None]), None
