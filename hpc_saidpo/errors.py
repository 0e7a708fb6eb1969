"""Exceptions that end a run on purpose. Any other exception is a bug."""

from __future__ import annotations


class RunError(Exception):
    """A problem that the user can solve: the message says what is wrong, where, what to do. No traceback is shown."""


class Ended(Exception):
    """The run ends here for now. The message says why, and how to continue.

    Attributes:
        is_failure: depletion, or another failure signature. False: a planned pause (loop.stop_after, tags.mode=export).
    """

    def __init__(self, message: str, is_failure: bool = False):
        super().__init__(message)
        self.is_failure = is_failure
