"""Many runs under one root -> a row for each run and each evaluation, one picture, one HTML page. All is only read."""

from .runs import Sweep, read
from .tables import text, write

__all__ = ["Sweep", "read", "text", "write"]
