"""The failure of one rank, as the other ranks receive and raise it."""

from __future__ import annotations

from ..errors import RunError, TryAgain, is_transient, mark_shared, try_again

_FAILURES = (TryAgain, RunError)  # raised as themselves on the other ranks
Failure = tuple[str, str, str]  # of another rank: its type, its text, the name of the rank


def encode_failure(error: Exception, rank: int, name: str) -> Failure:
    """Return a failure of this rank in a form that other ranks can receive: some exceptions cannot be pickled."""
    origin = name if rank else ""
    for kind in _FAILURES:
        if isinstance(error, kind):
            return kind.__name__, str(error), origin
    if is_transient(error):
        return TryAgain.__name__, str(try_again(str(error))), origin
    return "", f"{type(error).__name__} on {name}: {error}", origin


def decode_failure(failure: Failure, error: Exception | None = None) -> Exception:
    """Return the exception to raise on every rank for a failure of one.

    Args:
        error: the exception, on the rank where it occurred.
    """
    kind, text, origin = failure
    return mark_shared(error or {k.__name__: k for k in _FAILURES}.get(kind, RuntimeError)(text), origin)
