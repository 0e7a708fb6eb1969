"""Imports of large libraries without garbage collection, which takes a quarter of their time and finds nothing."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def of_large_libraries() -> Iterator[None]:
    """A context for imports: Python collects no garbage in it."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
