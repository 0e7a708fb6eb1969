"""Drawing tokens: exactly, each row from a stream of its own."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from ...settings.rollouts import Sampling

BLOCK = 256  # tokens of the vocabulary whose probabilities are added up before a row looks for its place


@dataclass
class Response:
    """One response.

    Attributes:
        finished: it ended by itself; False: it was cut at max_new_tokens.
        logp: sum of the log-probabilities of its tokens under the policy (temperature 1, nothing cut off), nats.
        seconds: its share of the batch's time: each step's time is divided among the rows alive.
    """

    tokens: list[int] = field(default_factory=list)
    text: str = ""
    finished: bool = False
    seconds: float = 0.0
    logp: float = 0.0


def choose(logits_RV: torch.Tensor, uniform_R: torch.Tensor | None, how: Sampling) -> tuple[torch.Tensor, torch.Tensor]:
    """The next token of each row, by inverting the cumulative distribution at the row's own uniform number.

    Args:
        logits_RV: float32, contiguous; overwritten.
        uniform_R: in [0, 1); unused when greedy.

    Returns:
        (tokens [R], their log-probabilities [R] at temperature 1 with nothing cut off, nats).
    """
    logits_RV -= logits_RV.amax(-1, keepdim=True)  # the likeliest token has 0
    if how.temperature == 1:
        share_RV = logits_RV.exp_()
        token_R1 = _invert(_kept(share_RV, how), uniform_R)
        chosen_R1 = share_RV.gather(1, token_R1).log()
    else:
        if how.temperature == 0:
            token_R1 = logits_RV.argmax(-1, keepdim=True)
        else:
            token_R1 = _invert(_kept((logits_RV / how.temperature).exp_(), how), uniform_R)
        chosen_R1 = logits_RV.gather(1, token_R1)
        share_RV = logits_RV.exp_()
    return token_R1[:, 0], (chosen_R1 - share_RV.sum(-1, keepdim=True).log())[:, 0]


def _kept(weight, how: Sampling):
    """The weights of the tokens that may be drawn, 0 for the others."""
    if how.min_p > 0:
        weight = weight.masked_fill(weight < how.min_p, 0.0)
    if how.top_k and how.top_k < weight.shape[-1]:
        smallest = weight.topk(how.top_k, dim=-1).values[:, -1:]
        weight = weight.masked_fill(weight < smallest, 0.0)
    if how.top_p < 1:
        ranked, order = weight.sort(dim=-1, descending=True, stable=True)
        share = ranked.double().cumsum(-1)
        beyond = share - ranked >= how.top_p * share[:, -1:]
        weight = torch.zeros_like(weight).scatter(-1, order, ranked.masked_fill(beyond, 0.0))
    return weight


def _invert(weight_RV: torch.Tensor, uniform_R: torch.Tensor) -> torch.Tensor:
    """The first token, [R, 1], whose cumulative weight exceeds the uniform share of the whole; first its block."""
    n, size = weight_RV.shape
    padded = torch.nn.functional.pad(weight_RV, (0, -size % BLOCK)) if size % BLOCK else weight_RV
    padded = padded.view(n, -1, BLOCK)
    block_RB = padded.sum(-1).double().cumsum(-1)
    target_R1 = uniform_R[:, None].double() * block_RB[:, -1:]
    block_R1 = torch.searchsorted(block_RB, target_R1, right=True).clamp_(max=block_RB.shape[1] - 1)
    before_R1 = torch.where(block_R1 > 0, block_RB.gather(1, (block_R1 - 1).clamp_(min=0)), 0.0)
    own = padded.gather(1, block_R1[:, :, None].expand(-1, -1, BLOCK))[:, 0].double().cumsum(-1)
    within_R1 = torch.searchsorted(own, target_R1 - before_R1, right=True)
    # Rounding may look beyond the last token that can be drawn.
    last_R1 = BLOCK - 1 - (own.diff(dim=-1, prepend=own.new_zeros(n, 1)).flip(-1) > 0).double().argmax(-1, keepdim=True)
    return block_R1 * BLOCK + torch.minimum(within_R1, last_R1)


def logp_of(logits_RV: torch.Tensor, token_R: torch.Tensor) -> torch.Tensor:
    """[R] log-probability of each row's token, nats."""
    chosen = logits_RV.gather(1, token_R[:, None])[:, 0]
    return chosen - torch.logsumexp(logits_RV, dim=-1)
