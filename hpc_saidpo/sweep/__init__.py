"""Many runs under one root -> their values compared, a row for each run and evaluation, one picture, one HTML page.

All is only read.
"""

from .sweep import Sweep, read
from .tables import text, write

__all__ = ["Sweep", "read", "text", "write"]
