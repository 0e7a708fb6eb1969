"""Failure signatures of a DPO round, from the figures of its steps, each with what to do. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

# DPO usually lowers the log-probability of chosen responses a little (Pal et al. 2024; Razin et al. 2024). Our limit: a
# third of the reference's, and at least one nat.
COLLAPSED, COLLAPSED_NATS = 1 / 3, 1.0
MARGIN_GREW = 0.1  # of a reward
NEAR_CHANCE = 0.55  # accuracy of the implicit reward on its training pairs
LENGTH_DRIVEN = 0.5  # correlation of margin and length difference
MIN_PAIRS = 32  # with fewer, a correlation means nothing


def find_signatures(steps: Sequence[Mapping]) -> list[str]:
    """The failure signatures of a round, from the figures of its steps (`dpo.train`); [] for one of an earlier version.

    They compare the means of its first and its last third, over pairs.
    """
    if "rewards/margins" not in steps[0]:
        return []
    third = max(1, len(steps) // 3)
    first, last = steps[:third], steps[-third:]
    growth = _mean(last, "rewards/margins") - _mean(first, "rewards/margins")
    messages = [_collapse(last, growth), _without_accuracy(last, growth), _length_drift(steps[len(steps) // 2 :])]
    return [text for text in messages if text]


def _collapse(last: Sequence[Mapping], growth: float) -> str:
    chosen, reference = _mean(last, "logps/chosen"), _mean(last, "ref_logps/chosen")
    fall = reference - chosen
    if growth <= 0 or fall < max(COLLAPSED_NATS, COLLAPSED * abs(reference)):
        return ""
    return (
        f"chosen log-probability collapse: logps/chosen fell to {chosen:.1f} nats, the reference has "
        f"{reference:.1f}, while the margins grew: the policy unlearns both responses; raise dpo.nll (0.2, or 1: "
        "dpo=iterative_rpo), or lower dpo.lr or dpo.epochs"
    )


def _without_accuracy(last: Sequence[Mapping], growth: float) -> str:
    accuracy = _mean(last, "rewards/accuracies")
    if growth < MARGIN_GREW or accuracy >= NEAR_CHANCE:
        return ""
    return (
        f"margin without accuracy: rewards/margins grew by {growth:.2f} with rewards/accuracies at {accuracy:.0%}: a "
        "few pairs make the mean; use dpo.loss=ipo or dpo.label_smoothing=0.1, for which a margin can be too large, or "
        "lower dpo.lr"
    )


def _length_drift(half: Sequence[Mapping]) -> str:
    steps = [step for step in half if step["length_correlation"] is not None]
    if sum(step["pairs"] for step in steps) < MIN_PAIRS:
        return ""
    correlation = _mean(steps, "length_correlation")
    if abs(correlation) < LENGTH_DRIVEN:
        return ""
    wanted = "longer" if correlation > 0 else "shorter"
    return (
        f"length drift: the margins follow the length difference (correlation {correlation:+.2f}): the policy "
        f"learns to prefer {wanted} responses; use dpo.loss=sigmoid_norm (dpo=tulu3) or pairs.choice=closest_length"
    )


def _mean(steps: Sequence[Mapping], name: str) -> float:
    return float(np.average([step[name] for step in steps], weights=[step["pairs"] for step in steps]))
