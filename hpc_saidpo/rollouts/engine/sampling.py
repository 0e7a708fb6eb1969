"""Sampling of tokens: exact, each row from its own random stream."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from ...settings.rollouts import Sampling

TOP = 1024  # most probable tokens among which top_p is first searched, on a CPU
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
    logits_RV: torch.Tensor, uniform_R: torch.Tensor | None, sampling: Sampling, with_logp: bool = True
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Choose the next token of each row: the inverse of the cumulative distribution at the row's uniform number.

    Args:
        logits_RV: float32, contiguous; overwritten.
        uniform_R: in [0, 1); not used when greedy.
        with_logp: compute the log-probabilities.

    Returns:
        (tokens [R], their log-probabilities [R] at temperature 1 without truncation, nats, or None).

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
        if not with_logp:
            return token_R1[:, 0], None
        chosen_R1 = share_RV.gather(1, token_R1).log()
    else:
        if sampling.temperature == 0:
            token_R1 = logits_RV.argmax(-1, keepdim=True)
        else:
            token_R1 = draw((logits_RV / sampling.temperature).exp_())
        if not with_logp:
            return token_R1[:, 0], None
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
    return _nucleus(weight_RV, sampling.top_p) if sampling.top_p < 1 else weight_RV


def _nucleus(weight_RV: torch.Tensor, top_p: float) -> torch.Tensor:
    """The fewest most probable tokens with at least `top_p` of the total weight; 0 for the others.

    On a CPU only the TOP most probable tokens are sorted, and all tokens of those rows alone whose nucleus has more, or
    ends among equal weights at its border. A GPU sorts all: it would have to wait to know which rows those are.
    """
    least_R1 = top_p * weight_RV.sum(-1, keepdim=True, dtype=torch.float64)
    if weight_RV.device.type != "cpu" or weight_RV.shape[1] <= TOP:
        ranked_RV, order_RV = weight_RV.sort(dim=-1, descending=True, stable=True)
        return torch.zeros_like(weight_RV).scatter_(-1, order_RV, _cut(ranked_RV, least_R1))
    ranked_RK, order_RK = weight_RV.topk(TOP, dim=-1)
    cut_RK = _cut(ranked_RK, least_R1)
    n_kept_R1 = (cut_RK > 0).sum(-1, keepdim=True)
    border_R2 = ranked_RK.gather(1, torch.cat([n_kept_R1 - 1, n_kept_R1], dim=1).clamp_(0, TOP - 1))
    kept_RV = torch.zeros_like(weight_RV).scatter_(-1, order_RK, cut_RK)
    for row in (border_R2[:, 0] == border_R2[:, 1]).nonzero()[:, 0].tolist():
        ranked_V, order_V = weight_RV[row].sort(descending=True, stable=True)
        kept_RV[row] = torch.zeros_like(ranked_V).scatter_(-1, order_V, _cut(ranked_V, least_R1[row]))
    return kept_RV


def _cut(ranked_RK: torch.Tensor, least_R1: torch.Tensor) -> torch.Tensor:
    """The largest weights, in descending order, before which the sum is less than `least_R1`; 0 for the others."""
    sum_RK = ranked_RK.double().cumsum(-1)
    return ranked_RK.masked_fill(sum_RK - ranked_RK >= least_R1, 0.0)


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
