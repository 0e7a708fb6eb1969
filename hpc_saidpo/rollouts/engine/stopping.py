"""Where a response ends."""

from __future__ import annotations

from collections.abc import Sequence

from ...policy.model import Policy
from .sampling import Response

TAIL_TOKENS = 16  # a stop string can straddle tokens; this is longer than any sensible one


def stopped(policy: Policy, tokens: Sequence[int], stop: Sequence[str]) -> bool:
    """Whether a stop string has appeared."""
    if not stop:
        return False
    tail = policy.tokenizer.decode(tokens[-TAIL_TOKENS:])
    return any(text in tail for text in stop)


def finish(policy: Policy, response: Response, stop: Sequence[str]) -> None:
    """The text of a response: up to the stop string, which is no part of it."""
    response.text = policy.tokenizer.decode(response.tokens, skip_special_tokens=True)
    for text in stop:
        response.text = response.text.partition(text)[0]
