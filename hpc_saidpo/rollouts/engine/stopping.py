"""The end of a response: end tokens, stop strings, and the text before them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np

from ...policy.model import Policy
from .sampling import Response

TAIL_TOKENS = 16  # at least, among which a stop string is searched: nearly all are shorter
UNKNOWN, NO, MAYBE, END = range(4)  # what a token may be to a response


class Ends:
    """What ends the responses of a policy: its end tokens, and stop strings.

    The tokens at hand are classified once each, when they are first drawn: the step of a large batch then costs one
    look-up, and the text is searched only where the last token has a stop string's last character.
    """

    def __init__(self, policy: Policy, stop: Sequence[str]):
        self._policy, self._stop = policy, tuple(stop)
        self._kind_V = np.zeros(0, dtype=np.int8)
        self._ids = end_ids(policy, stop)
        # A tokenizer that cleans up spaces changes text before the last token.
        self._is_exact = not getattr(policy.tokenizer, "clean_up_tokenization_spaces", False)

    def ended(self, token_R: np.ndarray, tokens_of: Callable[[int], list[int]]) -> np.ndarray:
        """Check which responses end by themselves with their new token.

        Args:
            token_R: the new token of each.
            tokens_of: index -> all tokens of a response.
        """
        kind_R = self._kinds(token_R)
        is_end_R = kind_R == END
        for i in np.flatnonzero(kind_R == MAYBE).tolist():
            is_end_R[i] = self.stopped(tokens_of(i))
        return is_end_R

    def _kinds(self, token_R: np.ndarray) -> np.ndarray:
        """END for a token that ends its response, MAYBE if a stop string may end with it, else NO."""
        if len(token_R) and (largest := int(token_R.max())) >= len(self._kind_V):
            grown = np.full(max(largest + 1, 2 * len(self._kind_V)), UNKNOWN if self._stop else NO, dtype=np.int8)
            grown[: len(self._kind_V)] = self._kind_V
            grown[[i for i in self._ids if i < len(grown)]] = END
            self._kind_V = grown
        kind_R = self._kind_V[token_R]
        if (kind_R == UNKNOWN).any():
            for token in set(token_R[kind_R == UNKNOWN].tolist()):
                self._kind_V[token] = MAYBE if self._may_end(token) else NO
            kind_R = self._kind_V[token_R]
        return kind_R

    def _may_end(self, token: int) -> bool:
        # Twice: the first token of a text may lose a space. Half a character is shown as U+FFFD.
        text = _decode(self._policy, [token, token])
        return not self._is_exact or "\ufffd" in text or any(end[-1] in text for end in self._stop)

    def stopped(self, tokens: Sequence[int]) -> bool:
        """Check whether a stop string has appeared with the last token."""
        if not self._stop:
            return False
        # A token has one byte or more.
        longest = max(len(text.encode("utf-8", "surrogatepass")) for text in self._stop)
        tail = _decode(self._policy, tokens[-max(TAIL_TOKENS, longest) :])
        return any(text in tail for text in self._stop)


def end_ids(policy: Policy, stop: Sequence[str]) -> set[int]:
    """The tokens that end a response: the policy's own, and special tokens that are a whole stop string."""
    special = getattr(policy.tokenizer, "added_tokens_decoder", {})
    return policy.eos_ids | {i for i, token in special.items() if token.special and token.content in stop}


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
