"""The exceptions that end a run on purpose. Everything else that is raised is a bug."""

from __future__ import annotations


class RunError(Exception):
    """Something the user can mend: the message says what was wrong, where, and what to do. Shown without traceback."""


class Ended(Exception):
    """The run ends here for now; the message says why, and how it goes on.

    Attributes:
        is_failure: depletion, or another failure signature; False: a planned pause (loop.stop_after, tags.mode=export).
    """

    def __init__(self, message: str, is_failure: bool = False):
        super().__init__(message)
        self.is_failure = is_failure
