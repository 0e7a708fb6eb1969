"""Log-probabilities of responses, from which DPO is computed."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from ..settings.dpo import HEAD_TOKENS
from .rows import Batch, Tokens, attention_mask, choose_arrangement, lay_out

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
        first = next(self.model.parameters())
        segment_RT = batch.segment_RT
        mask = None if segment_RT is None else attention_mask(segment_RT.to(first.device), first.dtype)
        # A packed row has no mask and no cache: only then does transformers separate documents by their positions.
        outputs = self.model.base_model(
            input_ids=batch.ids_RT.to(first.device),
            attention_mask=mask,
            position_ids=batch.position_RT.to(first.device),
            use_cache=False,
        )
        # Indexing sums the gradients of a place that predicts two tokens in a fixed order; index_select does not.
        hidden_ND = outputs.last_hidden_state.flatten(0, 1)[batch.predictor_N.to(first.device)]
        token_N = self._token_logps(hidden_ND, batch.target_N.to(first.device), type(outputs))
        return Logps(token_N, batch.n_tokens_BR.to(first.device))

    def _token_logps(self, hidden_ND: torch.Tensor, target_N: torch.Tensor, kind: type) -> torch.Tensor:
        """[N] the log-probabilities of the targets; `kind` is the class of the decoder's outputs."""
        n = len(target_N)
        # The last chunk is the first one of the backward pass. It is kept, so it is never the short chunk.
        sizes = [n % self.head_tokens] * bool(n % self.head_tokens) + [self.head_tokens] * (n // self.head_tokens)
        *others, last = zip(hidden_ND.split(sizes), target_N.split(sizes), strict=True)
        again = functools.partial(checkpoint, self._chunk_logps, use_reentrant=False, preserve_rng_state=False)
        return torch.cat([*(again(*chunk, kind) for chunk in others), self._chunk_logps(*last, kind)])

    def _chunk_logps(self, hidden_ND: torch.Tensor, target_N: torch.Tensor, kind: type) -> torch.Tensor:
        decoded = _Decoded(self.model, kind(last_hidden_state=hidden_ND[None]))
        logits_NV = type(self.model).forward(decoded).logits[0]
        return _TargetLogps.apply(logits_NV.float(), target_N)


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


class _Decoded:
    """A stand-in for a causal language model whose decoder returns fixed outputs.

    The forward of the model's class computes the logits from them, with all that its architecture adds (a bias,
    soft-capped or scaled logits). No attribute of the model is changed.
    """

    def __init__(self, model: PreTrainedModel, outputs: object):
        self._model, self._outputs = model, outputs
        setattr(self, model.base_model_prefix, self)
        self.decoder = self  # for a forward that calls model.decoder (OPT)

    def __call__(self, *_: object, **__: object) -> object:
        return self._outputs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def response_logps(
    model: PreTrainedModel,
    prompts: Sequence[Tokens],
    responses: Sequence[Sequence[Tokens]],
    pad_id: int,
    head_tokens: int = HEAD_TOKENS,
) -> torch.Tensor:
    """Sum of log-probabilities of each response given its prompt, in nats: float32, [B, R], differentiable.

    Args: see `rows.lay_out` and `ResponseLogps`.
    """
    batch = lay_out(prompts, responses, pad_id, choose_arrangement(model))
    return ResponseLogps(model, head_tokens)(batch).sum_BR
