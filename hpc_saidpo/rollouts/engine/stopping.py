"""The end of a response: stop strings, and the text before them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from ...policy.model import Policy
from .sampling import Response

TAIL_TOKENS = 16  # a stop string can straddle tokens; this is longer than any sensible one


def stopped(policy: Policy, tokens: Sequence[int], stop: Sequence[str]) -> bool:
    """Check whether a stop string has appeared."""
    if not stop:
        return False
    tail = _decode(policy, tokens[-TAIL_TOKENS:])
    return any(text in tail for text in stop)


def finish(policy: Policy, response: Response, stop: Sequence[str]) -> None:
    """Set the text of a response: up to the stop string, which is not part of it."""
    response.text = _decode(policy, response.tokens, skip_special_tokens=True)
    for text in stop:
        response.text = response.text.partition(text)[0]


def _decode(policy: Policy, tokens: Sequence[int], skip_special_tokens: bool = False) -> str:
    return cast(str, policy.tokenizer.decode(list(tokens), skip_special_tokens=skip_special_tokens))
