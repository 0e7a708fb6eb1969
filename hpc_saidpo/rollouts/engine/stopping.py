"""The end of a response: stop strings, and the text before them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from ...policy.model import Policy
from .sampling import Response

TAIL_TOKENS = 16  # at least, among which a stop string is searched: nearly all are shorter


def stopped(policy: Policy, tokens: Sequence[int], stop: Sequence[str]) -> bool:
    """Check whether a stop string has appeared with the last token."""
    if not stop:
        return False
    longest = max(len(text.encode("utf-8", "surrogatepass")) for text in stop)  # a token has one byte or more
    tail = _decode(policy, tokens[-max(TAIL_TOKENS, longest) :])
    return any(text in tail for text in stop)


def finish(policy: Policy, response: Response, stop: Sequence[str]) -> None:
    """Set the text of a response: without the token or the stop string that ended it, and all after that.

    Other special tokens (`</think>`) are part of the text: they tell reasoning from answer.
    """
    tokens = response.tokens
    response.text = _decode(policy, tokens[:-1] if tokens and tokens[-1] in policy.eos_ids else tokens)
    for text in stop:
        response.text = response.text.partition(text)[0]


def _decode(policy: Policy, tokens: Sequence[int]) -> str:
    return cast(str, policy.tokenizer.decode(list(tokens), skip_special_tokens=False))
