"""Sampling of tokens: exact, each row from its own random stream."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from ...settings.rollouts import Sampling

BLOCK = 256  # tokens of the vocabulary whose probabilities are summed before the place of a row's number is searched


@dataclass
class Response:
    """One response.

    Attributes:
        finished: it ended by itself; False: it was cut at max_new_tokens.
        logp: sum of the log-probabilities of its tokens under the policy (temperature 1, no truncation), nats.
        seconds: its share of the batch's time: the time of each step is divided among the active rows.
    """

    tokens: list[int] = field(default_factory=list)
    text: str = ""
    finished: bool = False
    seconds: float = 0.0
    logp: float = 0.0


def choose(
    logits_RV: torch.Tensor, uniform_R: torch.Tensor | None, sampling: Sampling
) -> tuple[torch.Tensor, torch.Tensor]:
    """Choose the next token of each row: the inverse of the cumulative distribution at the row's uniform number.

    Args:
        logits_RV: float32, contiguous; overwritten.
        uniform_R: in [0, 1); not used when greedy.

    Returns:
        (tokens [R], their log-probabilities [R] at temperature 1 without truncation, nats).

    Raises:
        ValueError: no uniform numbers, at a temperature above 0.
    """

    def draw(weight_RV: torch.Tensor) -> torch.Tensor:
        if uniform_R is None:
            raise ValueError("sampling needs a uniform number for each row")
        return _invert(_truncate(weight_RV, sampling), uniform_R)

    logits_RV -= logits_RV.amax(-1, keepdim=True)  # the most probable token has 0
    if sampling.temperature == 1:
        share_RV = logits_RV.exp_()
        token_R1 = draw(share_RV)
        chosen_R1 = share_RV.gather(1, token_R1).log()
    else:
        if sampling.temperature == 0:
            token_R1 = logits_RV.argmax(-1, keepdim=True)
        else:
            token_R1 = draw((logits_RV / sampling.temperature).exp_())
        chosen_R1 = logits_RV.gather(1, token_R1)
        share_RV = logits_RV.exp_()
    return token_R1[:, 0], (chosen_R1 - share_RV.sum(-1, keepdim=True).log())[:, 0]


def _truncate(weight_RV: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """The weights of the tokens that may be drawn, 0 for the others; the largest weight of a row is 1."""
    if sampling.min_p > 0:
        weight_RV = weight_RV.masked_fill(weight_RV < sampling.min_p, 0.0)
    if sampling.top_k and sampling.top_k < weight_RV.shape[-1]:
        smallest_R1 = weight_RV.topk(sampling.top_k, dim=-1).values[:, -1:]
        weight_RV = weight_RV.masked_fill(weight_RV < smallest_R1, 0.0)
    if sampling.top_p < 1:
        ranked_RV, order_RV = weight_RV.sort(dim=-1, descending=True, stable=True)
        sum_RV = ranked_RV.double().cumsum(-1)
        is_beyond_RV = sum_RV - ranked_RV >= sampling.top_p * sum_RV[:, -1:]
        kept_RV = ranked_RV.masked_fill(is_beyond_RV, 0.0)
        weight_RV = torch.zeros_like(weight_RV).scatter(-1, order_RV, kept_RV)
    return weight_RV


def _invert(weight_RV: torch.Tensor, uniform_R: torch.Tensor) -> torch.Tensor:
    """The first token, [R, 1], whose cumulative weight exceeds the uniform share of the total: its block, then it."""
    n, size = weight_RV.shape
    padded = torch.nn.functional.pad(weight_RV, (0, -size % BLOCK)) if size % BLOCK else weight_RV
    padded = padded.view(n, -1, BLOCK)
    block_sum_RB = padded.sum(-1).double().cumsum(-1)
    target_R1 = uniform_R[:, None].double() * block_sum_RB[:, -1:]
    block_R1 = torch.searchsorted(block_sum_RB, target_R1, right=True).clamp_(max=block_sum_RB.shape[1] - 1)
    before_R1 = torch.where(block_R1 > 0, block_sum_RB.gather(1, (block_R1 - 1).clamp_(min=0)), 0.0)
    inside = padded.gather(1, block_R1[:, :, None].expand(-1, -1, BLOCK))[:, 0].double().cumsum(-1)
    within_R1 = torch.searchsorted(inside, target_R1 - before_R1, right=True)
    # Rounding may point beyond the last token that can be drawn.
    is_possible = inside.diff(dim=-1, prepend=inside.new_zeros(n, 1)) > 0
    last_R1 = BLOCK - 1 - is_possible.flip(-1).double().argmax(-1, keepdim=True)
    return block_R1 * BLOCK + torch.minimum(within_R1, last_R1)


def logp_of(logits_RV: torch.Tensor, token_R: torch.Tensor) -> torch.Tensor:
    """[R] log-probability of each row's token, nats."""
    chosen_R = logits_RV.gather(1, token_R[:, None])[:, 0]
    return chosen_R - torch.logsumexp(logits_RV, dim=-1)
