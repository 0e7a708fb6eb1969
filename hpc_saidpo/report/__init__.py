"""A finished run -> a table on the console, curves as PNG, one HTML page."""

from .page import table, write

__all__ = ["table", "write"]
