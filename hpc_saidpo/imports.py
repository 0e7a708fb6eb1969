"""Imports of large libraries without a search for garbage, which takes a quarter of their time and finds none."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def of_large_libraries() -> Iterator[None]:
    """A context for imports, in which Python does not search for garbage."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
