"""The preference losses: log-probabilities -> one loss per pair. Pure functions.

Shapes: B pairs; the last axis of [B, 2] is (chosen, rejected), y_w and y_l in the papers. Log-probabilities are in
nats, summed over the tokens of a response. `beta` is the strength of the pull towards the reference. Formulas and names
are those of TRL 1.x (`DPOConfig.loss_type`), except where a docstring says otherwise.
"""

from __future__ import annotations

import torch
from torch.nn.functional import logsigmoid

from .. import settings


def log_ratio(
    logps_B2: torch.Tensor, reference_B2: torch.Tensor, n_tokens_B2: torch.Tensor | None = None
) -> torch.Tensor:
    """The policy's preference for chosen over rejected responses, relative to the reference, [B].

    h = log pi(y_w)/ref(y_w) - log pi(y_l)/ref(y_l) (Rafailov et al. 2023, eq. 7).

    Args:
        n_tokens_B2: lengths of the responses; if not None, each log-ratio is divided by the length (length-normalised
            DPO, Tülu 3: Lambert et al. 2024).
    """
    ratio_B2 = logps_B2 - reference_B2
    if n_tokens_B2 is not None:
        ratio_B2 = ratio_B2 / n_tokens_B2.clamp(min=1)
    return ratio_B2[:, 0] - ratio_B2[:, 1]


def sigmoid_loss(h_B: torch.Tensor, beta: float, label_smoothing: float = 0.0) -> torch.Tensor:
    """DPO: -log sigma(beta·h) (Rafailov et al. 2023, eq. 7), [B].

    With label smoothing eps: the expected loss if a preference is flipped with probability eps (cDPO, Mitchell 2023),
    -(1 - eps)·log sigma(beta·h) - eps·log sigma(-beta·h). TRL 1.x smooths other losses only; its "robust" is the
    unbiased variant of this loss.
    """
    return -(1 - label_smoothing) * logsigmoid(beta * h_B) - label_smoothing * logsigmoid(-beta * h_B)


def ipo_loss(h_B: torch.Tensor, beta: float) -> torch.Tensor:
    """IPO: (h - 1/(2·beta))² (Azar et al. 2023, eq. 17, tau = beta), [B].

    h is computed from length-normalised log-ratios, as in TRL, on the advice of the paper's authors: with summed
    log-ratios the loss would grow with the square of the length.
    """
    return (h_B - 1 / (2 * beta)) ** 2


def nll_loss(chosen_B: torch.Tensor, n_tokens_B: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood of each chosen response, per token of it (Pang et al. 2024, iterative RPO, eq. 1), [B].

    Every response has the same weight; TRL's "sft" is the mean over the tokens of a whole batch.
    """
    return -chosen_B / n_tokens_B.clamp(min=1)


def loss_of(
    logps_B2: torch.Tensor, reference_B2: torch.Tensor, n_tokens_B2: torch.Tensor, config: settings.Dpo
) -> torch.Tensor:
    """The configured loss of each pair, [B]: `dpo.loss`, plus `dpo.nll` times the chosen response's NLL."""
    loss_B = preference_loss(logps_B2, reference_B2, n_tokens_B2, config)
    if config.nll:
        loss_B = loss_B + config.nll * nll_loss(logps_B2[:, 0], n_tokens_B2[:, 0])
    return loss_B


def preference_loss(
    logps_B2: torch.Tensor, reference_B2: torch.Tensor, n_tokens_B2: torch.Tensor, config: settings.Dpo
) -> torch.Tensor:
    """`dpo.loss` of each pair, [B], without the NLL of the chosen response. DPO's is ln 2 before the first step."""
    if config.loss == "sigmoid":
        return sigmoid_loss(log_ratio(logps_B2, reference_B2), config.beta, config.label_smoothing)
    h_B = log_ratio(logps_B2, reference_B2, n_tokens_B2)
    is_ipo = config.loss == "ipo"
    return ipo_loss(h_B, config.beta) if is_ipo else sigmoid_loss(h_B, config.beta, config.label_smoothing)


def rewards(logps_B2: torch.Tensor, reference_B2: torch.Tensor, beta: float) -> torch.Tensor:
    """Implicit rewards beta·(log pi - log ref), [B, 2], detached (Rafailov et al. 2023, section 4).

    Computed from summed log-probabilities for every loss, as in TRL.
    """
    return (beta * (logps_B2 - reference_B2)).detach()
