"""Figures of an optimizer step, with the names of TRL; `preference_loss`, the loss without the NLL, is ours."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from ..errors import RunError
from ..records import Pairs

MEANS = (
    "loss", "preference_loss", "rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies",
    "logps/chosen", "logps/rejected", "ref_logps/chosen", "ref_logps/rejected",
)  # fmt: skip
N_SUMS = len(MEANS) + 4
STILL = 1e-3  # a smaller standard deviation of the margins is rounding
NAMED = 8  # maximum number of pairs in a message


def sums_of(
    loss_B: torch.Tensor,
    preference_B: torch.Tensor,
    rewards_B2: torch.Tensor,
    logps_B2: torch.Tensor,
    reference_B2: torch.Tensor,
    n_tokens_B2: torch.Tensor,
) -> np.ndarray:
    """Sums over pairs for `step_figures`: [N_SUMS], float64. Sums of several ranks may be added.

    Args:
        loss_B, preference_B: loss of each pair, with and without the NLL of its chosen response.
    """
    margin_B = (rewards_B2[:, 0] - rewards_B2[:, 1]).double()
    longer_B = (n_tokens_B2[:, 0] - n_tokens_B2[:, 1]).double()
    columns = (
        loss_B, preference_B, *rewards_B2.unbind(1), margin_B, margin_B > 0, *logps_B2.unbind(1),
        *reference_B2.unbind(1), margin_B**2, longer_B, longer_B**2, margin_B * longer_B,
    )  # fmt: skip
    return np.array([float(column.detach().double().sum()) for column in columns])


def step_figures(sums: np.ndarray, n_pairs: int) -> dict:
    """Means over a step's pairs, and `length_correlation`.

    Returns:
        The MEANS; logps and ref_logps in nats per response. length_correlation: Pearson's, over the step's pairs,
        between the reward margin and the difference in tokens, chosen minus rejected; None if either does not vary.
    """
    means = sums / n_pairs
    margin, (margin2, longer, longer2, product) = means[MEANS.index("rewards/margins")], means[len(MEANS) :]
    spread = math.sqrt(max(0.0, margin2 - margin**2)), math.sqrt(max(0.0, longer2 - longer**2))
    varies = spread[0] > STILL and spread[1] > 0
    return {
        **dict(zip(MEANS, means.tolist(), strict=False)),
        "length_correlation": float((product - margin * longer) / (spread[0] * spread[1])) if varies else None,
    }


def check_finite(
    step: int, loss: float, grad_norm: float, pairs: Pairs, rows: Sequence[int], bad: Sequence[int]
) -> None:
    """Stop a round when a figure is not finite.

    Args:
        rows: the step's pairs.
        bad: pairs of the step whose loss is not finite.

    Raises:
        RunError: the loss or the gradient norm is not finite; the message names the step, the pairs, and the remedy.
    """
    if math.isfinite(loss) and math.isfinite(grad_norm):
        return
    named = sorted(bad or rows)
    listed = "; ".join(
        f"{pairs.id_B[i]} (pool index {pairs.question_B[i]}, samples {pairs.chosen_sample_B[i]} and "
        f"{pairs.rejected_sample_B[i]})"
        for i in named[:NAMED]
    )
    more = f"; and {len(named) - NAMED} more" * (len(named) > NAMED)
    whose = "pairs whose loss is not finite, by question id" if bad else "all pairs of the step, by question id"
    raise RunError(
        f"DPO step {step}: loss {loss}, gradient norm {grad_norm}; {whose}: {listed}{more}. Nothing was overwritten: "
        "the policy that the iteration started from and the round's last checkpoint are as they were. Lower dpo.lr or "
        "dpo.max_grad_norm; if it is the same pairs again, look at them in the iteration's pairs/pairs.h5"
    )
