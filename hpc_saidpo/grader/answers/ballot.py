"""Equal answers, for counting them."""

from __future__ import annotations

from .fast import normalise
from .stated import same_blanks, stated


def ballot(response: str, verifier: str) -> str | None:
    """What equal answers have in common, for counting them; None where there is none."""
    answer = stated(response, verifier)
    if answer is None:
        return None
    return normalise(answer) if verifier == "math" else same_blanks(answer)
